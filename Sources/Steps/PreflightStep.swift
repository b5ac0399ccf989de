import Diagnostics
public import Engine
public import Inventory

/// Looks before anything is touched: leftovers of earlier deployments and the baseline (what runs, and how well)
/// become facts.
///
/// What the client can judge from the host's facts and the new configuration stands in `preflightProblems`.
public struct PreflightStep: StepKind {
  public var settings: PreflightSettings

  public init(settings: PreflightSettings = PreflightSettings()) { self.settings = settings }

  public func plan(_ context: StepContext) -> [Change] { [] }

  public func payload(_ context: StepContext) -> StepPayload {
    StepPayload(
      script: "preflight", timeout: .seconds(60),
      parameters: [("DISK_FREE", String(settings.diskFree)), ("MEMORY_FREE", String(settings.memoryFree))])
  }

  /// Faults that forbid the deployment, and what should be known before it: each a sentence. Works before the
  /// configuration is known
  /// (host only) and after it (everything).
  public func preflightProblems(_ context: StepContext) -> (problems: [String], warnings: [String]) {
    var findings = Findings()
    if let conflict = identityConflict(context) { findings.problems.append(conflict) }
    checkDocker(context.facts, &findings)
    checkSpace(context, &findings)
    checkClock(context, &findings)
    if let config = context.config {
      checkServices(config, inventory: context.inventory, &findings)
      checkReplicas(config, context, &findings)
      checkMemory(context, &findings)
    }
    if let effective = effectiveConfig(context) {
      findings.problems += effective.problems
      findings.warnings += effective.warnings
    }
    return (findings.problems, findings.warnings)
  }
}

/// What the file `identity` of a project on the host holds: whose it is.
public func identity(of inventory: Inventory) -> String { "\(inventory.environment) \(inventory.app)" }

/// Another environment or app lives under this project's name on the host: a configuration fault (exit 78).
public func identityConflict(_ context: StepContext) -> String? {
  let found = context.facts["identity"]
  guard !found.isEmpty, found != identity(of: context.inventory) else { return nil }
  return
    "the project \(context.inventory.project) on this host belongs to “\(found)”, not to “\(identity(of: context.inventory))”: "
    + "give this environment a `project:` of its own in its inventory"
}

private struct Findings {
  var problems: [String] = []
  var warnings: [String] = []
}

private func checkDocker(_ facts: HostFacts, _ findings: inout Findings) {
  guard !facts.values.isEmpty else { return }
  if facts["docker_server"].isEmpty {
    if facts["docker_client"].isEmpty {
      findings.problems.append(
        "Docker isn't installed on the host: as root, `apt-get install docker.io docker-compose`, and `adduser \(facts["user"]) docker`"
      )
    } else {
      let why = facts["docker_error"].isEmpty ? "the daemon doesn't answer" : facts["docker_error"]
      findings.problems.append(
        "Docker on the host can't be used by \(facts["user"]): \(why) (is the service up, and the user in the group docker?)"
      )
    }
  } else if !version(facts["docker_server"], isAtLeast: [24, 0]) {
    findings.problems.append("Docker \(facts["docker_server"]) on the host is too old: 24.0 or newer is needed")
  }
  if facts["docker_client"].isEmpty {
    // There is nothing that could be asked for Compose.
  } else if facts["compose"].isEmpty {
    findings.problems.append(
      "Docker Compose v2 isn't installed on the host (`docker compose version` fails): install the package docker-compose-plugin or docker-compose"
    )
  } else if !version(facts["compose"], isAtLeast: [2, 20]) {
    findings.problems.append("Docker Compose \(facts["compose"]) on the host is too old: 2.20 or newer is needed")
  }
  checkRights(facts, &findings)
}

private func checkRights(_ facts: HostFacts, _ findings: inout Findings) {
  for (key, what) in [("state_dir", "/var/lib/orchestrate"), ("opt_dir", "/opt")] where facts[key] == "0" {
    findings.problems.append(
      "\(what) on the host isn't writable for \(facts["user"]): let the user use sudo without a password, or make the directories as root"
    )
  }
  if facts["sudo"] == "0" {
    findings.warnings.append(
      "\(facts["user"]) has no sudo: a deployment whose runner dies, or that a reboot interrupts, is undone only by the next deploy or rollback"
    )
  }
}

/// `2.26.1-4`, `v2.20.0`, `28.0.1+dfsg`: the leading numbers count.
func version(_ text: String, isAtLeast wanted: [Int]) -> Bool {
  let digits = text.drop { !$0.isNumber }.prefix { $0.isNumber || $0 == "." }
  let found = digits.split(separator: ".").map { Int($0) ?? 0 }
  guard !found.isEmpty else { return false }
  for (index, part) in wanted.enumerated() {
    let have = index < found.count ? found[index] : 0
    if have != part { return have > part }
  }
  return true
}

extension PreflightStep {
  /// Inodes below which a pull or a release may fail half-way.
  static let inodesNeeded: Int64 = 20_000
  /// Set aside by each deployment on each file system, so that its undo has room (docs/reliability.md).
  static let reserve: Int64 = 16 << 20

  private func checkSpace(_ context: StepContext, _ findings: inout Findings) {
    let facts = context.facts
    let names = ["state": "state and backups of deployments", "opt": "releases", "docker": "images and volumes"]
    // A file system that holds several of them is one file system: named once, and it must hold all of it.
    var seen: [String: Bool] = [:]
    for place in ["docker", "opt", "state"] {
      guard let available = facts.integer("disk.\(place).available") else { continue }
      let device = facts["disk.\(place).device"]
      if !device.isEmpty, seen.updateValue(true, forKey: device) != nil { continue }
      var needed = settings.diskFree + Self.reserve
      if place != "docker" || facts["disk.opt.device"] == device { needed += lastBackup(context) * 5 / 4 }
      let path = facts["disk.\(place).path"]
      if available < needed {
        findings.problems.append(
          "\(bytes(available)) are free at \(path) (\(names[place] ?? place)), \(bytes(needed)) are needed: free some, "
            + "`orchestrate prune` removes old releases and images")
      }
      if let inodes = facts.integer("disk.\(place).inodes"), inodes < Self.inodesNeeded, inodes > 0 || available > 0,
        hasInodes(facts, place)
      {
        findings.problems.append(
          "\(inodes) inodes are free at \(path), \(Self.inodesNeeded) are needed: it holds too many small files")
      }
    }
    if let memory = facts.integer("memory_available"), memory < settings.memoryFree {
      findings.problems.append(
        "\(bytes(memory)) of memory are available on the host, \(bytes(settings.memoryFree)) are needed (`memory_free` of preflight)"
      )
    }
  }

  /// A rollback isn't held up by it: it goes back to what ran here before.
  private func checkMemory(_ context: StepContext, _ findings: inout Findings) {
    guard context.target == nil, context.rotation == nil,
      let memory = memoryCommitment(context, allowed: settings.memoryCommit)
    else { return }
    let unlimited = memory.services.filter { $0.limit == nil }.map(\.service)
    if !unlimited.isEmpty {
      findings.warnings.append(
        "\(unlimited.joined(separator: ", ")) may take all of the machine's memory: give each service a `mem_limit` in "
          + "\(context.inventory.compose) (docs/memory.md)")
    }
    let kept = keptLimits(context)
    findings.warnings += kept.map(\.sentence)
    guard memory.isOver, let largest = memory.services.first else { return }
    let others = memory.others > 0 ? " (of other projects here: \(memory.others >> 20) MiB)" : ""
    var problem =
      "the containers are promised \(memory.promised >> 20) of the machine's \(memory.machine >> 20) MiB\(others), \(memory.percent) %, "
      + "and \(memory.allowed) % are allowed; most of it goes to \(largest.service), \(largest.promised >> 20) MiB: "
    if kept.contains(where: { $0.service == largest.service && $0.isLower }) {
      problem += "apply its new limit with --include \(largest.service), or "
    } else {
      problem +=
        "lower its limit in \(context.inventory.compose) (`${memory:…}` in the env template plans one that fits), "
    }
    findings.problems.append(
      problem + "take a larger machine, or allow more: `preflight: { memory_commit: \(memory.percent)% }`")
  }

  /// btrfs and some network file systems count no inodes and say 0.
  private func hasInodes(_ facts: HostFacts, _ place: String) -> Bool {
    (facts.integer("disk.\(place).inodes") ?? 0) > 0
  }

  /// Size of the newest backup: about what the next one takes.
  private func lastBackup(_ context: StepContext) -> Int64 {
    for facts in context.reported.values {
      if let size = facts["last_backup_bytes"]?.intValue { return Int64(size) }
    }
    return 0
  }

  private func checkClock(_ context: StepContext, _ findings: inout Findings) {
    guard context.now > 0, let host = context.facts.integer("epoch_ms") else { return }
    let difference = abs(host - context.now) / 1000
    let direction = host > context.now ? "ahead of" : "behind"
    let text = "the host's clock is \(difference) s \(direction) this machine's"
    // A rollback fetches nothing: it isn't held up by a clock.
    if difference > 300, context.target == nil {
      findings.problems.append(
        "\(text): tokens and certificates fail with a wrong clock; set it (`timedatectl set-ntp true`)")
    } else if difference > 30 {
      findings.warnings.append(text)
    }
  }
}

// MARK: - The configuration

private func checkServices(_ config: ComposeConfig, inventory: Inventory, _ findings: inout Findings) {
  let app = Set(appServices(inventory, config))
  for name in inventory.services.app where config.service(name) == nil {
    findings.problems.append(
      "the inventory's services.app names \(name), which \(inventory.compose) doesn't hold (or only under a profile)"
        + nearestService(to: name, config))
  }
  for (role, name) in [("database", inventory.services.database), ("cache", inventory.services.cache)] {
    if let name, config.service(name) == nil {
      findings.problems.append(
        "the inventory's services.\(role) names \(name), which \(inventory.compose) doesn't hold"
          + nearestService(to: name, config))
    }
  }
  for name in config.serviceNames.sorted() {
    guard let service = config.service(name) else { continue }
    if !isImageName(name) {
      findings.problems.append(
        "service \(name) gives its name to a local image, and Docker refuses that one: call it with a letter or digit at both ends and single . or _ between"
      )
    }
    checkImage(service["image"]?.stringValue, service: name, isApp: app.contains(name), &findings)
    for port in service["ports"]?.arrayValue ?? [] { checkPort(port, service: name, &findings) }
    if service["network_mode"]?.stringValue == "host" {
      findings.warnings.append("service \(name) uses the host's network: every port that it opens is the host's")
    }
  }
}

/// A gate watches one container: of several, the others might crash unseen.
private func checkReplicas(_ config: ComposeConfig, _ context: StepContext, _ findings: inout Findings) {
  var gated: Set<String> = []
  for case .health(let settings) in context.steps.map(\.settings) {
    if case .url = settings.probe { continue }
    if let name = settings.service ?? context.inventory.services.app.first { gated.insert(name) }
  }
  for name in gated.sorted() {
    let service = config.service(name)
    let count = service.map(replicas) ?? 1
    if count > 1 {
      findings.problems.append(
        "service \(name) asks for \(count) containers, and its health gate watches only one: leave out `deploy.replicas` and `scale`, "
          + "or write a service for each")
    }
  }
}

/// Whether Docker takes it, in small letters, as a part of an image's name (distribution/reference: path-component).
func isImageName(_ name: String) -> Bool {
  var separator = ""
  for character in name.lowercased() + "-" {
    if character.isLetter || character.isNumber {
      guard ["", ".", "_", "__"].contains(separator) || separator.allSatisfy({ $0 == "-" }) else { return false }
      separator = ""
    } else {
      separator.append(character)
    }
  }
  return name.first.map { $0.isLetter || $0.isNumber } == true && separator == "-"
}

private func checkImage(_ image: String?, service: String, isApp: Bool, _ findings: inout Findings) {
  guard let image else {
    findings.problems.append(
      "service \(service) has no image: build and push it, and name it with a tag (images are pulled, never built on the host)"
    )
    return
  }
  let reference = ImageReference(image)
  guard reference.digest == nil else { return }
  let fault: String? =
    reference.tag == nil ? "without a tag, which means latest" : reference.tag == "latest" ? "with the tag latest" : nil
  guard let fault else { return }
  if isApp {
    findings.problems.append(
      "service \(service) names its image \(image) \(fault): nobody could tell what runs; use `${VERSION}`")
  } else {
    findings.warnings.append(
      "service \(service) names its image \(image) \(fault): a moved tag is seen only when it is deployed with --include \(service)"
    )
  }
}

private func checkPort(_ port: JSONValue, service: String, _ findings: inout Findings) {
  guard let published = port["published"].map({ $0.stringValue ?? $0.text() }), published != "", published != "0" else {
    return
  }
  let address = port["host_ip"]?.stringValue ?? ""
  let target = port["target"]?.text() ?? "?"
  if address == "" || address == "0.0.0.0" || address == "::" {
    if published == "80" || published == "443" { return }
    findings.problems.append(
      "service \(service) publishes port \(published) on all addresses: Docker's rules come before the firewall's, so that ufw doesn't protect it; "
        + "write `127.0.0.1:\(published):\(target)`, or leave it out (containers of one network reach each other without it)"
    )
  } else if !(address.hasPrefix("127.") || address == "::1") {
    findings.warnings.append(
      "service \(service) publishes port \(published) on \(address): Docker's rules come before the firewall's there")
  }
}

/// `1.5 GiB`
func bytes(_ count: Int64) -> String {
  let units = ["B", "KiB", "MiB", "GiB", "TiB"]
  var unit = 0
  var tenths = count * 10
  while tenths >= 10240, unit < units.count - 1 {
    tenths /= 1024
    unit += 1
  }
  return tenths % 10 == 0 || unit == 0
    ? "\(tenths / 10) \(units[unit])" : "\(tenths / 10).\(tenths % 10) \(units[unit])"
}

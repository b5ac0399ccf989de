import Diagnostics
public import Engine
public import Inventory

/// A step that prepares a machine: its script looks and tells the changes in a plan, and makes them in a deployment (docs/bootstrap.md).
public struct HostStep: StepKind {
  public var name: String
  public var settings: HostStepSettings

  public init(name: String, settings: HostStepSettings) {
    self.name = name
    self.settings = settings
  }

  /// What the script has told on the host.
  public func plan(_ context: StepContext) -> [Change] {
    (context.reported[name]?["changes"]?.arrayValue ?? []).map { change in
      Change(
        Change.Action(rawValue: change["action"]?.stringValue ?? "") ?? .unknown, change["subject"]?.stringValue ?? "",
        detail: change["detail"]?.arrayValue?.compactMap(\.stringValue) ?? [])
    }
  }

  public func payload(_ context: StepContext) throws -> StepPayload {
    var payload = StepPayload(
      script: script, timeout: timeout, changes: true, hasUndo: hasUndo,
      parameters: try parameters(context), files: try files(context))
    switch settings {
    case .file(let file) where file.isSecret: payload.secrets = ["content"] + Self.passing + Self.kept(1)
    // Also where none is given now: the one before may have been, or that of a site that goes.
    case .reverseProxy: payload.secrets = ["key.pem", "caddy/given/privkey.pem"] + Self.passing + Self.kept(32)
    default: break
    }
    return payload
  }

  private var script: String {
    if case .reverseProxy(let proxy) = settings, proxy.server == .caddy { return "reverse-proxy-caddy" }
    return settings.kind.rawValue
  }

  /// What system.sh keeps of the first files that a step changes, for its undo: an old secret among them.
  private static func kept(_ count: Int) -> [String] {
    (0..<count).flatMap { index in
      let number = String(1000 + index).dropFirst()
      return ["saved/\(number)/content", "saved/restored-\(number)/content"]
    }
  }

  /// What system.sh removes by itself, unless it is killed in between.
  private static let passing = ["wanted", "found", "saved/.new/content"]

  /// Packages that were installed stay: nobody knows what else uses them by now.
  private var hasUndo: Bool { if case .packages = settings { false } else { true } }

  /// What the other steps and the runner use.
  private static let needed = ["ca-certificates", "curl", "jq", "sudo", "ufw", "unattended-upgrades"]

  private var timeout: Duration {
    switch settings {
    // apt, and whoever holds its lock
    case .packages, .docker, .firewall, .updates, .reverseProxy, .fail2ban: .seconds(1200)
    default: .seconds(120)
    }
  }

  private func parameters(_ context: StepContext) throws -> [(name: String, value: String)] {
    let user = try deployUser(context)
    switch settings {
    case .packages(let install):
      return [("INSTALL", quotedWords(Self.needed + install.filter { !Self.needed.contains($0) }))]
    case .user: return [("NAME", user), ("SUDO", "1"), ("FROM", context.facts["sudo_user"]), ("REVERT", "180")]
    case .directories, .systemdUnit: return [("USER", user), ("PROJECT", context.inventory.project)]
    case .sshHardening(let settings):
      return [
        ("PORT", settings.port.map(String.init) ?? ""), ("ROOT_LOGIN", settings.rootLogin ? "1" : "0"),
        ("REVERT", wholeSeconds(settings.revert)),
      ]
    case .firewall(let allow, let revert):
      let web = context.host?.roles.contains("web") == true ? ["80/tcp", "443/tcp"] : []
      let ports = allow + web.filter { !allow.contains($0) }
      return [("ALLOW", ports.joined(separator: " ")), ("REVERT", wholeSeconds(revert))]
    case .docker(let settings):
      return [("USER", user), ("REPOSITORY", settings.repository), ("REPOSITORY_KEY", settings.repositoryKey)]
    case .swap(let size): return [("SIZE", String((size + (1 << 20) - 1) >> 20))]
    case .time(let zone): return [("ZONE", zone)]
    case .logRetention(let days, let size): return [("DAYS", String(days)), ("SIZE", "\(size >> 20)M")]
    case .file(let file):
      return [
        ("FILE", file.path), ("OWNER", file.owner), ("GROUP", file.group), ("MODE", file.mode),
        ("SECRET", file.isSecret ? "1" : "0"),
      ]
    case .reverseProxy(let proxy): return parameters(of: proxy, context, user: user)
    case .fail2ban(let settings):
      return [
        ("RETRIES", String(settings.retries)), ("FIND", wholeSeconds(settings.find)),
        ("BAN", wholeSeconds(settings.ban)), ("IGNORE", settings.ignore.joined(separator: " ")),
      ]
    case .sysctl, .updates: return []
    }
  }

  private func files(_ context: StepContext) throws -> [StepPayload.File] {
    switch settings {
    case .user(let keys):
      return keys.map { [StepPayload.File("keys", bytes: lines($0))] } ?? []
    case .docker(let settings): return [StepPayload.File("daemon.json", bytes: Array(daemon(settings).text().utf8))]
    case .sysctl(let values):
      return [
        StepPayload.File("values", bytes: lines(values.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }))
      ]
    case .file(let file):
      guard let content = context.projectFiles[file.source] else {
        throw OrchestrateError(.configuration, "the project has no \(file.source)", step: name)
      }
      return [StepPayload.File("content", bytes: content.bytes)]
    case .reverseProxy(let proxy): return try files(of: proxy, context)
    default: return []
    }
  }

  private func lines(_ texts: [String]) -> [UInt8] { Array(texts.map { $0 + "\n" }.joined().utf8) }

  private func deployUser(_ context: StepContext) throws -> String {
    guard let user = context.host?.user, user != "root" else {
      throw OrchestrateError(
        .configuration, "the inventory names no user who deploys: bootstrap makes the account", step: name,
        remedy: "hosts: { \(context.host?.name ?? "NAME"): { …, user: deploy } }")
    }
    return user
  }

  /// The wanted members of /etc/docker/daemon.json (dockerd(8)).
  private func daemon(_ settings: DockerSettings) -> JSONValue {
    var object = JSONObject()
    object["live-restore"] = .bool(settings.liveRestore)
    object["log-driver"] = .string(settings.logDriver.rawValue)
    if settings.logDriver != .journald {
      var options = JSONObject()
      options["max-size"] = .string("20m")
      options["max-file"] = .string("5")
      object["log-opts"] = .object(options)
    }
    if !settings.addressPool.isEmpty {
      var pool = JSONObject()
      pool["base"] = .string(settings.addressPool)
      pool["size"] = .number("24")
      object["default-address-pools"] = .array([.object(pool)])
    }
    return .object(object)
  }
}

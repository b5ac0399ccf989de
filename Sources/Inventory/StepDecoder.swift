import ConfigSource
import Diagnostics

/// The settings of one step.
struct StepDecoder {
  let reader: MappingReader
  let playbook: String
  let location: SourceLocation
  let root: String
  let files: FileSource?

  init(reader: MappingReader, playbook: String, at location: SourceLocation, root: String, files: FileSource?) {
    self.reader = reader
    self.playbook = playbook
    self.location = location
    self.root = root
    self.files = files
  }

  func settings(of kind: StepKindName) -> StepSettings {
    switch kind {
    case .preflight: .preflight(preflight())
    case .release: .release(release())
    case .env: .env(EnvSettings())
    case .pull: .pull(pull())
    case .backup: .backup(backup())
    case .migrate: .migrate(migrate())
    case .recreate: .recreate(recreate())
    case .health: .health(health())
    case .run: .run(run())
    case .commit: .commit
    case .prune: .prune(prune())
    case .packages, .user, .directories, .firewall, .docker, .sysctl, .swap, .time, .updates, .file, .fail2ban,
      .sshHardening, .logRetention, .systemdUnit, .reverseProxy:
      .host(hostSettings(of: kind))
    }
  }

  private func preflight() -> PreflightSettings {
    var settings = PreflightSettings()
    settings.diskFree = reader.size("disk_free") ?? settings.diskFree
    settings.memoryFree = reader.size("memory_free") ?? settings.memoryFree
    settings.memoryCommit = reader.percentage("memory_commit", in: 1...1000) ?? settings.memoryCommit
    return settings
  }

  private func release() -> ReleaseSettings {
    var settings = ReleaseSettings()
    for (path, location) in reader.strings("files", of: "paths", allowEmpty: true) ?? [] {
      if let fault = Paths.fault(inProject: path) {
        reader.diagnostics.error(at: location, "`\(path)`: \(fault)")
      } else if settings.files.contains(path) {
        reader.diagnostics.error(at: location, "\(path) stands twice in the list")
      } else {
        settings.files.append(path)
        check(path, at: location, mayBeFolder: true)
      }
    }
    return settings
  }

  private func pull() -> PullSettings {
    var settings = PullSettings()
    settings.timeout = timeout() ?? settings.timeout
    return settings
  }

  private func backup() -> BackupSettings {
    var settings = BackupSettings()
    settings.service = service()
    settings.database = databaseName("database")
    settings.user = databaseName("user")
    if let node = reader.node("keep"),
      let keep = MappingReader(node, PlaybookSchema.keep, path: reader.keyPath("keep"), diagnostics: reader.diagnostics)
    {
      settings.keepLast = keep.integer("last", in: 1...10_000) ?? settings.keepLast
      settings.keepDays = keep.integer("days", in: 0...3650) ?? settings.keepDays
    }
    settings.timeout = timeout() ?? settings.timeout
    return settings
  }

  private func migrate() -> MigrateSettings {
    var settings = MigrateSettings()
    settings.service = service()
    settings.up = command("up") ?? []
    settings.revision = command("revision") ?? []
    settings.down = command("down")
    settings.rollback = reader.enumeration("rollback") ?? settings.rollback
    settings.timeout = timeout() ?? settings.timeout
    settings.lockTimeout = reader.duration("lock_timeout") ?? settings.lockTimeout
    // A rollback never migrates: what it needs is recorded in the release that it leaves.
    let isDeploy = playbook != "rollback"
    for key in ["up", "revision"] where isDeploy && !reader.has(key) {
      reader.diagnostics.error(
        at: location, "`migrate.\(key)` is missing",
        help: key == "up"
          ? "the command that migrates: up: [alembic, upgrade, head]"
          : "the command that prints the revision: revision: [alembic, current]")
    }
    if settings.rollback == .down {
      let help = #"like down: [alembic, downgrade, "${revision}"]"#
      if !reader.has("down"), isDeploy {
        reader.error("rollback", "the policy down needs the command `migrate.down`", help: help)
      } else if let down = settings.down, !down.contains(where: { $0.contains("${revision}") }) {
        reader.error("down", "the command doesn't say where to go back to: no argument holds ${revision}", help: help)
      }
    }
    return settings
  }

  private func recreate() -> RecreateSettings {
    var settings = RecreateSettings()
    for (name, location) in reader.strings("services", of: "services") ?? [] {
      if !Names.isService(name) {
        reader.diagnostics.error(at: location, "`\(name)` isn't the name of a Compose service")
      } else if settings.services.contains(name) {
        reader.diagnostics.error(at: location, "the service \(name) stands twice in the list")
      } else {
        settings.services.append(name)
      }
    }
    guard let node = reader.node("drain"),
      let drain = MappingReader(
        node, PlaybookSchema.drain, path: reader.keyPath("drain"), diagnostics: reader.diagnostics)
    else { return settings }
    if let signal = drain.string("signal", "a signal like SIGTERM") {
      if let name = Self.signalName(signal) {
        settings.drainSignal = name
      } else {
        drain.error(
          "signal", "`\(signal)` isn't a signal that a service can drain on",
          help: nearestName(to: signal.uppercased(), among: Self.signals).map { "did you mean `\($0)`?" }
            ?? "one of \(Self.signals.joined(separator: ", "))")
      }
    }
    settings.drainTimeout = drain.duration("timeout", in: .zero ... .seconds(86400)) ?? settings.drainTimeout
    return settings
  }

  static let signals = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"]

  private static func signalName(_ text: String) -> String? {
    signals.first { $0 == text || $0 == "SIG" + text }
  }

  private func run() -> RunSettings {
    var settings = RunSettings()
    settings.script = script("script") ?? ""
    settings.undo = script("undo")
    settings.timeout = timeout() ?? settings.timeout
    return settings
  }

  private func prune() -> PruneSettings {
    var settings = PruneSettings()
    // The running release and the one before it are what a rollback needs.
    settings.releases = reader.integer("releases", in: 2...1000) ?? settings.releases
    settings.images = reader.bool("images") ?? settings.images
    settings.logs = reader.duration("logs") ?? settings.logs
    return settings
  }

  // MARK: Health

  private func health() -> HealthSettings {
    var settings = HealthSettings()
    settings.service = service()
    let probes = ["http", "url", "exec"].filter(reader.has)
    if probes.count > 1 {
      for extra in probes.dropFirst() {
        reader.diagnostics.error(
          at: reader.entry(extra)!.keyLocation,
          "a health step takes one of http, url and exec; \(probes[0]) stands there already",
          help: "write a health step for each")
      }
    }
    for key in probes {
      switch key {
      case "exec": if let command = command(key) { settings.probe = .exec(command) }
      default:
        if let url = url(key) { settings.probe = key == "http" ? .http(url) : .url(url) }
      }
      break
    }
    if probes.first == "url", reader.has("service") {
      reader.error(
        "service", "`url` is asked from here, not inside a service",
        help: "remove service, or write http: instead of url:")
    }
    if let node = reader.node("expect") {
      if probes.first == "exec" || probes.isEmpty {
        reader.diagnostics.error(
          at: reader.entry("expect")!.keyLocation, "`health.expect` judges an HTTP answer; this step asks for none",
          help: "add http: or url:")
      }
      expect(node, into: &settings)
    }
    settings.within = reader.duration("within", in: .seconds(1) ... .seconds(86400)) ?? settings.within
    settings.stable = reader.duration("stable", in: .zero ... .seconds(86400)) ?? settings.stable
    settings.restarts = reader.integer("restarts", in: 0...100) ?? settings.restarts
    return settings
  }

  private func url(_ key: String) -> String? {
    guard let url = reader.string(key, "a URL") else { return nil }
    let isWeb = url.hasPrefix("http://") || url.hasPrefix("https://")
    let host = url.split(separator: "/", omittingEmptySubsequences: true).dropFirst().first
    if !isWeb || host == nil || url.contains(where: { $0 == " " || $0 == "\n" || $0 == "\"" || $0 == "'" }) {
      reader.error(key, "`\(url.prefix(80))` isn't a URL that begins with http:// or https://")
      return nil
    }
    return url
  }

  private func expect(_ node: YAMLNode, into settings: inout HealthSettings) {
    guard
      let expect = MappingReader(
        node, PlaybookSchema.expect, path: reader.keyPath("expect"), diagnostics: reader.diagnostics)
    else { return }
    settings.expectStatus = expect.integer("status", in: 100...599)
    guard let json = expect.node("json") else { return }
    if case .scalar = json.content {
      expect.error("json", "expected a mapping or a list of what the answer holds, found \(json.description)")
      return
    }
    settings.expectJSON = JSONExpectationReader(diagnostics: reader.diagnostics).read(json, path: [])
  }

  // MARK: Values

  private func timeout() -> Duration? { reader.duration("timeout", in: .seconds(1) ... .seconds(7 * 86400)) }

  private func service() -> String? {
    guard let name = reader.string("service", "a service") else { return nil }
    if !Names.isService(name) { reader.error("service", "`\(name)` isn't the name of a Compose service") }
    return name
  }

  private func databaseName(_ key: String) -> String? {
    guard let name = reader.string(key, "a name") else { return nil }
    // PostgreSQL: 63 bytes (NAMEDATALEN - 1); libpq takes `=` and `://` for a connection string.
    if name.utf8.count > 63 || name.hasPrefix("-") || name.contains("=") || name.contains("://") || name.contains("\n")
    {
      reader.error(key, "`\(name.prefix(40))` isn't a name that PostgreSQL and its tools accept here")
      return nil
    }
    return name
  }

  private func command(_ key: String) -> [String]? {
    guard reader.has(key) else { return nil }
    return reader.strings(key, of: "texts, the command and its arguments")?.map(\.text)
  }

  func script(_ key: String) -> String? {
    guard let path = reader.string(key, "a path") else { return nil }
    if let fault = Paths.fault(inProject: path) {
      reader.error(key, fault)
    } else {
      check(path, at: reader.place(key), mayBeFolder: false)
    }
    return path
  }

  private func check(_ path: String, at location: SourceLocation, mayBeFolder: Bool) {
    guard let files else { return }
    let full = Paths.join(root, path)
    let wantsFolder = path.hasSuffix("/")
    switch files.kind(full) {
    case .file where wantsFolder:
      reader.diagnostics.error(
        at: location, "\(path) is a file, not a folder", help: "write it without the slash at its end")
    case .folder where !mayBeFolder:
      reader.diagnostics.error(at: location, "\(path) is a folder, expected a file")
    case .folder where !wantsFolder:
      reader.diagnostics.error(at: location, "\(path) is a folder", help: "write \(path)/ for everything in it")
    case nil:
      let names = (Paths.parent(full).flatMap { try? files.list($0) }) ?? []
      let name = path.split(separator: "/").last.map(String.init) ?? path
      reader.diagnostics.error(
        at: location, "there is no \(wantsFolder ? "folder" : "file") \(path) in the project folder",
        help: nearestName(to: name, among: names).map { "did you mean `\($0)`?" })
    default: break
    }
  }
}

/// `expect.json`: nested mappings and lists with values and bounds, flattened to paths.
struct JSONExpectationReader {
  let diagnostics: DiagnosticCollector

  func read(_ node: YAMLNode, path: [String]) -> [JSONExpectation] {
    switch node.content {
    case .sequence(let nodes):
      if nodes.isEmpty {
        diagnostics.error(at: node.location, "`\(shown(path))`: the list is empty and expects nothing")
      }
      return nodes.enumerated().flatMap { read($0.element, path: path + [String($0.offset)]) }
    case .mapping(let entries): return mapping(entries, at: node.location, path)
    case .scalar(let scalar):
      return value(scalar, at: node.location, path).map { [JSONExpectation(path: path, bound: $0)] } ?? []
    }
  }

  private func mapping(_ entries: [YAMLEntry], at location: SourceLocation, _ path: [String]) -> [JSONExpectation] {
    let known = PlaybookSchema.bounds.names
    if entries.isEmpty { diagnostics.error(at: location, "`\(shown(path))`: the mapping is empty and expects nothing") }
    let bounds = entries.filter { known.contains($0.key) }
    // The root is the answer itself, a number has no members there to be bounded.
    if path.isEmpty || bounds.isEmpty { return entries.flatMap { read($0.value, path: path + [$0.key]) } }
    if bounds.count < entries.count {
      for other in entries where !known.contains(other.key) {
        guard let nearest = nearestName(to: other.key, among: known) else { continue }
        diagnostics.error(at: other.keyLocation, "unknown bound `\(other.key)`", help: "did you mean `\(nearest)`?")
        return []
      }
      return entries.flatMap { read($0.value, path: path + [$0.key]) }
    }
    return entries.compactMap { bound($0, path).map { JSONExpectation(path: path, bound: $0) } }
  }

  private func bound(_ entry: YAMLEntry, _ path: [String]) -> JSONBound? {
    guard case .scalar(let scalar) = entry.value.content, !scalar.isFaulty else {
      if case .scalar = entry.value.content { return nil }
      diagnostics.error(
        at: entry.value.location, "`\(shown(path)).\(entry.key)`: expected a value, found \(entry.value.description)")
      return nil
    }
    if entry.key == "not" { return .notEqual(scalar.text) }
    // Inside { } a `${name}` needs quotes: they say nothing about its type.
    guard scalar.isPlain || scalar.isInterpolated, let number = Double(scalar.text), number.isFinite else {
      diagnostics.error(
        at: entry.value.location, "`\(shown(path)).\(entry.key)`: expected a number, found \(scalar.description)",
        help: !scalar.isPlain && Double(scalar.text) != nil ? "remove the quotes" : nil)
      return nil
    }
    return switch entry.key {
    case "below": .below(number)
    case "above": .above(number)
    case "at_least": .atLeast(number)
    default: .atMost(number)
    }
  }

  private func value(_ scalar: YAMLScalar, at location: SourceLocation, _ path: [String]) -> JSONBound? {
    if scalar.isFaulty { return nil }
    do {
      switch try scalar.typed() {
      case .text(let text): return .string(text)
      case .number(let number): return .number(number)
      case .boolean(let value): return .bool(value)
      case .null: return .null
      }
    } catch {
      diagnostics.error(
        at: location, "`\(shown(path))`: \(scalar.text) without quotes: \(error.why)",
        help: "for text, write \"\(scalar.text)\"")
      return nil
    }
  }

  private func shown(_ path: [String]) -> String { (["health.expect.json"] + path).joined(separator: ".") }
}

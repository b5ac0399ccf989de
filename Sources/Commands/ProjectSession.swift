internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Playbooks

#if canImport(FoundationEssentials)
  internal import FoundationEssentials
#else
  internal import Foundation
#endif

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// A command's view of the project: what its files say, and which hosts are meant.
struct ProjectSession: Sendable {
  let context: CommandContext
  let options: GlobalOptions
  let loader: ProjectLoader

  init(_ options: GlobalOptions, context: CommandContext = .current) {
    self.options = options
    self.context = context
    var start = context.workingDirectory
    if let project = options.project {
      start = project.hasPrefix("/") ? project : context.workingDirectory + "/" + project
    }
    loader = ProjectLoader(startDirectory: start)
  }

  static let builtin: [String: String] = Dictionary(
    uniqueKeysWithValues: Playbooks.builtin.map {
      (String($0.path.prefix { $0 != "." }), String(decoding: $0.bytes, as: UTF8.self))
    })

  func load(
    environment: String?, playbook: String, version: String? = nil, set: [String: String] = [:],
    only kinds: Set<StepKindName>? = nil
  ) throws -> LoadedProject {
    try loader.load(
      environment: environment, playbook: playbook, builtin: Self.builtin, version: version, set: set, only: kinds)
  }

  /// The playbook that a release on the host brought along, with the values that it was deployed with; of an older version's release, which
  /// doesn't record them, with today's.
  func playbook(of release: Release, inventory: Inventory, only kinds: Set<StepKindName>) throws -> Playbook {
    do {
      return try loader.playbook(
        text: release.playbook, name: "release \(release.number)", version: release.version,
        variables: release.variables ?? [:], inventory: inventory, only: kinds)
    } catch let error as ConfigurationError {
      let faults = error.diagnostics.map {
        ($0.location.map { "\($0): " } ?? "") + $0.message + ($0.help.map { " (\($0))" } ?? "")
      }
      throw OrchestrateError(
        .configuration, "the playbook of \(release.version), release \(release.number) on the host, can't be used",
        cause: faults.joined(separator: "\n"), state: "nothing was changed",
        remedy: "a name that nobody defines: write it under vars: in inventories/\(inventory.environment).yml")
    }
  }

  /// The one host that a command works on.
  func host(of inventory: Inventory) throws -> HostEntry {
    if let name = options.host {
      if let host = inventory.hosts.first(where: { $0.name == name }) { return host }
      let near = nearestName(to: name, among: inventory.hosts.map(\.name))
      throw OrchestrateError(
        .usage, "the inventory of \(inventory.environment) has no host \(name)",
        remedy: near.map { "did you mean \($0)?" }
          ?? "its hosts are \(inventory.hosts.map(\.name).joined(separator: ", "))")
    }
    guard inventory.hosts.count == 1, let host = inventory.hosts.first else {
      throw OrchestrateError(
        .usage, "\(inventory.environment) has \(inventory.hosts.count) hosts, and this version works on one at a time",
        remedy: "choose one with --host: \(inventory.hosts.map(\.name).joined(separator: ", "))")
    }
    return host
  }

  /// The hosts that have a role; all without one.
  func hosts(of inventory: Inventory, role: String?) throws -> [HostEntry] {
    guard let role else { return inventory.hosts }
    let hosts = inventory.hosts.filter { $0.roles.contains(role) }
    guard hosts.isEmpty else { return hosts }
    let roles = Set(inventory.hosts.flatMap(\.roles)).sorted()
    throw OrchestrateError(
      .usage, "the inventory of \(inventory.environment) has no host with the role \(role)",
      remedy: nearestName(to: role, among: roles).map { "did you mean \($0)?" }
        ?? "its roles are \(roles.joined(separator: ", "))")
  }

  /// The files of the project that travel with a release, by path relative to the project folder.
  func projectFiles(_ loaded: LoadedProject) throws -> [String: StepPayload.File] {
    var wanted = loaded.playbook.steps.contains { $0.kind.preparesHost } ? [] : [loaded.inventory.compose]
    for step in loaded.playbook.steps {
      switch step.settings {
      case .release(let settings): wanted += settings.files
      case .run(let settings): wanted += [settings.script] + [settings.undo].compactMap { $0 }
      case .host(.file(let settings)): wanted.append(settings.source)
      case .host(.reverseProxy(let settings)):
        wanted += [settings.maintenance].compactMap(\.self)
        switch settings.certificate {
        case .acme(_, _, let authority): wanted += [authority].compactMap(\.self)
        case .given(let file, .file(let key)): wanted += [file, key]
        case .given(let file, .value): wanted.append(file)
        }
      default: break
      }
    }
    var files: [String: StepPayload.File] = [:]
    for path in wanted { try collect(path, root: loaded.project.root, into: &files) }
    return files
  }

  private func collect(_ path: String, root: String, into files: inout [String: StepPayload.File]) throws {
    let relative = path.hasSuffix("/") ? String(path.dropLast()) : path
    let full = root + "/" + relative
    switch loader.files.kind(full) {
    case .file:
      guard TarArchive.canHold(path: relative) else {
        throw OrchestrateError(
          .configuration, "the path is too long to travel in a tar archive (POSIX ustar): \(relative)",
          remedy: "at most 255 bytes, and a name of at most 100")
      }
      let bytes: [UInt8]
      do { bytes = try loader.files.read(full) } catch {
        throw OrchestrateError(.configuration, "\(relative) can't be read", cause: "\(error)")
      }
      let mode = (try? FileManager.default.attributesOfItem(atPath: full)[.posixPermissions] as? Int) ?? 0o644
      files[relative] = StepPayload.File(relative, mode: mode, bytes: bytes)
    case .folder:
      for name in try loader.files.list(full) { try collect(relative + "/" + name, root: root, into: &files) }
    case nil:
      throw OrchestrateError(
        .configuration, "the project has no \(relative)",
        remedy: "the playbook or the inventory names it; paths are relative to \(root)")
    }
  }

  /// Who asks, as the holder of the lock is shown to whoever is refused.
  func holder(reason: String?) -> LockHolder {
    let environment = context.environment
    let user =
      environment["GITHUB_ACTOR"] ?? environment["USER"] ?? environment["LOGNAME"] ?? LocalAccount.current?.name
      ?? "unknown"
    var from: String?
    if let repository = environment["GITHUB_REPOSITORY"], let run = environment["GITHUB_RUN_ID"] {
      from = "GitHub Actions, \(repository) run \(run)"
    }
    return LockHolder(
      who: "\(user)@\(ProcessInfo.processInfo.hostName)", from: from, reason: reason, since: Timestamp.now().description
    )
  }
}

extension Timestamp {
  static func now() -> Timestamp { Timestamp(milliseconds: Int64(Date().timeIntervalSince1970 * 1000)) }
}

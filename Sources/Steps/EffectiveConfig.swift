public import Engine
public import Inventory

/// The services that a deployment changes: `services.app` of the inventory; without it, all but database and cache.
public func appServices(_ inventory: Inventory, _ config: ComposeConfig) -> [String] {
  if !inventory.services.app.isEmpty { return inventory.services.app }
  let others = [inventory.services.database, inventory.services.cache].compactMap { $0 }
  return config.serviceNames.filter { !others.contains($0) }
}

/// Services of the running release that this deployment leaves as they are: not the app's, and not named by
/// `--include`.
public func keptServices(_ context: StepContext) -> [String] {
  guard let running = context.currentConfig else { return [] }
  let app = Set(appServices(context.inventory, context.config ?? running))
  return running.serviceNames.filter { !app.contains($0) && !context.options.include.contains($0) }.sorted()
}

/// The configuration that a release runs: every image a local tag, every mounted file under a name that follows its
/// content.
public struct EffectiveConfig: Sendable, Equatable {
  /// A file or a folder of the project that containers mount.
  public struct Mount: Sendable, Equatable {
    /// Lowercase hex SHA-256 over the tree; names the directory below /opt/P/files.
    public var sha256: String
    /// Relative to the project folder, without a trailing slash.
    public var path: String
    public init(sha256: String, path: String) {
      self.sha256 = sha256
      self.path = path
    }
  }
  public var config: ComposeConfig
  public var mounts: [Mount]
  /// By service: those of the services that were taken over from the running release are its own.
  public var images: [String: Release.Image]
  /// Why this configuration can't be deployed; each a sentence for the user.
  public var problems: [String]
  public var warnings: [String]

  public init(
    config: ComposeConfig, mounts: [Mount] = [], images: [String: Release.Image] = [:], problems: [String] = [],
    warnings: [String] = []
  ) {
    self.config = config
    self.mounts = mounts
    self.images = images
    self.problems = problems
    self.warnings = warnings
  }
}

/// Where a project's releases and files lie on the host.
public struct ProjectPaths: Sendable, Equatable {
  /// `/opt/P`
  public var opt: String

  public init(project: String, base: String = "/opt") { opt = "\(base)/\(project)" }

  public var files: String { "\(opt)/files" }
  public func release(_ number: Int) -> String { "\(opt)/releases/\(number)" }
}

/// What the release will run, from what Compose made of the user's file (`context.config`) and the pulled images
/// (`context.images`).
///
/// - images become local tags that follow their content, and mounted files of the project lie under names that follow
/// theirs, so that a
///   service's config hash changes only if something in it did;
/// - services outside the app's that run already are taken over as they run, unless `--include` names them.
///
/// Dollars stay doubled, as Compose printed them: it will read them again. Problems (a mounted file that doesn't
/// travel with the release, a
/// service without an image) are collected in the result.
/// For a rollback (`context.target`) it is the configuration of the release that is gone back to, with the services
/// outside the app's as they run now.
/// Nil: not known yet (before pull).
public func effectiveConfig(_ context: StepContext) -> EffectiveConfig? {
  var context = context
  if let target = context.target {
    guard let config = context.targetConfig else { return nil }
    context.config = config
    context.images = target.images
    var builder = EffectiveConfigBuilder(context: context, releaseDirectory: nil)
    return builder.build()
  }
  if let rotation = context.rotation {
    guard let config = rotation.config else { return nil }
    context.config = config
    var builder = EffectiveConfigBuilder(context: context, releaseDirectory: nil)
    return builder.build()
  }
  guard let config = context.config, !context.images.isEmpty || imagesToPull(context, config).isEmpty else {
    return nil
  }
  let reported = context.reported.values.lazy.compactMap { $0["release_directory"]?.stringValue }.first
  let directory = reported ?? ProjectPaths(project: context.inventory.project).release(context.number)
  var builder = EffectiveConfigBuilder(context: context, releaseDirectory: directory)
  return builder.build()
}

/// SHA-256 over a file or a folder: names, executable bits and contents. A single file counts as a folder that holds
/// only it.
func treeHash(_ files: [(name: String, mode: Int, bytes: [UInt8])], _ sha256: ([UInt8]) -> String) -> String {
  var text: [UInt8] = []
  for file in files.sorted(by: { $0.name < $1.name }) {
    text += Array("\(mountMode(file.mode) == 0o755 ? "x" : "-") \(sha256(file.bytes)) \(file.name)".utf8) + [0]
  }
  return sha256(text)
}

private struct EffectiveConfigBuilder {
  let context: StepContext
  let paths: ProjectPaths
  /// Where Compose read the user's file; nil: a configuration that is effective already (rollback).
  let releaseDirectory: String?
  var root: JSONObject
  var result = EffectiveConfig(config: ComposeConfig(.object([:])))
  /// Members that Compose leaves out of the config hash and that mean nothing to a release that is never built or
  /// pulled again.
  static let dropped = ["build", "pull_policy", "profiles", "develop", "env_file", "extends"]

  init(context: StepContext, releaseDirectory: String?) {
    self.context = context
    self.releaseDirectory = releaseDirectory
    paths = ProjectPaths(project: context.inventory.project)
    root = context.config?.root.objectValue ?? [:]
  }

  mutating func build() -> EffectiveConfig {
    for key in root.keys where key.hasPrefix("x-") { root[key] = nil }
    let kept = keptServices(context)
    var services = JSONObject()
    for (name, service) in root["services"]?.objectValue?.members ?? [] where !kept.contains(name) {
      services[name] = .object(effective(service, name: name))
    }
    for section in ["secrets", "configs"] { rewriteFiles(section) }
    for (name, service) in services.members { services[name] = labelled(service) }
    if let target = context.target ?? (context.rotation == nil ? nil : context.current) {
      let text = JSONValue.object(services).text() + (root["secrets"]?.text() ?? "") + (root["configs"]?.text() ?? "")
      for (path, hash) in target.files where text.contains(hash) {
        result.mounts.append(EffectiveConfig.Mount(sha256: hash, path: path))
      }
    }
    takeOver(kept, into: &services)
    dropDanglingDependencies(&services)
    root["services"] = .object(services)
    root["name"] = .string(context.inventory.project)
    result.config = ComposeConfig(.object(root))
    result.mounts.sort { ($0.path, $0.sha256) < ($1.path, $1.sha256) }
    return result
  }

  // MARK: A service of this deployment

  private mutating func effective(_ service: JSONValue, name: String) -> JSONObject {
    var members = service.objectValue ?? [:]
    for key in Self.dropped { members[key] = nil }
    if let image = context.images[name] {
      members["image"] = .string(image.tag)
      result.images[name] = image
    } else {
      result.problems.append("service \(name) has no image that was pulled")
    }
    var labels = members["labels"]?.objectValue ?? [:]
    labels["orchestrate.project"] = .string(context.inventory.project)
    members["labels"] = .object(labels)
    if let volumes = members["volumes"]?.arrayValue {
      members["volumes"] = .array(volumes.map { effectiveVolume($0, service: name) })
    }
    return members
  }

  private mutating func effectiveVolume(_ volume: JSONValue, service: String) -> JSONValue {
    guard case .object(var members) = volume, members["type"]?.stringValue == "bind",
      let source = members["source"]?.stringValue
    else { return volume }
    guard let moved = contentAddressed(source, user: "service \(service)") else { return volume }
    members["source"] = .string(moved)
    if members["read_only"]?.boolValue != true {
      result.warnings.append(
        "service \(service) mounts \(relative(source) ?? source) writable: what it writes there is lost with the next change of the file; add `:ro`"
      )
    }
    return .object(members)
  }

  /// Path below the project folder, or nil if it lies elsewhere. Compose's output doubles dollars, paths of files
  /// don't.
  private func relative(_ path: String) -> String? {
    guard let releaseDirectory else { return nil }
    let projectDirectory = releaseDirectory + "/project"
    let path = unescapeDollars(path)
    if path == projectDirectory { return "" }
    guard path.hasPrefix(projectDirectory + "/") else { return nil }
    return String(path.dropFirst(projectDirectory.count + 1))
  }

  /// Where a file of the release will lie; nil: it is none of the release's. Collects mounts and problems.
  private mutating func contentAddressed(_ source: String, user: String) -> String? {
    guard let path = relative(source) else {
      if let releaseDirectory, unescapeDollars(source).hasPrefix(releaseDirectory) {
        result.problems.append(
          "\(user) mounts a path outside the project folder by a relative name: write an absolute path, or move it into the project"
        )
      }
      return nil
    }
    let name = path.split(separator: "/").last.map(String.init) ?? ""
    let below = context.projectFiles.filter { path.isEmpty || $0.key.hasPrefix(path + "/") }
    let single = context.projectFiles[path]
    if single == nil, below.isEmpty || path.isEmpty {
      result.problems.append(
        path.isEmpty
          ? "\(user) mounts the whole project folder: mount the folder or the file that it needs, and list it under `files:` of the release step"
          : "\(user) mounts ./\(path), which doesn't travel with the release: list it under `files:` of the release step "
            + "(data belongs into a named volume or below an absolute path)")
      return nil
    }
    let tree: [(name: String, mode: Int, bytes: [UInt8])] =
      single.map { [(name, $0.mode, $0.bytes)] }
      ?? below.map { (String($0.key.dropFirst(path.count + 1)), $0.value.mode, $0.value.bytes) }
    let hash = treeHash(tree, context.sha256)
    let mount = EffectiveConfig.Mount(sha256: hash, path: path)
    if !result.mounts.contains(mount) { result.mounts.append(mount) }
    let directory = "\(paths.files)/\(hash)"
    return single == nil ? directory : "\(directory)/\(name.replacingDollars())"
  }

  private mutating func rewriteFiles(_ section: String) {
    guard var entries = root[section]?.objectValue else { return }
    for (key, entry) in entries.members {
      guard case .object(var members) = entry, let file = members["file"]?.stringValue else { continue }
      let owners = (root["services"]?.objectValue?.members ?? []).filter { uses($0.value, section: section, key: key) }
      guard !owners.isEmpty, let moved = contentAddressed(file, user: "\(section.dropLast()) \(key)") else { continue }
      members["file"] = .string(moved)
      entries[key] = .object(members)
    }
    root[section] = .object(entries)
  }

  /// What it mounts as secrets and configs isn't part of Compose's config hash (measured on 2.26.1: another `file:` or `content:` recreates nothing). The
  /// places of files follow their content, so that a label with these, or with what stands in the compose file itself, recreates the service when it changes.
  private func labelled(_ service: JSONValue) -> JSONValue {
    var places: [String] = []
    for section in ["secrets", "configs"] {
      for mount in service[section]?.arrayValue ?? [] {
        guard let source = mount["source"]?.stringValue ?? mount.stringValue, let entry = root[section]?[source] else {
          continue
        }
        let inside = mount["target"]?.stringValue ?? Self.target(of: source, section: section)
        if let file = entry["file"]?.stringValue { places.append("\(section) \(inside) \(file)\n") }
        if let text = entry["content"]?.stringValue {
          places.append("\(section) \(inside) \(context.sha256(Array(text.utf8)))\n")
        }
      }
    }
    guard case .object(var members) = service, !places.isEmpty else { return service }
    var labels = members["labels"]?.objectValue ?? [:]
    labels["orchestrate.files"] = .string(String(context.sha256(Array(places.sorted().joined().utf8)).prefix(12)))
    members["labels"] = .object(labels)
    return .object(members)
  }

  /// Where a mount without `target` lies.
  static func target(of source: String, section: String) -> String { section == "secrets" ? source : "/\(source)" }

  private func uses(_ service: JSONValue, section: String, key: String) -> Bool {
    (service[section]?.arrayValue ?? []).contains { $0["source"]?.stringValue == key || $0.stringValue == key }
  }

  // MARK: Services that stay as they run

  private mutating func takeOver(_ kept: [String], into services: inout JSONObject) {
    guard let running = context.currentConfig, !kept.isEmpty else { return }
    for section in ["networks", "volumes"] { takeOver(section: section, of: kept, running: running) }
    for section in ["secrets", "configs"] {
      takeOverFiles(section: section, of: kept, running: running, services: &services)
    }
    for name in kept {
      guard let service = running.service(name) else { continue }
      services[name] = service
      result.images[name] = context.current?.images[name]
      if context.config?.service(name) == nil {
        result.warnings.append(
          "service \(name) isn't in the compose file any more; it goes on as it is until a deploy says --include \(name)"
        )
      }
    }
    for (path, hash) in context.current?.files ?? [:] where !result.mounts.contains(where: { $0.path == path }) {
      // Files of taken-over services stay with the release, so that prune knows them.
      if kept.contains(where: { running.service($0).map { $0.text().contains(hash) } ?? false })
        || running.root["secrets"]?.text().contains(hash) == true
      {
        result.mounts.append(EffectiveConfig.Mount(sha256: hash, path: path))
      }
    }
  }

  /// A network or a volume that a service which stays is attached to can't change under it.
  private mutating func takeOver(section: String, of kept: [String], running: ComposeConfig) {
    let old = running.root[section]?.objectValue ?? [:]
    var entries = root[section]?.objectValue ?? [:]
    for name in kept {
      guard let service = running.service(name) else { continue }
      for key in old.keys where isAttached(service, section: section, key: key) {
        if let new = entries[key], new != old[key] {
          result.warnings.append(
            "\(section.dropLast()) \(key) is defined differently now, but \(name) uses it and stays as it runs: the change waits for --include \(name)"
          )
        }
        entries[key] = old[key]
      }
    }
    if !entries.isEmpty { root[section] = .object(entries) }
  }

  private func isAttached(_ service: JSONValue, section: String, key: String) -> Bool {
    if section == "networks" { return service["networks"]?[key] != nil }
    return (service["volumes"]?.arrayValue ?? []).contains {
      $0["type"]?.stringValue == "volume" && $0["source"]?.stringValue == key
    }
  }

  /// A secret or a config whose content has changed exists twice: as it is for those that stay, under a name of its
  /// own for the others.
  private mutating func takeOverFiles(
    section: String, of kept: [String], running: ComposeConfig, services: inout JSONObject
  ) {
    let old = running.root[section]?.objectValue ?? [:]
    var entries = root[section]?.objectValue ?? [:]
    for key in old.keys {
      guard kept.contains(where: { running.service($0).map { uses($0, section: section, key: key) } ?? false }) else {
        continue
      }
      if let new = entries[key], new != old[key] {
        let alias = aliasName(of: key, new, context)
        entries[alias] = new
        for (name, service) in services.members {
          services[name] = renaming(service, section: section, from: key, to: alias)
        }
      }
      entries[key] = old[key]
    }
    if !entries.isEmpty { root[section] = .object(entries) }
  }

  private func dropDanglingDependencies(_ services: inout JSONObject) {
    for (name, service) in services.members {
      guard case .object(var members) = service, var dependencies = members["depends_on"]?.objectValue else { continue }
      for key in dependencies.keys where services[key] == nil { dependencies[key] = nil }
      members["depends_on"] = .object(dependencies)
      services[name] = .object(members)
    }
  }
}

/// The name of a secret or a config that exists twice, for those that don't stay as they run.
func aliasName(of key: String, _ entry: JSONValue, _ context: StepContext) -> String {
  "\(key)-\(context.sha256(Array(entry.text(sorted: true).utf8)).prefix(8))"
}

/// The service with another name for a secret or a config that it mounts, where it was.
func renaming(_ service: JSONValue, section: String, from key: String, to alias: String) -> JSONValue {
  guard case .object(var members) = service, let items = members[section]?.arrayValue else { return service }
  members[section] = .array(
    items.map { item in
      guard case .object(var reference) = item, reference["source"]?.stringValue == key else { return item }
      reference["source"] = .string(alias)
      if reference["target"] == nil {
        reference["target"] = .string(EffectiveConfigBuilder.target(of: key, section: section))
      }
      return .object(reference)
    })
  return .object(members)
}

extension String {
  /// As Compose must read it.
  fileprivate func replacingDollars() -> String {
    split(separator: "$", omittingEmptySubsequences: false).joined(separator: "$$")
  }
}

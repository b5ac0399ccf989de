import Diagnostics
public import Engine
public import Inventory

/// Puts the release's own files on the host, under its number: compose file, playbook, files of the project. For a
/// rollback: a copy of the
/// release that is gone back to.
public struct ReleaseStep: StepKind {
  public var settings: ReleaseSettings

  public init(settings: ReleaseSettings = ReleaseSettings()) { self.settings = settings }

  public func plan(_ context: StepContext) -> [Change] {
    var changes: [Change] = []
    let version = context.target?.version ?? context.version
    if let current = context.current {
      if current.version != version {
        changes.append(Change(.update, "release", detail: ["~ version: \(current.version) → \(version)"]))
      }
    } else {
      changes.append(Change(.create, "release", detail: ["+ version: \(version)"]))
    }
    let new: [String: String]
    if let effective = effectiveConfig(context) {
      new = Dictionary(effective.mounts.map { ($0.path, $0.sha256) }, uniquingKeysWith: { first, _ in first })
    } else {
      new = context.target?.files ?? [:]
    }
    let old = context.current?.files ?? [:]
    for path in Set(old.keys).union(new.keys).sorted() where old[path] != new[path] {
      switch (old[path], new[path]) {
      case (nil, _): changes.append(Change(.create, "file \(path)", detail: ["+ \(path)"]))
      case (_, nil): changes.append(Change(.delete, "file \(path)", detail: ["- \(path)"]))
      case (let before?, let after?):
        changes.append(
          Change(.update, "file \(path)", detail: ["~ \(path): \(before.prefix(12)) → \(after.prefix(12))"]))
      }
    }
    for name in context.carriedOver?.changed.sorted() ?? [] {
      changes.append(
        Change(.update, "env \(name)", detail: ["  \(name) was rotated since \(version) ran: the present value stays"]))
    }
    return changes
  }

  public func payload(_ context: StepContext) throws -> StepPayload {
    if let target = context.target { return try rollbackPayload(context, target: target) }
    if context.rotation != nil, let current = context.current {
      return StepPayload(
        script: "release", timeout: .seconds(60), hasUndo: true,
        parameters: [("COPY_OF", String(current.number)), ("COMPOSE_DIR", composeDirectory(context.inventory))])
    }
    guard let compose = context.projectFiles[context.inventory.compose] else {
      throw OrchestrateError(
        .configuration, "the compose file \(context.inventory.compose) wasn't found", step: "release",
        remedy: "name it in the inventory: `compose: FILE`")
    }
    var files = [
      StepPayload.File("compose.yml", bytes: compose.bytes),
      StepPayload.File("playbook.yml", bytes: Array(context.playbookText.utf8)),
    ]
    for path in context.projectFiles.keys.sorted() {
      guard let file = context.projectFiles[path] else { continue }
      files.append(StepPayload.File("project/\(path)", mode: mountMode(file.mode), bytes: file.bytes))
    }
    return StepPayload(
      script: "release", timeout: .seconds(60), hasUndo: true,
      parameters: [("COPY_OF", ""), ("COMPOSE_DIR", composeDirectory(context.inventory))], files: files)
  }

  private func rollbackPayload(_ context: StepContext, target: Release) throws -> StepPayload {
    var release = target
    release.number = context.number
    release.copyOf = target.number
    release.created = timestamp(milliseconds: context.now)
    release.replaced = replacedValues(target, context.current)
    release.roles = rolesGoneBackTo(target, context)
    var files: [StepPayload.File] = []
    if let carried = context.carriedOver {
      let changed = carried.changed
      for value in carried.values where changed.contains(value.name) {
        release.env[value.name] = context.sha256(Array(value.value.utf8))
      }
      release.envDefaults.removeAll { changed.contains($0) }
      files = try envFiles(carried.values, moved: changed)
    }
    let secret = files.map(\.path)
    if let effective = effectiveConfig(context) {
      release.images = effective.images
      release.services = effective.config.serviceNames
      files.append(StepPayload.File("effective.json", bytes: Array((effective.config.root.text() + "\n").utf8)))
      files.append(StepPayload.File("images.yml", bytes: Array(imagesFile(effective.images).utf8)))
    }
    files.append(StepPayload.File("release.json", bytes: try release.json()))
    return StepPayload(
      script: "release", timeout: .seconds(60), hasUndo: true,
      parameters: [("COPY_OF", String(target.number)), ("COMPOSE_DIR", composeDirectory(context.inventory))],
      files: files, secrets: ["effective.json"] + secret)
  }

  /// Those of the older release's values in files that are other ones now get the present file, or, where there is none, one of their own.
  private func envFiles(_ values: [ResolvedValue], moved: Set<String>) throws -> [StepPayload.File] {
    var files = [StepPayload.File("env", bytes: Array(try EnvFile.render(values).utf8))]
    if values.contains(where: { $0.path != nil }) {
      files.append(StepPayload.File("secrets", bytes: Array(try EnvFile.renderFiles(values).utf8)))
    }
    for value in values where moved.contains(value.name) {
      guard let name = value.path?.split(separator: "/").last else { continue }
      files.append(StepPayload.File("files/\(name)", bytes: Array(value.value.utf8)))
    }
    return files
  }

  /// What was replaced isn't forgotten by going back: a source that still has it is behind, whatever version runs.
  private func replacedValues(_ target: Release, _ current: Release?) -> [String: [String]]? {
    guard let newer = current?.replaced else { return target.replaced }
    return (target.replaced ?? [:]).merging(newer) { older, newer in older.filter { !newer.contains($0) } + newer }
  }

  private func rolesGoneBackTo(_ target: Release, _ context: StepContext) -> [String: String]? {
    guard target.roles != nil || context.current?.roles != nil else { return nil }
    return (context.templateRoles.merging(context.current?.roles ?? [:]) { $1 }).merging(target.roles ?? [:]) { $1 }
      .filter { target.env[$0.key] != nil }
  }
}

/// Containers run as users of their own and must read what they mount: what matters of a mode is whether it is
/// executable.
func mountMode(_ mode: Int) -> Int { mode & 0o111 != 0 ? 0o755 : 0o644 }

/// The compose file's folder, relative to the project folder: relative paths in it start there. Empty: the project
/// folder itself.
func composeDirectory(_ inventory: Inventory) -> String {
  let parts = inventory.compose.split(separator: "/").dropLast().filter { $0 != "." }
  return parts.joined(separator: "/")
}

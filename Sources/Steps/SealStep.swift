import Diagnostics
public import Engine
public import Inventory

/// The engine's own first step after the plan: writes down what the release is (effective.json, images.yml,
/// release.json), puts mounted
/// files under names that follow their content, and lets Compose read the result. No playbook names it.
public struct SealStep: StepKind {
  public var playbook: Playbook

  public init(playbook: Playbook) { self.playbook = playbook }

  public func plan(_ context: StepContext) -> [Change] { [] }

  public func payload(_ context: StepContext) throws -> StepPayload {
    guard let effective = effectiveConfig(context) else {
      throw OrchestrateError(
        .configuration, "what the release would run isn't known: the playbook has no env or no pull step", step: "seal",
        remedy: "add - env and - pull behind - release")
    }
    let mounts = effective.mounts.map { "\($0.sha256)\t\($0.path)\n" }.joined()
    return StepPayload(
      script: "seal", timeout: .seconds(60), hasUndo: true,
      files: [
        StepPayload.File("effective.json", bytes: Array((effective.config.root.text() + "\n").utf8)),
        StepPayload.File("images.yml", bytes: Array(imagesFile(effective.images).utf8)),
        StepPayload.File("release.json", bytes: try release(context, effective).json()),
        StepPayload.File("mounts", bytes: Array(mounts.utf8)),
      ], secrets: ["effective.json"])
  }

  /// What the release will say of itself, and what it will run; nil: not known yet.
  func sealed(_ context: StepContext) -> (release: Release, config: ComposeConfig)? {
    effectiveConfig(context).map { (release(context, $0), $0.config) }
  }

  func release(_ context: StepContext, _ effective: EffectiveConfig) -> Release {
    if let rotation = context.rotation, let current = context.current {
      return rotated(current, rotation, context, effective)
    }
    var release = Release(
      number: context.number, version: context.version, previous: context.current?.number ?? 0,
      created: timestamp(milliseconds: context.now), playbook: context.playbookText)
    release.images = effective.images
    release.services = effective.config.serviceNames
    release.variables = context.variables
    // It stays the one that was gone back to, whose migrations may not know the schema.
    if context.isGoneBackTo { release.copyOf = context.current?.copyOf ?? 0 }
    for step in playbook.steps {
      if case .migrate(let settings) = step.settings { release.schemaPolicy = settings.rollback.rawValue }
    }
    for value in context.env ?? [] where value.origin == .fallback { release.envDefaults.append(value.name) }
    fill(&release, context, effective)
    // Also of a name that the template has no more: a rollback may go to a release that has it.
    release.replaced = context.current?.replaced
    return release
  }

  /// What runs, with another value. A rollback from it goes where one from what runs would have gone: nobody wants the older password back.
  private func rotated(_ current: Release, _ rotation: Rotation, _ context: StepContext, _ effective: EffectiveConfig)
    -> Release
  {
    var release = current
    release.number = context.number
    release.created = timestamp(milliseconds: context.now)
    release.files = [:]
    release.envDefaults.removeAll { rotation.changed.contains($0) }
    fill(&release, context, effective)
    var replaced = current.replaced ?? [:]
    for (name, hash) in current.env where rotation.changed.contains(name) {
      replaced[name] = ((replaced[name] ?? []).filter { $0 != hash } + [hash]).suffix(Self.remembered)
    }
    release.replaced = replaced
    return release
  }

  /// How many replaced values of a name are known again.
  private static let remembered = 50

  private func fill(_ release: inout Release, _ context: StepContext, _ effective: EffectiveConfig) {
    let env = context.env ?? []
    for value in env { release.env[value.name] = context.sha256(Array(value.value.utf8)) }
    if let config = context.config {
      release.roles = databaseRoles(config, context.inventory, env).merging(context.templateRoles) { $1 }
    }
    for mount in effective.mounts { release.files[mount.path] = mount.sha256 }
  }
}

/// images.yml: every image by digest and local tag, in a form that both YAML and sed read.
func imagesFile(_ images: [String: Release.Image]) -> String {
  var text = "services:\n"
  if images.isEmpty { text = "services: {}\n" }
  for service in images.keys.sorted() {
    guard let image = images[service] else { continue }
    text += "  \(JSONValue.string(service).text()):\n"
    for (key, value) in [
      ("reference", image.reference), ("digest", image.digest), ("id", image.id), ("tag", image.tag),
    ] {
      text += "    \(key): \(JSONValue.string(value).text())\n"
    }
  }
  return text
}

/// `2026-11-21T09:30:00Z`
func timestamp(milliseconds: Int64) -> String {
  let seconds = milliseconds / 1000
  // Days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
  let days = seconds / 86400, rest = seconds % 86400
  let z = days + 719468, era = z / 146097, dayOfEra = z % 146097
  let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146096) / 365
  let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
  let m = (5 * dayOfYear + 2) / 153
  let month = m < 10 ? m + 3 : m - 9
  let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
  return
    "\(year)-\(two(month))-\(two(dayOfYear - (153 * m + 2) / 5 + 1))T\(two(rest / 3600)):\(two(rest % 3600 / 60)):\(two(rest % 60))Z"
}

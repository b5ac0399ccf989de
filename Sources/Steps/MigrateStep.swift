public import Engine
public import Inventory

/// Brings the schema to the new version, in a one-off container of the new image; undone by the release's policy. In a rollback its settings
/// are those of the release that is left, and the policy decides what happens to the schema.
public struct MigrateStep: StepKind {
  public var settings: MigrateSettings

  public init(settings: MigrateSettings = MigrateSettings()) { self.settings = settings }

  public func plan(_ context: StepContext) -> [Change] {
    if context.target != nil { return planRollback(context) }
    guard !settings.up.isEmpty else { return [] }
    guard let pending = context.pendingMigrations else {
      guard context.changesSomething else { return [] }
      return [Change(.unknown, "migrations", detail: ["  \(settings.up.joined(separator: " "))"], losesData: false)]
    }
    return pending.map { Change(.run, "migration \($0.prefix { !$0.isWhitespace })", detail: ["+ \($0)"]) }
  }

  private func planRollback(_ context: StepContext) -> [Change] {
    guard !settings.up.isEmpty, !context.schemaStays else { return [] }
    switch settings.rollback {
    case .compatible: return []
    case .down:
      return [
        Change(
          .run, "schema back to that of \(context.target?.version ?? "the older release")",
          detail: ["- \(settings.down?.joined(separator: " ") ?? "no down command")"], losesData: true)
      ]
    case .restore:
      return [
        Change(
          .delete, "every write since the deployment of \(context.current?.version ?? "the running release")",
          detail: ["- restored from the restore point of deployment \(context.current?.number ?? 0)"], losesData: true)
      ]
    }
  }

  public func payload(_ context: StepContext) -> StepPayload {
    let service = settings.service ?? context.inventory.services.app.first ?? ""
    let head = context.reported.values.lazy.compactMap { $0["head"]?.stringValue }.first ?? ""
    // The script keeps its own deadline, so that it can still tell what state the schema is in.
    let slack = Duration.seconds(180)
    return StepPayload(
      script: "migrate", timeout: settings.timeout + slack, changes: true, hasUndo: true,
      parameters: [
        ("SERVICE", service), ("UP", quotedWords(settings.up)), ("REVISION", quotedWords(settings.revision)),
        ("DOWN", downWords(settings.down ?? [])), ("TOOL", tool.rawValue), ("POLICY", settings.rollback.rawValue),
        ("TIMEOUT", wholeSeconds(settings.timeout)), ("LOCK_TIMEOUT", milliseconds(settings.lockTimeout)),
        ("VERSION", context.version), ("FROM", context.current?.version ?? ""),
        ("TARGET", context.target.map { String($0.number) } ?? ""),
        ("ACCEPT_DATA_LOSS", context.options.acceptDataLoss ? "1" : "0"), ("HEAD", head),
      ] + databaseParameters(context))
  }

  /// A tool whose ways are known: where its revision stands, how it speaks.
  enum Tool: String { case alembic, migrate, other = "" }

  var tool: Tool {
    let words = settings.up
    for (index, word) in words.enumerated() where index < 3 {
      let name = word.split(separator: "/").last.map(String.init) ?? word
      if name == "alembic" { return .alembic }
      if name == "migrate", index == 0 { return .migrate }
    }
    return .other
  }

  /// The revision's place becomes a reference to the script's own variable: quoted there, never interpolated here.
  func downWords(_ words: [String]) -> String {
    words.map { word in
      word.split(separator: "${revision}", omittingEmptySubsequences: false).map { shellQuoted(String($0)) }
        .joined(separator: #""$revision""#)
    }.joined(separator: " ")
  }
}

/// The database whose schema it is: the one that is backed up, or a restore point would be of another than the one that is brought back.
private func databaseParameters(_ context: StepContext) -> [(name: String, value: String)] {
  var backup = BackupSettings()
  for case .backup(let settings) in context.steps.map(\.settings) { backup = settings }
  return [
    ("DB_SERVICE", backup.service ?? context.inventory.services.database ?? ""), ("DB_NAME", backup.database ?? ""),
    ("DB_USER", backup.user ?? ""),
  ]
}

/// Internal: finds out, before the plan of a rollback, whether the schema is where the older release wants it. Facts: `schema_here`, `schema_there`,
/// `schema_stays`.
public struct SchemaProbeStep: StepKind {
  public var settings: MigrateSettings

  /// Nil: by this policy a rollback leaves the schema alone anyway.
  public init?(settings: MigrateSettings) {
    guard settings.rollback != .compatible, !settings.up.isEmpty else { return nil }
    self.settings = settings
  }

  public func plan(_ context: StepContext) -> [Change] { [] }

  public func payload(_ context: StepContext) -> StepPayload {
    StepPayload(
      script: "schema-probe", timeout: .seconds(150),
      parameters: MigrateStep(settings: settings).payload(context).parameters)
  }
}

/// A schema whose revision the new image doesn't know: its migrations would fail at once. One that was gone back to runs
/// on it as it is.
func strangeSchema(_ steps: [StepSpec], _ context: StepContext) -> String? {
  guard !context.isGoneBackTo,
    let step = steps.first(where: { $0.kind == .migrate && !context.options.skip.contains($0.name) }),
    let revision = context.reported.values.lazy.compactMap({ $0["unknown_revision"]?.stringValue }).first
  else { return nil }
  let version = context.version.isEmpty ? "the new version" : context.version
  return """
    the schema is at \(revision), which \(version) doesn't know: something newer has migrated it. \
    orchestrate rollback goes back by the policy of the release; --skip \(step.name) leaves the schema as it is
    """
}

/// Internal: asks the new image, before the plan, which migrations are pending. Facts: `revision`, `head`, `pending`, and
/// `unknown_revision` where the image doesn't know the schema's.
public struct MigrateProbeStep: StepKind {
  public var settings: MigrateSettings

  /// Nil: the migration tool isn't one that tells without a database.
  public init?(settings: MigrateSettings) {
    // With other options (-c, -n, -x) it may be another history than the one that the image tells by itself.
    guard MigrateStep(settings: settings).tool == .alembic,
      settings.up.suffix(2) == ["upgrade", "head"], settings.up.dropLast(2).last?.hasSuffix("alembic") == true
    else { return nil }
    self.settings = settings
  }

  /// The database that it will ask, for a step that can ask ahead; empty where no probe follows.
  static func ahead(_ context: StepContext) -> [(name: String, value: String)] {
    for spec in context.steps where !context.options.skip.contains(spec.name) {
      if case .migrate(let settings) = spec.settings, MigrateProbeStep(settings: settings) != nil {
        return databaseParameters(context)
      }
    }
    return []
  }

  public func plan(_ context: StepContext) -> [Change] { [] }

  public func payload(_ context: StepContext) -> StepPayload {
    let service = settings.service ?? context.inventory.services.app.first ?? ""
    return StepPayload(
      script: "migrate-probe", timeout: .seconds(150),
      parameters: [("TOOL", "alembic"), ("SERVICE", service)] + databaseParameters(context))
  }
}

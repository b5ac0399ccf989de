public import Engine
public import Inventory

/// A verified restore point before anything changes. On a first deployment it creates the database and the cache.
public struct BackupStep: StepKind {
  public var settings: BackupSettings

  public init(settings: BackupSettings = BackupSettings()) { self.settings = settings }

  public func plan(_ context: StepContext) -> [Change] {
    guard context.changesSomething else { return [] }
    guard context.current != nil else {
      return creates(context).map { Change(.create, "service \($0)", detail: ["+ service \($0)"]) }
    }
    guard let service = service(context) else { return [] }
    let size = context.reported.values.lazy.compactMap { $0["last_backup_bytes"]?.intValue }.first
    let estimate = size.map { $0 > 0 ? ["  about \(bytes(Int64($0))), as the last one"] : [] } ?? []
    return [Change(.run, "backup of \(service)", detail: estimate)]
  }

  public func payload(_ context: StepContext) -> StepPayload {
    StepPayload(
      script: "backup", timeout: settings.timeout, changes: context.current == nil, hasUndo: true,
      parameters: [
        ("SERVICE", service(context) ?? ""), ("CREATE", quotedWords(creates(context))),
        ("DB_NAME", settings.database ?? ""), ("DB_USER", settings.user ?? ""),
        ("KEEP_LAST", String(max(1, settings.keepLast))), ("KEEP_DAYS", String(max(0, settings.keepDays))),
        ("VERSION", context.current?.version ?? ""),
      ])
  }

  private func service(_ context: StepContext) -> String? { settings.service ?? context.inventory.services.database }

  /// The services that keep data: they exist before the application does, and no deployment restarts them.
  private func creates(_ context: StepContext) -> [String] {
    [context.inventory.services.database, context.inventory.services.cache].compactMap(\.self)
  }
}

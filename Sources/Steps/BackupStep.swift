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
    let missing = context.stopped(creates(context)).map { service, state in
      let line = "  \(service): not running\(state.map { " (\($0))" } ?? "")"
      return Change(state == nil ? .create : .unknown, "service \(service)", detail: [line])
    }
    guard let service = service(context) else { return missing }
    let size = context.reported.values.lazy.compactMap { $0["last_backup_bytes"]?.intValue }.first
    let estimate = size.map { $0 > 0 ? ["  about \(bytes(Int64($0))), as the last one"] : [] } ?? []
    return missing + [Change(.run, "backup of \(service)", detail: estimate)]
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
  fileprivate func creates(_ context: StepContext) -> [String] {
    [context.inventory.services.database, context.inventory.services.cache].compactMap(\.self)
  }
}

/// A database or a cache that stands still: the backup step would refuse it, after the application was stopped perhaps. One without a container it
/// creates.
func stoppedDatabases(_ steps: [StepSpec], _ context: StepContext) -> [String] {
  for spec in steps where !context.options.skip.contains(spec.name) && context.target == nil {
    guard case .backup(let settings) = spec.settings else { continue }
    let step = BackupStep(settings: settings)
    return context.stopped(step.creates(context)).compactMap { service, state in
      state.map {
        "\(service) has a container, but it doesn't run (\($0)): start it, or look at its logs (docker logs), before a deployment"
      }
    }
  }
  return []
}

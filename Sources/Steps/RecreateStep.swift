public import Engine
public import Inventory

/// Puts the new release's containers in the place of the running ones: the app's services that changed, and no other.
public struct RecreateStep: StepKind {
  public var settings: RecreateSettings

  public init(settings: RecreateSettings = RecreateSettings()) { self.settings = settings }

  public func plan(_ context: StepContext) -> [Change] {
    let services = context.servicesToRecreate(settings.services)
    guard let new = context.newConfig else { return services.map { Change(.unknown, "service \($0)") } }
    var changes = diff(
      old: context.currentConfig, new: new, oldImages: context.current?.images ?? [:],
      newImages: context.target?.images ?? context.images, mask: DifferenceMask(context)
    ).filter { change in services.contains { change.subject == "service \($0)" } }
    for (service, state) in context.stopped(services) where new.service(service) != nil {
      let line = "  \(service): not running\(state.map { " (\($0))" } ?? "")"
      if let index = changes.firstIndex(where: { $0.subject == "service \(service)" }) {
        changes[index].detail.append(line)
      } else {
        changes.append(Change(.recreate, "service \(service)", detail: [line]))
      }
    }
    return changes
  }

  public func payload(_ context: StepContext) -> StepPayload {
    // Stopping, creating and starting take their own time beside the grace period.
    StepPayload(
      script: "recreate", timeout: settings.drainTimeout + .seconds(180), changes: true, hasUndo: true,
      parameters: drainParameters(settings, context), files: [checkScript])
  }
}

/// Internal: stops the app before the backup, where the schema policy may have to bring the backup back (`down`, `restore`).
public struct DrainStep: StepKind {
  public var settings: RecreateSettings

  public init(settings: RecreateSettings = RecreateSettings()) { self.settings = settings }

  /// Nil: the step's policy keeps the app up until it is recreated.
  public init?(for migrate: MigrateSettings, recreate settings: RecreateSettings = RecreateSettings()) {
    guard migrate.rollback != .compatible else { return nil }
    self.settings = settings
  }

  public func plan(_ context: StepContext) -> [Change] { [] }

  public func payload(_ context: StepContext) -> StepPayload {
    StepPayload(
      script: "drain", timeout: settings.drainTimeout + .seconds(60), changes: true, hasUndo: true,
      parameters: drainParameters(settings, context), files: [checkScript])
  }
}

/// How services are stopped. SIGTERM stands for the image's own stop signal, which Docker sends by itself.
private func drainParameters(_ settings: RecreateSettings, _ context: StepContext) -> [(name: String, value: String)] {
  // What `--include` takes out of the release isn't Compose's to start.
  let new = context.newConfig
  let services = context.servicesToRecreate(settings.services).filter {
    !context.options.include.contains($0) || new == nil || new?.service($0) != nil
  }
  return [
    ("SERVICES", quotedWords(services)),
    ("SIGNAL", settings.drainSignal == "SIGTERM" ? "" : settings.drainSignal),
    ("GRACE", wholeSeconds(settings.drainTimeout)),
  ]
}

/// By this the runner judges, after an undo, whether what runs again is well.
private let checkScript = StepPayload.File("check.sh", bytes: Array("exec sh \"$ORCH_BUNDLE/check.sh\"\n".utf8))

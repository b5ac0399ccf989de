internal import Diagnostics
internal import Inventory

// The watch behind the commit: what the host needs to go back by itself, which travels with the steps that lead there; and following it.

extension DeploymentRun {
  // MARK: - Before the commit

  /// The steps of the way back, below `watch/`; nil: there is no watch, and a notice says why.
  func wayBack(behind steps: [StepSpec]) throws -> StepBatch? {
    guard let watch = request.playbook.watch, let rollback = request.wayBack else { return nil }
    func none(_ why: String) -> StepBatch? {
      emit(.notice(host: host, text: "no watch behind the commit: \(why)"))
      return nil
    }
    guard let current = preparation.context.current else {
      return none("nothing ran before that could be gone back to")
    }
    guard let new = catalog.sealed(preparation.context) else { return nil }
    if new.release.version == current.version, new.release.env == current.env,
      new.config == preparation.context.currentConfig
    {
      return none("what ran before is the same: to go back would change nothing")
    }
    var policy = SchemaPolicy.compatible
    for case .migrate(let settings) in steps.map(\.settings) { policy = settings.rollback }
    let stays = preparation.context.reported.values.contains { $0["pending"]?.arrayValue?.isEmpty == true }
    guard policy == .compatible || stays || request.options.acceptDataLoss else {
      return none(
        "with `rollback: \(policy.rawValue)` to go back could lose data, which the host doesn't decide by itself; --accept-data-loss decides it"
      )
    }
    let old: Playbook
    do { old = try client.playbook(of: current, only: [.recreate, .health]) } catch let error as OrchestrateError {
      return none("\(error.summary)\(error.cause.map { ": \($0)" } ?? "")")
    }

    var context = preparation.context
    context.options = DeployOptions()
    context.options.acceptDataLoss = request.options.acceptDataLoss
    (context.number, context.version) = (context.number + 1, current.version)
    (context.target, context.targetConfig) = (current, context.currentConfig)
    (context.current, context.currentConfig) = (new.release, new.config)
    (context.config, context.images, context.env) = (nil, [:], nil)
    (context.generated, context.registryPassword, context.values) = ([:], nil, [:])
    context.steps = steps
    context.reported = policy == .compatible || !stays ? [:] : ["watch": ["schema_stays": .bool(true)]]
    let selection = StepSelection(request.inventory, host: host)
    // The host is alone then: it can't ask a URL from outside.
    let back = Self.rollbackSteps(
      rollback.steps, target: old.steps.filter { !$0.isOfTheClient }, current: steps
    ).filter { selection.reason($0) == nil && !$0.isOfTheClient && !(context.schemaStays && $0.kind == .backup) }
    var assembly = StepAssembly(first: 1, below: "watch/", catalog: catalog)
    for spec in back where spec.kind.phase == .prepare { try assembly.append(spec, context: context) }
    try appendChanging(
      back.filter { $0.kind.phase > .prepare }, to: &assembly, draining: !context.schemaStays, context: context)
    assembly.batch.add(file: "watch/request", Array(wayBackDocument(to: current.version).text().utf8))
    assembly.batch.add(
      file: "watch/params",
      Array(
        shellAssignments([("WATCH", "\(max(1, watch.components.seconds))"), ("VERSION", preparation.context.version)])
          .utf8))
    return assembly.batch
  }

  /// Who opens the deployment that goes back; why, the host adds.
  private func wayBackDocument(to version: String) -> JSONValue {
    var object = JSONObject()
    object["who"] = .string("the watch over #\(number ?? 0)")
    object["since"] = .string(client.timestamp())
    object["command"] = .string("rollback")
    object["environment"] = .string(request.inventory.environment)
    object["app"] = .string(request.inventory.app)
    object["version"] = .string(version)
    object["from_version"] = toVersion.map { .string($0) }
    object["accept_data_loss"] = request.options.acceptDataLoss ? .bool(true) : nil
    object["k"] = .string(request.nonce + "w")
    return .object(object)
  }

  // MARK: - Behind the commit

  /// Until the watch is over; on a breach until the host has gone back.
  func followWatch() async throws {
    guard let seconds = reader.watch, reader.outcome == .committed else { return }
    guard request.follow else {
      let text =
        "the host watches \(toVersion ?? "the new release") for \(seconds.shortText), and goes back by itself on a breach"
      return emit(.notice(host: host, text: "\(text): orchestrate attach \(request.inventory.environment) follows it"))
    }
    isWatching = true
    if interrupted != nil { await leaveWatch() }
    let guardian = Task { await keepWatchAlive() }
    defer { guardian.cancel() }
    while !reader.isOver { _ = try await pump() }
    guard let ending = reader.watchEnding else { return }
    switch ending.reason {
    case "superseded":
      let by = ending.by.map { ": deployment #\($0) has begun" } ?? ""
      emit(.notice(host: host, text: "the watch has ended before its time\(by)"))
    case "gave-up":
      emit(.warning(host: host, text: "the watch has ended before its time: Docker on the host was away for too long"))
    case "aborted": emit(.notice(host: host, text: "the watch was ended by hand; what was deployed stays"))
    case "breached": try await followWayBack(ending.by ?? 0)
    default: break
    }
  }

  /// The log of the deployment that goes back, from its beginning.
  private func followWayBack(_ next: Int) async throws {
    let own = number
    watched = reader
    (reader, number, logOffset) = (EventReader(host: host), next, 0)
    logNonce = request.nonce + "w"
    defer { number = own }
    let used = attachment
    await used?.expectLog(nonce: logNonce)
    do { _ = try await used?.request("follow \(next) 0") } catch { try await reconnect(after: error, on: used) }
    startBeating()  // finds out whether its runner lives
    while try await !pump() {}
  }

  /// A runner that died in its watch is started again by systemd; where nobody does that, this side asks for it.
  private func keepWatchAlive() async {
    var missed = 0
    while !Task.isCancelled {
      do { try await client.sleep(.seconds(5)) } catch { return }
      guard watched == nil, let attachment, let number else { return }
      guard let state = try? await attachment.request("state \(number)") else { continue }
      missed = state.text == "dead" ? missed + 1 : 0
      guard missed == 2 else { continue }
      emit(.warning(host: host, text: "the runner on the host died; the watch is taken up again"))
      _ = try? await attachment.request("recover \(request.nonce)r")
      missed = 0
    }
  }

  /// There is nothing to abort any more: the host goes on without us.
  func leaveWatch() async {
    hasLeftWatch = true
    await attachment?.close()
  }

  var leftWatchError: OrchestrateError {
    let environment = request.inventory.environment
    guard watched == nil else {
      return OrchestrateError(
        .outcomeUnknown, "left: the host goes back to \(fromVersion ?? "the older release") by itself", host: host,
        remedy: "orchestrate attach \(environment)")
    }
    return OrchestrateError(
      .outcomeUnknown, "left: the host goes on watching, and goes back by itself on a breach", host: host,
      state: "\(toVersion ?? "the new release") is current", remedy: "orchestrate attach \(environment)")
  }

  /// A breach, whatever became of it; nil: there was none.
  var watchedEnding: WatchedEnding? {
    watched.map { WatchedEnding(watch: $0, back: reader, from: fromVersion, to: toVersion) }
  }
}

/// What a breach has led to.
struct WatchedEnding {
  /// Of the deployment that was watched, and of the one that went back.
  var watch: EventReader, back: EventReader
  var from: String?, to: String?

  func problem(host: String, environment: String, stuckHint: String) -> OrchestrateError? {
    let version = to ?? "the new release"
    let summary = "\(version) was not well in its watch: \(watch.watchEnding?.text ?? "")"
    switch back.outcome {
    case .committed:
      return OrchestrateError(
        .rolledBack, summary, host: host, state: "\(from ?? "the older release") is current again and healthy",
        remedy: "orchestrate logs \(environment), mend it, and deploy again")
    case nil, .unknown:
      return OrchestrateError(
        .outcomeUnknown, summary, host: host, state: "the host goes back by itself; how that ended isn't known here",
        remedy: "orchestrate attach \(environment)")
    case .stuck:
      return OrchestrateError(
        .rollbackFailed, summary, host: host, step: back.failedStep, cause: back.undoTail.joined(separator: "\n"),
        state: "the way back failed, and so did its undo: the host may be between two releases",
        remedy: "mend what stopped the undo, then: orchestrate rollback \(environment), which tries it again first"
          + (stuckHint.isEmpty ? "" : "; \(stuckHint)"))
    case .unchanged, .undone, .abandoned:
      return OrchestrateError(
        .rollbackFailed, summary, host: host, step: back.failedStep,
        cause: back.tail.isEmpty ? nil : back.tail.suffix(60).joined(separator: "\n"),
        state:
          "the way back (deployment \(watch.watchEnding?.by ?? 0)) failed too: \(version) is still current, and nobody watches it",
        remedy:
          "orchestrate status \(environment), then: orchestrate rollback \(environment), or deploy a version that is well"
      )
    }
  }

  /// The summary is that of the deployment that was watched.
  func fill(_ summary: inout DeploymentSummary) {
    switch back.outcome {
    // The older release is back, and has passed its gate.
    case .committed: (summary.outcome, summary.healthy) = (.undone, true)
    case .stuck: (summary.outcome, summary.healthy) = (.stuck, nil)
    default: summary.healthy = false
    }
  }
}

extension StepSpec {
  /// Only the client can do it.
  fileprivate var isOfTheClient: Bool {
    guard case .health(let settings) = settings, case .url = settings.probe else { return false }
    return true
  }
}

extension Double {
  /// `80 s`, `2 min`.
  fileprivate var shortText: String {
    let whole = Int(self)
    return whole >= 120 && whole % 60 == 0 ? "\(whole / 60) min" : "\(whole) s"
  }
}

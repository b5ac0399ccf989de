internal import Diagnostics
internal import Inventory

// How a deployment ends: what is true then, why, and which command comes next.

extension DeploymentRun {
  /// After a fault of the client's: the host undoes, and we wait for how it ended.
  func settle(after error: OrchestrateError) async -> OrchestrateError {
    guard number != nil, reader.outcome == nil, let attachment, error.code != .outcomeUnknown else { return error }
    if !refusedAsClosed { await interruptHost(attachment, reason: error.summary) }
    do { while try await !pump() {} } catch {
      return (error as? OrchestrateError) ?? OrchestrateError(.outcomeUnknown, Self.describe(error), host: host)
    }
    var settled = error
    if settled.state == nil { settled.state = stateText() }
    if reader.outcome == .stuck { settled.code = .rollbackFailed }
    if reader.outcome == .undone { settled.code = reader.errorCode ?? .rolledBack }
    // The host had closed the deployment before it was handed what it refused: its own reason is the one that counts.
    if refusedAsClosed, let told = problemOfOutcome() { return told }
    return settled
  }

  func interruptHost(_ attachment: Attachment, reason: String) async {
    guard let number else { return }
    interrupted = interrupted ?? reason
    roundTrips += 1
    _ = try? await attachment.request("abort \(number) \(reason.utf8.count)", body: Array(reason.utf8))
  }

  func stateText() -> String {
    switch reader.outcome {
    case .committed where request.isBootstrap: "the machine is prepared"
    case .undone where request.isBootstrap: "the machine is as it was before"
    case .committed: "\(toVersion ?? "the new release") is current"
    case .unchanged: "nothing was changed"
    case .undone where fromVersion == nil: "nothing runs, as before"
    case .undone:
      reader.healthy == false
        ? "\(fromVersion!) is current again, but isn't healthy\(reader.unhealthyBefore ? ": as before this deployment, which is not its doing" : "")\(schemaText)"
        : "\(fromVersion!) is current again\(reader.healthy == true ? " and healthy" : "")\(schemaText)"
    case .stuck: "the undo failed: the host may be between two releases\(schemaText)"
    case .abandoned: "its undo had failed, and a person has settled it by hand"
    case .unknown, nil: "the outcome isn't known"
    }
  }

  private var schemaText: String { reader.schema.map { "; schema: \($0)" } ?? "" }

  func problemOfOutcome() -> OrchestrateError? {
    if let watchedEnding {
      return watchedEnding.problem(
        host: host, environment: request.inventory.environment, stuckHint: stuckHint)
    }
    guard let outcome = reader.outcome else {
      return number == nil ? nil : OrchestrateError(.outcomeUnknown, "the outcome isn't known", host: host)
    }
    guard let code = reader.errorCode, !(outcome == .unchanged && nothingToDo) else { return nil }
    let failedStep = reader.failedStep
    if outcome == .unchanged, failedStep == nil, interrupted == nil, request.isRun { return nil }
    let environment = request.inventory.environment
    let summary: String
    if let failedStep {
      summary = "the step \(failedStep) failed"
    } else if let interrupted {
      summary = interrupted
    } else {
      summary = reader.undoText.flatMap { $0.isEmpty ? nil : $0 } ?? "the deployment failed"
    }
    var cause = failedStep == nil ? [] : Array(reader.tail.suffix(60))
    if outcome == .stuck { cause += ["The undo failed:"] + reader.undoTail }
    return OrchestrateError(
      code, summary, host: host, step: failedStep, cause: cause.isEmpty ? nil : cause.joined(separator: "\n"),
      state: stateText(),
      remedy: outcome == .stuck
        ? "mend what stopped the undo, then: orchestrate deploy \(environment) \(fromVersion ?? "VERSION"), which tries it again first; \(stuckHint)"
        : outcome == .unchanged || request.isBootstrap
          ? "mend it, then: \(sameCommand)"
          : "orchestrate logs \(environment), mend it, \(request.isRotation ? "then: \(sameCommand)" : "and deploy again")"
    )
  }

  var sameCommand: String {
    switch request.kind {
    case .deploy(let version): "orchestrate deploy \(request.inventory.environment) \(version)"
    case .rollback: "orchestrate rollback \(request.inventory.environment)"
    case .rotate(let key): "orchestrate secrets rotate \(request.inventory.environment) \(key)"
    case .run: "the same command again"
    case .bootstrap: "orchestrate bootstrap \(request.inventory.environment)"
    }
  }

  var stuckHint: String {
    "with --accept-data-loss also over what the new version has written; or settle it by hand, then: "
      + "orchestrate rollback \(request.inventory.environment) --abandon --reason TEXT"
  }

  func makeSummary(problem: OrchestrateError?) -> DeploymentSummary {
    let hasChanges = request.planOnly && plan?.isEmpty == false
    let status: ExitStatus = problem.map { ExitStatus($0.code) } ?? (hasChanges ? .planHasChanges : .done)
    var summary = DeploymentSummary(
      command: request.command, environment: request.inventory.environment, app: request.inventory.app, hosts: [host],
      exitStatus: status, seconds: client.uptime() - begun)
    summary.number = number
    summary.from = fromVersion
    summary.to = toVersion
    (watched ?? reader).fill(&summary)
    watchedEnding?.fill(&summary)
    if number != nil, reader.outcome == nil { summary.outcome = .unknown }
    summary.roundTrips = roundTrips
    summary.problem = problem.map(ProblemDocument.init)
    summary.next =
      problem?.remedy
      ?? (reader.outcome == .committed && watched == nil
        ? request.isBootstrap
          ? "orchestrate deploy \(request.inventory.environment) VERSION"
          : "orchestrate status \(request.inventory.environment)" : nil)
    return summary
  }
}

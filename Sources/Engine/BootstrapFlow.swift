internal import Diagnostics
internal import Inventory

/// Preparing a machine: look at all steps without a lock, show what they would change, then carry them out under it.
extension DeploymentRun {
  /// Steps that follow each risky one: the proof from here, and the end of the host's own revert.
  static let reachSuffix = "-reach"
  static let disarmSuffix = "-disarm"

  func bootstrap() async throws {
    try await connect()
    let (steps, leftOut) = preparation.select(request.playbook.steps)
    var looking = StepAssembly(first: 1, catalog: catalog)
    for spec in steps { try looking.append(spec, context: preparation.context) }
    guard let attachment else { return }
    roundTrips += 1
    var looked = preparation
    try await looked.look(looking.batch, attachment)
    preparation = looked

    let plan = try preparation.plan(steps: request.playbook.steps, leftOut: leftOut, catalog: catalog)
    emit(.planned(plan))
    self.plan = plan
    if plan.isEmpty {
      return emit(.notice(host: host, text: "the machine is as it should be: nothing to do"))
    }
    if request.planOnly { return }
    guard try await accepted(plan) else {
      throw OrchestrateError(.failed, "not accepted", host: host, state: "nothing was changed")
    }

    try await lock()
    emit(.opened(host: host, number: number ?? 0, from: nil, to: ""))
    // All of them: what one changes may be news to one behind it.
    var changing = StepAssembly(first: 1, catalog: catalog)
    for spec in steps {
      try changing.append(spec, context: preparation.context)
      guard case .host(let settings) = spec.settings, settings.isRisky, let armed = changing.batch.directories.last
      else { continue }
      changing.append(
        name: spec.name + Self.reachSuffix,
        StepPayload(script: "reach", side: .client, timeout: .seconds(90)))
      changing.append(
        name: spec.name + Self.disarmSuffix,
        StepPayload(script: "disarm", timeout: .seconds(60), parameters: [("STEP", armed)]))
    }
    _ = try await carryOut(changing, seal: true)
  }

  /// The proof that nobody was locked out, over a new connection.
  func prove() async -> ClientStepResult {
    do {
      try await client.reach()
      return ClientStepResult(succeeded: true, message: "a new connection gets in")
    } catch let error as OrchestrateError {
      let cause = error.cause.map { ": \($0)" } ?? ""
      return ClientStepResult(
        succeeded: false, message: "A new connection doesn't get in any more: \(error.summary)\(cause)")
    } catch {
      return ClientStepResult(succeeded: false, message: "A new connection doesn't get in any more: \(error)")
    }
  }
}

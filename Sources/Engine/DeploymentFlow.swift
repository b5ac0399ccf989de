internal import Diagnostics
internal import Inventory

/// The order of things: prepare, plan, ask, change.
extension DeploymentRun {
  func perform() async throws {
    try await open()
    switch request.kind {
    case .deploy: try await deploy()
    case .rollback(let version): try await rollBack(to: version)
    case .run: try await runOnCurrent()
    }
  }

  // MARK: - Deploy

  private func deploy() async throws {
    let resolved = try client.resolveEnv(host: hostEnv, generated: generatedEnv, current: context.current)
    context.env = resolved?.values
    context.envText = resolved?.text
    context.generated = resolved?.generated ?? [:]
    if let resolved {
      emit(.secrets(resolved.values.filter(\.isSecret).map { Secret($0.value) } + resolved.generated.values))
    }
    let steps = kept(request.playbook.steps)
    let preparing = steps.filter { $0.kind.phase == .prepare }
    let pulls = preparing.filter { $0.kind == .pull }

    // What must be known before the images are: the configuration as Compose on the host reads it.
    var first = Assembly(run: self, first: 1)
    for spec in preparing where spec.kind != .pull { try first.append(spec, context: context) }
    guard try await carryOut(first, seal: false) else { return }
    if let directory = first.directory(ofKind: .env) {
      context.config = try await fetchConfig(directory)
      let misread = catalog.misread(context, context.config!)
      guard misread.isEmpty else {
        throw OrchestrateError(
          .failed, "Compose on the host reads \(misread.joined(separator: ", ")) differently from what was written",
          host: host, step: "env")
      }
    }

    var second = Assembly(run: self, first: first.batch.following)
    for spec in pulls { try second.append(spec, context: context) }
    for spec in steps where spec.kind == .migrate {
      if let probe = catalog.probe(spec) { try second.append(name: "\(spec.name)-probe", kind: "migrate.probe", probe, context: context) }
    }
    guard try await carryOut(second, seal: false) else { return }
    takeImages(from: pulls.map(\.name))

    let plan = try makePlan(steps: steps)
    emit(.planned(plan))
    try refuse(plan)
    if plan.isEmpty && isUnchanged {
      nothingToDo = true
      emit(.notice(host: host, text: "\(context.version) runs already: nothing to do"))
      return try await end(reason: "nothing to do")
    }
    guard try await accepted(plan) else { return try await end(reason: "not accepted") }

    var third = Assembly(run: self, first: second.batch.following)
    try third.append(name: "seal", kind: "seal", catalog.seal, context: context)
    try appendChanging(steps.filter { $0.kind.phase > .prepare }, to: &third)
    _ = try await carryOut(third, seal: true)
  }

  /// The steps behind the plan, with the draining that the schema policy asks for before the backup.
  private func appendChanging(_ steps: [StepSpec], to assembly: inout Assembly) throws {
    var drained = false
    let drain = steps.lazy.compactMap { self.catalog.drain($0) }.first
    for spec in steps {
      if let drain, !drained, spec.kind == .backup || spec.kind == .migrate {
        try assembly.append(name: "drain", kind: "drain", drain, context: context)
        drained = true
      }
      try assembly.append(spec, context: context)
    }
  }

  private func kept(_ steps: [StepSpec]) -> [StepSpec] {
    steps.filter { spec in
      guard request.options.skip.contains(spec.name) else { return true }
      emit(.stepSkipped(host: host, step: spec.name, reason: "--skip"))
      return false
    }
  }

  /// Sends a batch and follows it. False: the deployment is closed.
  private func carryOut(_ assembly: Assembly, seal: Bool) async throws -> Bool {
    if assembly.batch.isEmpty && !seal { return true }
    try await send(assembly.batch, specs: assembly.specs, seal: seal)
    if seal, request.detach { _ = await detach() }
    return try await !pump()
  }

  private func end(reason: String) async throws {
    await interrupt(reason: reason)
    while try await !pump() {}
  }

  private func fetchConfig(_ directory: String) async throws -> ComposeConfig {
    let path = "\(HostPaths(project: request.inventory.project).deployment(context.number))/\(directory)/config.json"
    roundTrips += 1
    guard let reply = try await attachment?.request("get \(path)"), let text = reply.foundText else {
      throw OrchestrateError(.internalFault, "the host has no \(path)", host: host, step: "env")
    }
    do { return ComposeConfig(try JSONValue(parsing: text)) } catch {
      throw OrchestrateError(
        .failed, "what docker compose config printed isn't JSON", host: host, step: "env", cause: "\(error)")
    }
  }

  private func takeImages(from steps: [String]) {
    for step in steps {
      for (key, value) in context.reported[step] ?? [:] where key.hasPrefix("image.") {
        guard let reference = value["reference"]?.stringValue, let digest = value["digest"]?.stringValue,
          let id = value["id"]?.stringValue, let tag = value["tag"]?.stringValue
        else { continue }
        context.images[String(key.dropFirst("image.".count))] = Release.Image(
          reference: reference, digest: digest, id: id, tag: tag)
      }
    }
  }

  private var isUnchanged: Bool { context.current?.version == context.version }

  // MARK: - Plan

  func makePlan(steps: [StepSpec]) throws -> Plan {
    var plan = Plan(
      environment: request.inventory.environment, app: request.inventory.app, from: fromVersion, to: context.version)
    for spec in steps {
      let kind = catalog.kind(spec)
      plan.steps.append(StepPlan(step: spec.name, kind: spec.kind.rawValue, changes: try kind.plan(context)))
    }
    (plan.problems, plan.warnings) = catalog.inspect(context)
    return plan
  }

  private func refuse(_ plan: Plan) throws {
    guard !plan.problems.isEmpty else { return }
    throw OrchestrateError(
      .failed, plan.problems.count == 1 ? plan.problems[0] : "\(plan.problems.count) problems forbid the deployment",
      host: host, step: "preflight", cause: plan.problems.count == 1 ? nil : plan.problems.joined(separator: "\n"),
      remedy: "mend it, then: orchestrate plan \(request.inventory.environment) \(context.version)")
  }

  private func accepted(_ plan: Plan) async throws -> Bool {
    let risky = plan.steps.flatMap(\.changes).filter(\.losesData)
    if !risky.isEmpty, !request.options.acceptDataLoss {
      guard request.isInteractive else {
        throw OrchestrateError(
          .failed, "the plan can lose data: \(risky.map(\.subject).joined(separator: ", "))", host: host,
          remedy: "read the plan, then add --accept-data-loss")
      }
    } else if request.assumeYes || !request.isInteractive {
      return true
    }
    let question = DeploymentQuestion(
      id: "apply", text: risky.isEmpty ? "Carry out this plan?" : "This plan can lose data. Carry it out?",
      choices: risky.isEmpty ? ["yes", "no"] : ["no", "yes"], timeout: 300)
    emit(.asked(question))
    let answer = await client.ask(question) ?? "no"
    emit(.answered(question: question.id, answer: answer))
    return answer == "yes"
  }

  // MARK: - Rollback

  private func rollBack(to version: String?) async throws {
    guard let current = context.current else {
      throw OrchestrateError(.failed, "nothing runs here, so there is nothing to go back from", host: host)
    }
    let target = try await findTarget(version, current: current)
    context.target = target
    context.version = target.version
    toVersion = target.version
    let old = try client.playbook(text: target.playbook, name: "release \(target.number)")
    let now = try client.playbook(text: current.playbook, name: "release \(current.number)")
    let steps = kept(Self.rollbackSteps(request.playbook.steps, target: old.steps, current: now.steps))

    var first = Assembly(run: self, first: 1)
    for spec in steps where spec.kind.phase == .prepare { try first.append(spec, context: context) }
    guard try await carryOut(first, seal: false) else { return }
    let plan = try makePlan(steps: steps)
    emit(.planned(plan))
    try refuse(plan)
    guard try await accepted(plan) else { return try await end(reason: "not accepted") }
    var second = Assembly(run: self, first: first.batch.following)
    try appendChanging(steps.filter { $0.kind.phase > .prepare }, to: &second)
    _ = try await carryOut(second, seal: true)
  }

  /// The release to go back to: never one that didn't pass its gate, never simply the next lower number.
  private func findTarget(_ version: String?, current: Release) async throws -> Release {
    let paths = HostPaths(project: request.inventory.project)
    var next = current.previous
    var visited: Set<Int> = []
    while next > 0, visited.insert(next).inserted {
      roundTrips += 1
      guard let attachment, let text = try await attachment.request("get \(paths.release(next))/release.json").foundText else { break }
      var release = try Release(json: text, host: host)
      if version == nil || release.version == version {
        if let config = try await attachment.request("get \(paths.release(next))/effective.json").foundText,
          let value = try? JSONValue(parsing: config)
        {
          context.targetConfig = ComposeConfig(value)
        }
        release.number = next
        return release
      }
      next = release.previous
    }
    throw OrchestrateError(
      .failed,
      version.map { "there is no release \($0) on the host to go back to" } ?? "there is no older release than \(current.version) to go back to",
      host: host, state: "nothing was changed",
      remedy: "orchestrate history \(request.inventory.environment)")
  }

  /// The rollback's own steps, with the settings of the releases concerned: the gate and the services of the one that is gone back to, the schema's policy
  /// and the backup of the one that is left.
  static func rollbackSteps(_ steps: [StepSpec], target: [StepSpec], current: [StepSpec]) -> [StepSpec] {
    var result: [StepSpec] = []
    var policy = SchemaPolicy.compatible
    for case .migrate(let settings) in current.map(\.settings) { policy = settings.rollback }
    for spec in steps {
      switch spec.kind {
      case .backup:
        if policy != .compatible { result += current.filter { $0.kind == .backup } }
      case .migrate: result += current.filter { $0.kind == .migrate }
      case .recreate, .health:
        let old = target.filter { $0.kind == spec.kind }
        result += old.isEmpty ? [spec] : old
      default: result.append(spec)
      }
    }
    return result
  }

  // MARK: - Steps on the running release

  private func runOnCurrent() async throws {
    guard context.current != nil else {
      throw OrchestrateError(
        .failed, "nothing is deployed here yet", host: host, state: "nothing was changed",
        remedy: "orchestrate deploy \(request.inventory.environment) VERSION")
    }
    context.version = fromVersion ?? ""
    toVersion = fromVersion
    var assembly = Assembly(run: self, first: 1)
    for spec in kept(request.playbook.steps) { try assembly.append(spec, context: context) }
    _ = try await carryOut(assembly, seal: true)
  }
}

/// A batch while it is put together.
private struct Assembly {
  var batch: StepBatch
  var specs: [String: StepSpec] = [:]
  private let catalog: StepCatalog
  private var pastCommit = false

  init(run: DeploymentRun, first: Int) {
    batch = StepBatch(first: first)
    catalog = run.catalog
  }

  mutating func append(_ spec: StepSpec, context: StepContext) throws {
    let after = pastCommit || spec.kind.phase == .after
    batch.append(name: spec.name, kind: spec.kind.rawValue, payload: try catalog.kind(spec).payload(context), after: after)
    specs[batch.directories.last!] = spec
    if spec.kind == .commit { pastCommit = true }
  }

  mutating func append(name: String, kind: String, _ step: any StepKind, context: StepContext) throws {
    batch.append(name: name, kind: kind, payload: try step.payload(context), after: false)
  }

  func directory(ofKind kind: StepKindName) -> String? { batch.directories.first { specs[$0]?.kind == kind } }
}

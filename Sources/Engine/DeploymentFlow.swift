internal import Diagnostics
internal import Inventory

/// The order of things: prepare, plan, ask, change.
extension DeploymentRun {
  func perform() async throws {
    switch request.kind {
    case .bootstrap:
      try await bootstrap()
    case .deploy:
      try await open()
      try await deploy()
    case .rollback:
      try await open()
      try await rollBack()
    case .rotate:
      try await open()
      try await rotate()
    case .run:
      try await open()
      try await runOnCurrent()
    }
  }

  /// The first steps, if nobody has to be asked about them and nothing speaks against them. Changes the preparation, and says nothing.
  func batchAhead() throws -> StepBatch? {
    switch request.kind {
    case .deploy: try firstOfDeploy().batch
    case .rollback: try allOfRollback()?.batch
    default: nil
    }
  }

  // MARK: - Deploy

  /// The steps before the plan.
  private func firstOfDeploy() throws -> StepAssembly {
    if !takenAhead { try preparation.resolveEnv(client) }
    let (steps, _) = preparation.select(request.playbook.steps)
    var first = try preparation.describing(steps, catalog: catalog)
    try preparation.appendPulling(steps, to: &first)
    return first
  }

  private func deploy() async throws {
    let first = try firstOfDeploy()
    emit(.secrets(preparation.secrets))
    let (steps, leftOut) = kept(request.playbook.steps)
    try await send(first.batch, specs: first.specs, seal: false)
    if let directory = first.directory(ofKind: .env) {
      guard try await !pump(untilSuccess: directory) else { return }
      // The host goes on with pulling meanwhile.
      let path = "\(preparation.paths.deployment(number ?? 0))/\(directory)/config.json"
      try preparation.take(config: try await persist("get \(path)").foundText, path: path, catalog: catalog)
    }
    try refuse(problems: catalog.inspect(preparation.context).problems)
    guard try await !pump(through: first.batch.directories) else { return }
    preparation.takeImages(from: steps)

    let plan = try preparation.plan(steps: request.playbook.steps, leftOut: leftOut, catalog: catalog)
    emit(.planned(plan))
    try refuse(problems: plan.problems)
    if plan.isEmpty && preparation.from == preparation.context.version {
      nothingToDo = true
      emit(.notice(host: host, text: "\(preparation.context.version) runs already: nothing to do"))
      return try await end(reason: "nothing to do")
    }
    guard try await accepted(plan) else { return try await end(reason: "not accepted") }

    var second = StepAssembly(first: first.batch.following, catalog: catalog)
    try second.append(name: "seal", kind: "seal", catalog.seal, context: preparation.context)
    var changing = steps.filter { $0.kind.phase > .prepare }
    if preparation.context.isGoneBackTo {
      for spec in changing where spec.kind == .migrate {
        let reason = "\(preparation.context.version) was gone back to and runs on the schema as it is"
        emit(.stepSkipped(host: host, step: spec.name, reason: reason))
      }
      changing.removeAll { $0.kind == .migrate }
    }
    try appendChanging(changing, to: &second)
    if let back = try wayBack(behind: steps) { second.batch.carry(back) }
    _ = try await carryOut(second, seal: true)
    try await followWatch()
  }

  /// The steps behind the plan, with the draining that the schema policy asks for before the backup.
  func appendChanging(
    _ steps: [StepSpec], to assembly: inout StepAssembly, draining: Bool = true, context: StepContext? = nil
  ) throws {
    let context = context ?? preparation.context
    var drained = !draining
    let drain = steps.lazy.compactMap { self.catalog.drain($0) }.first
    var needsRoles = !context.roleChanges.isEmpty
    for spec in steps {
      if let drain, !drained, spec.kind == .backup || spec.kind == .migrate {
        try assembly.append(name: "drain", kind: "drain", drain, context: context)
        drained = true
      }
      if needsRoles, spec.kind.followsRoles {
        try assembly.append(
          name: Preparation.role, kind: Preparation.role, catalog.role, context: context)
        needsRoles = false
      }
      try assembly.append(spec, context: context)
    }
  }

  func kept(_ steps: [StepSpec]) -> (kept: [StepSpec], leftOut: [String: String]) {
    let (kept, leftOut) = preparation.select(steps)
    for spec in steps {
      if let reason = leftOut[spec.name] {
        emit(.stepSkipped(host: host, step: spec.name, reason: reason))
      } else if request.options.skip.contains(spec.name) {
        let text =
          "--skip \(spec.name) isn't followed on a first deployment: the step creates the services that keep data"
        emit(.notice(host: host, text: text))
      }
    }
    return (kept, leftOut)
  }

  /// Sends a batch and follows it. False: the deployment is closed.
  func carryOut(_ assembly: StepAssembly, seal: Bool) async throws -> Bool {
    if assembly.batch.isEmpty && !seal { return true }
    try await send(assembly.batch, specs: assembly.specs, seal: seal)
    if seal { await detachIfWanted() }
    guard seal else { return try await !pump(through: assembly.batch.directories) }
    while try await !pump() {}
    return false
  }

  func end(reason: String) async throws {
    await abort(reason: reason)
    while try await !pump() {}
  }

  // MARK: - Plan

  func refuse(problems: [String]) throws {
    guard !problems.isEmpty else { return }
    throw OrchestrateError(
      .failed, problems.count == 1 ? problems[0] : "\(problems.count) problems forbid the deployment",
      host: host, step: "preflight", cause: problems.count == 1 ? nil : problems.joined(separator: "\n"),
      remedy: request.isRun || request.isRotation
        ? "mend it, then \(request.isRun ? "" : ": ")\(sameCommand)"
        : "mend it, then: orchestrate plan \(request.inventory.environment) \(preparation.context.version)")
  }

  func accepted(_ plan: Plan) async throws -> Bool {
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
    return try await answer(to: question) == "yes"
  }

  // MARK: - Rollback

  /// Finds the release to go back to; before the lock, so that its holder says where to.
  func chooseTarget(_ version: String?) async throws {
    guard let current = preparation.context.current else {
      throw OrchestrateError(
        .failed, "nothing runs here, so there is nothing to go back from", host: host, state: "nothing was changed")
    }
    let (target, targetEnv) = try await findTarget(version, current: current)
    let old = try client.playbook(of: target, only: [.recreate, .health])
    let now = try client.playbook(of: current, only: [.backup, .migrate])
    preparation.context.steps = now.steps
    stepsBack = Self.rollbackSteps(request.playbook.steps, target: old.steps, current: now.steps)
    try StepSelection(request.inventory, host: host, skip: request.options.skip)
      .check(stepsBack, unneeded: now.steps.filter { $0.kind == .backup }.map(\.name))
    if version == nil { try await confirmAnother(current: current, target: target) }
    preparation.context.target = target
    preparation.context.version = target.version
    try preparation.carryOver(current: current, target: target, targetEnv: targetEnv, catalog, client)
    if let carried = preparation.context.carriedOver {
      emit(.secrets(carried.values.filter(\.isSecret).map { Secret($0.value) }))
    }
    toVersion = target.version
  }

  /// Two rollbacks in a row are rarely meant: half asleep, the first one seemed to do nothing.
  private func confirmAnother(current: Release, target: Release) async throws {
    guard current.copyOf > 0, let created = Timestamp(current.created),
      let now = preparation.context.facts.integer("epoch_ms"), now - created.milliseconds < 600_000, !request.assumeYes
    else { return }
    let text = "\(current.version) was rolled back to \((now - created.milliseconds) / 60_000) minutes ago"
    guard request.isInteractive else {
      throw OrchestrateError(
        .usage, text, host: host, state: "nothing was changed",
        remedy: "to go one further: orchestrate rollback \(request.inventory.environment) \(target.version)")
    }
    let question = DeploymentQuestion(
      id: "again", text: "\(text). Go back one further, to \(target.version)?", choices: ["no", "yes"], timeout: 300)
    guard try await answer(to: question) == "yes" else {
      throw OrchestrateError(.failed, "not rolled back again", host: host, state: "nothing was changed")
    }
  }

  /// All steps, where nobody is asked, the host need tell nothing for the plan, and nothing speaks against it; else nil.
  private func allOfRollback() throws -> StepAssembly? {
    let (steps, leftOut) = preparation.select(stepsBack)
    guard request.assumeYes || !request.isInteractive, preparation.context.roleChanges.isEmpty,
      !steps.contains(where: { catalog.schemaProbe($0) != nil })
    else { return nil }
    let plan = try planBack(leavingOut: leftOut)
    guard plan.problems.isEmpty, !plan.losesData else { return nil }
    preparation.context.options.acceptDataLoss = false  // a plan that loses nothing accepts nothing
    var all = StepAssembly(first: 1, catalog: catalog)
    for spec in steps where spec.kind.phase == .prepare { try all.append(spec, context: preparation.context) }
    try appendBack(steps, to: &all)
    return all
  }

  private func planBack(leavingOut leftOut: [String: String]) throws -> Plan {
    // With the schema where it should be there is nothing to keep writes from, and nothing to restore.
    let stays = preparation.context.schemaStays
    var plan = try preparation.plan(
      steps: stepsBack.filter { leftOut[$0.name] != nil || !(stays && $0.kind == .backup) }, leftOut: leftOut,
      catalog: catalog)
    plan.warnings += preparation.carriedWarnings
    return plan
  }

  private func appendBack(_ steps: [StepSpec], to assembly: inout StepAssembly) throws {
    let stays = preparation.context.schemaStays
    let changing = steps.filter { $0.kind.phase > .prepare && !(stays && $0.kind == .backup) }
    try appendChanging(changing, to: &assembly, draining: !stays)
  }

  private func rollBack() async throws {
    let (steps, leftOut) = kept(stepsBack)
    let all = try allOfRollback()
    var assembly = all ?? StepAssembly(first: 1, catalog: catalog)
    if all == nil {
      for spec in steps where spec.kind.phase == .prepare { try assembly.append(spec, context: preparation.context) }
      for spec in steps {
        guard let probe = catalog.schemaProbe(spec) else { continue }
        try assembly.append(
          name: spec.name + Preparation.probeSuffix, kind: "schema.probe", probe, context: preparation.context)
      }
      if !preparation.context.roleChanges.isEmpty {
        try assembly.append(
          name: Preparation.role + Preparation.probeSuffix, kind: "role.probe", catalog.roleProbe,
          context: preparation.context)
      }
      guard try await carryOut(assembly, seal: false) else { return }
      assembly = StepAssembly(first: assembly.batch.following, catalog: catalog)
    }
    let plan = try planBack(leavingOut: leftOut)
    emit(.planned(plan))
    try refuse(problems: plan.problems)
    guard try await accepted(plan) else { return try await end(reason: "not accepted") }
    // Whoever said yes to the plan has accepted what it loses.
    preparation.context.options.acceptDataLoss = plan.losesData
    if all == nil { try appendBack(steps, to: &assembly) }
    _ = try await carryOut(assembly, seal: true)
  }

  /// The release to go back to: never one that didn't pass its gate, never simply the next lower number.
  private func findTarget(_ version: String?, current: Release) async throws -> (release: Release, env: String?) {
    var next = current.previous
    var visited: Set<Int> = []
    while next > 0, visited.insert(next).inserted {
      let files = try await releaseFiles(next)
      guard let text = files.description else { break }
      var release = try Release(json: text, host: host)
      let config = files.config.flatMap { try? JSONValue(parsing: $0) }.map { ComposeConfig($0) }
      // The same version deployed again, since its containers were gone: to go back to it would change nothing.
      let isSame =
        release.version == current.version && release.env == current.env && config != nil
        && config == preparation.context.currentConfig
      if version == nil && !isSame || release.version == version {
        if let config { preparation.context.targetConfig = config }
        if let env = files.env { emit(.secrets(client.secrets(envFiles: [env], generated: nil))) }
        release.number = next
        return (release, files.env)
      }
      next = release.previous
    }
    throw OrchestrateError(
      .failed,
      version.map { "there is no release \($0) on the host to go back to" }
        ?? "there is no older release than \(current.version) to go back to",
      host: host, state: "nothing was changed",
      remedy: "orchestrate history \(request.inventory.environment)")
  }

  /// What came with the look, if it is that release's; somebody else's deployment may have ended in between.
  private func releaseFiles(_ number: Int) async throws -> Preparation.ReleaseFiles {
    if let previousFiles, let text = previousFiles.description, try Release(json: text, host: host).number == number {
      return previousFiles
    }
    roundTrips += 1
    return try await Preparation.ReleaseFiles(at: preparation.paths.release(number)) { try await self.persist($0) }
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
    guard preparation.context.current != nil else {
      throw OrchestrateError(
        .failed, "nothing is deployed here yet", host: host, state: "nothing was changed",
        remedy: "orchestrate deploy \(request.inventory.environment) VERSION")
    }
    preparation.context.version = preparation.from ?? ""
    toVersion = preparation.from
    var assembly = StepAssembly(first: 1, catalog: catalog)
    let (steps, _) = kept(request.playbook.steps)
    try refuse(problems: catalog.unknownServices(steps, preparation.context))
    for spec in steps { try assembly.append(spec, context: preparation.context) }
    _ = try await carryOut(assembly, seal: true)
  }
}

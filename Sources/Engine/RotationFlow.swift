internal import Diagnostics
internal import Inventory

// `secrets rotate`: a release of the running version with another value, and the database's role with it. A rollback brings roles back the same way.

extension StepKindName {
  /// From here on containers run with the new release's values: by then the database's roles have to have them.
  var followsRoles: Bool { self == .recreate || self == .health || self == .commit }
}

extension DeploymentRun {
  /// What the running release becomes, and its own gate and services; before the lock.
  func chooseRotation(of key: String) throws {
    guard let current = preparation.context.current else {
      throw OrchestrateError(
        .failed, "nothing is deployed here yet, so that there is no value to change", host: host,
        state: "nothing was changed",
        remedy: "orchestrate secrets set \(request.inventory.environment) \(key), then deploy")
    }
    try preparation.rotate(key, current: current, client)
    emit(.secrets(preparation.secrets))
    let now = try client.playbook(of: current, only: [.recreate, .health])
    preparation.context.steps = now.steps
    stepsBack = Self.rollbackSteps(request.playbook.steps, target: now.steps, current: now.steps)
    try StepSelection(request.inventory, host: host, skip: request.options.skip).check(stepsBack)
    toVersion = current.version
  }

  func rotate() async throws {
    let (steps, leftOut) = kept(stepsBack)
    var first = try preparation.describing(steps, catalog: catalog)
    guard let directory = first.directory(ofKind: StepKindName.env) else {
      throw OrchestrateError(.configuration, "the playbook has no env step: nothing would get the value", host: host)
    }
    guard try await carryOut(first, seal: false) else { return }
    let path = "\(preparation.paths.deployment(number ?? 0))/\(directory)/config.json"
    try preparation.take(config: try await persist("get \(path)").foundText, path: path, catalog: catalog)
    let rotated = try preparation.takeRotated(catalog, client)
    try refuse(problems: rotated.problems)
    if !preparation.context.roleChanges.isEmpty {
      first = StepAssembly(first: first.batch.following, catalog: catalog)
      try first.append(
        name: Preparation.role + Preparation.probeSuffix, kind: "role.probe", catalog.roleProbe,
        context: preparation.context)
      guard try await carryOut(first, seal: false) else { return }
    }
    var plan = try preparation.plan(steps: stepsBack, leftOut: leftOut, catalog: catalog)
    plan.warnings += rotated.warnings + [preparation.context.rotation?.note].compactMap(\.self)
    emit(.planned(plan))
    try refuse(problems: plan.problems)
    guard try await accepted(plan) else { return try await end(reason: "not accepted") }
    var second = StepAssembly(first: first.batch.following, catalog: catalog)
    try second.append(name: "seal", kind: "seal", catalog.seal, context: preparation.context)
    try appendChanging(steps.filter { $0.kind.phase > .prepare }, to: &second)
    _ = try await carryOut(second, seal: true)
  }
}

extension Preparation {
  /// What the host's Compose made of the new env tells what runs with it, and which roles change.
  mutating func takeRotated(_ catalog: StepCatalog, _ client: any DeploymentClient) throws -> RotatedConfig {
    guard var rotation = context.rotation, let config = context.config, let env = context.env else {
      throw OrchestrateError(.internalFault, "there is no rotation", host: host)
    }
    let roles = catalog.roles(config, context.inventory, env).merging(context.templateRoles) { $1 }
    let changed = rotation.changed
    for value in env where changed.contains(value.name) {
      guard let role = roles[value.name], !context.roleChanges.contains(where: { $0.role == role }) else { continue }
      context.roleChanges.append(
        RoleChange(role: role, name: value.name, verifier: try verifier(of: Secret(value.value), value.name, client)))
    }
    guard context.roleChanges.isEmpty || context.inventory.services.database != nil else {
      throw OrchestrateError(
        .configuration,
        "\(rotation.key) is the password of the role \(context.roleChanges[0].role), and the inventory names no database",
        host: host, state: "nothing was changed", remedy: "write services.database into the inventory")
    }
    try requireOneHost()
    let rotated = catalog.rotated(context)
    rotation.config = rotated.config
    context.rotation = rotation
    context.options.include.formUnion(rotated.services)
    return rotated
  }

  /// What was rotated since the older release ran keeps its present value: the older one was given up, is perhaps known to somebody, and the database doesn't
  /// take it any more.
  mutating func carryOver(
    current: Release, target: Release, targetEnv: String?, _ catalog: StepCatalog, _ client: any DeploymentClient
  ) throws {
    (context.roleChanges, context.carriedOver, carriedWarnings) = ([], nil, [])
    let carried = try client.carriedOver(from: current, host: hostEnv, to: target, env: targetEnv)
    context.templateRoles = carried.roles
    carriedWarnings = [carried.note].compactMap(\.self)
    var target = target
    target.roles = try roles(of: target, context.targetConfig, targetEnv, catalog)
    if !carried.after.isEmpty {
      context.carriedOver = carried
      let rotated = catalog.carriedOver(context)
      context.targetConfig = rotated.config
      carriedWarnings += rotated.warnings
      let changed = carried.changed
      for value in carried.values where changed.contains(value.name) {
        target.env[value.name] = context.sha256(Array(value.value.utf8))
      }
    }
    try bringBackRoles(current: current, target: target, targetEnv: targetEnv, catalog, client)
  }

  /// A role that has another password than the older release, and no rotation that this knows of: it gets that release's.
  private mutating func bringBackRoles(
    current: Release, target: Release, targetEnv: String?, _ catalog: StepCatalog, _ client: any DeploymentClient
  ) throws {
    guard context.inventory.services.database != nil else { return }
    let old = try Self.values(ofEnv: targetEnv)
    let own = try roles(of: current, context.currentConfig, hostEnv, catalog), before = target.roles ?? [:]
    let all = before.merging(context.templateRoles) { $1 }.merging(own) { $1 }
    let now = current.rolePasswords(own, others: all), then = target.rolePasswords(before, others: all)
    for (role, password) in then.sorted(by: { $0.key < $1.key }) where now[role]?.hash != password.hash {
      let carried = context.carriedOver?.values.first { $0.name == password.name }?.value
      guard let value = carried ?? old.first(where: { $0.name == password.name })?.value else { continue }
      let verifier = try verifier(of: Secret(value), password.name, client)
      context.roleChanges.append(
        RoleChange(role: role, name: password.name, verifier: verifier, backTo: target.version))
    }
    try requireOneHost()
  }

  /// The others' apps would be locked out of the database.
  private func requireOneHost() throws {
    guard let change = context.roleChanges.first, context.inventory.hosts.count > 1 else { return }
    throw OrchestrateError(
      .failed,
      "the database role \(change.role) would get another password, and this version works on one host at a time: the apps on the others would be locked out",
      host: host, state: "nothing was changed",
      remedy: "change \(change.name) and the role by hand, on all hosts at once")
  }

  /// As it was recorded; of a release of an older version of the tool, which could rotate nothing, by its compose file.
  private func roles(of release: Release, _ config: ComposeConfig?, _ env: String?, _ catalog: StepCatalog) throws
    -> [String: String]
  {
    if let roles = release.roles { return roles }
    guard let config else { return [:] }
    let values = try Self.values(ofEnv: env)
    return catalog.roles(
      config, context.inventory,
      values.map { ResolvedValue(name: $0.name, value: $0.value, isSecret: true, origin: .source(.host)) })
  }

  private static func values(ofEnv text: String?) throws -> [(name: String, value: String)] {
    try text.map { try EnvFile.read(Array($0.utf8), file: "the release's env file") } ?? []
  }

  private func verifier(of password: Secret, _ name: String, _ client: any DeploymentClient) throws -> Secret {
    if let verifier = client.verifier(of: password) { return verifier }
    throw OrchestrateError(
      .failed, "the value of \(name) can't be given to the database: only printable ASCII can be", host: host,
      state: "nothing was changed",
      remedy: "on the host, give the role its password by hand; or choose one of letters and digits")
  }
}

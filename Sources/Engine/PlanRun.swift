internal import Diagnostics
internal import Inventory

/// What `deploy` would do, found out without the lock and without touching anything that is live: the preparing steps run in a place of their own
/// on the host (queries/plan.query.sh), images included, since pending migrations are known only to the new image.
public struct PlanRun: Sendable {
  public var request: DeploymentRequest
  public var host: String
  public var catalog: StepCatalog
  public var client: any DeploymentClient
  public var sha256: @Sendable ([UInt8]) -> String
  /// Without it nothing is pulled, and what only the images know is unknown.
  public var pulls = true
  /// Is told the exchanges with the host that were waited for.
  public var measured: @Sendable (Int) -> Void = { _ in }
  public var emit: @Sendable (DeploymentEvent) -> Void

  public init(
    request: DeploymentRequest, host: String, catalog: StepCatalog, client: any DeploymentClient,
    sha256: @escaping @Sendable ([UInt8]) -> String, emit: @escaping @Sendable (DeploymentEvent) -> Void
  ) {
    self.request = request
    self.host = host
    self.catalog = catalog
    self.client = client
    self.sha256 = sha256
    self.emit = emit
  }

  /// Throws `OrchestrateError` where the plan can't be made, `ConfigurationError` where the env can't.
  public func run(version: String) async throws -> Plan {
    let attachment = try await client.attach(
      asking: Preparation.questions(HostPaths(project: request.inventory.project)))
    do {
      let plan = try await plan(version: version, attachment)
      await end(attachment)
      return plan
    } catch {
      await end(attachment)
      throw error
    }
  }

  /// What was fetched for the plan alone goes again; a host that can't be asked any more keeps it for `prune`.
  private func end(_ attachment: Attachment) async {
    _ = try? await attachment.request("query plan 0", body: [])
    measured(await attachment.flights)
    await attachment.close()
  }

  private func plan(version: String, _ attachment: Attachment) async throws -> Plan {
    var preparation = Preparation(request: request, host: host, version: version, sha256: sha256)
    preparation.take(
      try await Preparation.hostState(attachment, paths: preparation.paths, host: host), now: client.now())
    try preparation.requireDocker(catalog)
    try preparation.resolveEnv(client)
    emit(.secrets(preparation.secrets))
    let (steps, leftOut) = preparation.select(request.playbook.steps)

    let first = try preparation.describing(steps, catalog: catalog)
    try await carryOut(first, attachment, &preparation)
    if let directory = first.directory(ofKind: .env) {
      let path = try await scratch(attachment) + "/\(directory)/config.json"
      try preparation.take(config: try await attachment.request("get \(path)").foundText, path: path, catalog: catalog)
    }
    // A service that isn't there can't be asked for its migrations.
    if pulls, catalog.unknownServices(steps, preparation.context).isEmpty {
      var second = StepAssembly(first: first.batch.following, catalog: catalog)
      try preparation.appendPulling(steps, to: &second)
      try await carryOut(second, attachment, &preparation)
      preparation.takeImages(from: steps)
    }
    return try preparation.plan(steps: request.playbook.steps, leftOut: leftOut, catalog: catalog)
  }

  private func scratch(_ attachment: Attachment) async throws -> String {
    let reply = try await attachment.request("query scratch 0", body: [])
    return reply.text.split(whereSeparator: \.isWhitespace).first.map(String.init) ?? ""
  }

  private func carryOut(_ assembly: StepAssembly, _ attachment: Attachment, _ preparation: inout Preparation)
    async throws
  {
    guard !assembly.batch.isEmpty else { return }
    try await preparation.look(assembly.batch, attachment)
  }
}

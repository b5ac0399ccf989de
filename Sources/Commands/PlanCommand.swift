internal import ArgumentParser
internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Steps
internal import Synchronization
internal import Views

struct PlanCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "plan",
    abstract: "What `deploy` would do, by step, with differences; changes nothing.",
    discussion: """
      Takes no lock. Images are pulled, since only the new image knows which migrations are pending; --no-pull leaves that unknown.
      Exit status: 0 nothing to do, 2 there are changes.

      Examples:
        orchestrate plan prod v1.4.0
        orchestrate plan prod v1.4.0 --json
      """)

  @Argument(help: "The environment.") var environment: String
  @Argument(help: "The version that would be deployed.") var version: String
  @Option(help: ArgumentHelp("Leave this step out.", valueName: "step")) var skip: [String] = []
  @Option(
    help: ArgumentHelp("Also bring this service outside services.app up to the compose file.", valueName: "service"))
  var include: [String] = []
  @Option(
    name: .customLong("set"),
    help: ArgumentHelp("A variable of the playbook or a value of the env file.", valueName: "name=value"))
  var assignments: [String] = []
  @Flag(inversion: .prefixedNo, help: "Pull the images.") var pull = true
  @OptionGroup var global: GlobalOptions

  func validate() throws {
    _ = try parseAssignments(assignments)
    try validateVersion(version)
  }

  func run() async throws {
    let set = try parseAssignments(assignments)
    let session = ProjectSession(global)
    let context = session.context
    let loaded = try session.load(environment: environment, playbook: "deploy", version: version, set: set)
    let host = try session.host(of: loaded.inventory)
    let vault = try session.vaultValues(loaded.inventory, root: loaded.project.root)
    var request = DeploymentRequest(
      kind: .deploy(version: version), inventory: loaded.inventory, playbook: loaded.playbook,
      playbookText: loaded.playbookText, holder: session.holder(reason: nil), nonce: SecureRandom.word(16).lowercased())
    request.options.skip = Set(skip)
    request.options.include = Set(include)
    request.variables = loaded.variables
    try StepSelection(loaded.inventory, host: host.name, skip: request.options.skip).check(loaded.playbook.steps)
    request.projectFiles = try session.projectFiles(loaded)
    let connector = HostConnector(host, inventory: loaded.inventory, projectRoot: loaded.project.root, context: context)
    let client = LiveDeploymentClient(
      connector: connector, session: session, loaded: loaded, flags: set, version: version, vault: vault)
    let masker = Masker()
    var run = PlanRun(
      request: request, host: host.name, catalog: .standard(loaded.playbook), client: client,
      sha256: { SHA256.hex($0) },
      emit: { if case .secrets(let secrets) = $0 { masker.add(secrets) } })
    run.pulls = pull
    let flights = Mutex(0), began = ContinuousClock.now
    run.measured = { count in flights.withLock { $0 = count } }
    let plan: Plan
    do {
      plan = try await run.run(version: version)
    } catch var error as OrchestrateError {
      error.cause = error.cause.map { masker.mask($0) }
      throw error
    }
    let timings =
      global.timings
      ? CommandTimings(
        host: host.name, connect: await connector.timings, flights: flights.withLock { $0 },
        seconds: began.duration(to: .now).seconds) : nil
    await connector.close()
    if global.format(context) == .json {
      context.payload(masker.mask(jsonValue(of: plan).with(timings).text()) + "\n")
    } else {
      if let timings { context.narrate(text(of: timings, style: context.errorStyle)) }
      context.payload(masker.mask(text(of: plan, style: context.style)))
    }
    if !plan.problems.isEmpty { throw ExitCode(ExitStatus.failed.rawValue) }
    if !plan.isEmpty { throw ExitCode(ExitStatus.planHasChanges.rawValue) }
  }
}

func validateVersion(_ version: String) throws {
  guard isImageTag(version) else {
    throw ValidationError(
      "\(version) can't be a version: letters, digits, dots, dashes and underscores, as in an image's tag")
  }
}

internal import Crypto
internal import Diagnostics
internal import Engine
internal import HTTP
internal import Inventory
internal import Steps

/// The machine that the tool runs on, as the engine needs it.
struct LiveDeploymentClient: DeploymentClient {
  let connector: HostConnector
  let session: ProjectSession
  let loaded: LoadedProject
  /// `--set NAME=value` for the env file.
  var flags: [String: String] = [:]
  var version: String
  /// What the vault has, by name.
  var vault: [String: String] = [:]
  /// `secrets rotate`: the new value.
  var rotation: RotationSource?

  func attach(asking: [String]) async throws -> Attachment { try await connector.attach(asking: asking) }

  func resolveEnv(
    host: String?, generated: String?, current: Release?, hasVolumes: Bool, machine: MachineSize?
  ) throws -> ResolvedEnv? {
    guard let template = loaded.template else { return nil }
    let inventory = loaded.inventory
    var request = EnvRequest(
      from: inventory.env.from, builtins: ["VERSION": version], environment: inventory.environment,
      generate: { length in SecureRandom.word(length) })
    let present = try values(host, "the running release's env file")
    request.values = [
      .flags: flags, .environment: session.context.environment, .vault: vault, .host: present,
      .generated: try values(generated, "the host's generated.env"),
    ]
    request.defaultedOnHost = Set(current?.envDefaults ?? [])
    request.databaseVolumeExists = current != nil || hasVolumes
    func plan(beside values: [String: String]?) -> Result<MemoryPlan, MemoryShortage>? {
      machine.map { machine in
        Result { () throws(MemoryShortage) in try loaded.memoryPlan(machine, values: values) }
      }
    }
    request.memory = plan(beside: nil)
    var resolution = try template.resolve(request)
    if template.plansMemory {
      // What the compose file promises to others may follow values, too.
      request.memory = plan(
        beside: Dictionary(resolution.values.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 }))
      resolution = try template.resolve(request)
    }
    var made: [String: Secret] = [:]
    for value in resolution.values where resolution.generated.contains(value.name) {
      made[value.name] = Secret(value.value)
    }
    let places = SecretPlaces(inventory)
    return ResolvedEnv(
      values: resolution.values.map { places.placed($0, present: present, current: current) }, generated: made,
      roles: template.roles)
  }

  func rotation(of key: String, host: String?, generated: String?, current: Release) throws -> Rotation {
    guard let rotation else { throw OrchestrateError(.internalFault, "no value is being changed") }
    return try rotation.rotation(
      of: key, loaded, secrets: HostSecrets(session, inventory: loaded.inventory),
      present: try host.map { try EnvFile.read(Array($0.utf8), file: "the running release's env file") } ?? [],
      sources: [
        .environment: session.context.environment, .vault: vault,
        .generated: try values(generated, "the host's generated.env"),
      ], current: current)
  }

  func carriedOver(from current: Release, host: String?, to target: Release, env: String?) throws -> Rotation {
    let read = { (text: String?) in
      try text.map { try EnvFile.read(Array($0.utf8), file: "a release's env file") } ?? []
    }
    var carried = PresentValues(HostSecrets(session, inventory: loaded.inventory))
      .carried(over: current, to: target, older: try read(env), present: try read(host))
    carried.roles = loaded.template?.roles ?? [:]
    return carried
  }

  func verifier(of password: Secret) -> Secret? {
    do {
      return SCRAMVerifier.make(
        password: password.reveal(), salt: try SecureRandom.bytes(SCRAMVerifier.saltCount)
      ).map { Secret($0) }
    } catch { preconditionFailure("no random numbers: \(error.message)") }
  }

  private func values(_ text: String?, _ file: String) throws -> [String: String] {
    guard let text else { return [:] }
    return Dictionary(
      try EnvFile.read(Array(text.utf8), file: file).map { ($0.name, $0.value) }, uniquingKeysWith: { $1 })
  }

  func secrets(envFiles: [String], generated: String?) -> [Secret] {
    HostSecrets(session, inventory: loaded.inventory).values(files: envFiles, generated: generated)
  }

  func registryPassword() throws -> Secret? {
    guard let registry = loaded.inventory.registry else { return nil }
    let sources = [flags, session.context.environment, vault]
    guard let value = sources.lazy.compactMap({ $0[registry.password] }).first(where: { !$0.isEmpty }) else {
      throw ConfigurationError([
        Diagnostic(
          at: nil, "the password of the registry \(registry.server) has no value",
          help:
            "set the variable \(registry.password), or: orchestrate secrets set \(loaded.inventory.environment) \(registry.password)"
        )
      ])
    }
    return Secret(value)
  }

  func now() -> Int64 { Timestamp.now().milliseconds }

  func playbook(of release: Release, only kinds: Set<StepKindName>) throws -> Playbook {
    try session.playbook(of: release, inventory: loaded.inventory, only: kinds)
  }

  func ask(_ question: DeploymentQuestion) async -> String? {
    guard session.context.isInteractive else { return nil }
    // The question itself was shown by the view, which knows what else stands on the terminal.
    guard let line = await session.context.readLine("") else { return nil }
    let word = line.lowercased()
    if word.isEmpty { return question.choices.first }
    return question.choices.first { $0.hasPrefix(word) } ?? "no"
  }

  func perform(_ step: StepSpec, context: StepContext) async -> ClientStepResult {
    guard case .health(let settings) = step.settings, case .url(let url) = settings.probe else {
      return ClientStepResult(succeeded: false, message: "\(step.name) isn't a step of the client's")
    }
    return await URLGate(url: url, settings: settings).run(sleep: { try await self.sleep($0) }, uptime: uptime)
  }

  func reach() async throws { try await connector.reach() }

  func sleep(_ duration: Duration) async throws { try await Task.sleep(for: duration) }

  func uptime() -> Double {
    let now = ContinuousClock.now
    return Self.start.duration(to: now).seconds
  }
  private static let start = ContinuousClock.now

  func timestamp() -> String { Timestamp.now().description }
}

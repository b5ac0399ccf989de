internal import Diagnostics
internal import Inventory

/// What is found out before anything is changed: the host's facts, the env values, the configuration as Compose reads it, the images.
/// `deploy` does it under the lock, `plan` without; this is what they share.
struct Preparation: Sendable {
  let request: DeploymentRequest
  let host: String
  var context: StepContext
  private(set) var hostEnv: String?
  private var generatedEnv: String?
  /// Rollback: what should be known of the values that stay.
  var carriedWarnings: [String] = []

  init(request: DeploymentRequest, host: String, version: String, sha256: @escaping @Sendable ([UInt8]) -> String) {
    self.request = request
    self.host = host
    context = StepContext(
      inventory: request.inventory, version: version, number: 0, facts: HostFacts(), options: request.options,
      playbookText: request.playbookText, sha256: sha256)
    context.host = request.inventory.hosts.first { $0.name == host }
    context.variables = request.variables
    context.projectFiles = request.projectFiles
    context.values = request.values
    context.steps = request.playbook.steps
  }

  var paths: HostPaths { HostPaths(project: request.project) }
  var from: String? { context.current?.version }

  /// What the host says before anything is asked of it.
  struct HostState: Sendable {
    var facts: HostFacts
    var release: Release?
    var config: ComposeConfig?
    var env: String?
    var generated: String?
    var previous: ReleaseFiles?
  }

  /// The files of a release on the host that a rollback to it needs; nil: not there.
  struct ReleaseFiles: Sendable {
    var description: String?
    var config: String?
    /// Values in files included.
    var env: String?

    static let names = ["release.json", "effective.json", ".env", ".secrets"]

    static func whole(env: String?, secrets: String?) -> String? {
      env.map { secrets == nil ? $0 : $0 + "\n" + secrets! }
    }

    init(at directory: String, get: @escaping @Sendable (String) async throws -> Reply) async throws {
      async let description = get("get \(directory)/release.json")
      async let config = get("get \(directory)/effective.json")
      async let env = get("get \(directory)/.env")
      async let secrets = get("get \(directory)/.secrets")
      (self.description, self.config) = try await (description.foundText, config.foundText)
      self.env = Self.whole(env: try await env.foundText, secrets: try await secrets.foundText)
    }
  }

  /// What `hostState` asks, for the command line. The facts are the last: the files before them are read while Docker is asked.
  static func questions(_ paths: HostPaths, withPrevious: Bool = false) -> [String] {
    let release = { (directory: String) in ReleaseFiles.names.map { "get \(directory)/\($0)" } }
    return release(paths.current) + ["get \(paths.state)/generated.env"]
      + (withPrevious ? release(paths.previous) : []) + ["facts"]
  }

  /// Facts and the running release, in one flight; for a rollback with the one before it.
  static func hostState(
    _ attachment: Attachment, paths: HostPaths, host: String, withPrevious: Bool = false
  ) async throws -> HostState {
    async let previous =
      withPrevious ? ReleaseFiles(at: paths.previous) { try await attachment.request($0) } : nil
    async let facts = attachment.request("facts")
    async let release = attachment.request("get \(paths.current)/release.json")
    async let config = attachment.request("get \(paths.current)/effective.json")
    async let environment = attachment.request("get \(paths.current)/.env")
    async let secrets = attachment.request("get \(paths.current)/.secrets")
    async let generated = attachment.request("get \(paths.state)/generated.env")
    var state = HostState(facts: HostFacts(parsing: try await facts.text))
    state.previous = try await previous
    state.env = ReleaseFiles.whole(env: try await environment.foundText, secrets: try await secrets.foundText)
    state.generated = try await generated.foundText
    if let text = try await release.foundText {
      do { state.release = try Release(json: text, host: host) } catch let error as OrchestrateError {
        throw paths.withCure(error)
      }
    } else if let number = state.facts.currentRelease {
      throw paths.withCure(
        OrchestrateError(
          .failed, "\(paths.current) names release \(number), which isn't there (or has no release.json)", host: host))
    }
    if let text = try await config.foundText, let value = try? JSONValue(parsing: text) {
      state.config = ComposeConfig(value)
    }
    return state
  }

  /// - Parameter now: the client's clock, in milliseconds since 1970.
  mutating func take(_ state: HostState, now: Int64) {
    context.now = now
    context.facts = state.facts
    context.current = state.release
    context.currentConfig = state.config
    hostEnv = state.env
    generatedEnv = state.generated
  }

  /// Without Docker nothing can be done on a host, nor undone: told before anything begins, with whatever else is wrong by then.
  func requireDocker(_ catalog: StepCatalog) throws {
    let facts = context.facts
    let missing = [("docker_server", "Docker"), ("compose", "Docker Compose")].first {
      facts.values[$0.0]?.isEmpty == true
    }
    guard let missing, request.playbook.steps.contains(where: { $0.kind != .run })
    else { return }
    let problems = catalog.inspect(context).problems
    // A playbook without preflight inspects nothing.
    throw OrchestrateError(
      .failed, problems.first ?? "\(missing.1) on the host can't be used: \(facts["docker_error"])", host: host,
      step: "preflight",
      cause: problems.count < 2 ? nil : problems.dropFirst().joined(separator: "\n"), state: "nothing was changed",
      remedy: "mend it on the host, then: orchestrate doctor \(request.inventory.environment)")
  }

  mutating func resolveEnv(_ client: any DeploymentClient) throws {
    let resolved = try client.resolveEnv(
      host: hostEnv, generated: generatedEnv, current: context.current, hasVolumes: !context.facts["volumes"].isEmpty,
      machine: context.facts.machine)
    context.env = resolved?.values
    context.registryPassword = try client.registryPassword()
    context.generated = resolved?.generated ?? [:]
    context.templateRoles = resolved?.roles ?? [:]
  }

  /// The running release with another value: its version, its images, its configuration.
  mutating func rotate(_ key: String, current: Release, _ client: any DeploymentClient) throws {
    let rotation = try client.rotation(of: key, host: hostEnv, generated: generatedEnv, current: current)
    context.rotation = rotation
    context.env = rotation.values
    context.generated = rotation.kept
    context.templateRoles = rotation.roles
    context.images = current.images
    context.version = current.version
  }

  /// The same of what the host has already: what runs now may print it.
  func secretsOfHost(_ client: any DeploymentClient) -> [Secret] {
    client.secrets(envFiles: [hostEnv].compactMap { $0 }, generated: generatedEnv)
  }

  /// Values that no view may show.
  var secrets: [Secret] {
    let all = (context.env ?? []).filter(\.isSecret).map { Secret($0.value) } + Array(context.generated.values)
    return all + [context.registryPassword].compactMap { $0 } + Array(context.values.values)
  }

  /// The steps that run, and why the others don't, by name.
  func select(_ steps: [StepSpec]) -> (kept: [StepSpec], leftOut: [String: String]) {
    let selection = StepSelection(request.inventory, host: host, skip: request.options.skip)
    var leftOut: [String: String] = [:]
    for spec in steps where !makesTheDatabase(spec) || selection.reason(spec) != StepSelection.skipped {
      leftOut[spec.name] = selection.reason(spec)
    }
    return (steps.filter { leftOut[$0.name] == nil }, leftOut)
  }

  /// On a first deployment the backup step creates database and cache: `--skip` doesn't mean that. There is nothing to back up yet.
  func makesTheDatabase(_ spec: StepSpec) -> Bool {
    guard case .deploy = request.kind, spec.kind == .backup, context.current == nil else { return false }
    return request.inventory.services.database != nil || request.inventory.services.cache != nil
  }

  /// The preparing steps but pull: after them the configuration is known.
  func describing(_ steps: [StepSpec], catalog: StepCatalog) throws -> StepAssembly {
    var assembly = StepAssembly(first: 1, catalog: catalog)
    for spec in steps where spec.kind.phase == .prepare && spec.kind != .pull {
      try assembly.append(spec, context: context)
    }
    return assembly
  }

  /// Pull, and what only the new images can tell.
  func appendPulling(_ steps: [StepSpec], to assembly: inout StepAssembly) throws {
    for spec in steps where spec.kind == .pull { try assembly.append(spec, context: context) }
    for spec in steps where spec.kind == .migrate {
      guard let probe = assembly.catalog.probe(spec) else { continue }
      try assembly.append(name: spec.name + Self.probeSuffix, kind: "migrate.probe", probe, context: context)
    }
  }

  static let probeSuffix = "-probe"
  static let role = "role"

  mutating func take(config text: String?, path: String, catalog: StepCatalog) throws {
    guard let text else {
      throw OrchestrateError(.internalFault, "the host has no \(path)", host: host, step: "env")
    }
    let config: ComposeConfig
    do { config = ComposeConfig(try JSONValue(parsing: text)) } catch {
      throw OrchestrateError(
        .failed, "what docker compose config printed isn't JSON", host: host, step: "env", cause: "\(error)")
    }
    context.config = config
    let misread = catalog.misread(context, config)
    guard misread.isEmpty else {
      throw OrchestrateError(
        .failed, "Compose on the host reads \(misread.joined(separator: ", ")) differently from what was written",
        host: host, step: "env", state: "nothing was changed")
    }
  }

  /// Runs steps on the host as a plan does: without the lock, away from everything that is live. Keeps the facts that they tell.
  mutating func look(_ steps: StepBatch, _ attachment: Attachment) async throws {
    var batch = steps
    batch.add(file: "nonce", Array("\(request.nonce)\n".utf8))
    let tar = batch.tar
    let reply = try await attachment.request("query plan \(tar.count)", body: tar, deadline: nil)
    var parser = DeploymentLogParser(nonce: request.nonce)
    var lines: [String] = []
    for item in parser.append(reply.body + [0x0a]) {
      switch item.content {
      case .line(let bytes): if !bytes.isEmpty { lines.append(String(decoding: bytes, as: UTF8.self)) }
      case .event(let event): take(fact: event)
      }
    }
    guard reply.tag == "output" else {
      throw OrchestrateError(
        .failed, "the plan can't be made", host: host, cause: lines.suffix(40).joined(separator: "\n"),
        state: "nothing was changed", remedy: "mend it, then plan again")
    }
  }

  mutating func take(fact event: RunnerEvent) {
    guard event.name == "fact", let directory = event.step, let key = event.members["key"]?.stringValue,
      let value = event.members["value"]
    else { return }
    context.reported[StepBatch.name(of: directory), default: [:]][key] = value
  }

  mutating func takeImages(from steps: [StepSpec]) {
    for step in steps where step.kind == .pull {
      for (key, value) in context.reported[step.name] ?? [:] where key.hasPrefix("image.") {
        guard let reference = value["reference"]?.stringValue, let digest = value["digest"]?.stringValue,
          let id = value["id"]?.stringValue, let tag = value["tag"]?.stringValue
        else { continue }
        context.images[String(key.dropFirst("image.".count))] = Release.Image(
          reference: reference, digest: digest, id: id, tag: tag)
      }
    }
  }

  /// - Parameter leftOut: why steps don't run, by name.
  func plan(steps: [StepSpec], leftOut: [String: String], catalog: StepCatalog) throws -> Plan {
    var plan = Plan(
      environment: request.inventory.environment, app: request.inventory.app, from: from, to: context.version)
    for spec in steps {
      if let reason = leftOut[spec.name] {
        plan.steps.append(StepPlan(step: spec.name, kind: spec.kind.rawValue, changes: []))
        plan.steps[plan.steps.count - 1].skipped = true
        plan.steps[plan.steps.count - 1].reason = reason
        continue
      }
      if !context.roleChanges.isEmpty, spec.kind.followsRoles, !plan.steps.contains(where: { $0.kind == Self.role }) {
        plan.steps.append(StepPlan(step: Self.role, kind: Self.role, changes: try catalog.role.plan(context)))
      }
      plan.steps.append(
        StepPlan(step: spec.name, kind: spec.kind.rawValue, changes: try catalog.kind(spec).plan(context)))
    }
    (plan.problems, plan.warnings) = catalog.inspect(context)
    plan.memory = catalog.memory(context)
    return plan
  }
}

/// A batch while it is put together.
struct StepAssembly: Sendable {
  var batch: StepBatch
  private(set) var specs: [String: StepSpec] = [:]
  let catalog: StepCatalog
  private var pastCommit = false

  init(first: Int, below folder: String = "", catalog: StepCatalog) {
    batch = StepBatch(first: first, below: folder)
    self.catalog = catalog
  }

  mutating func append(_ spec: StepSpec, context: StepContext) throws {
    let after = pastCommit || spec.kind.phase == .after
    batch.append(
      name: spec.name, kind: spec.kind.rawValue, payload: try catalog.kind(spec).payload(context), after: after)
    specs[batch.directories.last!] = spec
    if spec.kind == .commit { pastCommit = true }
  }

  mutating func append(name: String, kind: String, _ step: any StepKind, context: StepContext) throws {
    batch.append(name: name, kind: kind, payload: try step.payload(context), after: false)
  }

  mutating func append(name: String, _ payload: StepPayload) {
    batch.append(name: name, kind: payload.script, payload: payload, after: false)
  }

  func directory(ofKind kind: StepKindName) -> String? { batch.directories.first { specs[$0]?.kind == kind } }
}

internal import ArgumentParser
internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Views

struct EnvCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "env",
    abstract: "The env file that a deploy would write, by name: where each value comes from, never a secret.",
    discussion: """
      Examples:
        orchestrate env prod
        orchestrate env prod --diff
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @Flag(help: "Only what differs from the running release.") var diff = false
  @Option(name: .customLong("set"), help: ArgumentHelp("A value of the env file.", valueName: "name=value"))
  var assignments: [String] = []
  @OptionGroup var global: GlobalOptions

  func validate() throws { _ = try parseAssignments(assignments) }

  func run() async throws {
    let command = try ReadingCommand(global, environment: environment)
    let paths = command.paths
    var questions = ["get \(paths.current)/release.json"] + HostSecrets.questions(paths)
    // Facts take Docker's time; without such values nobody needs them.
    let plansMemory = command.session.loader.template(of: command.inventory)?.plansMemory == true
    if plansMemory { questions.append("facts") }
    let vault = try command.session.vaultValues(command.inventory, root: command.loaded.project.root)
    let asked = questions
    let (release, env, generated, facts) = try await command.converse(asking: asked) { attachment in
      async let release = attachment.request(asked[0])
      async let env = attachment.request(asked[1])
      async let inFiles = attachment.request(asked[2])
      async let generated = attachment.request(asked[3])
      async let facts = plansMemory ? attachment.request(asked[4]).text : ""
      let files = [try await env.found, try await inFiles.found].compactMap(\.self)
      return (
        try await release.found, files.isEmpty ? nil : files.joined(separator: "\n"), try await generated.found,
        try await facts
      )
    }
    let current = try release.map { try Release(json: $0, host: command.host.name) }
    let loaded = try command.session.load(
      environment: environment, playbook: "deploy", version: current?.version ?? "v0", only: [])
    let client = LiveDeploymentClient(
      connector: command.connector, session: command.session, loaded: loaded, flags: try parseAssignments(assignments),
      version: current?.version ?? "", vault: vault)
    let resolved = try client.resolveEnv(
      host: env, generated: generated, current: current, hasVolumes: false, machine: HostFacts(parsing: facts).machine)
    var document = EnvDocument(
      environment: command.inventory.environment, app: command.inventory.app, host: command.host.name)
    var before = current?.env ?? [:]
    for value in resolved?.values ?? [] {
      let old = before.removeValue(forKey: value.name)
      let difference: EnvDocument.Entry.Difference =
        old == nil ? .added : old == SHA256.hex(Array(value.value.utf8)) ? .same : .changed
      document.entries.append(
        .init(
          name: value.name, secret: value.isSecret, origin: value.origin.description, value: value.value,
          difference: difference))
    }
    for name in before.keys.sorted() { document.entries.append(.init(name: name, secret: true, difference: .removed)) }
    if diff { document.entries.removeAll { $0.difference == .same } }
    try command.answer(document, global) { document.text(width: $1, style: $0) }
  }
}

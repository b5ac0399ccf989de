internal import ArgumentParser
internal import Engine
internal import Inventory
internal import Views

struct HealthCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "health",
    abstract: "Ask the running release's gates once; exit status 1 if one isn't healthy.",
    discussion: """
      Gates inside containers are asked on the host; `url:` gates from here, over the way that users take.

      Examples:
        orchestrate health prod
        orchestrate health prod --json
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let command = try ReadingCommand(global, environment: environment)
    let paths = command.paths
    let description = "get \(paths.current)/release.json"
    let (answer, running, masker) = try await command.converse(
      asking: ["query health 0", description] + HostSecrets.questions(paths)
    ) { attachment in
      async let masker = command.masker(attachment)
      async let release = attachment.request(description)
      return (try await attachment.request("query health 0"), try await release.found, try await masker)
    }
    var document = HealthDocument(
      environment: command.inventory.environment, app: command.inventory.app,
      probes: HealthDocument.Probe.all(in: answer.text))
    for index in document.probes.indices { document.probes[index].host = command.host.name }
    let playbook = try self.playbook(ofRelease: running, command)
    for step in playbook.steps {
      guard case .health(var settings) = step.settings, case .url(let url) = settings.probe else { continue }
      settings.within = .zero
      settings.stable = .zero
      let result = await URLGate(url: url, settings: settings).run(sleep: { _ in }, uptime: { 0 })
      var probe = HealthDocument.Probe(probe: url, healthy: result.succeeded)
      probe.message = result.message
      document.probes.append(probe)
    }
    if answer.tag != "output", document.probes.allSatisfy(\.healthy) {
      var probe = HealthDocument.Probe(probe: "host", healthy: false)
      probe.host = command.host.name
      probe.message = answer.text
      document.probes.append(probe)
    }
    try command.answer(document, global, masker: masker) { document.text(width: $1, style: $0) }
    if !document.isGood { throw ExitCode(1) }
  }

  /// The gates are those that the running release has passed; with nothing deployed, today's.
  private func playbook(ofRelease text: String?, _ command: ReadingCommand) throws -> Playbook {
    guard let text else {
      return try command.session.load(environment: environment, playbook: "deploy", only: [.health]).playbook
    }
    let release = try Release(json: text, host: command.host.name)
    return try command.session.playbook(of: release, inventory: command.inventory, only: [.health])
  }
}

internal import ArgumentParser
internal import Diagnostics
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
        orchestrate health prod --after-boot --within 2m
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @Flag(
    help:
      "After a boot: wait until all is well, and tell how long after the boot that was. Fails if there was no boot since the last deployment."
  )
  var afterBoot = false
  @Option(help: ArgumentHelp("With --after-boot: how long to wait.", valueName: "duration"))
  var within: DurationArgument = DurationArgument(.seconds(120))
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let deadline = ContinuousClock.now + within.duration
    while true {
      let seen: Look
      do {
        seen = try await look()
      } catch let error as OrchestrateError
        where error.code == .unreachable && afterBoot && ContinuousClock.now < deadline
      {
        try await Task.sleep(for: .seconds(1))  // it may be booting at this moment
        continue
      }
      if afterBoot {
        try seen.checkBoot(environment: seen.command.inventory.environment)
        if !seen.document.isGood, ContinuousClock.now < deadline {
          try await Task.sleep(for: .seconds(1))
          continue
        }
      }
      var document = seen.document
      if afterBoot, document.isGood { document.secondsAfterBoot = seen.facts.integer("boot_age").map(Double.init) }
      try seen.command.answer(document, global, masker: seen.masker) { document.text(width: $1, style: $0) }
      if !document.isGood { throw ExitCode(1) }
      return
    }
  }

  /// All gates, asked once.
  private struct Look {
    var command: ReadingCommand
    var document: HealthDocument
    var masker: Masker
    var facts: HostFacts
    /// Boot id and uptime of the last client's last sign of life.
    var heartbeat: String

    func checkBoot(environment: String) throws {
      let last = heartbeat.split(whereSeparator: \.isWhitespace).first.map(String.init)
      guard let last else {
        throw OrchestrateError(.failed, "nothing was ever deployed here", host: command.host.name)
      }
      guard last == facts["boot_id"] else { return }
      throw OrchestrateError(
        .failed, "the machine hasn't booted since the last deployment", host: command.host.name,
        cause: "it has run for \(facts["boot_age"]) s", remedy: "orchestrate health \(environment)")
    }
  }

  private func look() async throws -> Look {
    let command = try ReadingCommand(global, environment: environment)
    let paths = command.paths
    let beat = "get \(paths.state)/heartbeat"
    let description = "get \(paths.current)/release.json"
    let boot = afterBoot ? ["facts", beat] : []
    let (answer, running, masker, facts, heartbeat) = try await command.converse(
      asking: boot + ["query health 0", description] + HostSecrets.questions(paths)
    ) { attachment in
      async let masker = command.masker(attachment)
      async let release = attachment.request(description)
      async let facts = boot.isEmpty ? nil : attachment.request("facts")
      async let heartbeat = boot.isEmpty ? nil : attachment.request(beat)
      return (
        try await attachment.request("query health 0"), try await release.found, try await masker,
        HostFacts(parsing: try await facts?.text ?? ""), try await heartbeat?.found ?? ""
      )
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
    return Look(command: command, document: document, masker: masker, facts: facts, heartbeat: heartbeat)
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

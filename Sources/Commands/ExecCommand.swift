internal import ArgumentParser
internal import Diagnostics
internal import Inventory

struct ExecCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "exec",
    abstract: "Run a command in the running container of a service.",
    discussion: """
      The command's exit status is passed on; 255 stands for faults of our own.

      Examples:
        orchestrate exec prod bot -- python -m bot.report
        orchestrate exec prod postgres -- psql -U market
      """)

  @Argument(help: "The environment.") var environment: String
  @Argument(help: "The Compose service.") var service: String
  @Argument(parsing: .postTerminator, help: "The command and its arguments, behind --.") var command: [String]
  @OptionGroup var global: GlobalOptions

  func validate() throws {
    if command.isEmpty { throw ValidationError("exec needs a command behind --") }
  }

  func run() async throws {
    let session = ProjectSession(global)
    let loaded = try session.loader.inventory(environment: environment)
    let host = try session.host(of: loaded.inventory)
    try await RemoteTerminal.run(
      on: HostConnector(host, inventory: loaded.inventory, projectRoot: loaded.project.root, context: session.context),
      context: session.context
    ) { terminal in
      RemoteCommands.exec(project: loaded.inventory.project, service: service, command: command, terminal: terminal)
    }
  }
}

struct LogsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "logs",
    abstract: "What the services wrote, replaced containers included.",
    discussion: """
      Examples:
        orchestrate logs prod
        orchestrate logs prod bot -f
        orchestrate logs prod bot --since 10m
      """)

  @Argument(help: "The environment.") var environment: String
  @Argument(help: "The Compose service. Default: all.") var service: String?
  @Flag(name: [.short, .long], help: "Go on as more is written.") var follow = false
  @Option(help: ArgumentHelp("Only what was written since, e.g. 10m.", valueName: "duration")) var since: String?
  @Option(
    name: [.customShort("n"), .long], help: ArgumentHelp("Only the last lines of each container.", valueName: "count"))
  var tail: Int?
  @OptionGroup var global: GlobalOptions

  func validate() throws {
    if let tail, tail < 0 { throw ValidationError("--tail \(tail): how many lines, 0 or more") }
  }

  func run() async throws {
    let session = ProjectSession(global)
    let loaded = try session.loader.inventory(environment: environment)
    let host = try session.host(of: loaded.inventory)
    let command = RemoteCommands.logs(
      project: loaded.inventory.project, service: service, follow: follow, since: since, lines: tail)
    try await RemoteTerminal.stream(
      command,
      on: HostConnector(host, inventory: loaded.inventory, projectRoot: loaded.project.root, context: session.context),
      secrets: HostSecrets(session, inventory: loaded.inventory), context: session.context)
  }
}

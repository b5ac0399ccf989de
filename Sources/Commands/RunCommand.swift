internal import ArgumentParser
internal import Engine

struct RunCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run",
    abstract: "Run a playbook of your own on the running release.",
    discussion: """
      Examples:
        orchestrate run prod warm-up
        orchestrate run prod reindex --set table=events
      """)

  @Argument(help: "The environment.") var environment: String
  @Argument(help: "The playbook: playbooks/NAME.yml.") var playbook: String
  @Option(name: .customLong("set"), help: ArgumentHelp("A variable of the playbook.", valueName: "name=value"))
  var assignments: [String] = []
  @OptionGroup var write: WriteOptions
  @OptionGroup var global: GlobalOptions

  func validate() throws { _ = try parseAssignments(assignments) }

  func run() async throws {
    let command = DeploymentCommand(
      global: global, write: write, environment: environment, playbook: playbook, set: try parseAssignments(assignments)
    )
    try await command.run(.run(playbook: playbook))
  }
}

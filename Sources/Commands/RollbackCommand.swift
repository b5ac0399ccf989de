internal import ArgumentParser
internal import Engine

struct RollbackCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rollback",
    abstract: "Go back to the release before, or to an older version that is still on the host.",
    discussion: """
      Brings back its images (by digest), its own env and compose file; the schema by the recorded policy only.

      Examples:
        orchestrate rollback
        orchestrate rollback prod
        orchestrate rollback prod v1.3.2 --reason "v1.4.0 loses messages"
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @Argument(help: "The version to go back to. Default: the release before.") var version: String?
  @Option(help: ArgumentHelp("Leave this step out; recorded in the history.", valueName: "step")) var skip: [String] =
    []
  @Flag(help: "Carry out a rollback that can lose data.") var acceptDataLoss = false
  @OptionGroup var write: WriteOptions
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    var command = DeploymentCommand(
      global: global, write: write, environment: environment, playbook: "rollback", version: version)
    command.options.skip = Set(skip)
    command.options.acceptDataLoss = acceptDataLoss
    try await command.run(.rollback(to: version))
  }
}

internal import ArgumentParser
internal import Engine

struct RollbackCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rollback",
    abstract: "Go back to the release before, or to an older version that is still on the host.",
    discussion: """
      Brings back its images (by digest), its own env and compose file; the schema by the recorded policy only. Values that were rotated since it ran \
      keep their present ones.

      Examples:
        orchestrate rollback
        orchestrate rollback prod
        orchestrate rollback prod v1.3.2 --reason "v1.4.0 loses messages"
        orchestrate rollback prod --abandon --reason "table restored by hand, v1.3.2 started"

      --abandon is for a deployment whose undo failed (exit status 4), once you have brought the host to a state that you want: it is closed as it \
      stands, nothing of it is undone any more, and the history keeps your reason. Containers that it had started don't come back by themselves \
      after a reboot until the next deploy. Without it the next deploy or rollback tries the undo again first.
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @Argument(help: "The version to go back to. Default: the release before.") var version: String?
  @Option(help: ArgumentHelp("Leave this step out; recorded in the history.", valueName: "step")) var skip: [String] =
    []
  @Flag(help: "Carry out a rollback that can lose data.") var acceptDataLoss = false
  @Flag(help: "Close the deployment that is stuck as it stands: you have settled it by hand. Wants --reason.")
  var abandon = false
  @OptionGroup var write: WriteOptions
  @OptionGroup var global: GlobalOptions

  func validate() throws {
    guard abandon else { return }
    if version != nil || !skip.isEmpty || acceptDataLoss || write.detach {
      throw ValidationError("--abandon undoes nothing: it takes no version, --skip, --accept-data-loss or --detach")
    }
    if write.reason?.contains(where: { !$0.isWhitespace }) != true {
      throw ValidationError("--abandon wants --reason: the history must tell what was settled by hand")
    }
  }

  func run() async throws {
    if abandon {
      let reading = try ReadingCommand(global, environment: environment)
      return try await Abandonment(command: reading, global: global, write: write, reason: write.reason ?? "").run()
    }
    var command = DeploymentCommand(
      global: global, write: write, environment: environment, playbook: "rollback", version: version)
    command.options.skip = Set(skip)
    command.options.acceptDataLoss = acceptDataLoss
    try await command.run(.rollback(to: version))
  }
}

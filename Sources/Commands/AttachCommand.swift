internal import ArgumentParser
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Views

struct AttachCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attach",
    abstract: "Follow the running deployment, or show how the last one ended.",
    discussion: """
      Exit status: that of the deployment: 0 committed, 1 failed and nothing was changed, 3 rolled back, 4 the rollback failed.
      Ctrl-C leaves (7), and the deployment goes on.

      Examples:
        orchestrate attach prod
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let summary = try await CommandContext.reporting { context, queue in
      try await follow(DeploymentScreen(global, context: context, queue: queue))
    }
    if summary.exitStatus != 0 { throw ExitCode(summary.exitStatus) }
  }

  private func follow(_ screen: DeploymentScreen) async throws -> DeploymentSummary {
    defer { screen.end() }
    let command = try ReadingCommand(global, environment: environment)
    let follower = DeploymentFollower(host: command.host.name, paths: command.paths) { screen.view.handle($0) }
    let name = command.inventory.environment
    let interrupts = Interrupts { _ in
      screen.leaveIfConcluded()
      screen.leave("left; the deployment goes on, on the host: orchestrate attach \(name)")
    }
    let secrets = HostSecrets(command.session, inventory: command.inventory)
    let summary = try await command.converse(
      asking: ["facts"] + HostSecrets.questions(command.paths)
    ) { attachment in
      let facts = HostFacts(parsing: try await attachment.request("facts").text)
      let number = Int(facts["open"]) ?? Int(facts["sequence"])
      screen.view.handle(.secrets(try await secrets.values(attachment, deployment: number)))
      return try await follower.follow(attachment, inventory: command.inventory)
    }
    await screen.conclude(summary)
    interrupts.end()
    return summary
  }
}

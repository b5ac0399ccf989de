internal import ArgumentParser
internal import Diagnostics
internal import Engine
internal import Inventory

struct BootstrapCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bootstrap",
    abstract: "Prepare a machine: packages, the deploying user, sshd, firewall, Docker, updates; safe to run again.",
    discussion: """
      A fresh machine is entered as root, a prepared one as the inventory's user, who becomes root by sudo. What could lock you out is undone by the \
      host itself unless a new connection gets in. The playbook is playbooks/bootstrap.yml, else the built-in one.

      Examples:
        orchestrate bootstrap prod --plan
        orchestrate bootstrap prod
        orchestrate bootstrap prod --user ubuntu

      Exit status: 0 done, or nothing to do; with --plan 2 if something would change; 1 failed and nothing was changed, 3 failed and undone.
      """)

  @Argument(help: "The environment.") var environment: String
  @Flag(help: "Show what would change, and change nothing: on a prepared machine, its drift.") var plan = false
  @Option(
    help: ArgumentHelp(
      "The account of a fresh machine that lets you in. Default: the inventory's user, then root.", valueName: "name"))
  var user: String?
  @OptionGroup var write: WriteOptions
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let session = ProjectSession(global)
    let inventory = try session.loader.inventory(environment: environment).inventory
    let own = try session.host(of: inventory).user
    var command = DeploymentCommand(global: global, write: write, environment: environment, playbook: "bootstrap")
    command.accounts = user.map { [$0] } ?? [own, "root"].compactMap(\.self)
    command.planOnly = plan
    try await command.run(.bootstrap)
  }
}

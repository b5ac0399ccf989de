internal import ArgumentParser
internal import Engine
internal import Inventory

struct BackupCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup",
    abstract: "Back the database up now, as the deploy playbook's backup step does: read back in full, with a receipt.",
    discussion: """
      Examples:
        orchestrate backup prod
        orchestrate backup prod --reason "before the clean-up"
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @OptionGroup var write: WriteOptions
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    try await DeploymentCommand(global: global, write: write, environment: environment, playbook: "deploy")
      .run(.run(playbook: "backup"), only: [.backup]) { only(.backup, of: $0, else: .backup(BackupSettings())) }
  }
}

struct PruneCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prune",
    abstract:
      "Remove old releases, images and logs, as the deploy playbook's prune step does; never what a kept release needs.",
    discussion: """
      Examples:
        orchestrate prune prod
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @OptionGroup var write: WriteOptions
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    try await DeploymentCommand(global: global, write: write, environment: environment, playbook: "deploy")
      .run(.run(playbook: "prune"), only: [.prune]) { only(.prune, of: $0, else: .prune(PruneSettings())) }
  }
}

/// The steps of one kind, with the settings that the deploy playbook gives them; without one there, the default.
private func only(_ kind: StepKindName, of playbook: Playbook, else settings: StepSettings) -> Playbook {
  let steps = playbook.steps.filter { $0.kind == kind }
  return Playbook(
    name: kind.rawValue, steps: steps.isEmpty ? [StepSpec(name: kind.rawValue, settings: settings)] : steps)
}

internal import ArgumentParser
internal import Diagnostics
internal import Vault

struct SecretsRekeyCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rekey",
    abstract: "Give the vault a new data key: every value is encrypted anew for the same recipients.",
    discussion: """
      Examples:
        orchestrate secrets rekey prod
      """)

  @Argument(help: "The environment.") var environment: String
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let context = CommandContext.current
    let file = try VaultFile(global, environment: environment, context: context)
    _ = try file.change { (vault: inout Vault) throws(VaultError) in try vault.rekey() }
    context.narrate("\(file.name) has a new data key\n")
  }
}

struct SecretsRecipientsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "recipients",
    abstract: "Who can open the vault.",
    discussion: """
      Examples:
        orchestrate secrets recipients add prod age1qqp…
        orchestrate secrets recipients add prod "$(cat ci.pub)"
        orchestrate secrets recipients rm prod age1qqp…
      """,
    subcommands: [Add.self, Remove.self])

  struct Add: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "add",
      abstract: "Let one more key open the vault: age1… or an ssh-ed25519 public key.",
      discussion: """
        Examples:
          orchestrate secrets recipients add prod age1qqp…
          orchestrate secrets recipients add prod "ssh-ed25519 AAAA… ada@laptop"
        """)

    @Argument(help: "The environment.") var environment: String
    @Argument(help: "The recipient.") var recipient: String
    @OptionGroup var global: GlobalOptions

    func run() async throws {
      let context = CommandContext.current
      let recipient = try readRecipient(recipient)
      let file = try VaultFile(global, environment: environment, context: context)
      let written = try file.change { (vault: inout Vault) throws(VaultError) in _ = try vault.add(recipient) }
      context.narrate(
        written
          ? "\(recipient) can open \(file.name) now\n" : "\(recipient) is a recipient already; nothing was written\n")
    }
  }

  struct Remove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "rm",
      abstract: "Take a recipient off the list; the vault gets a new data key.",
      discussion: """
        Whoever could open the vault knows its values, and Git keeps the old file: change the secrets themselves, too.

        Examples:
          orchestrate secrets recipients rm prod age1qqp…
        """)

    @Argument(help: "The environment.") var environment: String
    @Argument(help: "The recipient.") var recipient: String
    @OptionGroup var global: GlobalOptions

    func run() async throws {
      let context = CommandContext.current
      let recipient = try readRecipient(recipient)
      let file = try VaultFile(global, environment: environment, context: context)
      _ = try file.change { (vault: inout Vault) throws(VaultError) in try vault.remove(recipient) }
      context.narrate(
        "\(recipient) can't open \(file.name) any more; the values that it has seen should be changed\n")
    }
  }
}

private func readRecipient(_ text: String) throws -> Recipient {
  do { return try Recipient(text) } catch {
    throw OrchestrateError(.usage, error.message, state: "nothing was written")
  }
}

internal import ArgumentParser
internal import Crypto
internal import Diagnostics
internal import Engine
internal import Vault
internal import Views

struct SecretsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "secrets",
    abstract: "The environment's encrypted secrets: a SOPS file for age recipients, kept in Git.",
    discussion: """
      The vault is what the inventory names as `secrets:`, else inventories/ENV.secrets.yml. Keys are looked for in this order:
      ORCHESTRATE_VAULT_KEY, SOPS_AGE_KEY, SOPS_AGE_KEY_FILE, SOPS_AGE_SSH_PRIVATE_KEY_FILE, ~/.config/orchestrate/keys.txt,
      ~/.config/sops/age/keys.txt, ~/.ssh/id_ed25519.

      Examples:
        orchestrate secrets keygen
        orchestrate secrets edit prod
        orchestrate secrets set prod TELEGRAM_TOKEN
        orchestrate secrets rotate prod DB_PASSWORD
        orchestrate secrets recipients add prod age1…
      """,
    subcommands: [
      SecretsKeygenCommand.self, SecretsEditCommand.self, SecretsGetCommand.self, SecretsSetCommand.self,
      SecretsUnsetCommand.self, SecretsRotateCommand.self, SecretsListCommand.self, SecretsRekeyCommand.self,
      SecretsRecipientsCommand.self,
      SecretsMergeCommand.self,
    ])
}

struct SecretsKeygenCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keygen",
    abstract: "Make a key of your own; prints its recipient, which others may see.",
    discussion: """
      The key goes into a file that only you can read; an existing one is never overwritten. `age` and `sops` read it as well.

      Examples:
        orchestrate secrets keygen
        orchestrate secrets keygen --file ci.key
      """)

  @Option(help: ArgumentHelp("Where to. Default: ~/.config/orchestrate/keys.txt.", valueName: "path")) var file: String?
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let context = CommandContext.current
    guard
      let path = file.map({ $0.hasPrefix("/") ? $0 : context.workingDirectory + "/" + $0 })
        ?? IdentitySources.keyFile(context.environment)
    else {
      throw OrchestrateError(.usage, "there is no HOME to keep the key in", remedy: "name a file: --file PATH")
    }
    let identity: Identity
    do { identity = try Identity.generate() } catch {
      throw OrchestrateError(.failed, error.message, state: "nothing was written")
    }
    guard let secret = identity.secretText else { return }
    let recipient = "\(identity.recipient)"
    let text = "# made by orchestrate secrets keygen: \(Timestamp.now())\n# public key: \(recipient)\n\(secret)\n"
    do {
      try PrivateFile.create(path, Array(text.utf8))
    } catch let error as PrivateFile.Fault {
      throw OrchestrateError(
        .failed, "the key can't be written to \(path)", cause: error.reason, state: "nothing was written",
        remedy: "a key that is there is kept: use it, or name another file with --file")
    }
    if global.format(context) == .json {
      context.payload(jsonValue(of: KeyDocument(file: path, recipient: recipient)).text() + "\n")
    } else {
      context.narrate("written \(path) (readable by you alone; keep a copy where you would find it again)\n")
      context.payload(recipient + "\n")
    }
  }
}

struct SecretsListCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "The names in the vault and its recipients, never a value; needs no key.",
    discussion: """
      Examples:
        orchestrate secrets list prod
        orchestrate secrets list prod --json
      """)

  @Argument(help: "The environment.") var environment: String
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let context = CommandContext.current
    let file = try VaultFile(global, environment: environment, context: context)
    let index = try file.index()
    let document = VaultDocument(
      environment: environment, file: file.name, lastModified: index.lastModified,
      keys: index.entries.map { .init(name: $0.name, type: $0.kind?.rawValue, encrypted: $0.kind != nil) },
      recipients: index.recipients, otherKeys: index.otherKeys)
    if global.format(context) == .json {
      context.payload(jsonValue(of: document).text() + "\n")
    } else {
      context.payload(document.text(width: .max, style: context.style))
    }
  }
}

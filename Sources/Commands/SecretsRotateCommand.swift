internal import ArgumentParser
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Vault

struct SecretsRotateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rotate",
    abstract:
      "Give a name of the env file a new value, on the host and in the vault: one deployment, undone if it isn't healthy.",
    discussion: """
      A new release of the version that runs, with another value of KEY and of what is made from it. Where KEY is the password of a database role, the \
      role gets it right before the services that use it are recreated; the database's container isn't touched. Unless the health gate passes, \
      everything is undone, the role too.

      The new value is the vault's, if somebody has set another one there; else it is generated as the env template says, or a random word as long as \
      the old one; with --stdin it is read from there, or asked for without echo. A value that came from the vault is set in the vault once the release is committed.

      Examples:
        orchestrate secrets rotate prod DB_PASSWORD
        orchestrate secrets rotate prod DB_PASSWORD --yes --reason "a laptop was lost"
        orchestrate secrets rotate prod TELEGRAM_TOKEN --stdin < token.txt

      Exit status: as of deploy; 4 also where the host has the new value and the vault couldn't be written.
      """)

  @Argument(help: "The environment.") var environment: String
  @Argument(help: "The name in the env template.") var key: String
  @Flag(help: "Read the new value from stdin; at a terminal it is asked for, without echo.") var stdin = false
  @OptionGroup var write: WriteOptions
  @OptionGroup var global: GlobalOptions

  func validate() throws {
    if let equals = key.firstIndex(of: "=") {
      throw ValidationError(
        "\(key[..<equals])=…: the value is never an argument; give the name alone, and the value on stdin (--stdin)")
    }
    if write.detach { throw ValidationError("--detach: the vault is written from here, after the commit") }
  }

  func run() async throws {
    let context = CommandContext.current
    let given = stdin ? Secret(try await SecretInput(environment: environment, key: key).read(context)) : nil
    let source = RotationSource(given: given)
    let file = try VaultFile(global, environment: environment, context: context)
    try checkVault(file, context)
    var command = DeploymentCommand(global: global, write: write, environment: environment, playbook: "rotate")
    command.rotation = source
    let summary = try await command.carryOut(.rotate(key: key))
    if let value = source.forVault {
      switch summary.outcome {
      case .committed: try update(file, value, context)
      case .unknown:
        context.narrate(
          "\(file.name) was not changed: if the rotation is committed after all (orchestrate attach \(environment)), \(catchingUp)\n"
        )
      default: break
      }
    }
    if summary.exitStatus != 0 { throw ExitCode(summary.exitStatus) }
  }

  /// How the vault gets the value that the host has already.
  private var catchingUp: String {
    stdin
      ? "set the same value there: orchestrate secrets set \(environment) \(key)"
      : "once more: orchestrate secrets rotate \(environment) \(key)"
  }

  /// What would keep the vault from being written after the commit is told before anything changes.
  private func checkVault(_ file: VaultFile, _ context: CommandContext) throws {
    let inventory = try ProjectSession(global, context: context).loader.inventory(environment: environment).inventory
    guard inventory.env.from.contains(.vault), let bytes = try file.read() else { return }
    let vault = try file.open(bytes)
    let path = vault.path(key)
    guard vault.entries.contains(where: { $0.path == path }) else { return }
    try file.explained { () throws(VaultError) in try vault.checkEncrypts(path) }
    try file.checkWritable()
  }

  private func update(_ file: VaultFile, _ value: Secret, _ context: CommandContext) throws {
    do {
      let written = try file.change { (vault: inout Vault) throws(VaultError) in
        let path = vault.path(key)
        try vault.checkEncrypts(path)
        try vault.set(VaultValue(value.reveal()), at: path)
      }
      if written { context.narrate("\(key) is set in \(file.name): commit it\n") }
    } catch {
      let fault = error as? OrchestrateError
      throw OrchestrateError(
        .rollbackFailed, "\(key) is changed on the host, but \(file.name) couldn't be written",
        cause: fault.map { $0.summary + ($0.cause.map { ": \($0)" } ?? "") } ?? "\(error)",
        state: "the host runs with the new value; the vault has the old one, which the next deploy refuses",
        remedy: "mend it, then \(catchingUp)")
    }
  }
}

internal import ArgumentParser
internal import Diagnostics
internal import Engine
internal import Synchronization
internal import Vault
internal import Views

struct SecretsEditCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit",
    abstract: "Edit the whole vault with $VISUAL or $EDITOR; makes it if there is none.",
    discussion: """
      The text lies in a file that only you can read, in memory-backed storage where there is one, and is removed however this
      ends. Values that aren't changed keep their ciphertext. A new vault is for the first of your own keys.

      Examples:
        orchestrate secrets edit prod
        EDITOR=nano orchestrate secrets edit prod
      """)

  @Argument(help: "The environment.") var environment: String
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let context = CommandContext.current
    let file = try VaultFile(global, environment: environment, context: context)
    let before = try file.read()
    var vault = try before.map { try file.open($0) } ?? file.create()
    let original = try file.explained { () throws(VaultError) in try vault.plaintext() }
    let offered =
      before == nil ? "# One value per line, as NAME: value. Comments are encrypted, too.\n" : original
    let name = String(file.name.split(separator: "/").last ?? "secrets.yml")
    let space = try PlaintextSpace(context)
    let editor = Editor(context)
    let interrupts = Interrupts { kind in
      // An editor on a terminal may use Ctrl-C itself: it decides, and if it ends by that, so do we.
      if kind == .interrupt, context.standardInputIsTerminal, editor.interrupt() { return }
      editor.terminate()
      space.remove()
      context.narrate("interrupted; nothing was written\n")
      exitProcess(ExitStatus.failed.rawValue)
    }
    defer { space.remove() }
    if !space.isInMemory {
      context.narrate("warning: no memory-backed storage here; the text lies in \(space.folder) while you edit\n")
    }
    // Where this throws, the process ends, and until then a signal that has ended the editor still may reach us, too.
    let changed = try await edited(in: space, as: name, offered, by: editor, into: &vault)
    interrupts.end()
    guard changed, vault.isChanged else {
      context.narrate("nothing was changed, nothing was written\n")
      return
    }
    try file.save(&vault, replacing: before)
    context.narrate("written \(file.name)\n")
  }

  /// False: the text came back as it was.
  private func edited(
    in space: PlaintextSpace, as name: String, _ offered: String, by editor: Editor, into vault: inout Vault
  ) async throws -> Bool {
    let context = CommandContext.current
    let path = try space.write(name, offered)
    while true {
      try await editor.run(path)
      let edited = try space.read(name)
      guard edited != offered else { return false }
      do {
        try vault.replace(plaintext: edited, file: name + " (edited)")
        return true
      } catch {
        guard context.isInteractive else { throw ConfigurationError(error.diagnostics, isConfidential: true) }
        context.narrate(text(of: error.diagnostics, style: context.errorStyle))
        let answer = await context.readLine("Edit again? [Y/n] ")?.lowercased() ?? "n"
        guard !answer.hasPrefix("n") else {
          throw OrchestrateError(.failed, "the edited text can't be used", state: "nothing was written")
        }
      }
    }
  }
}

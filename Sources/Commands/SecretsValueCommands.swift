internal import ArgumentParser
internal import Diagnostics
internal import Engine
internal import Vault
internal import Views

struct SecretsGetCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "get",
    abstract: "Print one value, and a line break if it has none at its end.",
    discussion: """
      KEY is a name in the vault; names of groups, and positions in lists from 0, stand between dots.

      Examples:
        orchestrate secrets get prod DB_PASSWORD
        orchestrate secrets get prod database.users.0.password
        orchestrate secrets get prod TLS_KEY --json
      """)

  @Argument(help: "The environment.") var environment: String
  @Argument(help: "The name in the vault.") var key: String
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let context = CommandContext.current
    let file = try VaultFile(global, environment: environment, context: context)
    let vault = try file.open(try file.existing())
    let found = try file.explained { () throws(VaultError) in try vault.value(at: vault.path(key)) }
    guard let value = found else {
      throw OrchestrateError(
        .failed, "\(key) is in \(file.name), but has no value", remedy: "orchestrate secrets set \(environment) \(key)")
    }
    guard let text = value.text?.reveal() else {
      throw OrchestrateError(.failed, "\(key) holds bytes that are no text", remedy: "use sops itself for it")
    }
    if global.format(context) == .json {
      let document = VaultValueDocument(
        environment: environment, name: key, type: value.kind.rawValue, value: text)
      context.payload(jsonValue(of: document).text() + "\n")
    } else {
      context.payload(text.hasSuffix("\n") ? text : text + "\n")
    }
  }
}

struct SecretsSetCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "set",
    abstract: "Set one value, read from stdin or asked for without echo; makes the vault if there is none.",
    discussion: """
      The value is never an argument: everybody on the machine could read it there. One line break at its end is left out,
      unless --exact is given.

      Examples:
        orchestrate secrets set prod TELEGRAM_TOKEN
        openssl rand -hex 32 | orchestrate secrets set prod DB_PASSWORD
        orchestrate secrets set prod TLS_KEY --exact < tls.key
      """)

  @Argument(help: "The environment.") var environment: String
  @Argument(help: "The name in the vault.") var key: String
  @Flag(help: "Keep a line break at the end of the input.") var exact = false
  @OptionGroup var global: GlobalOptions

  func validate() throws {
    guard let equals = key.firstIndex(of: "=") else { return }
    throw ValidationError(
      "\(key[..<equals])=…: the value is never an argument; give the name alone, and the value on stdin")
  }

  func run() async throws {
    let context = CommandContext.current
    let file = try VaultFile(global, environment: environment, context: context)
    let value = VaultValue(try await SecretInput(environment: environment, key: key, exact: exact).read(context))
    let written = try file.change(creating: true) { (vault: inout Vault) throws(VaultError) in
      let path = vault.path(key)
      try vault.checkEncrypts(path)
      try vault.set(value, at: path)
    }
    context.narrate(
      written ? "\(key) is set in \(file.name)\n" : "\(key) has this value already; nothing was written\n")
  }

}

/// A value from stdin, or asked for without echo where stdin is a terminal.
struct SecretInput {
  let environment: String
  let key: String
  /// Keep a line break at its end.
  var exact = false

  private static let limit = 128 * 1024

  func read(_ context: CommandContext) async throws -> String {
    let text: String
    if context.standardInputIsTerminal {
      guard let answer = await context.readSecret("Value of \(key) (not shown): ") else {
        throw OrchestrateError(.failed, "no value was given", state: "nothing was written")
      }
      text = answer.reveal()
    } else {
      guard let bytes = context.readInput(Self.limit) else {
        throw OrchestrateError(
          .usage, "the value can't be read from stdin, or has more than \(Self.limit / 1024) KiB",
          state: "nothing was written")
      }
      guard var decoded = String(validating: bytes, as: UTF8.self) else {
        throw OrchestrateError(
          .usage, "the value on stdin isn't UTF-8 text", state: "nothing was written",
          remedy: "encode it: base64 -w0 FILE | orchestrate secrets set \(environment) \(key)")
      }
      if !exact, decoded.unicodeScalars.last == "\n" {
        decoded.unicodeScalars.removeLast()
        if decoded.unicodeScalars.last == "\r" { decoded.unicodeScalars.removeLast() }
      }
      text = decoded
    }
    guard !text.isEmpty else {
      throw OrchestrateError(
        .usage, "the value is empty", state: "nothing was written",
        remedy: "give it on stdin, or remove the key: orchestrate secrets unset \(environment) \(key)")
    }
    return text
  }
}

struct SecretsUnsetCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "unset",
    abstract: "Remove one value, or a group of them.",
    discussion: """
      What was once in Git stays in its history: change the secret itself, too.

      Examples:
        orchestrate secrets unset prod OLD_TOKEN
      """)

  @Argument(help: "The environment.") var environment: String
  @Argument(help: "The name in the vault.") var key: String
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let context = CommandContext.current
    let file = try VaultFile(global, environment: environment, context: context)
    _ = try file.change { (vault: inout Vault) throws(VaultError) in try vault.unset(vault.path(key)) }
    context.narrate("\(key) is removed from \(file.name)\n")
  }
}

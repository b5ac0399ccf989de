internal import Diagnostics
internal import Engine
internal import Views

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// What a command may touch of the machine that it runs on: no command prints, looks at the clock, the environment or the terminal but through it.
struct CommandContext: Sendable {
  /// The process's environment. The key and vault variables are in it; children get `childEnvironment`.
  var environment: [String: String]
  var workingDirectory: String
  var output: any OutputSink
  /// A person sits at it: stdin and stdout are terminals.
  var isInteractive: Bool
  var standardOutputIsTerminal: Bool
  var standardErrorIsTerminal: Bool
  /// Asks a question on the terminal and gives the line that was typed; nil at the end of the input.
  var readLine: @Sendable (_ prompt: String) async -> String?
  /// The same without echo, for passphrases.
  var readSecret: @Sendable (_ prompt: String) async -> Secret?
  var standardInputIsTerminal = isatty(0) == 1
  /// All of stdin; nil: it can't be read, or is longer.
  var readInput: @Sendable (_ limit: Int) -> [UInt8]? = Terminal.readInput

  @TaskLocal static var current = CommandContext.process

  /// Variables that hold secrets of ours: no child process gets them.
  static let secretVariables: Set<String> = [
    "ORCHESTRATE_SSH_KEY", "ORCHESTRATE_VAULT_KEY", "SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE",
    "SOPS_AGE_SSH_PRIVATE_KEY_FILE",
  ]

  func payload(_ text: String) { output.write(text, to: .standardOutput) }
  func narrate(_ text: String) { output.write(text, to: .standardError) }

  var childEnvironment: [String: String] { environment.filter { !Self.secretVariables.contains($0.key) } }

  private var allowsColour: Bool { environment["NO_COLOR", default: ""].isEmpty && environment["TERM"] != "dumb" }
  /// How errors look.
  var errorStyle: Style { Style(colour: allowsColour && standardErrorIsTerminal) }
  /// How payload for people looks.
  var style: Style { Style(colour: allowsColour && standardOutputIsTerminal) }

  static let process: CommandContext = {
    var environment: [String: String] = [:]
    var entry = environ
    while let pointer = entry.pointee {
      let text = String(cString: pointer)
      if let equals = text.firstIndex(of: "=") {
        environment[String(text[..<equals])] = String(text[text.index(after: equals)...])
      }
      entry += 1
    }
    let directory = getcwd(nil, 0).map { pointer in
      defer { free(pointer) }
      return String(cString: pointer)
    }
    return CommandContext(
      environment: environment, workingDirectory: directory ?? "/", output: ProcessOutput(),
      isInteractive: isatty(0) == 1 && isatty(1) == 1 && environment["CI", default: ""].isEmpty,
      standardOutputIsTerminal: isatty(1) == 1,
      standardErrorIsTerminal: isatty(2) == 1, readLine: Terminal.readLine, readSecret: Terminal.readSecret)
  }()
}

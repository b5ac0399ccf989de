internal import ArgumentParser
internal import Diagnostics
internal import Engine
internal import Inventory
internal import SSH
internal import Views

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// The tool itself: parses, runs one verb, and maps what was thrown to the exit statuses of the contract.
public enum CommandLineTool {
  public static func run() async {
    openMissingStreams()
    signal(SIGPIPE, SIG_IGN)
    let status = await run(arguments: Array(CommandLine.arguments.dropFirst()))
    exitProcess(status)
  }

  /// Parses real arguments and runs them in the current context. Nothing is thrown: an error is shown and becomes a status.
  static func run(arguments: [String]) async -> Int32 {
    let context = CommandContext.current
    // What passes a remote status on has one of its own for everything else (ssh(1), "EXIT STATUS").
    func own(_ status: ExitStatus) -> Int32 { ["exec", "ssh"].contains(arguments.first) ? 255 : status.rawValue }
    do {
      try checkName(arguments.first)
      var command = try Orchestrate.parseAsRoot(arguments)
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
      return 0
    } catch let error as ConfigurationError {
      context.narrate(
        text(of: error.diagnostics, style: context.errorStyle) {
          error.isConfidential ? nil : sourceLines($0, below: error.root)
        })
      return own(.configuration)
    } catch let error as OrchestrateError {
      context.narrate(text(of: error, style: context.errorStyle))
      return own(ExitStatus(error.code))
    } catch let error as SSHError {
      let problem = OrchestrateError(.unreachable, error.message, cause: error.detail, remedy: "orchestrate doctor")
      context.narrate(text(of: problem, style: context.errorStyle))
      return own(.unreachable)
    } catch let code as ExitCode {
      return code.rawValue
    } catch {
      let message = Orchestrate.fullMessage(for: error)
      let status = Orchestrate.exitCode(for: error).rawValue
      if status == 0 { context.payload(message + "\n") } else { context.narrate(message + "\n") }
      return status == ExitStatus.usage.rawValue ? own(.usage) : status
    }
  }

  /// The parser itself would call a mistyped command an unexpected argument.
  private static func checkName(_ name: String?) throws {
    let names = Orchestrate.configuration.subcommands.map { $0._commandName } + ["help"]
    guard let name, !name.hasPrefix("-"), !names.contains(name) else { return }
    throw OrchestrateError(
      .usage, "there is no command `\(name)`",
      remedy: nearestName(to: name, among: names).map { "did you mean `\($0)`?" } ?? "orchestrate --help lists them")
  }
}

/// A stream that was closed at the start (`2>&-`) must not become the first descriptor that something else opens.
private func openMissingStreams() {
  for descriptor: Int32 in 0...2 where fcntl(descriptor, F_GETFD) == -1 {
    _ = open("/dev/null", descriptor == 0 ? O_RDONLY : O_WRONLY)  // the lowest that is free: this one
  }
}

/// The lines of one of the user's files, for the excerpt below a diagnostic.
private func sourceLines(_ path: String, below root: String?) -> [String]? {
  guard let bytes = try? FileSource.disk.read(root.map { "\($0)/\(path)" } ?? path) else { return nil }
  return String(decoding: bytes, as: UTF8.self).split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
    .map(String.init)
}

/// Ends the process at once, after what was written has left it. Not by exit(3): what libraries clean up there (OpenSSL's tables, libdispatch)
/// is still in use on other threads when somebody leaves in the middle.
func exitProcess(_ status: Int32) -> Never {
  restoreEcho()
  fflush(nil)
  _exit(status)
}

struct Orchestrate: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "orchestrate",
    abstract: "Deploys Docker Compose services over SSH, each deploy a transaction on the host.",
    discussion: """
      Examples:
        orchestrate init --app market-bot
        orchestrate plan prod v1.4.0
        orchestrate deploy prod v1.4.0
        orchestrate rollback
      """,
    version: toolVersion,
    subcommands: [
      PlanCommand.self, DeployCommand.self, RollbackCommand.self, AttachCommand.self, StatusCommand.self,
      HistoryCommand.self,
      HealthCommand.self, LockCommand.self, BackupCommand.self, PruneCommand.self, EnvCommand.self, DoctorCommand.self,
      InitCommand.self, LogsCommand.self, ExecCommand.self, SSHCommand.self, RunCommand.self, BackupsCommand.self,
      InventoryCommand.self, SecretsCommand.self, BootstrapCommand.self,
    ])
}

/// The version of the tool, as `--version` prints it.
let toolVersion = "0.1.0"

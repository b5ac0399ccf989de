internal import Diagnostics
internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// The person's editor, on their terminal.
final class Editor: Sendable {
  private let context: CommandContext
  private struct State {
    var process: pid_t?
    var ended: ContinuousClock.Instant?
  }
  private let state = Mutex(State())

  init(_ context: CommandContext) { self.context = context }

  /// Runs it and waits for its end. As git does: the variable is a command for sh, which gets the path as an argument.
  ///
  /// Throws `OrchestrateError` if it can't be started, fails, or is ended by a signal.
  func run(_ path: String) async throws {
    let command = [context.environment["VISUAL"], context.environment["EDITOR"]].compactMap { $0 }.first { !$0.isEmpty }
    guard command != nil || context.isInteractive else {
      throw OrchestrateError(
        .usage, "there is no terminal to edit on, and no editor is named", state: "nothing was written",
        remedy: "set $EDITOR, or set single values: orchestrate secrets set")
    }
    let editor = command ?? "vi"
    let child: pid_t
    do {
      // A plain command takes the shell's place: a shell in between would die of the Ctrl-C that an editor may catch.
      let isPlain = editor.allSatisfy { $0.isLetter || $0.isNumber || "/._- +:,".contains($0) }
      // vim and its kin copy what was yanked and deleted into the home folder, and Neovim its swap file (`:help viminfo`, `:help swap-file`).
      let word = editor.split(separator: " ").first ?? ""
      let script =
        isPlain
        ? """
        program=$(readlink -f "$(command -v \(word))")
        case ${program##*/} in *vim*) exec \(editor) -n -i NONE "$@" ;; esac
        exec \(editor) "$@"
        """ : editor + " \"$@\""
      child = try spawn(["/bin/sh", "-c", script, editor, path], environment: context.childEnvironment)
    } catch {
      throw OrchestrateError(
        .failed, "the editor can't be started", cause: error.description, state: "nothing was written")
    }
    state.withLock { $0.process = child }
    let status = await withCheckedContinuation { (continuation: CheckedContinuation<Int32, Never>) in
      startThread {
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        continuation.resume(returning: status)
      }
    }
    state.withLock { $0 = State(process: nil, ended: .now) }
    guard status == 0 else {
      let signal = status & 0x7f
      throw OrchestrateError(
        .failed, signal != 0 ? "the editor was ended by signal \(signal)" : "the editor failed: \(editor)",
        cause: signal != 0 ? nil : "exit status \(status >> 8 & 0xff)", state: "nothing was written",
        remedy: command == nil ? "name your editor: EDITOR=nano orchestrate secrets edit …" : nil)
    }
  }

  /// Hands Ctrl-C on. False: none is running. What comes within a second of an editor's end was still meant for it: the
  /// signal reaches both at once, and this process hears of it later.
  func interrupt() -> Bool {
    state.withLock { state in
      guard let process = state.process else { return state.ended.map { $0.duration(to: .now) < .seconds(1) } ?? false }
      kill(process, SIGINT)
      return true
    }
  }

  func terminate() { state.withLock { if let process = $0.process { kill(process, SIGTERM) } } }
}

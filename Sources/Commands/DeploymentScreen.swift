internal import Diagnostics
internal import Engine
internal import Inventory
internal import Synchronization
internal import Views

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// The view of a deployment with what drives it: its clock, its ticks, the terminal's size, the secrets that it must not show.
final class DeploymentScreen: Sendable {
  let view: any DeploymentView
  private let queue: OutputQueue
  private let ticking: Task<Void, Never>
  private let outcome = Mutex<Int32?>(nil)

  /// - Parameter queue: what the context writes to.
  init(_ options: GlobalOptions, context: CommandContext, queue: OutputQueue) {
    self.queue = queue
    let start = ContinuousClock.now
    let masker = Masker(
      CommandContext.secretVariables.compactMap { context.environment[$0] }.filter { !$0.isEmpty }.map { Secret($0) })
    let viewContext = ViewContext(
      output: context.output, masker: masker, uptime: { Int64(start.duration(to: .now).seconds * 1000) },
      now: { Timestamp.now() }, terminalSize: { terminalSize() }, colour: context.style.colour,
      verbose: options.verbose,
      timings: options.timings, isBehind: { queue.isFarBehind })
    let view = makeDeploymentView(
      options.format(context), viewContext, github: context.environment["GITHUB_ACTIONS"] == "true",
      appendSummary: { text in
        guard let path = context.environment["GITHUB_STEP_SUMMARY"], let file = fopen(path, "a") else { return }
        fputs(text, file)
        fclose(file)
      })
    self.view = view
    ticking = Task {
      while !Task.isCancelled {
        do { try await Task.sleep(for: .milliseconds(100)) } catch { return }
        view.tick()
      }
    }
  }

  func end() { ticking.cancel() }

  /// The deployment has ended so; returns once everything about it is read.
  func conclude(_ summary: DeploymentSummary) async {
    end()
    outcome.withLock { $0 = summary.exitStatus }
    await queue.drain()
  }

  /// A person leaves: with the outcome, where it is known and only nobody reads it.
  func leaveIfConcluded() {
    guard let status = outcome.withLock({ $0 }) else { return }
    leave("left at once: the deployment has ended, and not all about it was read", status)
  }

  /// Ends the process, and waits a second at most for whoever reads: the host goes on without us, or has nothing left to do.
  func leave(_ text: String, _ status: Int32 = ExitStatus.outcomeUnknown.rawValue) -> Never {
    queue.leave()
    view.handle(.warning(host: nil, text: text))
    end()
    queue.drain(seconds: 1)
    exitProcess(status)
  }
}

func terminalSize() -> (columns: Int, rows: Int) {
  var window = winsize()
  guard ioctl(1, UInt(TIOCGWINSZ), &window) == 0, window.ws_col > 0 else { return (80, 24) }
  return (Int(window.ws_col), Int(window.ws_row))
}

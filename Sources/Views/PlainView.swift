public import Engine
import Diagnostics
import Synchronization

/// A deployment in a log: one line per event, `TIME HOST STEP TEXT`, no cursor moves, no colours. Everything but
/// errors, warnings and questions goes to stdout. After thirty seconds of silence a line says that the deployment is
/// alive and what it does.
public final class PlainView: DeploymentView {
  static let heartbeat: Int64 = 30_000

  private let context: ViewContext
  private let log: Mutex<PlainLog>

  public init(_ context: ViewContext) {
    self.context = context
    log = Mutex(PlainLog(context) { context.output.write($0 + "\n", to: $1) })
  }

  public func handle(_ event: DeploymentEvent) {
    if case .secrets(let secrets) = event { context.masker.add(secrets) }
    log.withLock { $0.take(event) }
  }

  public func tick() { log.withLock { $0.tick() } }
}

/// How a watch ended without a breach.
func watchedText(_ reason: String, _ by: Int?) -> String {
  switch reason {
  case "over": "watched to the end: all is well"
  case "superseded": "the watch has ended: \(by.map { "#\($0)" } ?? "another deployment") takes its place"
  case "aborted": "the watch was ended by hand"
  default: "the watch has ended: \(reason)"
  }
}

/// Makes lines of events. The state behind PlainView and GitHubView.
struct PlainLog {
  let context: ViewContext
  /// Takes a complete line without its line feed.
  let put: @Sendable (String, OutputStream) -> Void
  var running: [(host: String, step: String, since: Int64)] = []
  var lastLine: Int64
  var phase: String?

  init(_ context: ViewContext, put: @escaping @Sendable (String, OutputStream) -> Void) {
    self.context = context
    self.put = put
    lastLine = context.uptime()
  }

  mutating func line(_ host: String?, _ step: String?, _ text: String, to stream: OutputStream = .standardOutput) {
    let place = [host, step].compactMap { $0 }.map { $0 + " " }.joined()
    put("\(context.now()) \(place)\(context.shown(text))", stream)
    lastLine = context.uptime()
  }

  /// Text of several lines, each as a line of its own.
  mutating func lines(_ host: String?, _ step: String?, _ text: String, to stream: OutputStream = .standardOutput) {
    for part in text.split(omittingEmptySubsequences: true, whereSeparator: \.isNewline) {
      line(host, step, String(part), to: stream)
    }
  }

  mutating func tick() {
    guard context.uptime() - lastLine >= PlainView.heartbeat else { return }
    if running.isEmpty {
      line(nil, nil, phase.map { "still: \($0)" } ?? "still waiting")
    } else {
      for (host, step, since) in running {
        line(host, step, "still running after \(durationText(Double(context.uptime() - since) / 1000))")
      }
    }
  }

  mutating func take(_ event: DeploymentEvent) {
    switch event {
    case .starting(let heading):
      let to = heading.to.map { " " + $0 } ?? ""
      line(
        nil, nil,
        "\(heading.command) \(heading.environment)\(to): \(heading.app) on \(heading.hosts.joined(separator: ", "))")
    case .secrets: break
    case .connecting(let host, let address):
      phase = "connecting to \(host)"
      line(host, nil, "connecting to \(address)")
    case .connected(let host, let timings):
      phase = nil
      line(host, nil, "connected in \(durationText(timings.total))")
    case .reconnecting(let host, let attempt, let since):
      line(
        host, nil, "connection lost \(durationText(since)) ago; the deployment goes on on the host; attempt \(attempt)",
        to: .standardError)
    case .reconnected(let host): line(host, nil, "connected again")
    case .waitingForLock(let host, let holder, let limit, let place):
      phase = "waiting for the lock of \(host)"
      line(host, nil, "locked by \(holder.sentence); waiting up to \(durationText(limit))\(queueText(place))")
    case .opened(let host, let number, let from, let to):
      phase = nil
      let change = [from, to].compactMap { $0 }.filter { !$0.isEmpty }.joined(separator: " → ")
      line(host, nil, "deployment #\(number): \(change)")
    case .recovered(let host, let number, let outcome):
      line(
        host, nil, "warning: deployment #\(number), which had been left open, was closed: \(outcome)",
        to: .standardError)
    case .planned(let plan): lines(nil, nil, text(of: plan))
    case .asked(let question):
      lines(nil, nil, question.text, to: .standardError)
      if !question.choices.isEmpty {
        line(nil, nil, "[\(question.choices.joined(separator: "/"))]", to: .standardError)
      }
    case .answered(_, let answer): line(nil, nil, "answered: \(answer)")
    case .notice(let host, let text): lines(host, nil, text)
    case .warning(let host, let text): lines(host, nil, "warning: \(text)", to: .standardError)
    case .finished(let summary): finish(summary)
    default: takeStep(event)
    }
  }

  private mutating func takeStep(_ event: DeploymentEvent) {
    switch event {
    case .stepStarted(let host, let step):
      running.append((host, step, context.uptime()))
      line(host, step, "started")
    case .stepEnded(let host, let step, let ending):
      running.removeAll { $0.host == host && $0.step == step }
      if ending.succeeded {
        line(host, step, "done in \(durationText(ending.seconds))")
      } else {
        line(host, step, "failed after \(durationText(ending.seconds)): \(ending.reason)", to: .standardError)
      }
    case .stepSkipped(let host, let step, let reason): line(host, step, "skipped: \(reason)")
    case .stepUndone(let host, let step, let status, let attempts):
      if status == 0 {
        line(host, step, "undone")
      } else {
        line(host, step, "the undo failed: exit status \(status), attempt \(attempts)", to: .standardError)
      }
    case .log(let host, let step, let text): line(host, step, text)
    case .fact(let host, let step, let key, let value):
      if context.verbose { line(host, step, "\(key) = \(value.text())") }
    case .undoing(let host, let reason, let text):
      running.removeAll { $0.host == host }
      phase = "undoing on \(host)"
      line(host, nil, "undoing (\(reason)): \(text)", to: .standardError)
    case .committed(let host, let release): line(host, nil, "committed: release \(release) is current")
    case .watching(let host, let seconds):
      phase = "\(host) watches the new release"
      line(host, nil, "watching for \(durationText(seconds))")
    case .breached(let host, let text, let rollback):
      phase = "\(host) goes back"
      line(host, nil, "not well: \(text); going back, as deployment #\(rollback)", to: .standardError)
    case .watched(let host, let reason, let by):
      phase = nil
      line(host, nil, watchedText(reason, by))
    case .closed(let host, let outcome, let healthy, let recovery):
      phase = nil
      let health = healthy.map { $0 ? ", healthy" : ", not healthy" } ?? ""
      line(host, nil, "closed: \(outcome.rawValue)\(health)\(recovery ? ", by recovery" : "")")
    default: break
    }
  }

  mutating func finish(_ summary: DeploymentSummary) {
    if let problem = summary.problem { lines(nil, nil, text(of: problem.error), to: .standardError) }
    lines(nil, nil, text(of: summary, timings: context.timings))
  }
}

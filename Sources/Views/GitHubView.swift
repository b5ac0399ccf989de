public import Engine
import Diagnostics
import Synchronization

/// A deployment in a step of GitHub Actions: plain lines, a fold per step, errors and warnings as annotations, a
/// summary in Markdown.
///
/// Workflow commands are lines that begin with `::`; what a host prints could be one. So commands are switched off
/// (`::stop-commands::TOKEN`) whenever anything but our own commands is written. Everything goes to stdout: the runner
/// reads commands from either stream, but only one keeps the order.
public final class GitHubView: DeploymentView {
  private let context: ViewContext
  private let appendSummary: @Sendable (String) -> Void
  private let commands: WorkflowCommands
  private let state: Mutex<State>

  private struct State {
    var log: PlainLog
    var openGroup: String?
    var hosts = 0
  }

  /// - Parameter token: switches commands on again; nothing that a host prints may know it.
  public init(
    _ context: ViewContext, token: String = randomToken(), appendSummary: @escaping @Sendable (String) -> Void
  ) {
    self.context = context
    self.appendSummary = appendSummary
    let commands = WorkflowCommands(token: token) { context.output.write($0 + "\n", to: .standardOutput) }
    self.commands = commands
    state = Mutex(State(log: PlainLog(context) { line, _ in commands.text(line) }))
  }

  public func handle(_ event: DeploymentEvent) {
    state.withLock { state in
      switch event {
      case .secrets(let secrets):
        // No add-mask: it would be the one place where a secret is written in the clear, into whatever stdout is copied to.
        context.masker.add(secrets)
        return
      case .starting(let heading): state.hosts = heading.hosts.count
      case .stepStarted(_, let step) where state.hosts <= 1: open(step, &state)
      case .warning(let host, let text):
        commands.command("warning", context.shown((host.map { "\($0): " } ?? "") + text))
        return
      case .undoing, .finished: close(&state)
      default: break
      }
      state.log.take(event)
      if case .stepEnded = event { close(&state) }
      if case .finished(let summary) = event { finish(summary) }
    }
  }

  public func tick() { state.withLock { $0.log.tick() } }

  private func open(_ step: String, _ state: inout State) {
    close(&state)
    commands.command("group", context.shown(step))
    state.openGroup = step
  }

  private func close(_ state: inout State) {
    guard state.openGroup != nil else { return }
    commands.command("endgroup", "")
    state.openGroup = nil
  }

  private func finish(_ summary: DeploymentSummary) {
    if let problem = summary.problem {
      let place = [problem.host, problem.step].compactMap { $0 }.joined(separator: ": ")
      let lines = [problem.summary, problem.cause, problem.state, problem.remedy.map { "Next: \($0)" }].compactMap {
        $0
      }
      commands.command(
        "error", context.masker.mask(lines.joined(separator: "\n")),
        properties: [("title", context.shown(place.isEmpty ? "orchestrate \(summary.command)" : place))])
    }
    commands.resume()
    appendSummary(context.masker.mask(markdown(of: summary)))
  }
}

/// Enough randomness that nobody guesses it: 128 bits of the system's generator.
public func randomToken() -> String {
  var generator = SystemRandomNumberGenerator()
  return [generator.next(), generator.next()].map { String($0, radix: 16) }.joined()
}

/// Writes workflow commands and, with commands switched off, text.
final class WorkflowCommands: Sendable {
  private let token: String
  private let put: @Sendable (String) -> Void
  private let isStopped = Mutex(false)

  init(token: String, put: @escaping @Sendable (String) -> Void) {
    self.token = token
    self.put = put
  }

  func text(_ line: String) {
    isStopped.withLock { stopped in
      if !stopped { put("::stop-commands::\(token)") }
      stopped = true
      put(line)
    }
  }

  func command(_ name: String, _ message: String, properties: [(String, String)] = []) {
    resume()
    let list = properties.map { "\($0.0)=\(Self.escapedProperty($0.1))" }.joined(separator: ",")
    put("::\(name)\(list.isEmpty ? "" : " \(list)")::\(Self.escaped(message))")
  }

  func resume() {
    isStopped.withLock { stopped in
      if stopped { put("::\(token)::") }
      stopped = false
    }
  }

  /// As the runner's toolkit escapes a command's data (actions/toolkit, packages/core/src/command.ts).
  static func escaped(_ text: String) -> String {
    text.unicodeScalars.reduce(into: "") { out, scalar in
      switch scalar {
      case "%": out += "%25"
      case "\r": out += "%0D"
      case "\n": out += "%0A"
      default: out.unicodeScalars.append(scalar)
      }
    }
  }

  static func escapedProperty(_ text: String) -> String {
    escaped(text).reduce(into: "") { $0 += $1 == ":" ? "%3A" : $1 == "," ? "%2C" : String($1) }
  }
}

/// The summary of a workflow's step, in GitHub's Markdown.
func markdown(of summary: DeploymentSummary) -> String {
  func cell(_ text: String) -> String {
    printable(text).reduce(into: "") { out, character in
      out += "\\`*_{}[]<>#|!~".contains(character) ? "\\\(character)" : String(character)
    }
  }
  var out = "### \(cell(headline(of: summary, Style(colour: false))))\n\n| | |\n|---|---|\n"
  if let number = summary.number { out += "| deployment | \\#\(number) |\n" }
  if let from = summary.from { out += "| from | \(cell(from)) |\n" }
  if let to = summary.to { out += "| to | \(cell(to)) |\n" }
  out += "| duration | \(durationText(summary.seconds)) |\n"
  if let downtime = summary.downtimeMilliseconds { out += "| downtime | \(downtime) ms |\n" }
  if let rollback = summary.rollbackMilliseconds {
    out += "| answers again | \(durationText(Double(rollback) / 1000)) after the verdict |\n"
  }
  if let restorePoint = summary.restorePoint { out += "| restore point | \(cell(restorePoint)) |\n" }
  if let next = summary.next { out += "| next | \(cell(next)) |\n" }
  if let problem = summary.problem {
    let place = [problem.host, problem.step].compactMap { $0 }.map { cell($0) + ": " }.joined()
    out += "\n**\(place)\(cell(problem.summary))**\n"
    if let cause = problem.cause, !cause.isEmpty {
      let lines = cause.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
      out += "\n" + lines.map { "    \(printable(String($0)))\n" }.joined()
    }
    if let state = problem.state { out += "\nNow: \(cell(state))\n" }
    if let remedy = problem.remedy { out += "\nNext: \(cell(remedy))\n" }
  }
  return out + "\n"
}

public import Engine
import Diagnostics
import Synchronization

/// A deployment on a terminal: the plan and notices scroll by, below them a live list of steps with their times and the
/// running step's last lines, redrawn at most ten times per second; one summary at the end. Progress goes to stdout,
/// errors and questions to stderr.
public final class HumanView: DeploymentView {
  static let redrawInterval: Int64 = 100
  static let tailLines = 3

  private let context: ViewContext
  private let state: Mutex<Screen>

  public init(_ context: ViewContext) {
    self.context = context
    state = Mutex(Screen(context))
  }

  public func handle(_ event: DeploymentEvent) {
    if case .secrets(let secrets) = event { context.masker.add(secrets) }
    state.withLock { screen in
      screen.take(event)
      screen.redraw()
    }
  }

  public func tick() { state.withLock { $0.redraw() } }
}

/// What stands on the terminal. The live region is always the last thing printed: everything else erases it first.
private struct Screen {
  let context: ViewContext
  let style: Style
  var board = StepBoard()
  var heading: DeploymentHeading?
  /// The running step's last lines, by host.
  var tails: [(host: String, lines: [String])] = []
  /// What the deployment waits for beside its steps.
  var phase: String?
  /// The host watches, until this reading of the clock.
  var watch: (host: String, until: Int64)?
  var region = 0
  var lastDraw: Int64?
  var isDirty = false
  var isOver = false
  /// The question that is being answered. It is the last thing on the terminal; the live region above it goes on, at the height that it has.
  var prompt: (question: DeploymentQuestion, rows: Int)?
  /// What would be printed goes here while a question stands.
  var held: [(text: String, stream: OutputStream)] = []
  var frame = 0

  init(_ context: ViewContext) {
    self.context = context
    style = context.style
  }

  // MARK: Events

  mutating func take(_ event: DeploymentEvent) {
    isDirty = true
    switch event {
    case .starting(let heading): start(heading)
    case .secrets: break
    case .connecting(let host, let address): phase = "connecting to \(host) (\(address))"
    case .connected(let host, let timings):
      phase = "asking \(host) for the lock"
      if context.timings {
        print(style.dim("\(host): connected in \(durationText(timings.total))\(parts(of: timings))"))
      }
    case .reconnecting(let host, let attempt, let since):
      phase = "connection to \(host) lost \(durationText(since)) ago; the deployment goes on there; attempt \(attempt)"
    case .reconnected(let host):
      phase = nil
      print(style.dim("\(host): connected again"))
    case .waitingForLock(let host, let holder, let limit, let place):
      phase =
        "\(host) is locked by \(context.shown(holder.sentence)); waiting up to \(durationText(limit))\(queueText(place))"
    case .opened(let host, let number, let from, let to):
      phase = nil
      let change = [from, to].compactMap { $0 }.filter { !$0.isEmpty }.map { context.shown($0) }.joined(
        separator: " → ")
      print("Deployment \(style.bold("#\(number)")) on \(style.bold(host)): \(change)")
    case .recovered(let host, let number, let outcome):
      warn("deployment #\(number), which had been left open, was closed: \(context.shown(outcome))", host)
    case .planned(let plan): print(context.masker.mask(text(of: plan, style: style)), blankAfter: true)
    case .asked(let question): ask(question)
    case .answered(_, let answer): endPrompt(answer: answer)
    case .watching(let host, let seconds):
      watch = (host, context.uptime() + Int64(seconds * 1000))
    case .breached(let host, let text, let rollback):
      watch = nil
      let what = "not well: \(context.shown(text)); going back, as deployment #\(rollback)"
      print(style.paint("\(place(host))\(what)", "1;33"))
      phase = "\(host) goes back"
    case .watched(let host, let reason, let by):
      watch = nil
      print(place(host) + style.dim(watchedText(reason, by)))
    case .notice(let host, let text): print(place(host) + context.shown(text))
    case .warning(let host, let text): warn(context.shown(text), host)
    case .finished(let summary): finish(summary)
    default: takeStep(event)
    }
  }

  private mutating func takeStep(_ event: DeploymentEvent) {
    switch event {
    case .stepStarted(let host, let step):
      board.set(step, on: host, .running(since: context.uptime()))
      setTail(host, [])
    case .stepEnded(let host, let step, let ending):
      board.set(
        step, on: host, ending.succeeded ? .done(seconds: ending.seconds) : .failed(seconds: ending.seconds, ending))
      if ending.succeeded { setTail(host, []) }
    case .stepSkipped(let host, let step, _): board.set(step, on: host, .skipped)
    case .stepUndone(let host, let step, let status, let attempts):
      board.set(step, on: host, status == 0 ? .undone : .undoFailed)
      if status != 0 { warn("undoing \(step) failed (exit status \(status), attempt \(attempts))", host) }
    case .log(let host, let step, let text):
      let line = context.shown(text)
      if context.verbose { print(style.dim("\(place(host))\(step.map { "\($0): " } ?? "")") + line) }
      if !line.isEmpty { setTail(host, (tail(host) + [line]).suffix(HumanView.tailLines)) }
    case .fact(let host, let step, let key, let value):
      if context.verbose { print(style.dim("\(place(host))\(step): \(key) = \(context.shown(value.text()))")) }
    case .undoing(let host, let reason, let text):
      setTail(host, [])
      let why = context.shown(text).isEmpty ? reason : "\(context.shown(text)) (\(reason))"
      print(style.paint("\(place(host))undoing: \(why)", "1;33"))
      phase = "undoing on \(host)"
    case .committed(let host, let release):
      print("\(place(host))\(style.green("committed")): release \(release) is current")
    case .closed: phase = nil
    default: break
    }
  }

  private mutating func start(_ heading: DeploymentHeading) {
    self.heading = heading
    board.expect(heading.steps)
    let target = heading.to.map { " " + context.shown($0) } ?? ""
    let hosts = heading.hosts.isEmpty ? "" : " on \(heading.hosts.joined(separator: ", "))"
    print(style.bold("\(heading.command) \(heading.environment)\(target)") + style.dim(": \(heading.app)\(hosts)"))
  }

  private mutating func ask(_ question: DeploymentQuestion) {
    endPrompt(answer: "")
    erase()
    let size = context.terminalSize()
    let lines = regionLines(columns: max(20, size.columns), rows: max(4, size.rows))
    // Room for the lines that the steps to come print.
    let height = min(lines.count + HumanView.tailLines, max(1, size.rows - 8))
    let region = Array(lines.suffix(height)) + Array(repeating: "", count: max(0, height - lines.count))
    context.output.write(region.map { $0 + "\n" }.joined(), to: .standardOutput)
    self.region = region.count
    let choices = question.choices.isEmpty ? "" : " [\(question.choices.joined(separator: "/"))]"
    let text = context.masker.mask(question.text).split(separator: "\n", omittingEmptySubsequences: false)
      .map { printable(String($0)) }
    // The cursor stays behind the last line; what is above it decides how far it is to the region.
    let rows = (text.dropLast() + [text.last! + choices + " "]).map {
      max(1, (columns(of: $0) + size.columns - 1) / max(1, size.columns))
    }
    prompt = (question, rows.reduce(0, +) - 1)
    context.output.write("\(style.bold(text.joined(separator: "\n")))\(choices) ", to: .standardError)
  }

  /// Takes the question away, and prints what was held back.
  private mutating func endPrompt(answer: String) {
    guard let prompt else { return }
    self.prompt = nil
    // Return has moved the cursor to the next line, if it was pressed.
    let rows = region + prompt.rows + (prompt.question.choices.contains(answer) ? 1 : 0)
    context.output.write((rows > 0 ? "\u{1b}[\(rows)F" : "\r") + "\u{1b}[J", to: .standardOutput)
    region = 0
    isDirty = true
    if !answer.isEmpty, let last = prompt.question.text.split(separator: "\n").last {
      print("\(context.shown(String(last))) \(context.shown(answer))")
    }
    let texts = held
    held = []
    for (text, stream) in texts { context.output.write(text, to: stream) }
  }

  private mutating func finish(_ summary: DeploymentSummary) {
    phase = nil
    endPrompt(answer: "")
    erase()
    isOver = true
    let width = context.terminalSize().columns
    for row in board.rows where row.hasBegun { print(line(for: row, width: width, final: true)) }
    if let problem = summary.problem {
      context.output.write(context.masker.mask(text(of: problem.error, style: style)), to: .standardError)
    }
    print("\n" + context.masker.mask(text(of: summary, style: style, timings: context.timings)))
  }

  private func tail(_ host: String) -> [String] { tails.first { $0.host == host }?.lines ?? [] }

  private mutating func setTail(_ host: String, _ lines: [String]) {
    if let index = tails.firstIndex(where: { $0.host == host }) {
      tails[index].lines = lines
    } else {
      tails.append((host, lines))
    }
  }

  // MARK: Printing

  private var manyHosts: Bool { (heading?.hosts.count ?? 1) > 1 }

  private func place(_ host: String?) -> String { host.map { manyHosts ? "\($0): " : "" } ?? "" }

  private mutating func print(_ text: String, blankAfter: Bool = false) {
    var text = text
    if !text.hasSuffix("\n") { text += "\n" }
    put(blankAfter ? text + "\n" : text, .standardOutput)
  }

  private mutating func put(_ text: String, _ stream: OutputStream) {
    if prompt != nil { return held.append((text, stream)) }
    erase()
    context.output.write(text, to: stream)
  }

  private mutating func warn(_ text: String, _ host: String?) {
    // What the client says of itself may be its last word.
    if host == nil { endPrompt(answer: "") }
    put("\(style.paint("warning:", "1;33")) \(place(host))\(text)\n", .standardError)
  }

  /// Takes the live region away; the next redraw puts it below what was printed meanwhile.
  private mutating func erase() {
    guard region > 0 else { return }
    // Cursor to the region's first line, then erase to the end of the screen (ECMA-48, CPL and ED).
    context.output.write("\u{1b}[\(region)F\u{1b}[J", to: .standardOutput)
    region = 0
    isDirty = true
  }

  mutating func redraw() {
    guard !isOver else { return }
    let now = context.uptime()
    let isAnimated = phase != nil || watch != nil || board.rows.contains { $0.isRunning }
    guard isDirty || isAnimated, !context.isBehind() else { return }
    if let lastDraw, now - lastDraw < HumanView.redrawInterval { return }
    let size = context.terminalSize()
    if let prompt { return redraw(above: prompt.rows, columns: max(20, size.columns), now: now) }
    let lines = regionLines(columns: max(20, size.columns), rows: max(4, size.rows))
    var out = region > 0 ? "\u{1b}[\(region)F" : ""
    // Each line is overwritten and its rest erased: nothing flickers.
    for line in lines { out += "\(line)\u{1b}[K\n" }
    if region > lines.count { out += "\u{1b}[J" }
    if !out.isEmpty { context.output.write(out, to: .standardOutput) }
    region = lines.count
    lastDraw = now
    isDirty = false
    frame += 1
  }

  /// Above an open question: at the height that the region has, and without moving the cursor, behind which a person types (DECSC, DECRC).
  private mutating func redraw(above rows: Int, columns: Int, now: Int64) {
    if region + rows > 0, region > 0 {
      let lines = regionLines(columns: columns, rows: region + 1)
      let padded = lines + Array(repeating: "", count: max(0, region - lines.count))
      let text = padded.map { "\($0)\u{1b}[K\n" }.joined()
      context.output.write("\u{1b}7\u{1b}[\(region + rows)F\(text)\u{1b}8", to: .standardOutput)
    }
    lastDraw = now
    isDirty = false
    frame += 1
  }

  // MARK: The live region

  /// At most a screen less one line: what has scrolled out at the top can't be redrawn.
  private func regionLines(columns: Int, rows: Int) -> [String] {
    var lines: [String] = []
    var focus = 0
    for row in board.rows {
      lines.append(line(for: row, width: columns, final: false))
      guard row.isRunning else { continue }
      for (host, _) in row.hosts {
        guard case .running = row[host] else { continue }
        for text in tail(host) {
          lines.append(style.dim("      │ " + truncated(place(host) + text, to: columns - 9)))
        }
      }
      focus = lines.count
    }
    if let phase = phase ?? watchPhase {
      lines.append("  \(style.cyan(spinner)) \(truncated(phase, to: columns - 5))")
      focus = lines.count
    }
    let room = rows - 1
    guard lines.count > room else { return lines }
    // Show the part that ends with what runs now, or as much after it as there is room for.
    let end = min(max(focus, room), lines.count)
    return Array(lines[(end - room)..<end])
  }

  private var watchPhase: String? {
    watch.map { watch in
      let left = max(0, watch.until - context.uptime() + 999) / 1000
      return "\(watch.host) watches the new release for another \(durationText(Double(left)))"
    }
  }

  private var spinner: String { ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"][frame % 10] }

  private func line(for row: StepBoard.Row, width: Int, final: Bool) -> String {
    let nameWidth = max(12, board.rows.map { columns(of: $0.name) }.max() ?? 0)
    let name = padded(row.name, to: min(nameWidth, width - 16))
    guard row.hasBegun else { return style.dim("  · \(name)") }
    if !manyHosts || row.hosts.count == 1 {
      let (mark, detail) = cell(row.hosts[0].state)
      let host = manyHosts ? "\(row.hosts[0].host) " : ""
      return "  \(mark) \(name)  \(truncated(host + detail, to: width - 7 - columns(of: name)))"
    }
    let mark = cell(row.hosts.map(\.state).max { rank($0) < rank($1) }!).mark
    let detail = row.hosts.map { "\($0.host) \(cell($0.state).detail)" }.joined(separator: ", ")
    return "  \(mark) \(name)  \(truncated(detail, to: width - 7 - columns(of: name)))"
  }

  private func rank(_ state: StepBoard.State) -> Int {
    switch state {
    case .waiting, .skipped: 0
    case .done: 1
    case .undone: 2
    case .running: 3
    case .failed: 4
    case .undoFailed: 5
    }
  }

  private func cell(_ state: StepBoard.State) -> (mark: String, detail: String) {
    switch state {
    case .waiting: (style.dim("·"), "")
    case .running(let since): (style.cyan(spinner), durationText(Double(context.uptime() - since) / 1000))
    case .done(let seconds): (style.green("✓"), durationText(seconds))
    case .failed(let seconds, let ending): (style.red("✗"), "\(durationText(seconds)) \(ending.reason)")
    case .skipped: (style.yellow("-"), "skipped")
    case .undone: (style.yellow("↺"), "undone")
    case .undoFailed: (style.red("✗"), "the undo failed")
    }
  }

}

/// ` (tcp 1 ms, handshake …)`, or nothing.
private func parts(of timings: ConnectTimings) -> String {
  let parts = [("tcp", timings.tcp), ("handshake", timings.handshake), ("authentication", timings.authentication)]
    .compactMap { name, value in value.map { "\(name) \(durationText($0))" } }
  return parts.isEmpty ? "" : " (\(parts.joined(separator: ", ")))"
}

/// One line, for `--timings`.
public func text(of timings: CommandTimings, style: Style = Style(colour: false)) -> String {
  let connected = timings.connect.map { "connected in \(durationText($0.total))\(parts(of: $0)), " } ?? ""
  let trips = "\(timings.roundTrips) round trips, \(durationText(timings.seconds)) in all"
  return style.dim("\(timings.host): \(connected)\(trips)") + "\n"
}

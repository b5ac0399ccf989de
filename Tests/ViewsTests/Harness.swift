import Diagnostics
import Engine
import Synchronization

@testable import Views

/// What a view wrote, by stream and in order.
final class RecordedOutput: OutputSink {
  private let written = Mutex<[(text: String, stream: Views.OutputStream)]>([])

  func write(_ text: String, to stream: Views.OutputStream) { written.withLock { $0.append((text, stream)) } }

  func text(_ stream: Views.OutputStream? = nil) -> String {
    written.withLock { $0.filter { stream == nil || $0.stream == stream }.map(\.text).joined() }
  }

  var writes: Int { written.withLock { $0.count } }
}

/// A clock of the test's, at 2026-11-21T09:00:00Z to begin with.
final class TestClock: Sendable {
  private let milliseconds = Mutex<Int64>(0)
  var uptime: Int64 { milliseconds.withLock { $0 } }
  func advance(_ seconds: Double) { milliseconds.withLock { $0 += Int64(seconds * 1000) } }
  var now: Timestamp { Timestamp(milliseconds: 1_795_251_600_000 + uptime) }
}

/// A view's surroundings in a test.
struct Stage {
  let output = RecordedOutput()
  let clock = TestClock()
  let masker = Masker()
  var columns = 80
  var rows = 24
  var colour = false
  var verbose = false
  var isBehind: @Sendable () -> Bool = { false }

  var context: ViewContext {
    let clock = clock
    let size = (columns: columns, rows: rows)
    return ViewContext(
      output: output, masker: masker, uptime: { clock.uptime }, now: { clock.now }, terminalSize: { size },
      colour: colour, verbose: verbose, isBehind: isBehind)
  }
}

/// As much of a terminal as HumanView uses: text, line feeds, CPL, ED, EL, DECSC, DECRC; colours are ignored, anything else is a fault. Lines that
/// scroll out at the top can't be reached again.
struct Terminal {
  let columns: Int
  let rows: Int
  private var lines: [[Character]] = [[]]
  private var row = 0
  private var column = 0
  private var saved = (row: 0, column: 0)
  private(set) var faults: [String] = []

  init(columns: Int = 80, rows: Int = 24) {
    self.columns = columns
    self.rows = rows
  }

  /// Everything that was ever on it, without blanks at the ends of lines.
  var text: String {
    var out = lines.map { line in
      var line = line
      while line.last == " " { line.removeLast() }
      return String(line)
    }
    while out.last == "" { out.removeLast() }
    return out.joined(separator: "\n")
  }

  mutating func feed(_ text: String) {
    var rest = Substring(text)
    while let character = rest.popFirst() {
      switch character {
      case "\n":
        row += 1
        column = 0
        if row == lines.count { lines.append([]) }
      case "\u{1b}":
        switch rest.popFirst() {
        case "[": break
        case "7":
          saved = (row, column)
          continue
        case "8":
          (row, column) = saved
          continue
        default:
          faults.append("an unknown escape")
          continue
        }
        let parameters = String(rest.prefix { $0.isNumber || $0 == ";" })
        rest = rest.dropFirst(parameters.count)
        control(rest.popFirst(), Int(parameters))
      default: put(character)
      }
    }
  }

  private mutating func control(_ final: Character?, _ parameter: Int?) {
    switch final {
    case "F":
      let top = max(0, lines.count - rows)
      if row - (parameter ?? 1) < top { faults.append("the cursor was sent above the screen") }
      row = max(top, row - (parameter ?? 1))
      column = 0
    case "J":
      lines.removeSubrange((row + 1)...)
      lines[row] = Array(lines[row].prefix(column))
    case "K": lines[row] = Array(lines[row].prefix(column))
    case "m": break
    default: faults.append("CSI \(final.map(String.init) ?? "")")
    }
  }

  private mutating func put(_ character: Character) {
    if column + Views.columns(of: character) > columns { feed("\n") }
    while lines[row].count < column { lines[row].append(" ") }
    if column < lines[row].count { lines[row][column] = character } else { lines[row].append(character) }
    column += 1
  }
}

extension DeploymentHeading {
  static let example = DeploymentHeading(
    command: "deploy", environment: "prod", app: "market-bot", to: "v1.1.0", hosts: ["bot-1"],
    steps: ["preflight", "pull", "backup", "recreate", "health", "commit"].map { Step(name: $0, kind: $0) })
}

extension Plan {
  static let example: Plan = {
    var plan = Plan(environment: "prod", app: "market-bot", from: "v1.0.0", to: "v1.1.0")
    plan.steps = [
      StepPlan(step: "preflight", kind: "preflight", changes: []),
      StepPlan(
        step: "env", kind: "env",
        changes: [
          Change(.create, "env FEATURE_X"), Change(.update, "env LOG_LEVEL", detail: ["-INFO", "+DEBUG"]),
          Change(.delete, "env OLD"),
        ]),
      StepPlan(
        step: "migrate", kind: "migrate",
        changes: [Change(.run, "migration 0003", detail: ["~ adds a column"], losesData: true)]),
      StepPlan(step: "recreate", kind: "recreate", changes: [Change(.recreate, "service bot")]),
    ]
    return plan
  }()
}

internal import Diagnostics
internal import Inventory

/// Turns the items of a deployment's log into what a view is told, and remembers what a summary needs.
struct EventReader {
  let host: String
  private(set) var outcome: DeploymentOutcome?
  private(set) var healthy: Bool?
  /// What isn't healthy wasn't so before the deployment either.
  private(set) var unhealthyBefore = false
  private(set) var failedStep: String?
  /// What the step that failed (else the last one) printed last.
  private(set) var tail: [String] = []
  private(set) var timings: [DeploymentSummary.StepTiming] = []
  private(set) var committed = false
  /// The host goes on watching behind the end, for so many seconds.
  private(set) var watch: Double?
  private(set) var watchEnding: DeploymentSummary.WatchEnding?
  /// Nothing more comes.
  var isOver: Bool { outcome != nil && (watch == nil || watchEnding != nil) }
  private(set) var undoText: String?
  /// What the undo that failed printed last.
  private(set) var undoTail: [String] = []
  private var hadNothingToCommit = false
  /// The step that runs.
  private(set) var step: String?
  private var facts: [String: JSONValue] = [:]
  /// When the host decided to undo, in milliseconds since 1970.
  private var decided: Int?

  /// The state that the schema is in, in the words of the last migration or undo that told (lib `tell_schema`).
  var schema: String? { facts["schema"]?.stringValue }

  init(host: String) { self.host = host }

  mutating func read(_ item: LogItem) -> [DeploymentEvent] {
    switch item.content {
    case .line(let bytes):
      let text = String(decoding: bytes, as: UTF8.self)
      if failedStep == nil { append(text) }
      if undoText != nil { undoTail = undoTail.suffix(19) + [text] }
      return [.log(host: host, step: step, text: text)]
    case .event(let event): return read(event)
    }
  }

  private mutating func read(_ event: RunnerEvent) -> [DeploymentEvent] {
    if event.name == "closed" { watch = event.members["watch"]?.numberValue }
    if let told = JournalEvent(event) { return read(told, at: event.members["t"]?.intValue) }
    guard event.name == "fact", let key = event.members["key"]?.stringValue, let value = event.members["value"] else {
      return []
    }
    facts[key] = value
    return [.fact(host: host, step: event.step.map(StepBatch.name(of:)) ?? "", key: key, value: value)]
  }

  /// - Parameter time: milliseconds since 1970.
  private mutating func read(_ event: JournalEvent, at time: Int?) -> [DeploymentEvent] {
    switch event {
    case .started(let directory):
      let name = StepBatch.name(of: directory)
      step = name
      if failedStep == nil { tail = [] }
      return [.stepStarted(host: host, step: name)]
    case .ended(let directory, let ending):
      let name = StepBatch.name(of: directory)
      timings.append(
        .init(host: host, step: name, seconds: ending.seconds, state: ending.succeeded ? "done" : "failed"))
      if !ending.succeeded, failedStep == nil {
        failedStep = name
        if ending.timedOut { append("(the step ran into its deadline)") }
        if let signal = ending.signal { append("(the step was killed by SIG\(signal))") }
      }
      step = nil
      return [.stepEnded(host: host, step: name, ending: ending)]
    case .committed(let release):
      committed = true
      return [.committed(host: host, release: release)]
    case .undoing(reason: "no-commit", _):
      // Steps on the running release that changed nothing to be committed: a backup, a prune. They are done.
      hadNothingToCommit = true
      return []
    case .undoing(let reason, let text):
      undoText = text
      decided = time
      step = nil
      return [.undoing(host: host, reason: reason, text: text)]
    case .undone(let directory, let status, let attempts):
      let name = StepBatch.name(of: directory)
      if status == 0 { undoTail = [] }
      timings.append(.init(host: host, step: name, seconds: 0, state: "undone"))
      return [.stepUndone(host: host, step: name, status: status, attempts: attempts)]
    case .closed(let ended, let healthy, let unhealthyBefore, let recovery):
      let outcome = hadNothingToCommit && ended == .unchanged ? .committed : ended
      self.outcome = outcome
      self.healthy = healthy
      self.unhealthyBefore = unhealthyBefore
      return [.closed(host: host, outcome: outcome, healthy: healthy, recovery: recovery)]
    case .watching(_, let seconds):
      watch = seconds
      watchEnding = nil
      return [.watching(host: host, seconds: seconds)]
    case .breached(let text, let rollback):
      watchEnding = .init(reason: "breached", text: text, by: rollback)
      return [.breached(host: host, text: text, rollback: rollback)]
    case .watched(let reason, let by):
      watchEnding = .init(reason: reason, by: by)
      return [.watched(host: host, reason: reason, by: by)]
    case .opened, .accepted, .committing, .abandoned: return []
    }
  }

  /// A line that belongs to the running step, from elsewhere than its log.
  mutating func append(_ line: String) {
    tail.append(line)
    if tail.count > 120 { tail.removeFirst(60) }
  }

  /// Nil: committed.
  var errorCode: ErrorCode? {
    switch outcome {
    case .committed: nil
    case .unchanged: .failed
    case .undone: healthy == false && !unhealthyBefore ? .rollbackFailed : .rolledBack
    case .stuck, .abandoned: .rollbackFailed
    case .unknown, nil: .outcomeUnknown
    }
  }

  /// From the verdict to the old version's first good answer, by the host's clock. A gate says when it gave its verdict (what it reports about it
  /// comes later); any other failure is decided when the undo begins.
  private var rollbackMilliseconds: Int? {
    guard outcome == .undone, let answered = facts["undone_healthy_ms"]?.intValue,
      let verdict = facts["verdict_ms"]?.intValue ?? decided
    else { return nil }
    return max(0, answered - verdict)
  }

  /// What the facts and timings say; the problem is the caller's.
  func fill(_ summary: inout DeploymentSummary) {
    summary.outcome = outcome
    summary.healthy = healthy
    if unhealthyBefore { summary.unhealthyBefore = true }
    summary.steps = timings
    summary.watch = watchEnding
    summary.downtimeMilliseconds = facts["gap_ms"]?.intValue
    summary.rollbackMilliseconds = rollbackMilliseconds
    summary.restorePoint = facts["backup"]?["file"]?.stringValue
  }

  func summary(command: String, inventory: Inventory, number: Int, from: String?, to: String?) -> DeploymentSummary {
    let code = errorCode
    var summary = DeploymentSummary(
      command: command, environment: inventory.environment, app: inventory.app, hosts: [host],
      exitStatus: code.map { ExitStatus($0) } ?? .done, seconds: 0)
    summary.number = number
    summary.from = from
    summary.to = to
    fill(&summary)
    if let code {
      summary.problem = ProblemDocument(
        OrchestrateError(
          code, failedStep.map { "the step \($0) failed" } ?? "the deployment didn't commit", host: host,
          step: failedStep,
          cause: tail.isEmpty ? nil : tail.joined(separator: "\n"),
          remedy: "orchestrate history \(inventory.environment)"))
    }
    return summary
  }
}

/// An event of a deployment's journal (docs/runner.md, "Events"): what the runner writes down, on the disk before its effect. The copies in the deployment's log are
/// the same events.
public enum JournalEvent: Sendable, Hashable {
  /// `previous`: the release that was current then; nil: none.
  case opened(number: Int, previous: Int?)
  /// Directories of steps, in order.
  case accepted(steps: [String])
  case started(step: String)
  case ended(step: String, StepEnding)
  case committing(release: Int)
  case committed(release: Int)
  /// `reason`: `step-failed`, `aborted`, `lease`, `recovery` or `no-commit`.
  case undoing(reason: String, text: String)
  case undone(step: String, status: Int, attempts: Int)
  /// A person has settled what was stuck.
  case abandoned
  case closed(outcome: DeploymentOutcome, healthy: Bool?, unhealthyBefore: Bool, recovery: Bool)
  /// Behind `closed`: the host goes on watching what was committed; again where that begins afresh.
  case watching(release: Int, seconds: Double)
  /// The release isn't well: the deployment `rollback` leads back from it.
  case breached(text: String, rollback: Int)
  /// The watch has ended without a breach: `over`, `superseded` (by a deployment), `aborted` (by a person) or `gave-up` (Docker didn't come back).
  case watched(reason: String, by: Int?)

  /// Nil: no event of the journal (`fact`, `waiting`), or one of a newer version of the tool.
  public init?(_ event: RunnerEvent) {
    let members = event.members, step = event.step ?? ""
    switch event.name {
    case "opened":
      self = .opened(number: members["number"]?.intValue ?? 0, previous: members["previous"]?.intValue)
    case "accepted": self = .accepted(steps: members["steps"]?.arrayValue?.compactMap(\.stringValue) ?? [])
    case "started": self = .started(step: step)
    case "ended":
      let ending = StepEnding(
        status: event.status ?? 1, seconds: members["seconds"]?.numberValue ?? 0,
        signal: members["signal"]?.stringValue, timedOut: members["timeout"]?.boolValue ?? false)
      self = .ended(step: step, ending)
    case "committing": self = .committing(release: members["release"]?.intValue ?? 0)
    case "committed": self = .committed(release: members["release"]?.intValue ?? 0)
    case "undoing":
      self = .undoing(reason: members["reason"]?.stringValue ?? "", text: members["text"]?.stringValue ?? "")
    case "undone":
      self = .undone(step: step, status: event.status ?? 0, attempts: members["attempts"]?.intValue ?? 1)
    case "abandoned": self = .abandoned
    case "closed":
      self = .closed(
        outcome: DeploymentOutcome(rawValue: members["outcome"]?.stringValue ?? "") ?? .unknown,
        healthy: members["healthy"]?.boolValue, unhealthyBefore: members["unhealthy_before"]?.boolValue ?? false,
        recovery: members["recovery"]?.boolValue ?? false)
    case "watching":
      self = .watching(release: members["release"]?.intValue ?? 0, seconds: members["seconds"]?.numberValue ?? 0)
    case "breached":
      self = .breached(text: members["text"]?.stringValue ?? "", rollback: members["rollback"]?.intValue ?? 0)
    case "watched": self = .watched(reason: members["reason"]?.stringValue ?? "", by: members["by"]?.intValue)
    default: return nil
    }
  }

  /// The event and the time (milliseconds since 1970) of a line. Throws `JournalFault` if it isn't a whole event; nil as above.
  static func parse(line: Substring) throws(JournalFault) -> (event: JournalEvent, time: Int64?)? {
    guard let members = (try? JSONValue(parsing: String(line)))?.objectValue,
      let name = members["event"]?.stringValue
    else { throw JournalFault(.lineIsWhole, "not an event: \(line.prefix(60))") }
    return JournalEvent(RunnerEvent(name: name, members: members)).map {
      ($0, members["t"]?.numberValue.map { Int64($0) })
    }
  }
}

/// An event that can't stand where it stands: the journal isn't one of our runner's, or a promise was broken.
public struct JournalFault: Error, Sendable, Hashable, CustomStringConvertible {
  /// What a journal keeps to (docs/reliability.md, "The protocol as a state machine").
  public enum Rule: String, Sendable, Hashable, CaseIterable {
    case lineIsWhole, opensOnce, acceptedInOrder, oneStepAtATime, stepsInOrder, onlyAfterSuccess, commitIsOwn
    case committedAfterCommitting, committedIsNeverUndone, undoIsNeverTurnedBack, undoneOnlyInAnUndo
    case undoneBackwards, outcomeFollows, onlyStuckIsAbandoned, closedStays, watchedInOrder
  }
  public var rule: Rule
  public var text: String

  init(_ rule: Rule, _ text: String) {
    self.rule = rule
    self.text = text
  }
  public var description: String { "\(rule.rawValue): \(text)" }
}

/// Where a deployment stands by its journal: the state machine of docs/reliability.md. `apply` is its only transition.
public struct JournalState: Sendable, Hashable {
  public enum Phase: Sendable, Hashable {
    case unopened
    /// Steps are being carried out; without a commit among them until the end.
    case forward
    case committing
    case committed
    case undoing
    /// A person has settled what was stuck; not closed again yet.
    case abandoned
    case closed(DeploymentOutcome)
  }

  public private(set) var phase = Phase.unopened
  public private(set) var number = 0
  public private(set) var previous: Int?
  /// Directories of steps, in order.
  public private(set) var accepted: [String] = []
  /// Each once, in the order in which they began.
  public private(set) var started: [String] = []
  public private(set) var succeeded: Set<String> = []
  public private(set) var failed: Set<String> = []
  /// The step that has started and hasn't ended.
  public private(set) var running: String?
  public private(set) var undone: Set<String> = []
  /// The step whose undo has failed, in this attempt.
  public private(set) var failedUndo: String?
  /// It got stuck, and nobody has closed it otherwise since.
  private var isKnownStuck = false
  /// Behind the end of what was committed: its watch.
  public enum Watch: Sendable, Hashable { case on, breached, over }
  public private(set) var watch: Watch?
  /// Index in `started` of what was undone last, in this attempt.
  private var undoneDownTo: Int?

  public init() {}

  /// Replays a journal. A torn last line was never written; events that we don't know are refused.
  public init(journal: String) throws(JournalFault) {
    let report = JournalReport(journal: journal)
    if let fault = report.fault { throw fault }
    guard report.unknown == 0 else { throw JournalFault(.lineIsWhole, "\(report.unknown) events of no kind of ours") }
    self = report.state
  }

  public var outcome: DeploymentOutcome? { if case .closed(let outcome) = phase { outcome } else { nil } }
  /// Whoever takes the lock next has to close it: nobody has, or the undo got stuck.
  public var isOpen: Bool {
    switch phase {
    case .unopened: false
    case .closed(let outcome): outcome == .stuck
    default: true
    }
  }

  /// Throws, and changes nothing, where the event isn't allowed in this state.
  public mutating func apply(_ event: JournalEvent) throws(JournalFault) {
    if phase == .unopened {
      guard case .opened(let number, let previous) = event else {
        throw JournalFault(.opensOnce, "\(event) before it was opened")
      }
      guard number > previous ?? 0 else { throw JournalFault(.opensOnce, "\(number) comes after \(previous ?? 0)") }
      (self.number, self.previous, phase) = (number, previous, .forward)
      return
    }
    try allow(event)
    switch event {
    case .opened: throw JournalFault(.opensOnce, "opened again, as \(event)")
    case .accepted(let steps): try accept(steps)
    case .started(let step): try start(step)
    case .ended(let step, let ending): try end(step, succeeded: ending.succeeded)
    case .committing(let release):
      guard phase == .forward, running != nil else {
        throw JournalFault(.onlyAfterSuccess, "no commit step runs that could commit")
      }
      guard release == number else { throw JournalFault(.commitIsOwn, "\(number) commits \(release)") }
      phase = .committing
    case .committed(let release):
      guard phase == .committing else { throw JournalFault(.committedAfterCommitting, "committed out of nothing") }
      guard release == number else { throw JournalFault(.commitIsOwn, "\(number) has committed \(release)") }
      phase = .committed
    case .undoing:
      phase = .undoing
      running = nil
      failedUndo = nil
      undoneDownTo = nil
    case .undone(let step, let status, _): try undo(step, status)
    case .abandoned: phase = .abandoned
    case .closed(let outcome, _, _, _): try close(outcome)
    case .watching: watch = .on
    case .breached: watch = .breached
    case .watched: watch = .over
    }
  }

  // MARK: - What may follow what

  /// What each phase lets in at all.
  private func allow(_ event: JournalEvent) throws(JournalFault) {
    switch (phase, event) {
    case (.closed(.stuck), .undoing), (.closed(.stuck), .abandoned): return
    // A way back that broke off is followed by a watch afresh. A release that came before the watch had begun ends it, too.
    case (.closed(.committed), .watching) where watch != .over, (.closed(.committed), .breached) where watch == .on,
      (.closed(.committed), .watched) where watch == .on || watch == nil:
      return
    case (_, .watching), (_, .breached), (_, .watched):
      throw JournalFault(.watchedInOrder, "\(event) in \(phase)\(watch.map { ", \($0)" } ?? "")")
    // Where that couldn't be closed, it is said again, or the undo is tried again.
    case (.abandoned, .closed), (.abandoned, .abandoned), (.abandoned, .undoing): return
    // Whoever tried again was killed at it.
    case (.undoing, .abandoned) where isKnownStuck: return
    case (.closed, .undoing), (.closed, .undone):
      throw JournalFault(
        phase == .closed(.committed) ? .committedIsNeverUndone : .closedStays, "\(event) behind the end")
    case (_, .abandoned): throw JournalFault(.onlyStuckIsAbandoned, "\(phase) was abandoned")
    case (.closed, _), (.abandoned, _): throw JournalFault(.closedStays, "\(event) behind the end")
    case (.committed, .undoing), (.committed, .undone):
      throw JournalFault(.committedIsNeverUndone, "\(event) behind the commit")
    case (.undoing, .accepted), (.undoing, .started), (.undoing, .ended), (.undoing, .committing),
      (.undoing, .committed):
      throw JournalFault(.undoIsNeverTurnedBack, "\(event) while it is undone")
    default: return
    }
  }

  private mutating func accept(_ steps: [String]) throws(JournalFault) {
    for step in steps {
      guard accepted.last.map({ $0.prefix(2) < step.prefix(2) }) ?? true else {
        throw JournalFault(.acceptedInOrder, "\(step) behind \(accepted.last ?? "")")
      }
      accepted.append(step)
    }
  }

  private mutating func start(_ step: String) throws(JournalFault) {
    guard accepted.contains(step) else { throw JournalFault(.stepsInOrder, "\(step) was never accepted") }
    if phase == .forward {
      guard running == nil else { throw JournalFault(.oneStepAtATime, "\(step) beside \(running!)") }
      guard failed.isEmpty else {
        throw JournalFault(.onlyAfterSuccess, "\(step) behind \(failed.first!), which failed")
      }
      guard accepted.firstIndex(of: step) == started.count else {
        throw JournalFault(.stepsInOrder, "\(step), and \(started.count) have started")
      }
    } else {
      // Behind a crash what hasn't ended is done again. A full disk may have swallowed `committed`, never what came before it.
      guard phase == .committed || running == nil else { throw JournalFault(.oneStepAtATime, "\(step) in the commit") }
      guard !succeeded.contains(step), !failed.contains(step) else {
        throw JournalFault(.stepsInOrder, "\(step) again, though it had ended")
      }
      phase = .committed
    }
    if !started.contains(step) { started.append(step) }
    running = step
  }

  private mutating func end(_ step: String, succeeded good: Bool) throws(JournalFault) {
    guard running == step else { throw JournalFault(.oneStepAtATime, "\(step) ended, and didn't run") }
    running = nil
    if good { succeeded.insert(step) } else { failed.insert(step) }
  }

  private mutating func undo(_ step: String, _ status: Int) throws(JournalFault) {
    guard phase == .undoing else { throw JournalFault(.undoneOnlyInAnUndo, "\(step) was undone") }
    guard let index = started.firstIndex(of: step), !undone.contains(step) else {
      throw JournalFault(.undoneBackwards, "\(step) hadn't started, or was undone before")
    }
    guard failedUndo == nil, index < undoneDownTo ?? .max else {
      throw JournalFault(.undoneBackwards, "\(step) out of its order")
    }
    undoneDownTo = index
    if status == 0 { undone.insert(step) } else { failedUndo = step }
  }

  private mutating func close(_ outcome: DeploymentOutcome) throws(JournalFault) {
    let follows =
      switch outcome {
      // In a playbook without a commit step: all that has started has succeeded.
      case .committed:
        phase == .committed || [.forward, .committing].contains(phase) && running == nil && failed.isEmpty
      case .unchanged, .undone: phase == .undoing && failedUndo == nil
      case .stuck: phase == .undoing && failedUndo != nil
      case .abandoned: phase == .abandoned
      case .unknown: false
      }
    guard follows else { throw JournalFault(.outcomeFollows, "\(phase) was closed as \(outcome.rawValue)") }
    phase = .closed(outcome)
    isKnownStuck = outcome == .stuck
    running = nil
  }
}

/// How far a deployment is, by its journal (docs/runner.md, "Events").
public struct JournalReport: Sendable, Equatable {
  public private(set) var state = JournalState()
  /// Since when its step runs (milliseconds since 1970).
  public private(set) var since: Int64?
  /// The first line that can't stand where it stands; it and others like it are passed over.
  public private(set) var fault: JournalFault?
  /// How many events of a newer version were passed over.
  public private(set) var unknown = 0

  /// A torn last line is passed over.
  public init(journal: String) {
    var lines = journal.split(separator: "\n", omittingEmptySubsequences: false)
    lines.removeLast()
    for (index, line) in lines.enumerated() {
      do throws(JournalFault) {
        guard let (event, time) = try JournalEvent.parse(line: line) else {
          unknown += 1
          continue
        }
        try state.apply(event)
        if case .started = event { since = time }
      } catch {
        guard index < lines.count - 1 || error.rule != .lineIsWhole, fault == nil else { continue }
        fault = JournalFault(error.rule, "line \(index + 1): \(error.text)")
      }
    }
    if state.running == nil { since = nil }
  }

  /// The step that runs.
  public var step: String? { state.running.map(StepBatch.name(of:)) }
  public var isUndoing: Bool { state.phase == .undoing }
  public var outcome: DeploymentOutcome? { state.outcome }
}

import Engine
import Foundation

// The protocol of docs/reliability.md, small enough to be looked at from every side: numbers instead of names, and only what decides.
// Each file is there twice: as whoever reads it sees it (`written`), and as a power loss leaves it (`durable`).

/// The journals that can come to be, each once: a tree whose nodes are named by small numbers. A node's state is what the engine's own
/// `JournalState.apply` makes of it.
final class JournalBook {
  struct Facts {
    var isOpen = false, isStuck = false, hasCommitted = false, isUndoing = false
    var accepted: UInt8 = 0, started: UInt8 = 0, ended: UInt8 = 0, succeeded: UInt8 = 0, undone: UInt8 = 0
    var outcome: UInt8 = 0
    var watch: JournalState.Watch?
  }
  /// `empty`: there is no journal.
  static let empty: UInt16 = 0
  private(set) var facts = [Facts()]
  private(set) var parents: [UInt16] = [0]
  private(set) var events: [JournalEvent?] = [nil]
  private var states = [JournalState()]
  private var children: [UInt32: UInt16] = [:]
  private var canonical: [JournalState: UInt16] = [:]
  let steps: [String]

  init(steps: [String]) { self.steps = steps }

  /// Throws `JournalFault`, as the engine does.
  func append(_ event: Event, of number: UInt8, to node: UInt16) throws(JournalFault) -> UInt16 {
    let key = UInt32(node) << 16 | UInt32(number) << 8 | UInt32(event.code)
    if let known = children[key] { return known }
    let full = event.expanded(number: number, steps: steps)
    var state = states[Int(node)]
    try state.apply(full)
    let made = UInt16(states.count)
    states.append(state)
    parents.append(node)
    events.append(full)
    facts.append(summary(of: state))
    children[key] = made
    return made
  }

  /// Once all of a journal is on the disk it doesn't count any more how it came to be as it is, but what it says.
  func settle(_ node: UInt16) -> UInt16 {
    let state = states[Int(node)]
    if let known = canonical[state] { return known }
    canonical[state] = node
    return node
  }

  private func summary(of state: JournalState) -> Facts {
    func mask(_ names: some Sequence<String>) -> UInt8 {
      names.reduce(0) { $0 | 1 << UInt8(steps.firstIndex(of: $1)!) }
    }
    var facts = Facts()
    facts.isOpen = state.isOpen
    facts.isStuck = state.outcome == .stuck
    facts.hasCommitted = state.phase == .committed || state.phase == .closed(.committed)
    facts.isUndoing = state.phase == .undoing
    facts.accepted = mask(state.accepted)
    facts.started = mask(state.started)
    facts.succeeded = mask(state.succeeded)
    facts.ended = mask(state.succeeded) | mask(state.failed)
    facts.undone = mask(state.undone)
    facts.outcome = state.outcome.map { Outcome($0) } ?? Outcome.none
    facts.watch = state.watch
    return facts
  }

  func story(of node: UInt16) -> [JournalEvent] {
    node == 0 ? [] : story(of: parents[Int(node)]) + [events[Int(node)]!]
  }
}

/// How a deployment ended, as a small number. 0: not yet.
typealias Outcome = UInt8
extension Outcome {
  static let none: Outcome = 0, committed: Outcome = 1, unchanged: Outcome = 2, undone: Outcome = 3, stuck: Outcome = 4
  init(_ outcome: DeploymentOutcome) {
    switch outcome {
    case .committed: self = .committed
    case .unchanged: self = .unchanged
    case .undone: self = .undone
    default: self = .stuck
    }
  }
  var full: DeploymentOutcome { [.unknown, .committed, .unchanged, .undone, .stuck][Int(self)] }
}

/// A `JournalEvent` before it is written out.
struct Event {
  let code: UInt8
  static let opened = Event(code: 0), committing = Event(code: 1), committed = Event(code: 2), undoing = Event(code: 3)
  static let watching = Event(code: 4), breached = Event(code: 5), watched = Event(code: 6)
  /// `batch`: the steps of the first or of the second message.
  static func accepted(_ batch: UInt8) -> Event { Event(code: 16 | batch) }
  static func started(_ step: UInt8) -> Event { Event(code: 32 | step) }
  static func ended(_ step: UInt8, good: Bool) -> Event { Event(code: (good ? 48 : 64) | step) }
  static func undone(_ step: UInt8, good: Bool) -> Event { Event(code: (good ? 80 : 96) | step) }
  static func closed(_ outcome: Outcome) -> Event { Event(code: 112 | outcome) }

  func expanded(number: UInt8, steps: [String]) -> JournalEvent {
    let low = Int(code & 15), n = Int(number)
    switch code >> 4 {
    case 0:
      return [
        .opened(number: n, previous: nil), .committing(release: n), .committed(release: n),
        .undoing(reason: "", text: ""), .watching(release: n, seconds: 1), .breached(text: "", rollback: n + 1),
        .watched(reason: "", by: nil),
      ][low]
    case 1: return .accepted(steps: low == 1 ? [steps[0]] : Array(steps[1...]))
    case 2: return .started(step: steps[low])
    case 3, 4: return .ended(step: steps[low], StepEnding(status: code >> 4 == 3 ? 0 : 1, seconds: 0))
    case 5, 6: return .undone(step: steps[low], status: code >> 4 == 5 ? 0 : 1, attempts: 1)
    default: return .closed(outcome: Outcome(low).full, healthy: nil, unhealthyBefore: false, recovery: false)
    }
  }
}

/// What is on the host of one deployment. No padding: states are compared as bytes.
struct Deployment {
  var written: UInt16 = 0, durable: UInt16 = 0
  var history: Outcome = 0, historyDurable: Outcome = 0
  /// Messages with steps whose directories are there, and their scripts on the disk.
  var delivered: UInt8 = 0, deliveredDurable: UInt8 = 0
  /// Bit per step: what it does is there, or part of it.
  var effects: UInt8 = 0
  var flags: UInt8 = 0
  static let sealed: UInt8 = 1, abort: UInt8 = 2, detached: UInt8 = 4, good: UInt8 = 8, bad: UInt8 = 16
  /// The log says so already, while the marker is still there (only in a mutant); the number was granted to somebody (nobody's to read).
  static let told: UInt8 = 32, granted: UInt8 = 64
  /// A recovery has closed it.
  static let recovered: UInt8 = 128
  /// Half a line stands at the end of its journal: what it was of.
  var torn: UInt8 = 0
  /// Nobody's to read: which client it was granted to, from 1; `wayBack`: a watch.
  var owner: UInt8 = 0
  static let wayBack: UInt8 = 3
}

struct Runner {
  enum At: UInt8 {
    /// `away`: its watch has let go of the lock, since Docker is stopped.
    case none, killed, waiting, away
    // From here on with the lock.
    case scan, undo, undoSync, undoNext, undoneSync
    case roll, rollLine, rollSync, rollNext, rollRuns
    case history, historySync, closed, closedSync, unmark, tell
    case mark, directory, directorySync, grant
    case idle, startedSync, runs, committing, rename, renameSync, committed
    case watchLine, watchSync, watch, watchedSync, breachedSync, goBack, forget
    static let withLock = At.scan.rawValue
  }
  var at = At.none
  /// The deployment that it works on; while it looks for open ones: only below this.
  var number: UInt8 = 0
  /// The step that it works on; in the end of a deployment the outcome.
  var step: UInt8 = 0
  var flags: UInt8 = 0
  /// `unlocked`: it has let the lock go, and works on (only in a mutant).
  static let recovering: UInt8 = 1, committed: UInt8 = 2, unlocked: UInt8 = 4
  /// Its watch was asked to make way; it opens the way back.
  static let asked: UInt8 = 8, goesBack: UInt8 = 16
  var hasLock: Bool { at.rawValue >= At.withLock && flags & Runner.unlocked == 0 }
}

struct Client {
  enum At: UInt8 { case idle, asked, working, following, gone }
  enum Verdict: UInt8 { case none, granted, locked, stuck, nothing }
  enum Message: UInt8 { case none, first, second, seal, good, bad, abort }
  var at = At.idle
  var number: UInt8 = 0
  var verdict = Verdict.none
  /// The next message of its own.
  var next = Message.first
  /// Sent over a connection that broke: attach may still have it before it.
  var late = Message.none
  /// Exit status; 255: nothing was printed.
  var printed: UInt8 = 255
  var flags: UInt8 = 0
  static let connected: UInt8 = 1, aborted: UInt8 = 2
  var spare: UInt8 = 0
  var isConnected: Bool { flags & Client.connected != 0 }
}

struct World: Hashable {
  var first = Deployment(), second = Deployment(), third = Deployment()
  var ada = Client(), ben = Client()
  /// Those that the clients have started, and the host's own (or a client's `recover`).
  var adas = Runner(), bens = Runner(), own = Runner()
  var sequence: UInt8 = 0, sequenceDurable: UInt8 = 0
  /// 0: the release from before.
  var current: UInt8 = 0, currentDurable: UInt8 = 0
  /// The file `open`.
  var marker: UInt8 = 0, markerDurable: UInt8 = 0
  /// The file `watching`.
  var watching: UInt8 = 0, watchingDurable: UInt8 = 0
  /// A step that outlives its runner: deployment and step + 1.
  var orphan: UInt8 = 0, orphanStep: UInt8 = 0
  /// What may still happen.
  var kills: UInt8 = 0, outages: UInt8 = 0, cuts: UInt8 = 0, full: UInt8 = 0, stops: UInt8 = 0
  /// Nobody's to read: an undo has failed.
  var wasStuck: UInt8 = 0

  subscript(deployment number: UInt8) -> Deployment {
    get { number == 1 ? first : number == 2 ? second : third }
    set { if number == 1 { first = newValue } else if number == 2 { second = newValue } else { third = newValue } }
  }
  subscript(runner slot: UInt8) -> Runner {
    get { slot == 0 ? adas : slot == 1 ? bens : own }
    set { if slot == 0 { adas = newValue } else if slot == 1 { bens = newValue } else { own = newValue } }
  }
  subscript(client slot: UInt8) -> Client {
    get { slot == 0 ? ada : ben }
    set { if slot == 0 { ada = newValue } else { ben = newValue } }
  }

  func hash(into hasher: inout Hasher) { withUnsafeBytes(of: self) { hasher.combine(bytes: $0) } }
  static func == (left: World, right: World) -> Bool {
    withUnsafeBytes(of: left) { left in
      withUnsafeBytes(of: right) { right in memcmp(left.baseAddress!, right.baseAddress!, left.count) == 0 }
    }
  }
}

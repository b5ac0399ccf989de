import Engine

/// What is promised. An order of severity isn't implied.
enum Invariant: String, CaseIterable, Sendable {
  case oneHolder, oneOpen, currentHasPassedItsGate, notCommittedIsUndone, committedStays, committedIsRolledForward
  case undoBeforeEffect, lockIsFreeInTheEnd, nothingIsOpenInTheEnd, numberIsNeverUsedTwice, oldMessagesAreRefused
  case undoIsNeverTurnedBack, undoneBackwards, whatWasPrintedIsTrue, historyAgrees, journalIsLegal
  case watchedUntilItIsSettled, breachIsFollowed, breachBeforeTheWayBack, onlyTheCurrentIsWatched

  init(_ rule: JournalFault.Rule) {
    switch rule {
    case .committedIsNeverUndone: self = .committedStays
    case .undoIsNeverTurnedBack: self = .undoIsNeverTurnedBack
    case .undoneBackwards: self = .undoneBackwards
    case .onlyAfterSuccess: self = .currentHasPassedItsGate
    default: self = .journalIsLegal
    }
  }
}

/// A protocol that is wrong in one point.
enum Mutant: String, CaseIterable, Sendable {
  case startedIsNotSynced, scriptsAreNotSynced, failedStepsAreIgnored, lockIsReleasedBeforeTheUndo,
    stepsDoNotInheritTheLock
  case lockOutlivesItsHolder, nextOpensOverWhatIsOpen, numbersFollowCurrent, anyMessageIsTaken, recoveryContinues
  case undoIsTurnedBack, undoRunsForwards, recoveryBelievesTheJournal, renameIsNotSynced, rollForwardDoesNotSync
  case readClosedIsNotSynced, fullDiskUndoesAfterTheCommit, abortIsHeardAfterTheCommit, closedBeforeHistory,
    toldBeforeSynced
  case tornLineIsBelieved, tornLineIsWrittenOn, directoryBeforeMarker, recoveryDropsWhatIsLeft, failedUndoIsPassedOver
  case lostClientGuesses, clientForgetsWhatItSaw, takenUpWithoutAMarker
  case watchIsMarkedBehindTheEnd, recoveryForgetsTheWatch, breachIsNotSynced, breachIsForgotten, returnsWithoutTheLock
  case returnsToAnother, watchesWhatIsNotCurrent, supersededBehindTheBreach, readWatchIsNotSynced
  case toldWatchIsNotSynced, brokenOffIsBelieved, opensAboveWhatIsStuck

  /// What it breaks.
  var breaks: Invariant {
    switch self {
    case .startedIsNotSynced, .scriptsAreNotSynced: .undoBeforeEffect
    case .failedStepsAreIgnored: .currentHasPassedItsGate
    case .lockIsReleasedBeforeTheUndo: .oneHolder
    case .stepsDoNotInheritTheLock: .notCommittedIsUndone
    case .lockOutlivesItsHolder: .lockIsFreeInTheEnd
    case .nextOpensOverWhatIsOpen: .oneOpen
    case .numbersFollowCurrent: .numberIsNeverUsedTwice
    case .anyMessageIsTaken: .oldMessagesAreRefused
    case .recoveryContinues: .journalIsLegal
    case .undoIsTurnedBack: .undoIsNeverTurnedBack
    case .undoRunsForwards: .undoneBackwards
    case .recoveryBelievesTheJournal, .renameIsNotSynced, .rollForwardDoesNotSync,
      .fullDiskUndoesAfterTheCommit, .abortIsHeardAfterTheCommit:
      .committedStays
    case .closedBeforeHistory: .historyAgrees
    case .toldBeforeSynced, .lostClientGuesses, .clientForgetsWhatItSaw: .whatWasPrintedIsTrue
    case .failedUndoIsPassedOver: .notCommittedIsUndone
    case .tornLineIsWrittenOn: .journalIsLegal
    case .tornLineIsBelieved, .directoryBeforeMarker, .takenUpWithoutAMarker, .readClosedIsNotSynced:
      .nothingIsOpenInTheEnd
    case .watchIsMarkedBehindTheEnd, .recoveryForgetsTheWatch: .watchedUntilItIsSettled
    case .breachIsNotSynced, .readWatchIsNotSynced: .breachBeforeTheWayBack
    case .breachIsForgotten, .brokenOffIsBelieved: .breachIsFollowed
    case .opensAboveWhatIsStuck: .oneOpen
    case .returnsWithoutTheLock: .oneHolder
    case .watchesWhatIsNotCurrent: .onlyTheCurrentIsWatched
    case .returnsToAnother, .supersededBehindTheBreach: .journalIsLegal
    case .toldWatchIsNotSynced: .whatWasPrintedIsTrue
    case .recoveryDropsWhatIsLeft: .committedIsRolledForward
    }
  }
}

/// A deployment's steps, who takes part, and what may happen to them.
struct Scenario: Sendable {
  struct Step: Sendable {
    var name: String
    var changes = false, mayFail = false, undo = false, undoMayFail = false, isClients = false, isCommit = false
  }
  var name: String
  /// The first travels by itself, the others together.
  var steps: [Step]
  /// systemd starts a killed runner again, and the recovery at boot. Without it whoever comes next does that.
  var systemd = true
  var ben = true
  /// How often: a runner is killed, the host restarts or loses its power, a client is gone or its connection, the disk is full.
  var kills: UInt8 = 1, outages: UInt8 = 1, cuts: UInt8 = 1, full: UInt8 = 0
  var aborts = false
  /// What has been committed is watched over; Docker may be stopped meanwhile.
  var watch = false, stops: UInt8 = 0

  static let deploy: [Step] = [
    .init(name: "01-prepare", undo: true),
    .init(name: "02-change", changes: true, mayFail: true, undo: true, undoMayFail: true),
    .init(name: "03-commit", isCommit: true), .init(name: "04-after", mayFail: true),
  ]
  static let gateOfTheClient: [Step] = [
    .init(name: "01-change", changes: true, undo: true), .init(name: "02-gate", isClients: true),
    .init(name: "03-commit", isCommit: true), .init(name: "04-after"),
  ]
  static let surely: [Step] = [
    .init(name: "01-change", changes: true, undo: true), .init(name: "02-commit", isCommit: true),
  ]
  static let perhaps: [Step] = [
    .init(name: "01-change", changes: true, mayFail: true, undo: true, undoMayFail: true),
    .init(name: "02-commit", isCommit: true),
  ]
  static let withoutCommit: [Step] = [
    .init(name: "01-change", changes: true, undo: true),
    .init(name: "02-change", changes: true, mayFail: true, undo: true, undoMayFail: true),
  ]
}

/// What can happen next, and whether it keeps the promises.
struct ProtocolModel {
  struct Violation: Error { var invariant: Invariant, text: String }
  struct Move { var world: World, label: StaticString, actor: UInt8 }

  let scenario: Scenario
  let mutant: Mutant?
  let book: JournalBook
  let commitStep: UInt8?
  let count: UInt8
  /// What can happen next.
  private(set) var moves: [Move] = []
  /// Moves that aren't faults.
  private(set) var progress = 0
  /// One journal for each ending of each deployment.
  var closings: [Int: UInt16] = [:]
  let undoable: UInt8, beforeTheCommit: UInt8

  init(_ scenario: Scenario, mutant: Mutant? = nil) {
    self.scenario = scenario
    self.mutant = mutant
    book = JournalBook(steps: scenario.steps.map(\.name))
    count = UInt8(scenario.steps.count)
    undoable = scenario.steps.enumerated().reduce(0) { $1.element.undo ? $0 | 1 << UInt8($1.offset) : $0 }
    commitStep = scenario.steps.firstIndex(where: \.isCommit).map { UInt8($0) }
    beforeTheCommit = commitStep.map { 1 << $0 - 1 } ?? 0
  }

  var start: World {
    var world = World()
    (world.kills, world.outages, world.cuts, world.full, world.stops) =
      (scenario.kills, scenario.outages, scenario.cuts, scenario.full, scenario.stops)
    if !scenario.ben { world.ben.at = .gone }
    return world
  }

  mutating func move(_ world: World, _ label: StaticString, _ actor: UInt8, fault: Bool = false) {
    moves.append(Move(world: world, label: label, actor: actor))
    if !fault { progress += 1 }
  }

  func facts(_ world: World, _ number: UInt8) -> JournalBook.Facts {
    book.facts[Int(world[deployment: number].written)]
  }

  /// Is it to be closed by whoever has the lock next?
  func isOpen(_ world: World, _ number: UInt8) -> Bool {
    let deployment = world[deployment: number]
    // Half a line closes nothing.
    if mutant == .tornLineIsBelieved, deployment.torn != 0 { return false }
    return book.facts[Int(deployment.written)].isOpen
  }

  /// First the history, then the journal.
  var ending: Runner.At { mutant == .closedBeforeHistory ? .closed : .history }

  func append(_ event: Event, _ number: UInt8, _ world: inout World) throws {
    // Glued to the half line, and lost (only in a mutant).
    if world[deployment: number].torn != 0 { return world[deployment: number].torn = 0 }
    do {
      world[deployment: number].written = try book.append(
        event, of: number, to: world[deployment: number].written)
    } catch {
      throw Violation(invariant: Invariant(error.rule), text: error.description)
    }
  }

  func sync(_ number: UInt8, _ world: inout World) {
    let node = book.settle(world[deployment: number].written)
    world[deployment: number].written = node
    world[deployment: number].durable = node
  }

  func lockIsFree(_ world: World) -> Bool {
    !world.adas.hasLock && !world.bens.hasLock && !world.own.hasLock
      && (world.orphan == 0 || mutant == .stepsDoNotInheritTheLock)
  }

  // MARK: - Everything that can happen

  mutating func explore(_ world: World) throws {
    moves.removeAll(keepingCapacity: true)
    progress = 0
    for slot: UInt8 in 0..<3 { try runner(slot, world) }
    if world.orphan != 0 { orphan(world) }
    for slot: UInt8 in 0..<2 { try client(slot, world) }
    if progress == 0, !comesNext(world) { try settled(world) }
    if world.outages > 0 { outages(world) }
  }

  /// Without systemd nothing happens by itself: the next deploy, rollback or recovery.
  private mutating func comesNext(_ world: World) -> Bool {
    guard !scenario.systemd, world.own.at == .none, lockIsFree(world),
      world.watching != 0 || (1...3).contains(where: { isOpen(world, $0) && !facts(world, $0).isStuck })
    else { return false }
    var next = world
    next.own = Runner(at: .waiting)
    move(next, "somebody comes next", 2)
    return true
  }

  private mutating func orphan(_ world: World) {
    var next = world
    next[deployment: world.orphan].effects |= 1 << (world.orphanStep - 1)
    (next.orphan, next.orphanStep) = (0, 0)
    move(next, "a step that outlived its runner ends", 3)
  }

  // MARK: - The runner

  private mutating func runner(_ slot: UInt8, _ world: World) throws {
    let runner = world[runner: slot]
    guard runner.at != .none else { return }
    var next = world
    switch runner.at {
    case .killed:
      next[runner: slot] = Runner(at: .waiting)
      return move(next, "systemd starts it again", slot)
    case .waiting:
      if lockIsFree(world) {
        if mutant == .lockOutlivesItsHolder, world.marker != 0 { break }
        next[runner: slot].at = .scan
        next[runner: slot].number = 4
        // What its runner has written last may not be on the disk yet; from here on it is believed.
        if world.marker != 0, mutant != .readClosedIsNotSynced { sync(world.marker, &next) }
        return move(next, "takes the lock", slot)
      }
      if slot < 2 { asksTheWatch(slot, world) }
      if slot < 2, next[client: slot].verdict == .none { next[client: slot].verdict = .locked }
      ends(slot, &next)
      return move(next, "is refused the lock", slot)
    default: break
    }
    try step(slot, runner, world)
    guard runner.at.rawValue > Runner.At.waiting.rawValue, world.kills > 0 else { return }
    next = world
    next.kills -= 1
    next[runner: slot] = scenario.systemd ? Runner(at: .killed) : Runner()
    if !scenario.systemd, runner.at == .runs || runner.at == .rollRuns, !scenario.steps[Int(runner.step)].isClients,
      world[deployment: runner.number].effects & (1 << runner.step) != 0
    {
      (next.orphan, next.orphanStep) = (runner.number, runner.step + 1)
    }
    move(next, "is killed", slot, fault: true)
  }

  private mutating func step(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    switch runner.at {
    case .none, .killed, .waiting: return
    case .away, .watchLine, .watchSync, .watch, .watchedSync, .breachedSync, .goBack, .forget:
      try watches(slot, runner, world)
    case .scan: try scan(slot, runner, world)
    case .undo, .undoSync, .undoNext, .undoneSync: try undoes(slot, runner, world)
    case .roll, .rollLine, .rollSync, .rollNext, .rollRuns: try rollsForward(slot, runner, world)
    case .history, .historySync, .closed, .closedSync, .unmark, .tell: try closes(slot, runner, world)
    case .mark, .directory, .directorySync, .grant: try opens(slot, runner, world)
    case .idle, .startedSync, .runs, .committing, .rename, .renameSync, .committed: try goesOn(slot, runner, world)
    }
  }
}

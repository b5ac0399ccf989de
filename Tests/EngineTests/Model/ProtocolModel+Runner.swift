import Engine

extension ProtocolModel {
  mutating func scan(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    var next = world
    var open = runner.number - 1
    while open > 0, !isOpen(world, open) { open -= 1 }
    if mutant == .nextOpensOverWhatIsOpen, slot < 2 { open = 0 }
    guard open == 0 else {
      let turns = facts(world, open).isUndoing ? mutant == .undoIsTurnedBack : mutant == .recoveryContinues
      if turns, !facts(world, open).hasCommitted {
        next[runner: slot] = Runner(at: .idle, number: open)
        return move(next, "continues what is open", slot)
      }
      let forward = mutant == .recoveryBelievesTheJournal ? facts(world, open).hasCommitted : world.current == open
      next[runner: slot] = Runner(at: forward ? .roll : .undo, number: open, flags: Runner.recovering)
      if mutant != .tornLineIsWrittenOn { next[deployment: open].torn = 0 }
      // No message counts for it any more, and no lease.
      next[deployment: open].flags &= Deployment.granted
      if scenario.watch { next[deployment: open].flags |= Deployment.recovered }
      if mutant != .takenUpWithoutAMarker { (next.marker, next.markerDurable) = (open, open) }
      return move(next, forward ? "takes up what is open and committed" : "takes up what is open, to undo it", slot)
    }
    next.marker = 0
    if slot == 2 || world[client: slot].verdict != .none || !world[client: slot].isConnected {
      let isGone = slot < 2 && world[client: slot].verdict == .none
      if isGone { next[client: slot].verdict = .nothing }
      if world.watching != 0, !isGone, mutant != .recoveryForgetsTheWatch { return try takesUpTheWatch(slot, world) }
      ends(slot, &next)
      return move(next, "has nothing to open", slot)
    }
    if world.watching != 0 { return try supersedesTheWatch(slot, world) }
    let fresh = fresh(world)
    guard fresh <= 3 else {
      next[client: slot].verdict = .nothing
      ends(slot, &next)
      return move(next, "is out of our numbers", slot)
    }
    next[runner: slot] = Runner(at: mutant == .directoryBeforeMarker ? .directory : .mark, number: fresh)
    move(next, "has a number", slot)
  }

  func fresh(_ world: World) -> UInt8 {
    if mutant == .numbersFollowCurrent { return world.current + 1 }
    return (1...3).reduce(world.sequence) { world[deployment: $1].written != 0 ? max($0, $1) : $0 } + 1
  }

  /// Takes a number of its own.
  mutating func opens(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    var next = world
    let number = runner.number
    func at(_ place: Runner.At) { next[runner: slot].at = place }
    switch runner.at {
    case .mark:
      next.marker = number
      if mutant == .directoryBeforeMarker {
        at(.directorySync)
        return move(next, "writes the marker", slot)
      }
      // Nobody looks at it before the directory is there.
      next.markerDurable = number
      at(.directory)
      move(next, "writes and fsyncs the marker", slot)
    case .directory:
      if world[deployment: number].flags & Deployment.granted != 0 {
        throw Violation(invariant: .numberIsNeverUsedTwice, text: "\(number) was granted before")
      }
      next[deployment: number].written = JournalBook.empty
      next[deployment: number].owner = runner.flags & Runner.goesBack != 0 ? Deployment.wayBack : 0
      try append(.opened, number, &next)
      next.sequence = number
      at(mutant == .directoryBeforeMarker ? .mark : .directorySync)
      move(next, "renames the new directory", slot)
    case .directorySync:
      sync(number, &next)
      (next.sequenceDurable, next.markerDurable) = (next.sequence, next.marker)
      at(.grant)
      move(next, "fsyncs it", slot)
    case .grant where runner.flags & Runner.goesBack != 0:
      // What leads back was shipped before the commit.
      next[deployment: number].flags |= Deployment.granted | Deployment.sealed | Deployment.detached
      (next[deployment: number].delivered, next[deployment: number].deliveredDurable) = (2, 2)
      at(.idle)
      move(next, "begins the way back", slot)
    case .grant:
      next[client: slot].verdict = .granted
      next[client: slot].number = number
      next[deployment: number].owner = slot + 1
      next[deployment: number].flags |= Deployment.granted
      at(.idle)
      move(next, "grants it", slot)
    default: break
    }
  }

  /// Steps and the commit.
  mutating func goesOn(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    var next = world
    let number = runner.number
    func at(_ place: Runner.At) { next[runner: slot].at = place }
    switch runner.at {
    case .idle: try idle(slot, runner, world)
    case .startedSync:
      if mutant != .startedIsNotSynced { sync(number, &next) }
      if runner.step == commitStep {
        at(.committing)
      } else {
        at(.runs)
        if !scenario.steps[Int(runner.step)].isClients { next[deployment: number].effects |= 1 << runner.step }
      }
      move(next, "fsyncs", slot)
    case .runs: try runs(slot, runner, world)
    case .committing:
      try append(.committing, number, &next)
      sync(number, &next)
      at(.rename)
      move(next, "writes and fsyncs: committing", slot)
    case .rename:
      next.current = number
      at(.renameSync)
      move(next, "renames current", slot)
    case .renameSync:
      if mutant != .renameIsNotSynced { next.currentDurable = next.current }
      next[runner: slot].flags |= Runner.committed
      at(.committed)
      move(next, "fsyncs it", slot)
    case .committed:
      try append(.committed, number, &next)
      sync(number, &next)
      next[deployment: number].effects |= 1 << runner.step
      try append(.ended(runner.step, good: true), number, &next)
      at(.idle)
      move(next, "writes and fsyncs: committed", slot)
    default: break
    }
  }

  private mutating func idle(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    let number = runner.number, deployment = world[deployment: number]
    let facts = book.facts[Int(deployment.written)]
    let committed = runner.flags & Runner.committed != 0
    var next = world
    let hearsAbort = !committed || mutant == .abortIsHeardAfterTheCommit
    if hearsAbort, deployment.flags & Deployment.abort != 0 {
      next[runner: slot].at = .undo
      return move(next, "is asked to stop", slot)
    }
    let silent = deployment.flags & Deployment.detached == 0 && !hears(world, deployment.owner)
    if silent, !committed {
      next[runner: slot].at = .undo
      move(next, "has waited for its client for the lease", slot)
      next = world
    }
    let arrived = deployment.delivered == 0 ? 0 : deployment.delivered == 1 ? 1 : (1 << count) - 1
    if facts.accepted != arrived {
      try append(.accepted(facts.accepted == 0 ? 1 : 2), number, &next)
      sync(number, &next)
      return move(next, "accepts steps", slot)
    }
    if let step = (0..<count).first(where: { facts.accepted & ~facts.started & (1 << $0) != 0 }) {
      next[runner: slot].step = step
      next[runner: slot].at = .startedSync
      try append(.started(step), number, &next)
      move(next, "writes: started", slot)
      if world.full > 0 {
        next = world
        next.full -= 1
        if committed, mutant != .fullDiskUndoesAfterTheCommit {
          // Nothing behind the commit can fail the deployment: the step is done, its line missing.
          next[runner: slot].step = Outcome.committed
          next[runner: slot].at = ending
        } else {
          next[runner: slot].at = .undo
        }
        move(next, "finds the disk full", slot, fault: true)
      }
      return
    }
    if deployment.flags & Deployment.sealed != 0 || committed && silent {
      let changed = (0..<count).contains { facts.started & (1 << $0) != 0 && scenario.steps[Int($0)].changes }
      let done = committed || changed
      next[runner: slot].step = Outcome.committed
      next[runner: slot].at = done ? ending : .undo
      move(next, "has come to the end", slot)
    }
  }

  /// Whether this client (from 1) is there.
  private func hears(_ world: World, _ owner: UInt8) -> Bool {
    guard owner > 0, owner < Deployment.wayBack else { return false }
    let client = world[client: owner - 1]
    return client.isConnected && client.at != .gone
  }

  private mutating func runs(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    let number = runner.number, step = scenario.steps[Int(runner.step)], deployment = world[deployment: number]
    let committed = runner.flags & Runner.committed != 0
    var next = world
    var endings: [Bool] = step.mayFail ? [true, false] : [true]
    if step.isClients {
      endings = deployment.flags & Deployment.good != 0 ? [true] : deployment.flags & Deployment.bad != 0 ? [false] : []
      if endings.isEmpty, !hears(world, deployment.owner) {
        next[runner: slot].at = .undo
        return move(next, "waits for a client that is gone", slot)
      }
    }
    for good in endings {
      next = world
      try append(.ended(runner.step, good: good), number, &next)
      let goesOn = good || committed || mutant == .failedStepsAreIgnored
      next[runner: slot].at = goesOn ? .idle : .undo
      move(next, good ? "ends its step" : "sees its step fail", slot)
    }
  }

  /// The undo, live and in a recovery.
  mutating func undoes(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    var next = world
    let number = runner.number
    func at(_ place: Runner.At) { next[runner: slot].at = place }
    switch runner.at {
    case .undo:
      try append(.undoing, number, &next)
      at(.undoSync)
      if mutant == .lockIsReleasedBeforeTheUndo { next[runner: slot].flags |= Runner.unlocked }
      move(next, "writes: undoing", slot)
    case .undoSync:
      sync(number, &next)
      at(.undoNext)
      move(next, "fsyncs", slot)
    case .undoNext: try undoNext(slot, runner, world)
    case .undoneSync:
      sync(number, &next)
      at(.undoNext)
      move(next, "fsyncs", slot)
    default: break
    }
  }

  private mutating func undoNext(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    let number = runner.number, facts = facts(world, number)
    guard world.current != number else {
      throw Violation(invariant: .committedStays, text: "\(number) is current, and is undone")
    }
    let order = mutant == .undoRunsForwards ? Array(0..<count) : (0..<count).reversed()
    let left = order.first { facts.started & ~facts.undone & (1 << $0) != 0 && scenario.steps[Int($0)].undo }
    var next = world
    guard let step = left else {
      let changed = (0..<count).contains { facts.started & (1 << $0) != 0 && scenario.steps[Int($0)].changes }
      next[runner: slot].step = changed ? Outcome.undone : Outcome.unchanged
      next[runner: slot].at = ending
      return move(next, "has undone it all", slot)
    }
    next[deployment: number].effects &= ~(1 << step)
    try append(.undone(step, good: true), number, &next)
    next[runner: slot].at = .undoneSync
    move(next, "undoes a step", slot)
    if scenario.steps[Int(step)].undoMayFail {
      next = world
      try append(.undone(step, good: mutant == .failedUndoIsPassedOver), number, &next)
      sync(number, &next)
      next[runner: slot].step = Outcome.stuck
      next[runner: slot].at = ending
      if scenario.watch { next.wasStuck = 1 }
      if mutant == .failedUndoIsPassedOver { next[runner: slot].at = .undoneSync }
      move(next, "fails to undo a step", slot)
    }
  }

  /// The recovery of what is committed.
  mutating func rollsForward(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    var next = world
    let number = runner.number
    func at(_ place: Runner.At) { next[runner: slot].at = place }
    switch runner.at {
    case .roll:
      if mutant != .rollForwardDoesNotSync { next.currentDurable = next.current }
      at(.rollLine)
      move(next, "fsyncs current", slot)
    case .rollLine:
      if !facts(world, number).hasCommitted { try append(.committed, number, &next) }
      at(.rollSync)
      move(next, "writes: committed", slot)
    case .rollSync:
      sync(number, &next)
      at(mutant == .recoveryDropsWhatIsLeft ? ending : .rollNext)
      next[runner: slot].step = mutant == .recoveryDropsWhatIsLeft ? Outcome.committed : 0
      move(next, "fsyncs", slot)
    case .rollNext:
      let facts = facts(world, number)
      if let step = (0..<count).first(where: {
        facts.accepted & ~facts.ended & (1 << $0) != 0 && !scenario.steps[Int($0)].isClients
      }) {
        try append(.started(step), number, &next)
        sync(number, &next)
        next[runner: slot].step = step
        next[deployment: number].effects |= 1 << step
        at(.rollRuns)
        move(next, "does what is left", slot)
      } else {
        next[runner: slot].step = Outcome.committed
        at(ending)
        move(next, "has done what was left", slot)
      }
    case .rollRuns:
      try append(.ended(runner.step, good: true), number, &next)
      at(.rollNext)
      move(next, "ends it", slot)
    default: break
    }
  }

  /// The end of a deployment.
  mutating func closes(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    var next = world
    let number = runner.number
    func at(_ place: Runner.At) { next[runner: slot].at = place }
    switch runner.at {
    case .history where mutant != .watchIsMarkedBehindTheEnd && isToBeMarked(runner, world):
      (next.watching, next.watchingDurable) = (number, number)
      move(next, "writes and fsyncs that it is to be watched", slot)
    case .history:
      next[deployment: number].history = runner.step
      at(.historySync)
      move(next, "writes the history", slot)
    case .historySync:
      next[deployment: number].historyDurable = next[deployment: number].history
      if mutant == .closedBeforeHistory { at(.unmark) } else { at(.closed) }
      move(next, "fsyncs the history", slot)
    case .closed:
      try append(.closed(runner.step), number, &next)
      if mutant == .toldBeforeSynced { next[deployment: number].flags |= Deployment.told }
      at(.closedSync)
      move(next, "writes: closed", slot)
    case .closedSync:
      sync(number, &next)
      at(mutant == .closedBeforeHistory ? .history : .unmark)
      move(next, "fsyncs", slot)
    case .unmark:
      if world[deployment: number].owner == Deployment.wayBack, runner.flags & Runner.recovering == 0 {
        next.watching = 0
      }
      next.marker = 0
      at(.tell)
      move(next, "removes the marker", slot)
    case .tell:
      if isToBeMarked(runner, world) { (next.watching, next.watchingDurable) = (number, number) }
      forget(number, &next)
      if runner.flags & Runner.recovering == 0, next.watching == number {
        next[runner: slot] = Runner(at: .watchLine, number: number)
      } else if runner.flags & Runner.recovering == 0 {
        ends(slot, &next)
      } else if slot < 2, runner.step == Outcome.stuck, !scenario.watch || next[client: slot].verdict == .none {
        if next[client: slot].verdict == .none { next[client: slot].verdict = .stuck }
        ends(slot, &next)
      } else {
        next[runner: slot] = Runner(at: .scan, number: number)
      }
      move(next, "tells it", slot)
    default: break
    }
  }

  /// Of a closed deployment nothing counts but its outcome.
  private mutating func forget(_ number: UInt8, _ world: inout World) {
    let outcome = facts(world, number).outcome
    guard outcome != Outcome.stuck, world[deployment: number].written == world[deployment: number].durable else {
      return
    }
    let key = Int(number) << 4 | Int(outcome)
    let node = closings[key] ?? world[deployment: number].written
    closings[key] = node
    var closed = Deployment(written: node, durable: node)
    closed.history = outcome
    closed.historyDurable = world[deployment: number].historyDurable
    closed.flags = world[deployment: number].flags & (Deployment.granted | Deployment.recovered)
    if world[deployment: number].owner == Deployment.wayBack { closed.owner = Deployment.wayBack }
    // What an undo has left behind isn't forgotten.
    if outcome != Outcome.committed { closed.effects = world[deployment: number].effects & undoable }
    world[deployment: number] = closed
  }

  /// What nobody asks for any more, so that states which differ in it alone are one.
  func ends(_ slot: UInt8, _ world: inout World) {
    world[runner: slot] = Runner()
    if slot < 2, world[client: slot].at == .gone { world[client: slot].verdict = .none }
  }
}

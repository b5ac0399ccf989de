import Engine

/// The watch over what has been committed (playbooks/host/watch.sh). Time isn't in it: a watch may be over, or find something, at any moment.
extension ProtocolModel {
  /// A release is; but not the one that a watch has gone back to.
  func isToBeMarked(_ runner: Runner, _ world: World) -> Bool {
    scenario.watch && runner.step == Outcome.committed && world.current == runner.number
      && world[deployment: runner.number].owner != Deployment.wayBack && world.watching != runner.number
  }

  /// Whoever wants the lock for another release. A runner that was started again has nothing to open.
  mutating func asksTheWatch(_ slot: UInt8, _ world: World) {
    guard world[client: slot].verdict == .none, world[client: slot].isConnected else { return }
    for other: UInt8 in 0..<3 where world[runner: other].at == .watch && world[runner: other].flags & Runner.asked == 0
    {
      var next = world
      next[runner: other].flags |= Runner.asked
      move(next, "asks the watch to make way", slot)
    }
  }

  /// Whoever has the lock and nothing to open.
  mutating func takesUpTheWatch(_ slot: UInt8, _ world: World) throws {
    let number = world.watching, watch = facts(world, number).watch
    var next = world
    if (0..<3).contains(where: { world[runner: $0].at == .away && world[runner: $0].number == number }) {
      ends(slot, &next)
      return move(next, "leaves the watch to who comes back to it", slot)
    }
    believes(number, &next)
    let isStuck = mutant != .opensAboveWhatIsStuck && (1...3).contains { isOpen(world, $0) }
    if !isStuck, world.current == number || mutant == .watchesWhatIsNotCurrent {
      next[runner: slot] = Runner(at: .watchLine, number: number)
      switch watch {
      case nil, .on: return move(next, "goes on with the watch", slot)
      case .breached where world.sequence == number:
        next[runner: slot].at = mutant == .breachIsForgotten ? .forget : .goBack
        return move(next, "goes back, as it was decided", slot)
      case .breached
      where world[deployment: world.sequence].flags & Deployment.recovered != 0 && mutant != .brokenOffIsBelieved:
        return move(next, "watches again: the way back broke off", slot)
      case .breached, .over: break
      }
    }
    next[runner: slot] = Runner(at: .forget, number: number)
    if watch == nil || watch == .on {
      try append(.watched, number, &next)
      next[runner: slot].at = .watchedSync
    }
    move(next, "finds another release than the one that was watched", slot)
  }

  /// Whoever opens a deployment of another release finds a watch whose process is gone.
  mutating func supersedesTheWatch(_ slot: UInt8, _ world: World) throws {
    let number = world.watching, watch = facts(world, number).watch
    var next = world
    believes(number, &next)
    if watch == nil || watch == .on || watch == .breached && mutant == .supersededBehindTheBreach {
      try append(.watched, number, &next)
      sync(number, &next)
      return move(next, "ends the watch of one that is gone", slot)
    }
    next.watching = 0
    move(next, "removes what is left of a watch", slot)
  }

  /// Its process may have been killed between a line and its fsync.
  private func believes(_ number: UInt8, _ world: inout World) {
    if mutant != .readWatchIsNotSynced { sync(number, &world) }
  }

  mutating func watches(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    var next = world
    let number = runner.number
    func at(_ place: Runner.At) { next[runner: slot].at = place }
    switch runner.at {
    case .watchLine:
      guard world.current == number else {
        throw Violation(invariant: .onlyTheCurrentIsWatched, text: "\(world.current) is current, and \(number) watched")
      }
      try append(.watching, number, &next)
      at(.watchSync)
      move(next, "writes: watching", slot)
    case .watchSync:
      sync(number, &next)
      at(.watch)
      move(next, "fsyncs", slot)
    case .watch: try looks(slot, runner, world)
    case .watchedSync:
      sync(number, &next)
      at(.forget)
      move(next, "fsyncs", slot)
    case .forget:
      next.watching = 0
      ends(slot, &next)
      move(next, "removes the watch's marker", slot)
    case .breachedSync:
      if mutant != .breachIsNotSynced { sync(number, &next) }
      at(.goBack)
      move(next, "fsyncs", slot)
    case .goBack:
      let fresh = fresh(world)
      next[runner: slot] =
        fresh > 3 ? Runner(at: .forget, number: number) : Runner(at: .mark, number: fresh, flags: Runner.goesBack)
      move(next, "has a number for the way back", slot)
    case .away: try isAway(slot, runner, world)
    default: break
    }
  }

  private mutating func looks(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    let number = runner.number
    var next = world
    try append(.watched, number, &next)
    next[runner: slot] = Runner(at: .watchedSync, number: number)
    move(next, runner.flags & Runner.asked != 0 ? "makes way" : "has seen nothing until the end", slot)
    if fresh(world) <= 3 {
      next = world
      try append(.breached, number, &next)
      next[runner: slot] = Runner(at: .breachedSync, number: number)
      move(next, "finds that all isn't well", slot)
    }
    if world.stops > 0 {
      next = world
      next.stops -= 1
      next[runner: slot] = Runner(at: .away, number: number)
      move(next, "lets the lock go: Docker is stopped", slot, fault: true)
    }
  }

  private mutating func isAway(_ slot: UInt8, _ runner: Runner, _ world: World) throws {
    guard lockIsFree(world) || mutant == .returnsWithoutTheLock else { return }
    var next = world
    next[runner: slot] = Runner(at: .watchLine, number: runner.number)
    if world.own.at == .none {
      var other = world
      other.own = Runner(at: .waiting)
      move(other, "another command comes and goes", 2)
    }
    let isOurs = world.watching == runner.number && facts(world, runner.number).watch == .on
    if mutant != .returnsToAnother, !isOurs || world.marker != 0 {
      // Whoever had the lock may have been killed at that: then this is a recovery.
      next[runner: slot] = Runner(at: world.watching == runner.number ? .waiting : .none)
      if world.watching != runner.number { ends(slot, &next) }
      return move(next, "finds its watch settled, or something open", slot)
    }
    move(next, "has the lock again", slot)
    next = world
    try append(.watched, runner.number, &next)
    next[runner: slot] = Runner(at: .watchedSync, number: runner.number)
    move(next, "gives up", slot)
  }

  // MARK: - The client

  /// The exit status of one that follows to the end of the watch; nil: there is none yet.
  func statusOfTheWatch(over number: UInt8, _ world: World) -> UInt8? {
    switch facts(world, number).watch {
    case .over: return 0
    case .breached:
      guard let back = (number + 1...4).first(where: { $0 < 4 && world[deployment: $0].owner == Deployment.wayBack })
      else {
        return nil
      }
      let outcome = facts(world, back).outcome
      return outcome == .none ? nil : outcome == .committed ? 3 : 4
    case nil, .on: return nil
    }
  }

  /// A line that nobody has told yet is told by attach, which syncs it first; while the runner lives it is the runner's to tell.
  func tellsTheWatch(over number: UInt8, _ world: inout World) -> Bool {
    let deployment = world[deployment: number]
    guard deployment.written != deployment.durable else { return true }
    guard !(0..<3).contains(where: { world[runner: $0].at.rawValue > Runner.At.waiting.rawValue }) else { return false }
    if mutant != .toldWatchIsNotSynced { sync(number, &world) }
    return true
  }

  // MARK: - What is promised

  func checkWatch(_ world: World, _ number: UInt8) throws {
    let deployment = world[deployment: number]
    guard deployment.owner == Deployment.wayBack, facts(world, number).isOpen, !facts(world, number).isStuck else {
      return
    }
    if !(1..<number).contains(where: { book.facts[Int(world[deployment: $0].durable)].watch == .breached }) {
      throw Violation(
        invariant: .breachBeforeTheWayBack, text: "\(number) leads back, and nothing on the disk says why")
    }
  }

  func watchIsSettled(_ world: World) throws {
    // What is stuck is a person's.
    if (1...3).contains(where: { isOpen(world, $0) }) { return }
    if world.watching != 0 {
      throw Violation(invariant: .watchedUntilItIsSettled, text: "\(world.watching) is to be watched, and nobody does")
    }
    for number: UInt8 in 1...3 where world[deployment: number].written != 0 {
      let facts = facts(world, number)
      guard facts.outcome == .committed, world[deployment: number].owner != Deployment.wayBack else { continue }
      if facts.watch == nil || facts.watch == .on {
        throw Violation(invariant: .watchedUntilItIsSettled, text: "\(number) was to be watched, and isn't")
      }
      // Another release may have come first.
      if facts.watch == .breached, fresh(world) == number + 1 {
        throw Violation(invariant: .breachIsFollowed, text: "\(number) isn't well, and nobody has gone back from it")
      }
      let last = world[deployment: world.sequence]
      if facts.watch == .breached, world.wasStuck == 0, last.owner == Deployment.wayBack,
        last.flags & Deployment.recovered != 0,
        self.facts(world, world.sequence).outcome != .committed
      {
        throw Violation(
          invariant: .breachIsFollowed, text: "the way back from \(number) broke off, and nobody watches on")
      }
    }
  }
}

import Engine

extension ProtocolModel {
  // MARK: - The clients

  /// A message for a deployment reaches attach. Its number is the fencing token: it is refused unless that deployment is open.
  private func deliver(_ message: Client.Message, for meant: UInt8, _ world: inout World) throws -> Bool {
    var number = meant
    if mutant == .anyMessageIsTaken {
      guard world.marker != 0 else { return false }
      number = world.marker
    } else {
      guard world.marker == meant else { return false }
    }
    if number != meant {
      throw Violation(invariant: .oldMessagesAreRefused, text: "\(message) for \(meant) was taken by \(number)")
    }
    // attach takes it; nobody will ask for it.
    if facts(world, number).isUndoing || (0..<3).contains(where: { world[runner: $0].flags & Runner.recovering != 0 }) {
      return message == .abort
    }
    var deployment = world[deployment: number]
    let sealed = deployment.flags & Deployment.sealed != 0
    switch message {
    case .none: break
    case .first, .second:
      guard !sealed else { return false }
      deployment.delivered = max(deployment.delivered, message == .first ? 1 : 2)
      if mutant != .scriptsAreNotSynced { deployment.deliveredDurable = deployment.delivered }
    case .seal: deployment.flags |= Deployment.sealed
    case .good: deployment.flags |= Deployment.good
    case .bad: deployment.flags |= Deployment.bad
    case .abort:
      if world.current == number && mutant != .abortIsHeardAfterTheCommit { return false }
      deployment.flags |= Deployment.abort
    }
    world[deployment: number] = deployment
    return true
  }

  mutating func client(_ slot: UInt8, _ world: World) throws {
    let client = world[client: slot], actor = 4 + slot
    var next = world
    if client.late != .none {
      next[client: slot].late = .none
      _ = try deliver(client.late, for: client.number, &next)
      move(next, "its late message arrives", actor)
    }
    switch client.at {
    case .gone: return
    case .idle:
      next = world
      next[client: slot].at = .asked
      next[client: slot].flags = Client.connected
      next[runner: slot] = Runner(at: .waiting)
      move(next, "asks for the lock", actor)
      if slot == 1, world.marker != 0 {
        next = world
        next[client: slot].at = .gone
        _ = try deliver(.abort, for: world.marker, &next)
        move(next, "asks the other one to undo", actor)
      }
      return
    case .asked: asked(slot, client, world)
    case .working, .following: try working(slot, client, world)
    }
  }

  /// Prints an exit status and ends. Killed clients are among those that print that they don't know: the host can't tell them apart.
  private mutating func prints(
    _ status: UInt8, _ slot: UInt8, _ world: World, _ label: StaticString, fault: Bool = false
  ) {
    var next = world
    leave(status, slot, &next)
    move(next, label, 4 + slot, fault: fault)
  }

  /// attach tells the end also of a runner that had no time to tell it.
  private func seesTheEnd(_ client: Client, _ world: World) -> Bool {
    guard client.isConnected, client.number > 0, client.at != .asked else { return false }
    return world[deployment: client.number].flags & Deployment.told != 0
      || facts(world, client.number).outcome != Outcome.none && world.marker != client.number
  }

  private func leave(_ status: UInt8, _ slot: UInt8, _ world: inout World) {
    let client = world[client: slot], late = client.late
    world[client: slot] = Client(at: .gone)
    if late != .none { (world[client: slot].late, world[client: slot].number) = (late, client.number) }
    if client.number > 0, [0, 1, 3].contains(status) {
      (world[client: slot].printed, world[client: slot].number) = (status, client.number)
    }
    if status == 7, seesTheEnd(client, world) { world[client: slot].printed = status }
    if world[runner: slot].at != .none { world[client: slot].verdict = client.verdict }
  }

  private mutating func asked(_ slot: UInt8, _ client: Client, _ world: World) {
    switch client.verdict {
    case .granted:
      var next = world
      next[client: slot].at = .working
      move(next, "is told its number", 4 + slot)
    case .locked: prints(5, slot, world, "prints that it is locked")
    case .stuck: prints(4, slot, world, "prints that an earlier one is stuck")
    case .nothing: prints(1, slot, world, "prints that nothing was opened")
    case .none:
      if world[runner: slot].at == .none { prints(1, slot, world, "prints that the runner didn't start") }
    }
    if world.cuts > 0 {
      var next = world
      next.cuts -= 1
      prints(6, slot, next, "loses the connection while it asks", fault: true)
    }
  }

  private mutating func working(_ slot: UInt8, _ client: Client, _ world: World) throws {
    let actor = 4 + slot, deployment = world[deployment: client.number]
    let facts = book.facts[Int(deployment.written)]
    var next = world
    guard client.isConnected else {
      next[client: slot].flags |= Client.connected
      if !runnerIsAlive(world), isLeftOpen(client.number, world), world.own.at == .none {
        next.own = Runner(at: .waiting)
      }
      move(next, "connects again", actor)
      if mutant == .lostClientGuesses { prints(3, slot, world, "prints that it was undone, as it will be") }
      return prints(7, slot, world, "prints that it doesn't know")
    }
    if seesTheEnd(client, world), scenario.watch, facts.outcome == .committed {
      next = world
      if tellsTheWatch(over: client.number, &next), let status = statusOfTheWatch(over: client.number, next) {
        return prints(status, slot, next, "prints what became of the watch")
      }
      prints(2, slot, world, "leaves the watch to itself")
    } else if seesTheEnd(client, world), let status = status(facts.outcome) {
      if mutant == .clientForgetsWhatItSaw { prints(7, slot, world, "prints that it doesn't know") }
      return prints(status, slot, world, "prints the outcome")
    }
    if client.at == .working { try sends(client.next, slot, client, world) }
    if let step = scenario.steps.firstIndex(where: \.isClients), facts.started & ~facts.ended & (1 << UInt8(step)) != 0,
      !facts.isUndoing, deployment.flags & (Deployment.good | Deployment.bad) == 0
    {
      try sends(.good, slot, client, world)
      try sends(.bad, slot, client, world)
    }
    if scenario.aborts, client.flags & Client.aborted == 0 {
      try sends(.abort, slot, client, world)
    }
    if client.at == .following, world.marker == client.number, !clientStepIsAhead(facts) {
      next = world
      next[deployment: client.number].flags |= Deployment.detached
      prints(7, slot, next, "detaches")
    }
    if world.cuts > 0 {
      next = world
      next.cuts -= 1
      next[client: slot].flags &= ~Client.connected
      move(next, "loses the connection", actor, fault: true)
    }
    if !runnerIsAlive(world), isLeftOpen(client.number, world), world.own.at == .none, !scenario.systemd {
      next = world
      next.own = Runner(at: .waiting)
      move(next, "finds the runner dead", actor)
    }
  }

  private mutating func sends(_ message: Client.Message, _ slot: UInt8, _ client: Client, _ world: World) throws {
    var next = world
    if try deliver(message, for: client.number, &next) {
      switch message {
      case .first: next[client: slot].next = .second
      case .second: next[client: slot].next = .seal
      case .seal: next[client: slot].at = .following
      case .abort: next[client: slot].flags |= Client.aborted
      default: break
      }
    } else if message == .abort {
      next[client: slot].flags |= Client.aborted
    } else {
      // It was closed before: the log tells.
      next[client: slot].at = .following
    }
    if next != world { move(next, "sends a message", 4 + slot) }
    if world.cuts > 0, client.late == .none {
      next = world
      next.cuts -= 1
      next[client: slot].flags &= ~Client.connected
      next[client: slot].late = message
      move(next, "loses the connection behind a message", 4 + slot, fault: true)
    }
  }

  private func clientStepIsAhead(_ facts: JournalBook.Facts) -> Bool {
    guard let step = scenario.steps.firstIndex(where: \.isClients) else { return false }
    return facts.ended & (1 << UInt8(step)) == 0
  }

  private func isLeftOpen(_ number: UInt8, _ world: World) -> Bool {
    let facts = facts(world, number)
    return facts.isOpen && !facts.isStuck || world.watching == number
  }

  private func runnerIsAlive(_ world: World) -> Bool {
    (0..<3).contains { world[runner: $0].at != .none }
  }

  private func status(_ outcome: Outcome) -> UInt8? {
    switch outcome {
    case .committed: 0
    case .unchanged: 1
    case .undone: 3
    case .stuck: 4
    default: nil
    }
  }

  // MARK: - Reboots and power losses

  /// All processes are gone. A power loss leaves of what wasn't fsynced any part.
  mutating func outages(_ world: World) {
    var down = world
    down.outages -= 1
    for slot: UInt8 in 0..<3 { down[runner: slot] = Runner() }
    (down.orphan, down.orphanStep) = (0, 0)
    for slot: UInt8 in 0..<2 {
      down[client: slot].late = .none
      switch down[client: slot].at {
      case .asked where down[client: slot].verdict == .none:
        leave(6, slot, &down)
      case .asked, .working, .following: down[client: slot].flags &= ~Client.connected
      default: break
      }
    }
    var worlds = [down]
    func choose(_ lose: (inout World) -> Void, where differs: (World) -> Bool) {
      for other in worlds where differs(other) {
        var lost = other
        lose(&lost)
        worlds.append(lost)
      }
    }
    choose({ $0.current = $0.currentDurable }, where: { $0.current != $0.currentDurable })
    choose({ $0.sequence = $0.sequenceDurable }, where: { $0.sequence != $0.sequenceDurable })
    choose({ $0.marker = $0.markerDurable }, where: { $0.marker != $0.markerDurable })
    choose({ $0.watching = $0.watchingDurable }, where: { $0.watching != $0.watchingDurable })
    for number: UInt8 in 1...3 {
      choose({ $0[deployment: number].history = $0[deployment: number].historyDurable }) {
        $0[deployment: number].history != $0[deployment: number].historyDurable
      }
      choose({ $0[deployment: number].delivered = $0[deployment: number].deliveredDurable }) {
        $0[deployment: number].delivered != $0[deployment: number].deliveredDurable
      }
      // Of the journal any beginning, and behind it half of the next line.
      var node = down[deployment: number].written
      let durable = down[deployment: number].durable, whole = worlds
      while node != durable, node != JournalBook.empty {
        let closing = book.facts[Int(node)].outcome != Outcome.none
        node = book.parents[Int(node)]
        for world in whole {
          var lost = world
          lost[deployment: number].written = node
          worlds.append(lost)
          if node != JournalBook.empty, mutant == .tornLineIsWrittenOn || mutant == .tornLineIsBelieved && closing {
            lost[deployment: number].torn = 1
            worlds.append(lost)
          }
        }
      }
    }
    for var world in worlds {
      // What is on the disk now is on the disk.
      for number: UInt8 in 1...3 {
        var deployment = world[deployment: number]
        deployment.written = book.settle(deployment.written)
        deployment.durable = deployment.written
        deployment.historyDurable = deployment.history
        deployment.deliveredDurable = deployment.delivered
        world[deployment: number] = deployment
      }
      (world.currentDurable, world.sequenceDurable, world.markerDurable) = (world.current, world.sequence, world.marker)
      world.watchingDurable = world.watching
      if scenario.systemd, world.marker != 0 || world.watching != 0 { world.own = Runner(at: .waiting) }
      move(world, "the power fails", 6, fault: true)
    }
  }
}

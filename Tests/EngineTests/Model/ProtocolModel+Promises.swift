import Engine

extension ProtocolModel {
  /// In every state.
  func check(_ world: World) throws {
    let working = (0..<3).filter { world[runner: $0].at.rawValue >= Runner.At.withLock }
    let orphans = world.orphan != 0 && mutant != .stepsDoNotInheritTheLock ? 1 : 0
    if working.count + orphans > 1 {
      throw Violation(invariant: .oneHolder, text: "runners \(working) and \(orphans) steps work at once")
    }
    var open: UInt8 = 0
    for number: UInt8 in 1...3 where world[deployment: number].written != 0 {
      if book.facts[Int(world[deployment: number].written)].isOpen {
        if open != 0 { throw Violation(invariant: .oneOpen, text: "\(open) and \(number) are open") }
        open = number
      }
      try check(world, number)
      try checkWatch(world, number)
    }
    for slot: UInt8 in 0..<2 { try checkPrinted(world, world[client: slot]) }
  }

  private func check(_ world: World, _ number: UInt8) throws {
    let deployment = world[deployment: number]
    let seen = book.facts[Int(deployment.written)], kept = book.facts[Int(deployment.durable)]
    if deployment.effects & undoable & ~kept.started != 0 {
      throw Violation(invariant: .undoBeforeEffect, text: "\(number): an effect, and no line on the disk")
    }
    if deployment.effects & undoable != 0,
      deployment.deliveredDurable == 0 || deployment.deliveredDurable == 1 && deployment.effects & undoable > 1
    {
      throw Violation(invariant: .undoBeforeEffect, text: "\(number): an effect, and no script on the disk")
    }
    if world.current == number, seen.succeeded & beforeTheCommit != beforeTheCommit {
      throw Violation(invariant: .currentHasPassedItsGate, text: "\(number) is current, and its gate hasn't passed")
    }
    if kept.hasCommitted, beforeTheCommit != 0, world.currentDurable < number || world.current < number {
      throw Violation(
        invariant: .committedStays, text: "\(number) is committed, and \(world.currentDurable) current on the disk")
    }
    switch seen.outcome {
    case .unchanged, .undone:
      if deployment.effects & undoable != 0 {
        throw Violation(invariant: .notCommittedIsUndone, text: "\(number) is closed, and its effects are there")
      }
    case .committed:
      if seen.accepted & ~seen.ended != 0, scenario.full == 0 {
        throw Violation(invariant: .committedIsRolledForward, text: "\(number): steps are left")
      }
    default: break
    }
    // A stuck one may be on its way to another end: first the history, then the journal.
    if kept.outcome != .none, kept.outcome != .stuck, deployment.historyDurable != kept.outcome {
      throw Violation(
        invariant: .historyAgrees,
        text: "\(number): the journal says \(kept.outcome), the history \(deployment.historyDurable)")
    }
  }

  private func checkPrinted(_ world: World, _ client: Client) throws {
    guard client.printed != 255 else { return }
    let number = client.number, deployment = world[deployment: number]
    let facts = book.facts[Int(deployment.written)]
    switch client.printed {
    case 0 where scenario.watch:
      if facts.watch != .over { throw Violation(invariant: .whatWasPrintedIsTrue, text: "0 was printed for \(number)") }
    case 3 where facts.hasCommitted:
      if facts.watch != .breached || world.current == number {
        throw Violation(invariant: .whatWasPrintedIsTrue, text: "3 was printed for \(number)")
      }
    case 0:
      let stays = scenario.steps.contains(where: \.isCommit) ? world.current >= number : facts.outcome == .committed
      if facts.isUndoing || !stays {
        throw Violation(invariant: .whatWasPrintedIsTrue, text: "0 was printed for \(number)")
      }
    case 1, 3:
      if world.current == number || deployment.effects & undoable != 0 {
        throw Violation(invariant: .whatWasPrintedIsTrue, text: "\(client.printed) was printed for \(number)")
      }
    case 7: throw Violation(invariant: .whatWasPrintedIsTrue, text: "7 was printed by one who had seen the end")
    default: break
    }
  }

  /// Where nothing moves any more.
  func settled(_ world: World) throws {
    for slot: UInt8 in 0..<3 where world[runner: slot].at != .none {
      throw Violation(invariant: .lockIsFreeInTheEnd, text: "runner \(slot) waits for ever")
    }
    for number: UInt8 in 1...3 where world[deployment: number].written != 0 {
      let facts = book.facts[Int(world[deployment: number].written)]
      if facts.isStuck { continue }
      if facts.isOpen { throw Violation(invariant: .nothingIsOpenInTheEnd, text: "\(number) is open") }
      if facts.outcome != .committed, world[deployment: number].effects & undoable != 0 {
        throw Violation(invariant: .notCommittedIsUndone, text: "\(number) isn't undone")
      }
    }
    if scenario.watch { try watchIsSettled(world) }
  }
}

import Engine

/// Looks at every state that can be reached, nearest first, so that what is found is told by one of the shortest stories.
struct Explorer {
  struct Finding: CustomStringConvertible {
    var violation: ProtocolModel.Violation, story: [String]
    var description: String { "\(violation.invariant): \(violation.text)\n" + story.joined(separator: "\n") }
  }
  private(set) var states: [World] = []
  private var origins: [(from: Int32, label: StaticString, actor: UInt8)] = []
  private(set) var transitions = 0
  private(set) var finding: Finding?

  init(_ scenario: Scenario, mutant: Mutant? = nil) {
    var model = ProtocolModel(scenario, mutant: mutant)
    var seen: Set<World> = []
    func add(_ world: World, _ from: Int32, _ label: StaticString, _ actor: UInt8) -> Bool {
      guard seen.insert(world).inserted else { return false }
      states.append(world)
      origins.append((from, label, actor))
      return true
    }
    _ = add(model.start, -1, "", 0)
    var next = 0
    while next < states.count {
      var last = next
      do {
        try model.explore(states[next])
        for move in model.moves {
          transitions += 1
          guard add(move.world, Int32(next), move.label, move.actor) else { continue }
          last = states.count - 1
          try model.check(move.world)
        }
      } catch {
        guard let violation = error as? ProtocolModel.Violation else { preconditionFailure("\(error)") }
        finding = Finding(violation: violation, story: story(to: last, model))
        return
      }
      next += 1
    }
  }

  private func story(to last: Int, _ model: ProtocolModel) -> [String] {
    let who = ["Ada's runner", "Ben's runner", "the host", "", "Ada", "Ben", "the host"]
    var lines: [String] = []
    var at = last
    while origins[at].from >= 0 {
      lines.append("\(who[Int(origins[at].actor)]): \(origins[at].label)")
      at = Int(origins[at].from)
    }
    lines.reverse()
    let world = states[last]
    for number: UInt8 in 1...3 where world[deployment: number].written != 0 {
      lines.append("journal \(number): \(model.book.story(of: world[deployment: number].written))")
    }
    lines.append("current \(world.current), on the disk \(world.currentDurable)")
    return lines
  }
}

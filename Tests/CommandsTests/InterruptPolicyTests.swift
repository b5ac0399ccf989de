import Testing

@testable import Commands

@Suite struct InterruptPolicyTests {
  typealias Kind = Interrupts.Kind
  typealias Action = InterruptPolicy.Action

  @Test(arguments: [
    ([Kind.interrupt], true, [Action.ask]),
    ([.interrupt, .interrupt], true, [.ask, .leave]),
    ([.interrupt, .terminate, .terminate], true, [.ask, .abort, .leave]),
    ([.interrupt, .hangup, .hangup], true, [.ask, .abort, .nothing]),
    ([.terminate, .interrupt], true, [.abort, .leave]),
    ([.interrupt], false, [.abort]),
    ([.interrupt, .interrupt], false, [.abort, .leave]),
    ([.interrupt, .terminate], false, [.abort, .leave]),
    ([.terminate, .terminate], false, [.abort, .leave]),
    ([.hangup, .hangup, .terminate], false, [.abort, .nothing, .leave]),
  ])
  func whatASignalMeans(kinds: [Interrupts.Kind], canAsk: Bool, actions: [InterruptPolicy.Action]) {
    var policy = InterruptPolicy()
    #expect(kinds.map { policy.action(on: $0, canAsk: canAsk) } == actions)
  }
}

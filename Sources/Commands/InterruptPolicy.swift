/// What a signal means, by what came before it (docs/reliability.md, "Leaving"). A value; no I/O.
struct InterruptPolicy: Sendable {
  enum Action: Sendable, Equatable {
    /// "Abort or detach?"
    case ask
    /// The running step ends, then the host undoes.
    case abort
    /// At once; the lease does the rest.
    case leave
    case nothing
  }

  private var asked = false
  private var aborting = false

  /// - Parameter canAsk: a person sits at the terminal.
  mutating func action(on kind: Interrupts.Kind, canAsk: Bool) -> Action {
    switch kind {
    case .interrupt where asked || aborting, .terminate where aborting: return .leave
    case .interrupt where canAsk:
      asked = true
      return .ask
    // A terminal that is closed says so more than once: the kernel, and the shell.
    case .hangup where aborting: return .nothing
    default:
      aborting = true
      return .abort
    }
  }
}

internal import Diagnostics
internal import Inventory
internal import SSH

/// The same work on many hosts, a window of so many at a time, on the one thread of the SSH event loop. What is slow, or dead, has its place in
/// the window and holds up nobody else.
struct Fleet: Sendable {
  enum Ending: Sendable, Equatable {
    case exit(SSHExit)
    case fault(OrchestrateError)
    case notBegun

    var hasFailed: Bool {
      switch self {
      case .exit(let exit): !exit.isSuccess
      case .fault: true
      case .notBegun: false
      }
    }
  }

  /// At most so many hosts at a time.
  var parallel: Int
  /// When more than so many have failed no further host is begun; those under way come to their end. Nil: all are begun.
  var maxFailures: Int?

  /// How it ended on each host, in the hosts' order.
  func run(_ hosts: [HostEntry], _ body: @escaping @Sendable (HostEntry) async -> Ending) async -> [Ending] {
    var endings = [Ending](repeating: .notBegun, count: hosts.count)
    var failed = 0
    var next = 0
    await withTaskGroup(of: (Int, Ending).self) { group in
      func begin() {
        guard next < hosts.count, !Task.isCancelled, maxFailures.map({ failed <= $0 }) ?? true else { return }
        let index = next
        next += 1
        group.addTask { (index, await body(hosts[index])) }
      }
      for _ in 0..<min(max(1, parallel), hosts.count) { begin() }
      for await (index, ending) in group {
        endings[index] = ending
        if ending.hasFailed { failed += 1 }
        begin()
      }
    }
    return endings
  }
}

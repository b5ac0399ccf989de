internal import Dispatch
internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// SIGINT, SIGTERM and SIGHUP as calls; what they mean says `InterruptPolicy`.
///
/// While it lives, the default actions of these signals are off. No work is done in a signal handler: a dispatch source carries them (signal-safety(7)).
/// SIGINT and SIGHUP that whoever started the process had ignored stay ignored (nohup(1); a shell's background list, POSIX sh 2.11).
final class Interrupts: Sendable {
  enum Kind: Sendable { case interrupt, terminate, hangup }

  /// The signals that arrive as calls.
  let taken: [Int32]
  private let sources: Mutex<[any DispatchSourceSignal]>

  init(_ handler: @escaping @Sendable (Kind) -> Void) {
    var made: [any DispatchSourceSignal] = []
    var taken: [Int32] = []
    for (number, kind) in [(SIGINT, Kind.interrupt), (SIGTERM, .terminate), (SIGHUP, .hangup)] {
      let before = signal(number, SIG_IGN)
      if number != SIGTERM, unsafeBitCast(before, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) { continue }
      taken.append(number)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler { handler(kind) }
      source.resume()
      made.append(source)
    }
    sources = Mutex(made)
    self.taken = taken
  }

  /// Puts the default actions back.
  func end() {
    sources.withLock { sources in
      for source in sources { source.cancel() }
      sources.removeAll()
    }
    for number in taken { signal(number, SIG_DFL) }
  }
}

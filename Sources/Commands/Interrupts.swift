internal import Dispatch
internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// SIGINT, SIGTERM and SIGHUP as calls; what they mean says `InterruptPolicy`.
///
/// While it lives, the default actions of the three signals are off. No work is done in a signal handler: a dispatch source carries them (signal-safety(7)).
final class Interrupts: Sendable {
  enum Kind: Sendable { case interrupt, terminate, hangup }

  private let sources: Mutex<[any DispatchSourceSignal]>

  init(_ handler: @escaping @Sendable (Kind) -> Void) {
    var made: [any DispatchSourceSignal] = []
    for (number, kind) in [(SIGINT, Kind.interrupt), (SIGTERM, .terminate), (SIGHUP, .hangup)] {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler { handler(kind) }
      source.resume()
      made.append(source)
    }
    sources = Mutex(made)
  }

  /// Puts the default actions back.
  func end() {
    sources.withLock { sources in
      for source in sources { source.cancel() }
      sources.removeAll()
    }
    for number in [SIGINT, SIGTERM, SIGHUP] { signal(number, SIG_DFL) }
  }
}

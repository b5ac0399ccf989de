#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// SIGINT, SIGTERM and SIGHUP as calls, one at a time; what they mean says `InterruptPolicy`.
///
/// While it lives, the default actions of these signals are off.
/// SIGINT and SIGHUP that whoever started the process had ignored stay ignored (nohup(1); a shell's background list, POSIX sh 2.11).
final class Interrupts: Sendable {
  enum Kind: Sendable { case interrupt, terminate, hangup }

  /// The signals that arrive as calls.
  let taken: [Int32]

  init(_ handler: @escaping @Sendable (Kind) -> Void) {
    taken = [(SIGINT, Kind.interrupt), (SIGTERM, .terminate), (SIGHUP, .hangup)].compactMap { number, kind in
      Signals.take(number, unlessIgnored: number != SIGTERM) { handler(kind) } ? number : nil
    }
  }

  /// Puts the default actions back.
  func end() {
    for number in taken { Signals.release(number) }
  }
}

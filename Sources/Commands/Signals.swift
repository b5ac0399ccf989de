internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// Signals as calls, on a thread of their own.
///
/// From the moment that `take` returns none is lost. (A dispatch source is registered later, on another thread; what comes before that is
/// dropped, and so is everything that a second source for the same signal should hear.) The handler only writes to a pipe (signal-safety(7)).
enum Signals {
  typealias Body = @Sendable () -> Void

  /// The writing end of the pipe; -1 before the first signal is taken.
  private static let writingEnd = Atomic<Int32>(-1)
  private static let bodies = Mutex<[Int32: Body]>([:])

  /// Calls `body` for each such signal from now on.
  ///
  /// - Parameter unlessIgnored: what whoever started the process had ignored stays so, and the answer is false.
  @discardableResult
  static func take(_ number: Int32, unlessIgnored: Bool = false, _ body: @escaping Body) -> Bool {
    if unlessIgnored, isIgnored(number) { return false }
    bodies.withLock { bodies in
      if writingEnd.load(ordering: .acquiring) < 0 { writingEnd.store(startReader(), ordering: .releasing) }
      bodies[number] = body
    }
    signal(number) { number in
      let saved = errno
      var byte = UInt8(truncatingIfNeeded: number)
      _ = write(Signals.writingEnd.load(ordering: .acquiring), &byte, 1)
      errno = saved
    }
    return true
  }

  private static func isIgnored(_ number: Int32) -> Bool {
    var action = sigaction()
    sigaction(number, nil, &action)
    #if canImport(Darwin)
      let handler = action.__sigaction_u.__sa_handler
    #else
      let handler = action.__sigaction_handler.sa_handler
    #endif
    return unsafeBitCast(handler, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
  }

  /// Puts the default action back.
  static func release(_ number: Int32) {
    signal(number, SIG_DFL)
    bodies.withLock { $0[number] = nil }
  }

  /// Never blocks whoever writes: with thousands of signals unread, one more says nothing new.
  private static func startReader() -> Int32 {
    var ends: [Int32] = [0, 0]
    precondition(pipe(&ends) == 0, "no file descriptor left for signals")
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    _ = fcntl(ends[1], F_SETFL, fcntl(ends[1], F_GETFL) | O_NONBLOCK)
    let reading = ends[0]
    startThread {
      var number: UInt8 = 0
      while true {
        let count = read(reading, &number, 1)
        if count < 0, errno == EINTR { continue }
        guard count == 1 else { return }
        bodies.withLock { $0[Int32(number)] }?()
      }
    }
    return ends[1]
  }
}

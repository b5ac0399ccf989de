import Testing

@testable import Commands

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The process's signals are one state for all tests: these are the only ones that touch SIGHUP.
@Suite(.serialized) struct InterruptsTests {
  @Test func whatWasIgnoredAtTheStartStaysIgnored() {
    signal(SIGHUP, SIG_IGN)
    defer { signal(SIGHUP, SIG_DFL) }
    let interrupts = Interrupts { _ in }
    #expect(!interrupts.taken.contains(SIGHUP) && interrupts.taken.contains(SIGTERM))
    interrupts.end()
    let after = signal(SIGHUP, SIG_DFL)
    #expect(unsafeBitCast(after, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self))
  }

  @Test func aHangupArrivesOnce() async {
    signal(SIGHUP, SIG_DFL)
    let (calls, report) = AsyncStream.makeStream(of: Interrupts.Kind.self)
    let interrupts = Interrupts { report.yield($0) }
    #expect(interrupts.taken.contains(SIGHUP))
    kill(getpid(), SIGHUP)
    var iterator = calls.makeAsyncIterator()
    #expect(await iterator.next() == .hangup)
    interrupts.end()
  }
}

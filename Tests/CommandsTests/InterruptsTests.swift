import Testing

@testable import Commands

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The process's signals are one state for all tests: these are the only ones that touch SIGHUP, one after the other.
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

  /// Also the second time in one process.
  @Test(.timeLimit(.minutes(1)), arguments: 1...2) func aSignalThatComesAtOnceIsHeard(time: Int) async {
    let (heard, said) = AsyncStream<Interrupts.Kind>.makeStream()
    let interrupts = Interrupts { said.yield($0) }
    kill(getpid(), SIGHUP)
    #expect(await heard.first { _ in true } == .hangup)
    interrupts.end()
  }
}

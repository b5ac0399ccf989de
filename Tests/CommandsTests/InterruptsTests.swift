import Testing

@testable import Commands

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The process's signals are one state for all tests: this is the only one that touches SIGHUP.
@Suite struct InterruptsTests {
  @Test func whatWasIgnoredAtTheStartStaysIgnored() {
    signal(SIGHUP, SIG_IGN)
    defer { signal(SIGHUP, SIG_DFL) }
    let interrupts = Interrupts { _ in }
    #expect(!interrupts.taken.contains(SIGHUP) && interrupts.taken.contains(SIGTERM))
    interrupts.end()
    let after = signal(SIGHUP, SIG_DFL)
    #expect(unsafeBitCast(after, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self))
  }
}

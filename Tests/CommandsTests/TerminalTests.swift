import Foundation
import Testing

@testable import Commands

@Suite(.timeLimit(.minutes(1))) struct TerminalTests {
  /// A second Ctrl-C leaves while a question is still open: whoever waits for the answer must not hold up the end.
  @Test func theProcessEndsUnderAnOpenQuestion() async {
    await #expect(processExitsWith: .exitCode(7)) {
      let pipe = Pipe()
      dup2(pipe.fileHandleForReading.fileDescriptor, 0)
      try pipe.fileHandleForWriting.write(contentsOf: Data("first\n".utf8))
      guard await Terminal.readLine("") == "first" else { exitProcess(1) }
      Task { await Terminal.readLine("") }
      for _ in 0..<10_000 { await Task.yield() }
      exitProcess(7)
    }
  }
}

import Foundation
import Synchronization
import Testing
import Views

@testable import Commands

@Suite struct OutputQueueTests {
  @Test func writersGoOnWhileNobodyReads() async {
    let reader = StoppedReader()
    let queue = OutputQueue(reader)
    queue.write("one ", to: .standardOutput)
    queue.write("two ", to: .standardError)
    queue.write("three", to: .standardOutput)
    #expect(queue.isBehind)
    #expect(reader.text == "")
    reader.goOn()
    await queue.drain()
    #expect(reader.text == "one two three")
    #expect(!queue.isBehind)
  }

  @Test func fullQueueHoldsUpItsWriter() async {
    let reader = StoppedReader()
    let queue = OutputQueue(reader, limit: 4)
    queue.write("full", to: .standardOutput)
    let begun = DispatchSemaphore(value: 0), shown = Mutex("")
    await withCheckedContinuation { continuation in
      startThread {
        begun.signal()
        queue.write("more", to: .standardOutput)
        shown.withLock { $0 = reader.text }
        continuation.resume()
      }
      startThread {
        begun.wait()
        reader.goOn()
      }
    }
    await queue.drain()
    #expect(shown.withLock { $0 }.hasPrefix("full"), "the second writer went on before the first one's text was read")
    #expect(reader.text == "fullmore")
  }

  @Test func whoLeavesIsNotHeldUp() async {
    let reader = StoppedReader()
    let queue = OutputQueue(reader, limit: 4)
    queue.write("full", to: .standardOutput)
    queue.leave()
    queue.write("the last word", to: .standardOutput)
    #expect(reader.text == "")
    reader.goOn()
    await queue.drain()
    #expect(reader.text == "fullthe last word")
  }

  @Test func questionComesBehindWhatWasSaid() async throws {
    let reader = StoppedReader()
    var context = CommandContext.current
    context.output = reader
    context.readLine = { _ in reader.text }
    let said = try await CommandContext.$current.withValue(context) {
      try await CommandContext.reporting { context, queue in
        context.output.write("this goes first", to: .standardOutput)
        startThread { reader.goOn() }
        return await context.readLine("Sure? ")
      }
    }
    #expect(said == "this goes first")
  }

  @Test func leavingWaitsOnlySoLong() {
    let reader = StoppedReader()
    let queue = OutputQueue(reader)
    queue.write("one", to: .standardOutput)
    queue.drain(seconds: 0)
    #expect(queue.isBehind)
    reader.goOn()
  }
}

/// A terminal that is stopped, until it goes on.
private final class StoppedReader: OutputSink {
  private let read = Mutex("")
  private let gate = DispatchSemaphore(value: 0)
  var text: String { read.withLock { $0 } }

  func goOn() { gate.signal() }

  func write(_ text: String, to stream: Views.OutputStream) {
    gate.wait()
    gate.signal()
    read.withLock { $0 += text }
  }
}

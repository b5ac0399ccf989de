import Diagnostics
import Synchronization
import Testing

@testable import Engine

/// What goes over the channel before the host has said whether it has our scripts.
struct AttachmentTests {
  private let bundle = HostBundle(sha256: Fixtures.digest)
  private let channel = RecordedChannel()

  private func attach(asked: [String] = []) async -> Engine.Attachment {
    let attachment = Engine.Attachment(host: "bot-1", channel: channel, bundle: bundle, asked: asked)
    await attachment.start()
    return attachment
  }

  @Test func whatWasAskedWithTheCommandIsAnsweredToWhoeverAsks() async throws {
    let attachment = await attach(asked: ["facts", "get a", "get b"])
    async let facts = attachment.request("facts")
    channel.push("H\nfacts 3\na=1file 1\nAfile 1\nB")
    #expect(try await facts.text == "a=1")
    // In any order, before or after the answers came.
    #expect(try await attachment.request("get b").text == "B")
    #expect(try await attachment.request("get a").text == "A")
    #expect(await attachment.flights == 0)
    #expect(channel.written.isEmpty)
    // A second time it is a question of its own.
    async let again = attachment.request("get a")
    await channel.awaitWritten(Array("get a\n".utf8))
    channel.push("none 0\n")
    #expect(try await again.tag == "none")
    #expect(await attachment.flights == 1)
  }

  @Test func otherQuestionsComeBehindThoseOfTheCommand() async throws {
    let attachment = await attach(asked: ["facts"])
    async let state = attachment.request("state 1")
    channel.push("H\n")
    await channel.awaitWritten(Array("state 1\n".utf8))
    channel.push("facts 3\na=1state 4\nlive")
    #expect(try await state.text == "live")
    #expect(try await attachment.request("facts").text == "a=1")
    #expect(await attachment.flights == 1)
  }

  @Test func aHostWithoutTheBundleGetsItFirst() async throws {
    let attachment = await attach(asked: ["facts"])
    async let facts = attachment.request("facts")
    async let state = attachment.request("state 1")
    for _ in 0..<100 { await Task.yield() }
    #expect(channel.written.isEmpty)
    channel.push("N\n")
    let count = bundle.tar.count
    await channel.awaitWritten(Array("bundle \(count)\n".utf8) + bundle.tar + Array("state 1\n".utf8))
    channel.push("facts 3\na=1state 4\nlive")
    #expect(try await facts.text == "a=1")
    #expect(try await state.text == "live")
    #expect(await attachment.flights == 2)
  }

  @Test func aConnectionThatBreaksFailsWhatWasAskedToo() async throws {
    let attachment = await attach(asked: ["facts"])
    await channel.close()
    await #expect(throws: OrchestrateError.self) { try await attachment.request("facts").text }
  }
}

/// A channel whose other end is the test.
private final class RecordedChannel: ByteChannel {
  private let stream: AsyncStream<ByteChunk>
  private let continuation: AsyncStream<ByteChunk>.Continuation
  private let sent = Mutex<[UInt8]>([])

  init() { (stream, continuation) = AsyncStream.makeStream() }

  var written: [UInt8] { sent.withLock { $0 } }
  func push(_ text: String) { continuation.yield(.error(Array(text.utf8))) }

  func awaitWritten(_ bytes: [UInt8]) async {
    while written.count < bytes.count { await Task.yield() }
    #expect(written == bytes)
  }

  func write(_ bytes: [UInt8]) async throws { sent.withLock { $0 += bytes } }
  func read() async throws -> ByteChunk? {
    for await chunk in stream { return chunk }
    return nil
  }
  func close() async { continuation.finish() }
}

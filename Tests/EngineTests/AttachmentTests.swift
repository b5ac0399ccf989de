import Synchronization
import Testing

@testable import Engine

/// What goes over the channel before the host has said whether it has our scripts.
struct AttachmentTests {
  private let bundle = HostBundle(sha256: Fixtures.digest)
  private let channel = RecordedChannel()

  private func attach() async -> Engine.Attachment {
    let attachment = Engine.Attachment(host: "bot-1", channel: channel, bundle: bundle)
    await attachment.start()
    return attachment
  }

  @Test func aLineNeedsNoGreeting() async throws {
    let attachment = await attach()
    async let facts = attachment.request("facts")
    await channel.awaitWritten(Array("facts\n".utf8))
    channel.push("H\nfacts 3\na=1")
    #expect(try await facts.text == "a=1")
    #expect(await attachment.flights == 1)
  }

  @Test func aHostWithoutTheBundleIsAskedAgainBehindIt() async throws {
    let attachment = await attach()
    async let facts = attachment.request("facts")
    await channel.awaitWritten(Array("facts\n".utf8))
    channel.push("N\n")
    let count = bundle.tar.count
    await channel.awaitWritten(Array("facts\nbundle \(count)\n".utf8) + bundle.tar + Array("facts\n".utf8))
    channel.push("facts 3\na=1")
    #expect(try await facts.text == "a=1")
    #expect(await attachment.flights == 2)
  }

  @Test func whatHasABodyWaitsForTheGreeting() async throws {
    let attachment = await attach()
    async let opened = attachment.request("open x 60 0 2", body: Array("{}".utf8))
    async let state = attachment.request("state 1")
    // Nothing may overtake it either.
    for _ in 0..<100 { await Task.yield() }
    #expect(channel.written.isEmpty || channel.written == Array("state 1\n".utf8))
    channel.push("H\n")
    while channel.written.count < 24 { await Task.yield() }
    let text = String(decoding: channel.written, as: UTF8.self)
    #expect(text == "open x 60 0 2\n{}state 1\n" || text == "state 1\nopen x 60 0 2\n{}")
    let first = text.hasPrefix("open")
    channel.push(first ? "granted 1\n1state 4\nlive" : "state 4\nlivegranted 1\n1")
    #expect(try await opened.tag == "granted")
    #expect(try await state.text == "live")
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

internal import Diagnostics

/// A full-duplex stream to a process on the host: an exec channel of SSH, or pipes in tests.
public protocol ByteChannel: Sendable {
  func write(_ bytes: [UInt8]) async throws
  /// The next chunk, in order of arrival; nil at the end.
  func read() async throws -> ByteChunk?
  func close() async
}

public enum ByteChunk: Sendable, Equatable {
  case output([UInt8])
  case error([UInt8])
}

/// A reply of attach.sh: its tag and its body.
public struct Reply: Sendable, Equatable {
  public var tag: String
  public var body: [UInt8]
  public init(tag: String, body: [UInt8] = []) {
    self.tag = tag
    self.body = body
  }
  public var text: String { String(decoding: body, as: UTF8.self) }
}

/// The conversation with attach.sh on one host (docs/runner.md, "The channel").
///
/// Requests may be made from several tasks at once; they are sent in the order of the calls, and many may be under way: each costs no round trip of
/// its own when the next doesn't wait for it. The log has one consumer.
public actor Attachment {
  public nonisolated let host: String
  private let channel: any ByteChannel
  private let bundle: HostBundle
  private let sleep: @Sendable (Duration) async throws -> Void
  private struct Pending {
    /// Nil: it went with the command line, and nobody waits for the reply yet.
    var continuation: CheckedContinuation<Reply, any Error>?
    var waiting: @Sendable (Reply) -> Void = { _ in }
    /// The line, of what went with the command line.
    var asked: String?
  }
  private var pending: [Pending]
  /// Replies that nobody waited for yet.
  private var answered: [String: Reply] = [:]
  /// Counts the signs of life of a host that has no answer yet.
  private var signsOfLife = 0
  /// Exchanges that this side had to wait for: requests that are under way together are one.
  public private(set) var flights = 0
  private var outgoing: [UInt8] = []
  private var owesBundle = false
  private var writerWaits: CheckedContinuation<Void, Never>?
  private var failure: (any Error)?
  private var replyBuffer: [UInt8] = []
  private var greeted = false
  /// The stub has been sent the bundle, and hasn't yet given way to attach.sh: an `error` is still its own.
  private var isUnpacking = false
  private var parser: DeploymentLogParser?
  /// Something of the log has come over this connection.
  private(set) var showsLog = false
  private let logStream: AsyncThrowingStream<LogItem, any Error>
  private let logContinuation: AsyncThrowingStream<LogItem, any Error>.Continuation
  private var tasks: [Task<Void, Never>] = []

  /// - Parameters:
  ///   - asked: what went with the command line (`HostBundle.command`), in its order; whoever makes such a request gets that reply.
  ///   - sleep: the clock of the deadlines; tests have one of their own.
  public init(
    host: String, channel: any ByteChannel, bundle: HostBundle, asked: [String] = [],
    sleep: @escaping @Sendable (Duration) async throws -> Void = { try await Task.sleep(for: $0) }
  ) {
    self.host = host
    self.channel = channel
    self.bundle = bundle
    self.sleep = sleep
    pending = asked.map { Pending(asked: $0) }
    (logStream, logContinuation) = AsyncThrowingStream.makeStream()
  }

  /// Begins reading and writing. Call once.
  public func start() {
    tasks.append(Task { await self.readLoop() })
    tasks.append(Task { await self.writeLoop() })
  }

  /// The deployment's log from where `follow` or `open` began; ends with the connection (throws), or with `close`.
  public nonisolated var log: AsyncThrowingStream<LogItem, any Error> { logStream }

  /// Sends a message and waits for its reply. Throws what broke the connection.
  ///
  /// A dead link is noticed below; the deadline is for a host that keeps the connection and says nothing more. Replies come in the order
  /// of the messages, so that one that is missing ends the conversation.
  /// - Parameters:
  ///   - deadline: nil for what the host may take any time for without a word: pulling. What waits for the lock or for an undo gives signs of
  ///     life (`waiting`), each of which begins the deadline anew.
  ///   - waiting: is given each of them.
  public func request(
    _ line: String, body: [UInt8]? = nil, deadline: Duration? = .seconds(120),
    waiting: @escaping @Sendable (Reply) -> Void = { _ in }
  ) async throws -> Reply {
    if let reply = answered.removeValue(forKey: line) { return reply }
    if let failure { throw failure }
    let sent = (greeted ? 0 : bundle.tar.count) + (body?.count ?? 0)
    // 16 KiB/s is the slowest line that is put up with.
    let watch = deadline.map { deadline in
      Task { [weak self, sleep] in
        var limit = deadline + .seconds(sent >> 14)
        var heard = await self?.signsOfLife
        while true {
          do { try await sleep(limit) } catch { return }
          guard let now = await self?.signsOfLife, now != heard else { break }
          heard = now
          limit = deadline
        }
        await self?.giveUp(on: line)
      }
    }
    defer { watch?.cancel() }
    return try await withCheckedThrowingContinuation { continuation in
      if let index = pending.firstIndex(where: { $0.continuation == nil && $0.asked == line }) {
        pending[index].continuation = continuation
        pending[index].waiting = waiting
        return
      }
      if pending.allSatisfy({ $0.asked != nil }) { flights += 1 }
      pending.append(Pending(continuation: continuation, waiting: waiting))
      outgoing += Array((line + "\n").utf8) + (body ?? [])
      wakeWriter()
    }
  }

  /// From now on stdout is the log of a deployment whose events bear this nonce.
  public func expectLog(nonce: String, offset: Int = 0) { parser = DeploymentLogParser(offset: offset, nonce: nonce) }

  /// Closes; never throws, never waits for the host.
  public func close() async {
    fail(with: OrchestrateError(.outcomeUnknown, "the connection was closed", host: host), close: true)
    await channel.close()
    for task in tasks { task.cancel() }
  }

  private func giveUp(on line: String) async {
    guard failure == nil else { return }
    let word = line.prefix { $0 != " " }
    let text = "the host keeps the connection, but doesn't answer (\(word))"
    fail(with: OrchestrateError(.unreachable, text, host: host))
    await channel.close()
  }

  // MARK: - Writing

  private func wakeWriter() {
    writerWaits?.resume()
    writerWaits = nil
  }

  private func writeLoop() async {
    while failure == nil {
      let batch = nextBatch()
      if batch.isEmpty {
        await withCheckedContinuation { writerWaits = $0 }
        continue
      }
      do { try await channel.write(batch) } catch { fail(with: error) }
    }
  }

  /// Nothing before the greeting: a host that wants the bundle reads nothing else.
  private func nextBatch() -> [UInt8] {
    guard greeted else { return [] }
    var batch: [UInt8] = []
    if owesBundle { batch = Array("bundle \(bundle.tar.count)\n".utf8) + bundle.tar }
    owesBundle = false
    batch += outgoing
    outgoing.removeAll()
    return batch
  }

  // MARK: - Reading

  private func readLoop() async {
    do {
      while let chunk = try await channel.read() {
        switch chunk {
        case .output(let bytes):
          guard parser != nil else { continue }
          for item in parser!.append(bytes) {
            showsLog = true
            logContinuation.yield(item)
          }
        case .error(let bytes):
          replyBuffer += bytes
          try await takeReplies()
        }
      }
      throw OrchestrateError(
        .outcomeUnknown, "the host's side of the conversation ended", host: host,
        cause: replyBuffer.isEmpty ? nil : String(decoding: replyBuffer, as: UTF8.self))
    } catch {
      fail(with: error)
    }
  }

  private func takeReplies() async throws {
    while let feed = replyBuffer.firstIndex(of: 0x0a) {
      let line = String(decoding: replyBuffer[..<feed], as: UTF8.self)
      if !greeted {
        guard line == "H" || line == "N" else {
          // A login banner or a shell's complaint on stderr; an `error` reply of the stub tells why it can't go on.
          if let (tag, count) = Self.header(line), tag == "error" {
            guard replyBuffer.count >= feed + 1 + count else { return }
            let text = String(decoding: replyBuffer[(feed + 1)..<(feed + 1 + count)], as: UTF8.self)
            throw unusable(text)
          }
          replyBuffer.removeFirst(feed + 1)
          continue
        }
        replyBuffer.removeFirst(feed + 1)
        isUnpacking = line == "N"
        owesBundle = isUnpacking
        if isUnpacking { flights += 1 }
        greeted = true
        wakeWriter()
        continue
      }
      guard let (tag, count) = Self.header(line) else {
        throw OrchestrateError(.internalFault, "the host answered out of turn: \(line.prefix(200))", host: host)
      }
      guard replyBuffer.count >= feed + 1 + count else { return }
      let body = Array(replyBuffer[(feed + 1)..<(feed + 1 + count)])
      replyBuffer.removeFirst(feed + 1 + count)
      if isUnpacking, tag == "error" { throw unusable(String(decoding: body, as: UTF8.self)) }
      isUnpacking = false
      guard !pending.isEmpty else {
        throw OrchestrateError(.internalFault, "the host answered what nobody asked: \(tag)", host: host)
      }
      if tag == "waiting" {
        signsOfLife += 1
        pending[0].waiting(Reply(tag: tag, body: body))
      } else {
        let first = pending.removeFirst(), reply = Reply(tag: tag, body: body)
        if let continuation = first.continuation {
          continuation.resume(returning: reply)
        } else if let line = first.asked {
          answered[line] = reply
        }
      }
    }
  }

  private func unusable(_ why: String) -> OrchestrateError {
    OrchestrateError(.failed, "the host can't be worked with", host: host, cause: why, state: "nothing was changed")
  }

  private static func header(_ line: String) -> (tag: String, count: Int)? {
    let words = line.split(separator: " ")
    guard words.count == 2, let count = Int(words[1]), count >= 0, count <= 64 << 20 else { return nil }
    return (String(words[0]), count)
  }

  private func fail(with error: any Error, close: Bool = false) {
    guard failure == nil else { return }
    failure = error
    let waiting = pending
    pending.removeAll()
    for request in waiting { request.continuation?.resume(throwing: error) }
    if close { logContinuation.finish() } else { logContinuation.finish(throwing: error) }
    wakeWriter()
  }
}

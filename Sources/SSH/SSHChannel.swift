/// One remote command (or shell): its streams and how it ended.
///
/// Reading and writing may go on at the same time from different tasks; of each kind one task at a time. Dropping the
/// last reference closes the channel. Closing never ends the remote process by itself: sshd only closes its streams.
public final class SSHChannel: Sendable {
  public let session: SSHSession
  let state: ChannelState

  init(_ session: SSHSession, _ state: ChannelState) {
    self.session = session
    self.state = state
  }

  deinit {
    let session = session
    let state = state
    session.loop.perform { session.assumeIsolated { $0.close(state) } }
  }

  /// Writes to the command's standard input, any number of bytes. Returns when they are accepted: at most 256 KiB wait on this
  /// side while the host is behind. Bytes that were accepted are sent also when the task is cancelled later.
  ///
  /// - Throws: `channelClosed` when the command has ended or EOF was sent, `connectionLost`, `cancelled`.
  public func write(_ bytes: [UInt8]) async throws(SSHError) { try await session.write(bytes, to: state) }

  /// Ends the command's standard input after what was written so far.
  public func sendEOF() async { await session.sendEOF(state) }

  /// The next piece of output, up to 64 KiB; nil after the end of both streams. Each stream is in order; between the two the
  /// order is that of arrival as far as the network tells it. While nobody reads, the host is held up by the window (2 MiB).
  ///
  /// - Throws: `connectionLost`, `channelClosed` (closed by this side), `cancelled`. What arrived before is given first.
  public func read() async throws(SSHError) -> SSHChunk? { try await session.read(state, until: .infinity) }

  /// As `read()`, at most for this time (`timeout`). Nothing is lost by a timeout.
  public func read(deadline: Duration?) async throws(SSHError) -> SSHChunk? {
    try await session.read(state, until: deadline.map { monotonicSeconds() + $0.inSeconds } ?? .infinity)
  }

  /// How the command ended: waits until the host closes the channel, which needs the output to have been read to its end.
  ///
  /// - Throws: `connectionLost`, `channelClosed` (closed by this side before the end), `timeout`, `cancelled`.
  public func exit(deadline: Duration? = nil) async throws(SSHError) -> SSHExit {
    try await session.exit(of: state, until: deadline.map { monotonicSeconds() + $0.inSeconds } ?? .infinity)
  }

  /// Tells the host the terminal's new size.
  public func resize(columns: Int, rows: Int) async { await session.resize(state, columns, rows) }

  /// Gives the channel up: output that wasn't read is dropped. Returns at once; the remote process isn't waited for.
  public func close() async { await session.close(state) }
}

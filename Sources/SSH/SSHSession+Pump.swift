import CLibSSH2

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A channel as the session sees it. Confined to the loop's thread.
final class ChannelState: @unchecked Sendable {
  var raw: OpaquePointer?
  /// Its number in the protocol, on our side.
  let number: UInt32?

  /// Not before its requests are answered: a quick command may have ended by then, and would be freed under them.
  var isStarted = false

  /// Accepted from the writer, not yet taken by libssh2. A chunk stays the same until it is gone: libssh2 wants a write
  /// that was put off (key exchange) to be repeated with the same bytes.
  var outgoing: [[UInt8]] = []
  var outgoingOffset = 0
  var outgoingBytes = 0
  var wantsEOF = false
  var sentEOF = false

  var incoming: [SSHChunk] = []
  var incomingHead = 0
  var incomingBytes = 0
  var readEOF = false
  var remoteClosed = false
  var closing = false
  var exit: SSHExit?
  var fault: SSHError?

  init(_ raw: OpaquePointer, number: UInt32?) {
    self.raw = raw
    self.number = number
  }

  func append(_ chunk: SSHChunk, count: Int) {
    incoming.append(chunk)
    incomingBytes += count
  }

  func popFirst() -> SSHChunk? {
    guard incomingHead < incoming.count else { return nil }
    let chunk = incoming[incomingHead]
    incomingHead += 1
    incomingBytes -= chunk.bytes.count
    if incomingHead == incoming.count {
      incoming.removeAll(keepingCapacity: true)
      incomingHead = 0
    }
    return chunk
  }
}

/// Moves bytes between the wire, libssh2 and the channels' queues, as far as they will go without waiting.
extension SSHSession {
  /// Past this much on its way to the socket, channels are made to wait.
  static let outboundLimit = 1 << 19
  /// A writer waits while more than this is queued on its channel.
  static let outgoingLimit = 1 << 18
  /// Under this much unread output a channel is read further. libssh2 itself may hold one more window (2 MiB).
  static let incomingLimit = 1 << 20

  func schedulePump() {
    guard !pumping, !pumpScheduled else { return }
    pumpScheduled = true
    loop.perform { [weak self] in
      self?.assumeIsolated {
        $0.pumpScheduled = false
        $0.pump()
        $0.wakeAll()
      }
    }
  }

  func pump() {
    guard !pumping, failure == nil else { return }
    pumping = true
    let start = wire.consumed
    defer {
      pumping = false
      if wire.consumed != start { wakeAll() }
    }
    var before: UInt64
    repeat {
      before = wire.consumed
      for (id, channel) in channels {
        pump(channel)
        if failure != nil { return }
        if channel.raw == nil, channel.closing { channels[id] = nil }
      }
    } while wire.consumed != before
    settle()
  }

  private func pump(_ channel: ChannelState) {
    guard let raw = channel.raw else { return }
    if channel.closing { return pumpClose(channel, raw) }
    guard channel.isStarted else { return }
    pumpWrites(channel, raw)
    if failure == nil { pumpReads(channel, raw) }
    if failure == nil, channel.readEOF, !channel.remoteClosed { pumpEnd(channel, raw) }
  }

  private func pumpWrites(_ channel: ChannelState, _ raw: OpaquePointer) {
    while let chunk = channel.outgoing.first, wire.outbound.count < Self.outboundLimit {
      let count = chunk.withUnsafeBytes { bytes in
        libssh2_channel_write_ex(
          raw, 0, bytes.baseAddress!.advanced(by: channel.outgoingOffset).assumingMemoryBound(to: CChar.self),
          bytes.count - channel.outgoingOffset)
      }
      if count == 0 || count == Int(LIBSSH2_ERROR_EAGAIN) { return }
      if count < 0 { return fail(channel, count, "writing") }
      channel.outgoingOffset += count
      channel.outgoingBytes -= count
      if channel.outgoingOffset == chunk.count {
        channel.outgoing.removeFirst()
        channel.outgoingOffset = 0
      }
    }
    guard channel.outgoing.isEmpty, channel.wantsEOF, !channel.sentEOF else { return }
    let status = libssh2_channel_send_eof(raw)
    if status == 0 {
      channel.sentEOF = true
    } else if status != LIBSSH2_ERROR_EAGAIN {
      fail(channel, Int(status), "sending EOF")
    }
  }

  private func pumpReads(_ channel: ChannelState, _ raw: OpaquePointer) {
    // Read until nothing is left, or not at all: each read opens the window again for what it has *seen*, so that many
    // small reads of a long queue would let it grow without bound.
    guard channel.incomingBytes < Self.incomingLimit || isDraining, !channel.readEOF else { return }
    for stream in [Int32(0), SSH_EXTENDED_DATA_STDERR] {
      while true {
        let count = libssh2_channel_read_ex(
          raw, stream, loop.scratch.baseAddress!.assumingMemoryBound(to: CChar.self), 1 << 16)
        if count == 0 || count == Int(LIBSSH2_ERROR_EAGAIN) { break }
        if count < 0 { return fail(channel, count, "reading") }
        let bytes = [UInt8](UnsafeRawBufferPointer(rebasing: loop.scratch[..<count]))
        channel.append(stream == 0 ? .stdout(bytes) : .stderr(bytes), count: count)
      }
    }
    if libssh2_channel_eof(raw) == 1 { channel.readEOF = true }
  }

  /// After the end of its output: waits for the host's CLOSE, before which an exit status may still come.
  private func pumpEnd(_ channel: ChannelState, _ raw: OpaquePointer) {
    let status = libssh2_channel_wait_closed(raw)
    if status == LIBSSH2_ERROR_EAGAIN { return }
    if status < 0 { return fail(channel, Int(status), "waiting for the end of the command") }
    channel.remoteClosed = true
    channel.exit = exit(of: channel, raw)
    channel.outgoing = []
    channel.outgoingBytes = 0
    // The host has closed: this returns at once.
    if libssh2_channel_free(raw) != LIBSSH2_ERROR_EAGAIN { channel.raw = nil }
  }

  /// The signal first: libssh2 gives status 0 to a process that was killed, and when no status came at all.
  private func exit(of channel: ChannelState, _ raw: OpaquePointer) -> SSHExit {
    var name: UnsafeMutablePointer<CChar>?
    var message: UnsafeMutablePointer<CChar>?
    var nameLength = 0
    var messageLength = 0
    _ = libssh2_channel_get_exit_signal(raw, &name, &nameLength, &message, &messageLength, nil, nil)
    defer {
      if let name { libssh2_free(self.raw, name) }
      if let message { libssh2_free(self.raw, message) }
    }
    if let name, nameLength > 0 {
      return .signal(
        name: String(cString: name), coreDumped: channel.number.map(wire.coreDumped.contains) ?? false,
        message: message.map { String(cString: $0) } ?? "")
    }
    guard let number = channel.number, wire.exitStatusSeen.contains(number) else { return .missing }
    return .status(Int(libssh2_channel_get_exit_status(raw)))
  }

  /// Closing sends CLOSE and then, in libssh2, waits for the host's, which sshd gives only when the process has ended. That
  /// is waited for here, in the background, or until the session ends.
  private func pumpClose(_ channel: ChannelState, _ raw: OpaquePointer) {
    var status = libssh2_channel_close(raw)
    if status == LIBSSH2_ERROR_EAGAIN { return }
    status = libssh2_channel_free(raw)
    if status != LIBSSH2_ERROR_EAGAIN { channel.raw = nil }
  }

  /// An operation on a channel failed: the session with it, if the connection is gone.
  private func fail(_ channel: ChannelState, _ status: Int, _ what: String) {
    let error = fault(status, what)
    guard failure == nil, channel.fault == nil else { return }
    channel.fault = error
    channel.closing = true
  }

  /// After any call into libssh2: sends what waits, and listens for what is to come.
  func settle() {
    guard failure == nil else { return }
    if tunnel != nil { return settleTunnel() }
    guard wire.descriptor >= 0 else { return }
    if !wire.flush() { return lost() }
    loop.setEvents(wire.descriptor, Int16(POLLIN) | (wire.outbound.isEmpty ? 0 : Int16(POLLOUT)))
  }

  /// Something came in, or room to send. Called by the loop.
  func socketReady(_ events: Int16) {
    guard failure == nil else { return }
    if events & Int16(POLLOUT) != 0, !wire.flush() { return lost() }
    if events & ~Int16(POLLOUT) != 0, wire.fill(loop.scratch) { arrived() } else { pump() }
    wakeAll()
  }

  private func arrived() {
    lastInbound = monotonicSeconds()
    probeSent = nil
    #if os(Linux)
      // Delayed acknowledgements cost a near host tens of milliseconds per step of the handshake; not sticky (tcp(7)).
      if quickAcknowledgements > 0, wire.descriptor >= 0 {
        quickAcknowledgements -= 1
        setOption(wire.descriptor, Int32(IPPROTO_TCP), TCP_QUICKACK, 1)
      }
    #endif
    pump()
    // The end, after everything before it was given out: a command may well have ended in the same breath.
    if failure == nil, wire.isOver {
      isDraining = true
      pump()
      lost()
    }
  }

  func lost() {
    let reason = wire.errorNumber == 0 ? "the host closed the connection" : errorText(wire.errorNumber)
    abandon(error(.connectionLost, "the connection was lost: \(reason)"))
  }

  // MARK: Through a jump host

  private func settleTunnel() {
    guard !tunnelWriting, !wire.outbound.isEmpty, let tunnel else { return }
    tunnelWriting = true
    let bytes = wire.outbound.take()
    Task {
      do throws(SSHError) { try await tunnel.write(bytes) } catch { tunnelEnded(error) }
      wire.sent += UInt64(bytes.count)
      tunnelWriting = false
      pump()
      settle()
      wakeAll()
    }
  }

  func readTunnel(_ tunnel: SSHChannel) async {
    do throws(SSHError) {
      while let chunk = try await tunnel.read() {
        guard failure == nil, case .stdout(let bytes) = chunk else { continue }
        wire.received += UInt64(bytes.count)
        bytes.withUnsafeBytes { wire.inbound.append($0) }
        arrived()
        wakeAll()
      }
      tunnelEnded(nil)
    } catch { tunnelEnded(error) }
  }

  private func tunnelEnded(_ error: SSHError?) {
    guard failure == nil else { return }
    let reason = error?.message ?? "the jump host closed it"
    isDraining = true
    pump()
    let through = via.map { " through " + $0.configuration.host } ?? ""
    abandon(self.error(.connectionLost, "the connection\(through) was lost: \(reason)"))
  }

  // MARK: Keepalive

  func startKeepalive() {
    guard let raw else { return }
    lastInbound = monotonicSeconds()
    // With want_reply the host must answer. Its own interval is the shortest that libssh2 has: when to ask is decided here.
    libssh2_keepalive_config(raw, 1, 2)
    scheduleKeepalive(after: configuration.keepaliveInterval.inSeconds)
  }

  private func scheduleKeepalive(after seconds: Double) {
    keepaliveTimer = loop.schedule(at: monotonicSeconds() + max(0.05, seconds)) { [weak self] in
      self?.assumeIsolated { $0.keepaliveTick() }
    }
  }

  /// libssh2's keepalive never fails on a dead link: silence is measured here, and counts only from a question on, so that a
  /// process that was stopped for a while doesn't take its own absence for the host's.
  private func keepaliveTick() {
    guard failure == nil, let raw else { return }
    let interval = configuration.keepaliveInterval.inSeconds
    let allowed = configuration.keepaliveSilence.inSeconds
    let now = monotonicSeconds()
    let silent = now - lastInbound
    if let probeSent, silent >= allowed, now - probeSent >= max(0, allowed - interval) * 0.9 {
      abandon(error(.connectionLost, "the host has been silent for \(Int(silent.rounded())) s"))
      return
    }
    if silent >= interval * 0.9 {
      var next: Int32 = 0
      let before = wire.sent + UInt64(wire.outbound.count)
      _ = libssh2_keepalive_send(raw, &next)  // fails only where `settle` sees it, too
      if probeSent == nil, wire.sent + UInt64(wire.outbound.count) != before { probeSent = now }
      settle()
      guard failure == nil else { return }
      scheduleKeepalive(after: min(interval, max(0.05, allowed - silent)))
    } else {
      scheduleKeepalive(after: interval - silent)
    }
  }
}

func setOption(_ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int32) {
  var value = value
  _ = setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
}

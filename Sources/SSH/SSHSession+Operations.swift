import CLibSSH2

extension SSHSession {
  static let window: UInt32 = 2 << 20
  static let packet: UInt32 = 32768

  /// Starts a remote command by the user's login shell. Two round trips, the first one on a session one: its channel was asked for ahead.
  ///
  /// - Parameter deadline: for the host's consent; not for the command.
  /// - Throws: `channelOpenFailed` (MaxSessions, say), `timeout`, `connectionLost`, `cancelled`.
  public func open(_ command: String, deadline: Duration = .seconds(30)) async throws(SSHError) -> SSHChannel {
    try await start("the command", kind: "exec", command: command, terminal: nil, deadline: deadline)
  }

  /// A terminal on the host: the user's shell, or `command`. stderr is merged into stdout by the host, line ends are CRLF, and
  /// the process group gets HUP when the channel closes.
  public func shell(
    _ command: String? = nil, terminal: SSHTerminal, deadline: Duration = .seconds(30)
  ) async throws(SSHError) -> SSHChannel {
    try await start(
      "the shell", kind: command == nil ? "shell" : "exec", command: command, terminal: terminal, deadline: deadline)
  }

  private func start(
    _ what: String, kind: String, command: String?, terminal: SSHTerminal?, deadline: Duration
  ) async throws(SSHError) -> SSHChannel {
    let until = monotonicSeconds() + deadline.inSeconds
    let state = try await serial(what, until: until, discard: { $0.close($1) }) {
      (session: isolated SSHSession) async throws(SSHError) -> ChannelState in
      let state = try await session.sessionChannel("a channel for \(what)")
      do throws(SSHError) {
        if let terminal {
          try await session.request(state, "a terminal") { raw in
            libssh2_channel_request_pty_ex(
              raw, terminal.type, UInt32(terminal.type.utf8.count), nil, 0, Int32(terminal.columns),
              Int32(terminal.rows), 0, 0)
          }
        }
        try await session.request(state, what) { raw in
          libssh2_channel_process_startup(
            raw, kind, UInt32(kind.utf8.count), command, UInt32(command?.utf8.count ?? 0))
        }
      } catch {
        session.close(state)
        throw error
      }
      session.begin(state)
      return state
    }
    return SSHChannel(self, state)
  }

  /// A TCP connection from this host on to another.
  func openTunnel(to host: String, port: UInt16, until deadline: Double) async throws(SSHError) -> SSHChannel {
    let state = try await serial("a connection to \(host):\(port)", until: deadline, discard: { $0.close($1) }) {
      (session: isolated SSHSession) async throws(SSHError) -> ChannelState in
      let state = try await session.openChannel("a connection to \(host):\(port)") { raw in
        libssh2_channel_direct_tcpip_ex(raw, host, Int32(port), "127.0.0.1", 22)
      }
      session.begin(state)
      return state
    }
    return SSHChannel(self, state)
  }

  private func begin(_ state: ChannelState) {
    state.isStarted = true
    schedulePump()
  }

  /// The channel that was asked for ahead, or another one.
  private func sessionChannel(_ what: String) async throws(SSHError) -> ChannelState {
    if let failure { throw failure }
    let ahead = firstChannel
    firstChannel = .unwanted
    switch ahead {
    case .opened(let state): return register(state)
    case .asked: return try await openChannel(what, isAsked: true, Self.openSession)
    case .wanted, .unwanted: return try await openChannel(what, Self.openSession)
    }
  }

  private func openChannel(
    _ what: String, isAsked: Bool = false, _ body: (OpaquePointer) -> OpaquePointer?
  ) async throws(SSHError) -> ChannelState {
    if !isAsked {
      wire.confirmedChannel = nil
      measured.roundTrips += 1
    }
    var opened: OpaquePointer?
    try await drive(what, until: .infinity) { raw in
      opened = body(raw)
      return opened == nil ? Int(libssh2_session_last_errno(raw)) : 0
    }
    guard let opened else { throw error(.protocolFault, "\(what) failed without a reason") }
    return register(ChannelState(opened, number: wire.confirmedChannel))
  }

  private func register(_ state: ChannelState) -> ChannelState {
    lastID += 1
    channels[lastID] = state
    return state
  }

  private func request(
    _ state: ChannelState, _ what: String, _ body: (OpaquePointer) -> Int32
  ) async throws(SSHError) {
    measured.roundTrips += 1
    try await drive(what, until: .infinity) { _ in
      guard let raw = state.raw else { return Int(LIBSSH2_ERROR_CHANNEL_CLOSED) }
      return Int(body(raw))
    }
  }

  // MARK: Streams

  func write(_ bytes: [UInt8], to state: ChannelState) async throws(SSHError) {
    var rest = bytes[...]
    repeat {
      try checkWritable(state)
      if state.outgoingBytes < Self.outgoingLimit {
        let chunk = rest.prefix(Self.outgoingLimit)
        rest = rest.dropFirst(chunk.count)
        guard !chunk.isEmpty else { continue }
        state.outgoing.append(chunk.count == bytes.count ? bytes : Array(chunk))
        state.outgoingBytes += chunk.count
        pump()
      } else {
        try await parkOrThrow(until: .infinity, "writing")
      }
    } while !rest.isEmpty
  }

  private func checkWritable(_ state: ChannelState) throws(SSHError) {
    if let fault = state.fault ?? failure { throw fault }
    if state.remoteClosed || state.readEOF && state.raw == nil {
      throw error(.channelClosed, "the command has ended and reads no more")
    }
    if state.closing || state.wantsEOF { throw error(.channelClosed, "the channel's input was closed") }
  }

  func sendEOF(_ state: ChannelState) {
    state.wantsEOF = true
    pump()
  }

  func read(_ state: ChannelState, until deadline: Double) async throws(SSHError) -> SSHChunk? {
    while true {
      if let chunk = state.popFirst() {
        if state.incomingBytes < Self.incomingLimit, !state.readEOF, !pumping { schedulePump() }
        return chunk
      }
      if state.readEOF { return nil }
      if let fault = state.fault ?? failure { throw fault }
      if state.closing { throw error(.channelClosed, "the channel was closed") }
      try await parkOrWait(state, until: deadline, "output")
    }
  }

  /// As `parkOrThrow`, but what already arrived is given out before a fault of the session.
  private func parkOrWait(_ state: ChannelState, until deadline: Double, _ what: String) async throws(SSHError) {
    switch await park(until: deadline) {
    case .moved: return
    case .timedOut: throw error(.timeout, "no \(what) in time")
    case .cancelled: throw error(.cancelled, "cancelled while waiting for \(what)")
    }
  }

  func exit(of state: ChannelState, until deadline: Double) async throws(SSHError) -> SSHExit {
    while true {
      if let exit = state.exit { return exit }
      if let fault = state.fault ?? failure { throw fault }
      if state.closing { throw error(.channelClosed, "the channel was closed before the command ended") }
      try await parkOrWait(state, until: deadline, "the end of the command")
    }
  }

  func resize(_ state: ChannelState, _ columns: Int, _ rows: Int) {
    guard let raw = state.raw, failure == nil else { return }
    _ = libssh2_channel_request_pty_size_ex(raw, Int32(columns), Int32(rows), 0, 0)  // wants no answer
    settle()
  }

  func close(_ state: ChannelState) {
    guard !state.closing else { return }
    state.closing = true
    state.outgoing = []
    state.outgoingBytes = 0
    state.incoming = []
    state.incomingHead = 0
    state.incomingBytes = 0
    if state.raw == nil { channels = channels.filter { $0.value !== state } }
    pump()
    wakeAll()
  }

  // MARK: Whole commands

  /// Runs a command to its end.
  ///
  /// - Parameters:
  ///   - deadline: for all of it. When it has passed, the channel is closed; the remote process isn't ended by that.
  ///   - limit: at most so many bytes are kept of each stream; what is over is read and dropped (`truncated`).
  /// - Throws: `timeout`, `cancelled`, `channelOpenFailed`, `connectionLost`. A command that fails is a result, not an error.
  public func run(
    _ command: String, stdin: [UInt8] = [], deadline: Duration, limit: Int = 16 << 20
  ) async throws(SSHError) -> SSHResult {
    let until = monotonicSeconds() + deadline.inSeconds
    let channel = try await open(command, deadline: deadline)
    let state = channel.state
    // A command that doesn't read its input must still have its output read: the writer is a task of its own.
    let writer = Task {
      do throws(SSHError) { try await write(stdin, to: state) } catch {}  // the command's exit tells more
      sendEOF(state)
    }
    defer {
      writer.cancel()
      close(state)
    }
    var result = SSHResult(stdout: [], stderr: [], exit: .missing, truncated: false)
    while let chunk = try await read(state, until: until) {
      switch chunk {
      case .stdout(let bytes): Self.append(bytes, to: &result.stdout, limit, &result.truncated)
      case .stderr(let bytes): Self.append(bytes, to: &result.stderr, limit, &result.truncated)
      }
    }
    result.exit = try await exit(of: state, until: until)
    return result
  }

  private static func append(_ bytes: [UInt8], to all: inout [UInt8], _ limit: Int, _ truncated: inout Bool) {
    if all.count + bytes.count > limit { truncated = true }
    all.append(contentsOf: bytes.prefix(max(0, limit - all.count)))
  }

  /// Writes a file on the host (`cat` by the login shell; umask 077, so that a new file is 0600). A name that is only
  /// complete files, `rename` and `fsync` are the caller's: give a temporary name here.
  ///
  /// - Throws: `remoteFailure` with what the host said, `timeout`, `connectionLost`, `cancelled`; whatever `chunks` throws is passed
  ///   on. The file may then be there in part.
  public func upload<Chunks: AsyncSequence & Sendable>(
    _ chunks: Chunks, to path: String, deadline: Duration
  ) async throws where Chunks.Element == [UInt8] {
    let until = monotonicSeconds() + deadline.inSeconds
    let channel = try await open("umask 077 && cat > \(shellQuoted(path))", deadline: deadline)
    let state = channel.state
    defer { close(state) }
    let watchdog = loop.schedule(at: until) { [weak self] in
      self?.assumeIsolated { session in
        guard state.exit == nil, state.fault == nil else { return }
        state.fault = session.error(.timeout, "the upload of \(path) took too long")
        session.close(state)
      }
    }
    defer { loop.unschedule(watchdog) }
    do {
      for try await chunk in chunks { try await write(chunk, to: state) }
    } catch let fault as SSHError where fault.code == .channelClosed {
      // The command ended early: its exit and stderr say why.
    }
    sendEOF(state)
    try await finish(state, until: until, "the upload of \(path)") { _ in }
  }

  public func upload(_ bytes: [UInt8], to path: String, deadline: Duration) async throws {
    try await upload(
      AsyncStream {
        $0.yield(bytes); $0.finish()
      }, to: path, deadline: deadline)
  }

  /// Reads a file of the host, piece by piece.
  ///
  /// - Throws: `remoteFailure`, `timeout`, `connectionLost`, `cancelled`; what `receive` throws is passed on.
  public func download(
    _ path: String, deadline: Duration, receive: @Sendable ([UInt8]) async throws -> Void
  ) async throws {
    let until = monotonicSeconds() + deadline.inSeconds
    let channel = try await open("cat < \(shellQuoted(path))", deadline: deadline)
    defer { close(channel.state) }
    sendEOF(channel.state)
    try await finish(channel.state, until: until, "the download of \(path)", receive)
  }

  private func finish(
    _ state: ChannelState, until: Double, _ what: String, _ receive: @Sendable ([UInt8]) async throws -> Void
  ) async throws {
    var said: [UInt8] = []
    while let chunk = try await read(state, until: until) {
      switch chunk {
      case .stdout(let bytes): try await receive(bytes)
      case .stderr(let bytes): said.append(contentsOf: bytes.prefix(max(0, 4096 - said.count)))
      }
    }
    let exit = try await exit(of: state, until: until)
    guard exit.isSuccess else {
      throw error(.remoteFailure, "\(what) failed on the host (\(exit))", detail: String(decoding: said, as: UTF8.self))
    }
  }
}

/// `text` as one word of a POSIX shell.
func shellQuoted(_ text: String) -> String {
  var quoted = "'"
  for character in text.unicodeScalars {
    if character == "'" { quoted += #"'\''"# } else { quoted.unicodeScalars.append(character) }
  }
  return quoted + "'"
}

import CLibSSH2

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// One SSH connection. All methods may be called from any task; everything runs on the event loop's thread and nothing
/// blocks it.
///
/// ```swift
/// let session = try await SSHSession.connect(
///   SSHConfiguration(host: "bot-1", address: "203.0.113.10", user: "deploy", knownHostsFiles: ["known_hosts"]))
///
/// // One command to its end:
/// let result = try await session.run("uname -r", deadline: .seconds(10))
/// guard result.exit.isSuccess else { … }
///
/// // A conversation: reading and writing at the same time, from different tasks.
/// let channel = try await session.open("exec /opt/runner attach")
/// async let output: Void = {
///   while let chunk = try await channel.read() {
///     switch chunk {
///     case .stdout(let bytes): …
///     case .stderr(let bytes): …
///     }
///   }
/// }()
/// try await channel.write(Array("hello\n".utf8))   // any length; waits while the host is behind
/// await channel.sendEOF()
/// try await output
/// let exit = try await channel.exit()              // .status(0), .signal(…) or .missing
/// await session.close()
/// ```
///
/// A session that has failed stays failed: every pending and every later operation throws the same `SSHError`
/// (`connectionLost`, mostly). Connecting again is the consumer's business.
public actor SSHSession {
  public nonisolated let configuration: SSHConfiguration
  nonisolated let loop: SSHEventLoop
  public nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  /// libssh2's session. Only non-blocking calls, only on the loop's thread. nil before `connect` and after the end.
  nonisolated(unsafe) var raw: OpaquePointer?
  let wire = Wire()
  /// The channel of the jump host's session that carries this one.
  var tunnel: SSHChannel?
  var via: SSHSession?
  var tunnelTask: Task<Void, Never>?
  var tunnelWriting = false

  /// Why this session can't be used any more.
  var failure: SSHError?

  enum Wake { case moved, timedOut, cancelled }
  struct Parked {
    let continuation: UnsafeContinuation<Wake, Never>
    let timer: UInt64?
  }
  var parked: [UInt64: Parked] = [:]
  var lastID: UInt64 = 0

  /// Operations that share state inside libssh2 (open, requests, authentication) go one at a time, in this order.
  var serialQueue: [UInt64] = []

  /// libssh2's handshake isn't through: the service ssh-userauth is asked for, and not yet granted.
  var isShakingHands = false
  /// Spent on keys, agents and passphrases while the host waited for us: not part of its deadline.
  var ownSeconds = 0.0
  /// What became of the channel that is asked for ahead (SSHSession+Ahead.swift).
  var firstChannel: FirstChannel

  var channels: [UInt64: ChannelState] = [:]
  var pumping = false
  var pumpScheduled = false
  /// The link is gone: what it left behind is taken whole.
  var isDraining = false

  /// The keepalive's clocks, in seconds.
  var lastInbound = 0.0
  var probeSent: Double?
  var keepaliveTimer: UInt64?
  var quickAcknowledgements = 96

  var measured = SSHTimings()

  /// - Parameter wantsChannel: a command will follow: its channel is asked for ahead.
  init(_ configuration: SSHConfiguration, loop: SSHEventLoop, wantsChannel: Bool) {
    self.configuration = configuration
    self.loop = loop
    firstChannel = wantsChannel ? .wanted : .unwanted
  }

  deinit {
    // Nobody can be waiting any more. The rest belongs to the loop's thread.
    nonisolated(unsafe) let raw = raw
    let wire = wire
    let timer = keepaliveTimer
    loop.perform { [loop] in
      if let timer { loop.unschedule(timer) }
      releaseSession(raw, wire, loop)
    }
  }

  /// Connects, checks the host's key (strictly) and authenticates; through the jump hosts, if there are any.
  ///
  /// - Throws: `unreachable`, `timeout`, `connectionLost`, `hostKeyUnknown`, `hostKeyChanged`, `hostKeyRevoked`,
  ///   `authenticationFailed`, `keyUnreadable`, `passphraseNeeded`, `protocolFault`, `configuration`, `cancelled`. Nothing stays open then.
  public static func connect(
    _ configuration: SSHConfiguration, loop: SSHEventLoop = .shared
  ) async throws(SSHError) -> SSHSession {
    var session: SSHSession?
    for jump in configuration.jumps { session = try await connect(jump, via: session, loop: loop, wantsChannel: false) }
    session = try await connect(configuration, via: session, loop: loop, wantsChannel: true)
    return session!
  }

  private static func connect(
    _ hop: SSHConfiguration, via: SSHSession?, loop: SSHEventLoop, wantsChannel: Bool
  ) async throws(SSHError) -> SSHSession {
    // A pinned fingerprint doesn't say the type of the key: on a mismatch the host is asked for its other keys.
    var mismatch: SSHError?
    let attempts = hop.pinnedHostKey == nil ? [nil] : hostKeyTypesForPin()
    for types in attempts {
      let session = SSHSession(hop, loop: loop, wantsChannel: wantsChannel)
      do {
        try await session.establish(via: via, hostKeyTypes: types)
        return session
      } catch {
        await session.abandon(error)
        // A type that the host doesn't have: it hangs up, maybe before libssh2 has seen for itself that they can't agree.
        let hasNoSuchKey = mismatch != nil && [.protocolFault, .connectionLost].contains(error.code)
        let mayTryNext = hop.pinnedHostKey != nil && (error.code == .hostKeyChanged || hasNoSuchKey)
        if !mayTryNext {
          await via?.close()
          throw error
        }
        if mismatch == nil { mismatch = error }
      }
    }
    await via?.close()
    throw mismatch!
  }

  /// How long the parts of connecting took, exchanges and bytes so far.
  public var timings: SSHTimings {
    var timings = measured
    timings.bytesSent = wire.sent
    timings.bytesReceived = wire.received
    return timings
  }

  /// Why the session can't be used any more; nil while it can.
  public var fault: SSHError? { failure }

  /// The host's software, from its banner (`OpenSSH_9.2p1 Debian-2+deb12u7`).
  public var serverVersion: String? {
    guard let raw, let banner = libssh2_session_banner_get(raw) else { return nil }
    let text = String(cString: banner)
    return text.hasPrefix("SSH-2.0-") ? String(text.dropFirst(8)) : text
  }

  /// Ends the session at once, jump hosts included. Remote processes aren't waited for, and not ended by this:
  /// sshd only closes their streams. Pending operations throw `channelClosed`.
  public func close() async {
    if failure == nil, let raw {
      _ = libssh2_session_disconnect_ex(raw, 11 /* BY_APPLICATION */, "", "")
      _ = wire.flush()
      if let tunnel {
        let rest = wire.outbound.take()
        if !rest.isEmpty { try? await tunnel.write(rest) }  // a farewell: whoever is gone needs none
      }
    }
    abandon(SSHError(.channelClosed, "the session was closed", host: configuration.host))
    await via?.close()
  }

  /// Marks the session as failed, resumes everybody, and frees what it holds. Never waits.
  func abandon(_ error: SSHError) {
    guard failure == nil else { return }
    failure = error
    for channel in channels.values {
      channel.raw = nil
      channel.outgoing = []
      if channel.fault == nil { channel.fault = error }
    }
    firstChannel = .unwanted  // freed with the session
    if let keepaliveTimer { loop.unschedule(keepaliveTimer) }
    keepaliveTimer = nil
    tunnelTask?.cancel()
    tunnelTask = nil
    let old = tunnel
    tunnel = nil
    if let old { Task { await old.close() } }
    releaseSession(raw, wire, loop)
    raw = nil
    wakeAll()
  }

  func error(_ code: SSHError.Code, _ message: String, detail: String? = nil) -> SSHError {
    SSHError(code, message, host: configuration.host, detail: detail)
  }
}

/// Frees libssh2's session with all its channels, and the socket. On the loop's thread.
func releaseSession(_ raw: OpaquePointer?, _ wire: Wire, _ loop: SSHEventLoop) {
  wire.ended = true
  wire.inbound = ByteQueue()
  wire.outbound = ByteQueue()
  // The wire says "disconnected" to whatever freeing a channel wants to wait for; the bound is there only for a libssh2
  // that disagrees, which would leak rather than spin.
  if let raw { for _ in 0..<1000 where libssh2_session_free(raw) != LIBSSH2_ERROR_EAGAIN { break } }
  if wire.descriptor >= 0 {
    loop.unwatch(wire.descriptor)
    closeDescriptor(wire.descriptor)
    wire.descriptor = -1
  }
}

/// What became of a serial operation. Confined to the loop's thread.
private final class Outcome<T: Sendable>: @unchecked Sendable {
  var result: Result<T, SSHError>?
  var unwanted = false
}

// MARK: Waiting

extension SSHSession {
  /// Waits for anything to happen on this session. The caller then looks whether it was for him: with a handful of waiters
  /// that is cheaper than a wake-up that gets lost.
  func park(until deadline: Double = .infinity, cancellable: Bool = true) async -> Wake {
    lastID += 1
    let id = lastID
    if cancellable, Task.isCancelled { return .cancelled }
    return await withTaskCancellationHandler {
      await withUnsafeContinuation { continuation in
        if cancellable, Task.isCancelled { return continuation.resume(returning: .cancelled) }
        let timer =
          deadline.isFinite
          ? loop.schedule(at: deadline) { [weak self] in self?.assumeIsolated { $0.unpark(id, .timedOut) } } : nil
        parked[id] = Parked(continuation: continuation, timer: timer)
      }
    } onCancel: {
      guard cancellable else { return }
      loop.perform { [weak self] in self?.assumeIsolated { $0.unpark(id, .cancelled) } }
    }
  }

  func unpark(_ id: UInt64, _ wake: Wake) {
    guard let waiter = parked.removeValue(forKey: id) else { return }
    if let timer = waiter.timer { loop.unschedule(timer) }
    waiter.continuation.resume(returning: wake)
  }

  func wakeAll() {
    let waiters = parked
    parked.removeAll(keepingCapacity: true)
    for waiter in waiters.values {
      if let timer = waiter.timer { loop.unschedule(timer) }
      waiter.continuation.resume(returning: .moved)
    }
  }

  func parkOrThrow(until deadline: Double, _ what: String) async throws(SSHError) {
    switch await park(until: deadline) {
    case .moved: if let failure { throw failure }
    case .timedOut: throw error(.timeout, "no answer in time: \(what)")
    case .cancelled: throw error(.cancelled, "cancelled: \(what)")
    }
  }

  /// THE door to libssh2 for everything that waits for an answer: calls `body` until it no longer says EAGAIN.
  ///
  /// Not for calls that may be given up half way, unless the session is given up with them: see `serial`.
  @discardableResult
  func drive(_ what: String, until deadline: Double, _ body: (OpaquePointer) -> Int) async throws(SSHError) -> Int {
    while true {
      if let failure { throw failure }
      guard let raw else { throw error(.channelClosed, "not connected") }
      let before = wire.consumed
      let status = body(raw)
      if wire.consumed != before { schedulePump() }
      settle()
      if status >= 0 { return status }
      if status != Int(LIBSSH2_ERROR_EAGAIN) { throw fault(status, what) }
      if let failure { throw failure }
      if wire.consumed != before, !wire.inbound.isEmpty { continue }
      try await parkOrThrow(until: deadline, what)
    }
  }

  /// Runs an operation that shares state with others inside libssh2, alone. It runs to its end in a task of its own even if
  /// the caller gives up (half an open would swallow the next one's answer); `discard` then gets what nobody wants.
  func serial<T: Sendable>(
    _ what: String, until deadline: Double, discard: @escaping @Sendable (isolated SSHSession, T) -> Void = { _, _ in },
    _ body: @escaping @Sendable (isolated SSHSession) async throws(SSHError) -> T
  ) async throws(SSHError) -> T {
    let outcome = Outcome<T>()
    lastID += 1
    let ticket = lastID
    serialQueue.append(ticket)
    defer { if outcome.result == nil { outcome.unwanted = true } }
    while serialQueue.first != ticket {
      do throws(SSHError) { try await parkOrThrow(until: deadline, what) } catch {
        serialQueue.removeAll { $0 == ticket }
        wakeAll()
        throw error
      }
    }
    Task { [self] in
      let result: Result<T, SSHError>
      do throws(SSHError) { result = .success(try await body(self)) } catch { result = .failure(error) }
      finishSerial(ticket)
      outcome.result = result
      if outcome.unwanted, case .success(let value) = result { discard(self, value) }
    }
    while true {
      if let result = outcome.result { return try result.get() }
      if let failure { throw failure }
      do throws(SSHError) { try await parkOrThrow(until: deadline, what) } catch {
        // Given up and done at the same moment: then it is done, or nobody would ever discard it.
        if outcome.result == nil { throw error }
      }
    }
  }

  private func finishSerial(_ ticket: UInt64) {
    serialQueue.removeAll { $0 == ticket }
    wakeAll()
  }

  /// libssh2's last error as one of ours. What concerns the connection ends the session.
  func fault(_ status: Int, _ what: String) -> SSHError {
    var text: UnsafeMutablePointer<CChar>?
    var length: Int32 = 0
    var said = ""
    if let raw, libssh2_session_last_error(raw, &text, &length, 0) != 0, let text { said = String(cString: text) }
    let mapped = SSHError(
      .init(libssh2: Int32(status)), describe(status, said, during: what), host: configuration.host)
    if mapped.code == .connectionLost { abandon(mapped) }
    return mapped
  }

  private func describe(_ status: Int, _ said: String, during what: String) -> String {
    switch SSHError.Code(libssh2: Int32(status)) {
    case .connectionLost:
      "the connection was lost during \(what)\(wire.errorNumber == 0 ? "" : ": " + errorText(wire.errorNumber))"
    case .channelOpenFailed:
      "the host refused \(what)\(said.contains("administratively") ? ": forbidden by its configuration" : "")"
    default: "\(what) failed: \(said.isEmpty ? "libssh2 error \(status)" : said)"
    }
  }
}

extension SSHError.Code {
  /// libssh2's error numbers (libssh2.h) in our terms.
  init(libssh2 status: Int32) {
    switch status {
    case LIBSSH2_ERROR_SOCKET_SEND, LIBSSH2_ERROR_SOCKET_DISCONNECT, LIBSSH2_ERROR_SOCKET_RECV,
      LIBSSH2_ERROR_SOCKET_TIMEOUT, LIBSSH2_ERROR_BAD_SOCKET, LIBSSH2_ERROR_BANNER_RECV, LIBSSH2_ERROR_BANNER_SEND:
      self = .connectionLost
    case LIBSSH2_ERROR_TIMEOUT: self = .timeout
    case LIBSSH2_ERROR_AUTHENTICATION_FAILED, LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED: self = .authenticationFailed
    case LIBSSH2_ERROR_CHANNEL_FAILURE, LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED: self = .channelOpenFailed
    case LIBSSH2_ERROR_CHANNEL_CLOSED, LIBSSH2_ERROR_CHANNEL_EOF_SENT, LIBSSH2_ERROR_CHANNEL_UNKNOWN:
      self = .channelClosed
    default: self = .protocolFault
    }
  }
}

/// close(2), where a method of that name is nearer.
func closeDescriptor(_ descriptor: Int32) { _ = close(descriptor) }

func errorText(_ number: Int32) -> String { String(cString: strerror(number)) }

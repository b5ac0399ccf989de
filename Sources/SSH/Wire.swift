import CLibSSH2

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Bytes in, bytes out, in order.
struct ByteQueue {
  private var storage: [UInt8] = []
  private var head = 0

  var count: Int { storage.count - head }
  var isEmpty: Bool { head == storage.count }

  mutating func append(_ bytes: UnsafeRawBufferPointer) { storage.append(contentsOf: bytes) }

  mutating func removeFirst(_ count: Int) {
    head += count
    if head == storage.count {
      storage.removeAll(keepingCapacity: storage.capacity <= 1 << 20)
      head = 0
    } else if head > 1 << 18, head > storage.count / 2 {
      storage.removeFirst(head)
      head = 0
    }
  }

  mutating func take() -> [UInt8] {
    defer {
      storage = []
      head = 0
    }
    return head == 0 ? storage : Array(storage[head...])
  }

  func withBytes<T>(_ body: (UnsafeRawBufferPointer) -> T) -> T {
    storage.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[head...])) }
  }
}

/// What libssh2 believes to be its socket: two queues in memory. The session moves bytes between them and the real
/// socket, or the channel through a jump host.
///
/// Why not the socket itself: libssh2 1.10 loses a session when an operation that stopped half way through *sending* isn't
/// retried before any other (reads send window adjustments, too). A queue never stops half way, so that operations may
/// interleave freely; the session bounds the queue by accepting no channel data while it is long.
///
/// Confined to the event loop's thread.
final class Wire: @unchecked Sendable {
  var descriptor: Int32 = -1
  var inbound = ByteQueue()
  var outbound = ByteQueue()
  /// Bytes that libssh2 has taken. When a call has moved this, replies for *other* waiting operations may have been
  /// pulled in, which poll(2) will never announce: everybody tries again.
  var consumed: UInt64 = 0
  var sent: UInt64 = 0
  var received: UInt64 = 0
  /// The other side closed, or the socket failed on reading. libssh2 isn't told: it would withhold what it has queued.
  var isOver = false
  /// Nothing can be sent, and libssh2 is told so: the socket failed on writing, or the session is being freed.
  var ended = false
  var errorNumber: Int32 = 0

  /// Seen in what libssh2 sends, a packet at a time: our NEWKEYS (RFC 4253, 7.3), and the packet behind it, which is its request for the service
  /// ssh-userauth. From then on the keys are agreed, and more may be asked before that is answered.
  private var sentNewKeys = false
  private(set) var requestedService = false

  /// Seen in packets as libssh2 releases them: the number of the channel that was confirmed last, and the channels for
  /// which an exit status has arrived. libssh2's own status is 0 when none came.
  var confirmedChannel: UInt32?
  var exitStatusSeen: Set<UInt32> = []
  /// Channels whose process left a core, which libssh2 doesn't tell either.
  var coreDumped: Set<UInt32> = []

  func send(_ bytes: UnsafeRawBufferPointer) -> Int {
    if ended { return -Int(ECONNRESET) }
    if !requestedService {
      requestedService = sentNewKeys
      sentNewKeys = sentNewKeys || bytes.count > 5 && bytes[5] == 21  // behind the packet's length and its padding's
    }
    var accepted = 0
    if descriptor >= 0, outbound.isEmpty {
      accepted = write(bytes)
      if accepted < 0 { return -Int(errorNumber) }
    }
    if accepted < bytes.count { outbound.append(UnsafeRawBufferPointer(rebasing: bytes[accepted...])) }
    return bytes.count
  }

  /// Hands the socket what it takes. Returns false if the link is gone.
  func flush() -> Bool {
    guard descriptor >= 0 else { return !ended }
    while !outbound.isEmpty {
      let count = outbound.withBytes { write($0) }
      if count < 0 { return false }
      if count == 0 { break }
      outbound.removeFirst(count)
    }
    return true
  }

  private func write(_ bytes: UnsafeRawBufferPointer) -> Int {
    while true {
      #if canImport(Darwin)
        let count = Darwin.send(descriptor, bytes.baseAddress, bytes.count, 0)
      #else
        let count = Glibc.send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
      #endif
      if count >= 0 {
        sent += UInt64(count)
        return count
      }
      if errno == EINTR { continue }
      if errno == EAGAIN || errno == EWOULDBLOCK { return 0 }
      errorNumber = errno
      ended = true
      return -1
    }
  }

  /// Takes what the socket has, at most 256 KiB. Returns whether anything came, the end included.
  func fill(_ scratch: UnsafeMutableRawBufferPointer) -> Bool {
    while !isOver {
      let count = recv(descriptor, scratch.baseAddress, scratch.count, 0)
      if count > 0 {
        received += UInt64(count)
        inbound.append(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
        return true
      }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN || errno == EWOULDBLOCK { return false }
      if count < 0 { errorNumber = errno }
      isOver = true
      return true
    }
    return false
  }

  fileprivate func receive(_ buffer: UnsafeMutableRawBufferPointer) -> Int {
    if inbound.isEmpty { return ended ? 0 : -Int(EAGAIN) }
    let count = min(buffer.count, inbound.count)
    inbound.withBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    inbound.removeFirst(count)
    consumed += UInt64(count)
    return count
  }

  /// libssh2 frees each packet when it has dealt with it, which is the one place where it can be seen.
  fileprivate func released(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 5 else { return }
    func number(at offset: Int) -> UInt32 {
      UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
    switch bytes[0] {
    case 91 where bytes.count >= 17:  // SSH_MSG_CHANNEL_OPEN_CONFIRMATION (RFC 4254, 5.1)
      confirmedChannel = number(at: 1)
    case 98 where bytes.count >= 25 && number(at: 5) == 11:  // SSH_MSG_CHANNEL_REQUEST (6.10)
      if bytes[9..<20].elementsEqual("exit-status".utf8) { exitStatusSeen.insert(number(at: 1)) }
      guard bytes[9..<20].elementsEqual("exit-signal".utf8) else { return }
      let flag = 25 + Int(number(at: 21))
      if flag < bytes.count, bytes[flag] != 0 { coreDumped.insert(number(at: 1)) }
    default: break
    }
  }
}

// MARK: libssh2's callbacks

/// Room for the size of an allocation before it, so that `released` knows how much it may look at.
private let header = 16

/// Memory that libssh2 will free.
func libssh2Allocate(_ count: Int) -> UnsafeMutableRawPointer? {
  guard let base = malloc(count + header) else { return nil }
  base.storeBytes(of: count, as: Int.self)
  return base + header
}

private typealias Abstract = UnsafeMutablePointer<UnsafeMutableRawPointer?>

private func wire(_ abstract: Abstract?) -> Wire? {
  abstract?.pointee.map { Unmanaged<Wire>.fromOpaque($0).takeUnretainedValue() }
}

extension Wire {
  /// A new libssh2 session, non-blocking, that speaks through this wire; nil when memory is out. The wire must outlive it.
  func makeSession() -> OpaquePointer? {
    let session = libssh2_session_init_ex(
      { count, _ in libssh2Allocate(count) },
      { pointer, abstract in
        guard let pointer else { return }
        let base = pointer - header
        wire(abstract)?.released(UnsafeRawBufferPointer(start: pointer, count: base.load(as: Int.self)))
        free(base)
      },
      { pointer, count, _ in
        guard let pointer else { return libssh2Allocate(count) }
        guard let base = realloc(pointer - header, count + header) else { return nil }
        base.storeBytes(of: count, as: Int.self)
        return base + header
      },
      Unmanaged.passUnretained(self).toOpaque())
    guard let session else { return nil }
    typealias Receive =
      @convention(c) (Int32, UnsafeMutableRawPointer?, Int, Int32, UnsafeMutablePointer<UnsafeMutableRawPointer?>?) ->
      Int
    typealias Send =
      @convention(c) (Int32, UnsafeRawPointer?, Int, Int32, UnsafeMutablePointer<UnsafeMutableRawPointer?>?) -> Int
    let receive: Receive = { _, buffer, count, _, abstract in
      guard let wire = wire(abstract) else { return -Int(EBADF) }
      return wire.receive(UnsafeMutableRawBufferPointer(start: buffer, count: count))
    }
    let send: Send = { _, buffer, count, _, abstract in
      guard let wire = wire(abstract) else { return -Int(EBADF) }
      return wire.send(UnsafeRawBufferPointer(start: buffer, count: count))
    }
    _ = libssh2_session_callback_set(
      session, LIBSSH2_CALLBACK_RECV, unsafeBitCast(receive, to: UnsafeMutableRawPointer.self))
    _ = libssh2_session_callback_set(
      session, LIBSSH2_CALLBACK_SEND, unsafeBitCast(send, to: UnsafeMutableRawPointer.self))
    libssh2_session_set_blocking(session, 0)
    return session
  }
}

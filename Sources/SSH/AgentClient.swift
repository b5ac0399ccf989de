#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A client of ssh-agent (draft-ietf-sshm-ssh-agent). Its calls block: not on the loop's thread.
struct AgentClient: Sendable {
  var path: String

  struct Key: Sendable, Equatable {
    var blob: [UInt8]
    var comment: String
  }

  init?(socket: String?) {
    if let socket {
      path = socket
    } else {
      guard let value = getenv("SSH_AUTH_SOCK"), value.pointee != 0 else { return nil }
      path = String(cString: value)
    }
  }

  /// nil if the agent doesn't answer within five seconds.
  func keys() -> [Key]? {
    guard let answer = ask([11], seconds: 5) else { return nil }  // SSH_AGENTC_REQUEST_IDENTITIES
    var reader = SSHReader(answer)
    guard reader.byte() == 12, let count = reader.number(), count <= 2048 else { return nil }
    var keys: [Key] = []
    for _ in 0..<count {
      guard let blob = reader.string(), let comment = reader.text() else { return nil }
      keys.append(Key(blob: blob, comment: comment))
    }
    return keys
  }

  /// The signature proper. A person may have to confirm, or touch a key: waits for a minute.
  func sign(_ data: [UInt8], key: [UInt8], algorithm: String) -> [UInt8]? {
    var request = SSHWriter()
    request.byte(13)  // SSH_AGENTC_SIGN_REQUEST
    request.string(key)
    request.string(data)
    request.number(algorithm == "rsa-sha2-512" ? 4 : algorithm == "rsa-sha2-256" ? 2 : 0)
    guard let answer = ask(request.bytes, seconds: 60) else { return nil }
    var reader = SSHReader(answer)
    guard reader.byte() == 14, let signature = reader.string() else { return nil }
    var parts = SSHReader(signature)
    guard parts.text() == algorithm, let proper = parts.string(), parts.rest.isEmpty else { return nil }
    return proper
  }

  private func ask(_ message: [UInt8], seconds: Int) -> [UInt8]? {
    let descriptor = connectSocket(seconds)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var frame = SSHWriter()
    frame.string(message)
    guard writeAll(descriptor, frame.bytes), let header = readExactly(descriptor, 4) else { return nil }
    var reader = SSHReader(header)
    guard let count = reader.number(), count <= 1 << 20 else { return nil }
    return readExactly(descriptor, Int(count))
  }

  private func connectSocket(_ seconds: Int) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return -1 }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let descriptor = socket(AF_UNIX, streamSocket(), 0)
    guard descriptor >= 0 else { return -1 }
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    var limit = timeval(tv_sec: seconds, tv_usec: 0)
    let size = socklen_t(MemoryLayout<timeval>.size)
    _ = setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
    _ = setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
    let status = withUnsafeBytes(of: &address) {
      connect(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
    }
    guard status == 0 else {
      close(descriptor)
      return -1
    }
    return descriptor
  }

  private func writeAll(_ descriptor: Int32, _ bytes: [UInt8]) -> Bool {
    var rest = bytes[...]
    while !rest.isEmpty {
      #if canImport(Darwin)
        let flags: Int32 = 0
      #else
        let flags = Int32(MSG_NOSIGNAL)
      #endif
      let count = rest.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, flags) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return false }
      rest = rest.dropFirst(count)
    }
    return true
  }

  private func readExactly(_ descriptor: Int32, _ wanted: Int) -> [UInt8]? {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while bytes.count < wanted {
      let count = recv(descriptor, &buffer, min(buffer.count, wanted - bytes.count), 0)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return nil }
      bytes.append(contentsOf: buffer[..<count])
    }
    return bytes
  }
}

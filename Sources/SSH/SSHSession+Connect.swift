import CLibSSH2

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Orders of host key algorithms to try when only a fingerprint is known: all, then each kind alone.
func hostKeyTypesForPin() -> [[String]?] {
  [
    nil, ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"],
    ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
  ]
}

/// libssh2_init is not thread-safe; this is, and happens once.
private let libssh2Ready: Bool = libssh2_init(0) == 0

extension SSHSession {
  func establish(via: SSHSession?, hostKeyTypes: [String]?) async throws(SSHError) {
    let deadline = monotonicSeconds() + configuration.connectTimeout.inSeconds
    guard libssh2Ready else { throw error(.protocolFault, "libssh2 can't be initialised") }
    let known = try loadKnownHosts()

    let start = monotonicSeconds()
    if let via {
      try await connectTunnel(through: via, until: deadline)
    } else {
      try await connectSocket(until: deadline)
    }
    measured.roundTrips += 1
    let connected = monotonicSeconds()
    measured.tcp = .seconds(connected - start)

    guard let session = wire.makeSession() else {
      throw error(.protocolFault, "libssh2 gives no session: out of memory")
    }
    raw = session
    setHostKeyPreference(session, hostKeyTypes, known)
    measured.roundTrips += 2
    let descriptor = max(0, wire.descriptor)  // libssh2 wants a number; all I/O goes through the wire
    do {
      // Until the keys are agreed; the service that it asks for then is granted while we go on.
      try await drive("the handshake", until: deadline) { raw in
        let status = libssh2_session_handshake(raw, descriptor)
        isShakingHands = status == LIBSSH2_ERROR_EAGAIN
        return isShakingHands && wire.requestedService ? 0 : Int(status)
      }
    } catch { throw handshakeError(error) }
    let agreed = monotonicSeconds()
    measured.keyExchange = .seconds(agreed - connected)

    try checkHostKey(session, known)
    let paused = try await authenticate(until: deadline)
    measured.authentication = .seconds(monotonicSeconds() - agreed - paused)
    startKeepalive()
  }

  private func handshakeError(_ fault: SSHError) -> SSHError {
    var fault = fault
    if fault.code == .connectionLost {
      fault.message =
        "the host closed the connection before the SSH handshake was done: no SSH server there, or it has too many connections (MaxStartups)"
    } else if fault.code == .timeout {
      fault.message = "the host accepted the connection, and didn't finish the SSH handshake in time"
    } else if fault.code == .protocolFault {
      fault.detail =
        "libssh2 \(String(cString: libssh2_version(0))) and the host have no algorithm in common, or the host speaks no SSH"
    }
    return fault
  }

  // MARK: Transport

  private func connectTunnel(through via: SSHSession, until deadline: Double) async throws(SSHError) {
    let tunnel: SSHChannel
    do throws(SSHError) {
      tunnel = try await via.openTunnel(to: configuration.address, port: configuration.port, until: deadline)
    } catch let fault {
      let through = via.configuration.host
      let code = fault.code == .channelOpenFailed ? SSHError.Code.unreachable : fault.code
      throw error(
        code, "no connection to \(configuration.address):\(configuration.port) through \(through)",
        detail: fault.message)
    }
    self.via = via
    self.tunnel = tunnel
    tunnelTask = Task { [weak self] in await self?.readTunnel(tunnel) }
  }

  /// TCP to the first address that answers: in the resolver's order (RFC 6724), the next one 250 ms later or as soon as the one
  /// before has failed (after RFC 8305).
  private func connectSocket(until deadline: Double) async throws(SSHError) {
    let addresses = try await resolve(until: deadline)
    var pending: [Int32: String] = [:]
    var failures: [String] = []
    var next = 0
    var nextStart = 0.0
    defer {
      for descriptor in pending.keys {
        loop.unwatch(descriptor)
        closeDescriptor(descriptor)
      }
    }
    while true {
      for (descriptor, name) in pending {
        guard let status = connectionStatus(descriptor) else { continue }
        pending[descriptor] = nil
        loop.unwatch(descriptor)
        if status == 0 { return adopt(descriptor) }
        closeDescriptor(descriptor)
        failures.append("\(name): \(errorText(status))")
      }
      if next < addresses.count, pending.isEmpty || monotonicSeconds() >= nextStart {
        let address = addresses[next]
        next += 1
        nextStart = monotonicSeconds() + 0.25
        switch startConnection(address) {
        case .success(let descriptor):
          pending[descriptor] = address.name
          loop.watch(descriptor, events: Int16(POLLOUT)) { [weak self, loop] _ in
            loop.setEvents(descriptor, 0)
            self?.assumeIsolated { $0.wakeAll() }
          }
        case .failure(let fault): failures.append("\(address.name): \(errorText(fault.number))")
        }
        continue
      }
      if pending.isEmpty {
        let list = failures.joined(separator: ", ")
        throw error(.unreachable, "no connection to \(configuration.address) port \(configuration.port)", detail: list)
      }
      switch await park(until: min(deadline, next < addresses.count ? nextStart : deadline)) {
      case .cancelled: throw error(.cancelled, "cancelled while connecting")
      case .moved, .timedOut:
        if let failure { throw failure }
        if monotonicSeconds() >= deadline {
          throw error(
            .timeout,
            "no answer from \(configuration.address) port \(configuration.port) in \(configuration.connectTimeout)",
            detail: (failures + pending.values.sorted().map { "\($0): no answer" }).joined(separator: ", "))
        }
      }
    }
  }

  private func adopt(_ descriptor: Int32) {
    setOption(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    wire.descriptor = descriptor
    loop.watch(descriptor, events: Int16(POLLIN)) { [weak self] events in
      self?.assumeIsolated { $0.socketReady(events) }
    }
  }

  private func resolve(until deadline: Double) async throws(SSHError) -> [SocketAddress] {
    let host = configuration.address
    let port = configuration.port
    // An address needs nobody to be asked.
    if case .success(let addresses) = lookUp(host, port, AI_NUMERICHOST) { return addresses }
    let box = Resolved()
    Task { [weak self] in
      let result = await offLoop { lookUp(host, port, 0) }
      box.result = result
      await self?.wakeAll()
    }
    while true {
      switch box.result {
      case .success(let addresses)?: return addresses
      case .failure(let fault)?: throw error(.unreachable, "\(host) has no address", detail: fault.text)
      case nil: try await parkOrThrow(until: deadline, "looking up \(host)")
      }
    }
  }

  // MARK: Host key

  private func loadKnownHosts() throws(SSHError) -> KnownHosts {
    guard configuration.pinnedHostKey == nil else { return KnownHosts() }
    guard let cache = configuration.cache else { return try readKnownHosts() }
    return try cache.knownHosts(configuration.knownHostsFiles) { () throws(SSHError) in try readKnownHosts() }
  }

  private func readKnownHosts() throws(SSHError) -> KnownHosts {
    var known = KnownHosts()
    for path in configuration.knownHostsFiles {
      switch readFile(path) {
      case .success(let text): known.add(text, file: path)
      case .failure(let fault) where fault.number == ENOENT: continue
      case .failure(let fault):
        throw error(.configuration, "\(path) can't be read: \(errorText(fault.number))")
      }
    }
    return known
  }

  private func setHostKeyPreference(_ session: OpaquePointer, _ forced: [String]?, _ known: KnownHosts) {
    let preferred = [
      "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512",
      "rsa-sha2-256",
      "ssh-rsa",
    ]
    let supported = supportedHostKeyTypes(session)
    var order = forced ?? []
    if forced == nil {
      for type in known.keyTypes(
        host: configuration.address, port: configuration.port, alias: configuration.hostKeyAlias)
      {
        // An RSA key is one key under three signature algorithms.
        order += type == "ssh-rsa" ? ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"] : [type]
      }
      order += preferred.filter { !order.contains($0) }
    }
    let list = order.filter(supported.contains).joined(separator: ",")
    if !list.isEmpty { _ = libssh2_session_method_pref(session, LIBSSH2_METHOD_HOSTKEY, list) }
  }

  private func supportedHostKeyTypes(_ session: OpaquePointer) -> Set<String> {
    var names: UnsafeMutablePointer<UnsafePointer<CChar>?>?
    let count = libssh2_session_supported_algs(session, LIBSSH2_METHOD_HOSTKEY, &names)
    guard count > 0, let names else { return [] }
    defer { libssh2_free(session, names) }
    return Set((0..<Int(count)).compactMap { names[$0].map { String(cString: $0) } })
  }

  private func checkHostKey(_ session: OpaquePointer, _ known: KnownHosts) throws(SSHError) {
    var length = 0
    var type: Int32 = 0
    guard let pointer = libssh2_session_hostkey(session, &length, &type), length > 0 else {
      throw error(.protocolFault, "the host has shown no key")
    }
    let key = pointer.withMemoryRebound(to: UInt8.self, capacity: length) {
      [UInt8](UnsafeBufferPointer(start: $0, count: length))
    }
    var reader = SSHReader(key)
    let shown = SSHError.HostKey(
      fingerprint: fingerprint(of: key), keyType: reader.text() ?? "",
      knownHostsLine: KnownHosts.line(
        host: configuration.address, port: configuration.port, alias: configuration.hostKeyAlias, key: key))
    if let fault = judgeHostKey(key, shown, known) { throw fault }
  }

  private func judgeHostKey(_ key: [UInt8], _ shown: SSHError.HostKey, _ known: KnownHosts) -> SSHError? {
    var shown = shown
    var fault: SSHError
    if let pin = configuration.pinnedHostKey {
      let wanted = String(pin.drop { $0 == " " }.prefix { $0 != " " && $0 != "=" })
      if wanted == shown.fingerprint { return nil }
      shown.expected = wanted
      fault = error(
        .hostKeyChanged, "the host's key isn't the pinned one: expected \(wanted), shown \(shown.fingerprint)")
    } else {
      let verdict = known.verdict(
        host: configuration.address, port: configuration.port, alias: configuration.hostKeyAlias, key: key)
      switch verdict {
      case .known: return nil
      case .changed(let location, let expected):
        shown.knownAt = location
        shown.expected = expected
        fault = error(
          .hostKeyChanged,
          "the host's key has changed: \(location) has \(expected), shown was \(shown.keyType) \(shown.fingerprint)")
      case .revoked(let location):
        shown.knownAt = location
        fault = error(.hostKeyRevoked, "the host's key \(shown.fingerprint) is revoked by \(location)")
      case .unknown(let others): fault = unknownHostKey(shown, others)
      }
      if !known.notes.isEmpty {
        fault.detail =
          ([fault.detail].compactMap { $0 } + ["skipped: " + known.notes.prefix(3).joined(separator: "; ")])
          .joined(separator: "; ")
      }
    }
    fault.hostKey = shown
    return fault
  }

  private func unknownHostKey(_ shown: SSHError.HostKey, _ others: [String]) -> SSHError {
    var detail: String?
    if others == ["ssh-rsa"], libssh2_version(0x010b00) == nil {
      detail =
        "known_hosts has only an RSA key for it, which libssh2 \(String(cString: libssh2_version(0))) can't check against a host that has given up SHA-1: add its \(shown.keyType) key"
    } else if !others.isEmpty {
      detail = "known for it are keys of other types: \(others.joined(separator: ", "))"
    }
    let files =
      configuration.knownHostsFiles.isEmpty
      ? "no known_hosts file" : configuration.knownHostsFiles.joined(separator: ", ")
    return error(
      .hostKeyUnknown, "the host's key isn't known (\(files)): shown was \(shown.keyType) \(shown.fingerprint)",
      detail: detail)
  }
}

// MARK: Sockets

struct SystemFault: Error {
  var number: Int32
}

struct SocketAddress: Sendable {
  var family: Int32
  var bytes: [UInt8]
  var name: String
}

struct LookupFault: Error {
  var text: String
}

private final class Resolved: @unchecked Sendable {  // written before, read after a wake-up on the loop's thread
  var result: Result<[SocketAddress], LookupFault>?
}

func streamSocket() -> Int32 {
  #if canImport(Glibc)
    Int32(SOCK_STREAM.rawValue)
  #else
    Int32(SOCK_STREAM)
  #endif
}

/// getaddrinfo(3): blocks, unless `flags` says AI_NUMERICHOST.
private func lookUp(_ host: String, _ port: UInt16, _ flags: Int32) -> Result<[SocketAddress], LookupFault> {
  var hints = addrinfo()
  hints.ai_family = AF_UNSPEC
  hints.ai_socktype = streamSocket()
  hints.ai_flags = flags
  var list: UnsafeMutablePointer<addrinfo>?
  let status = getaddrinfo(host, String(port), &hints, &list)
  guard status == 0 else {
    return .failure(LookupFault(text: status == EAI_SYSTEM ? errorText(errno) : String(cString: gai_strerror(status))))
  }
  defer { freeaddrinfo(list) }
  var addresses: [SocketAddress] = []
  var item = list
  while let info = item?.pointee {
    item = info.ai_next
    let length = Int(info.ai_addrlen)
    let bytes = [UInt8](UnsafeRawBufferPointer(start: info.ai_addr, count: length))
    var text = [CChar](repeating: 0, count: 256)
    _ = getnameinfo(info.ai_addr, info.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST)
    let name = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    addresses.append(SocketAddress(family: info.ai_family, bytes: bytes, name: name))
  }
  return .success(addresses)
}

private func startConnection(_ address: SocketAddress) -> Result<Int32, SystemFault> {
  let descriptor = socket(address.family, streamSocket(), 0)
  guard descriptor >= 0 else { return .failure(SystemFault(number: errno)) }
  _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
  _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
  #if canImport(Darwin)
    setOption(descriptor, SOL_SOCKET, SO_NOSIGPIPE, 1)
  #endif
  let status = address.bytes.withUnsafeBytes {
    connect(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
  }
  if status == 0 || errno == EINPROGRESS || errno == EINTR { return .success(descriptor) }
  let number = errno
  close(descriptor)
  return .failure(SystemFault(number: number))
}

/// nil: still connecting; 0: connected; else the errno.
private func connectionStatus(_ descriptor: Int32) -> Int32? {
  var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
  guard poll(&entry, 1, 0) > 0 else { return nil }
  var status: Int32 = 0
  var length = socklen_t(MemoryLayout<Int32>.size)
  guard getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &status, &length) == 0 else { return errno }
  return status
}

/// A whole small file (at most 16 MiB).
func readFile(_ path: String) -> Result<[UInt8], SystemFault> {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { return .failure(SystemFault(number: errno)) }
  defer { close(descriptor) }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 1 << 16)
  while bytes.count < 16 << 20 {
    let count = read(descriptor, &buffer, buffer.count)
    if count < 0, errno == EINTR { continue }
    if count < 0 { return .failure(SystemFault(number: errno)) }
    if count == 0 { break }
    bytes.append(contentsOf: buffer[..<count])
  }
  return .success(bytes)
}

import CLibSSH2
import Diagnostics

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A key that can be offered: the public half, and how to get a signature. Opening the private half is put off until the host
/// wants it, so that nobody is asked for the passphrase of a key that is of no use.
private struct Offer: Sendable {
  var name: String
  var blob: [UInt8]
  /// Only the public half is there: of use if the agent has the private one.
  var isPublicOnly = false
  var sign: @Sendable (_ data: [UInt8], _ algorithm: String) async -> Result<[UInt8], SSHError>
}

/// One signature on its way: libssh2 asks for it in a callback that may say "again".
private final class Signature: @unchecked Sendable {  // confined to the loop's thread
  var request: [UInt8]?
  /// When it was asked for; nil: not yet.
  var askedAt: Double?
  var result: Result<[UInt8], SSHError>?
  /// libssh2 has it, and with that sends it.
  var isGiven = false
}

extension SSHSession {
  /// sshd's MaxAuthTries is 6 by default, after which it says nothing useful any more.
  private static let offerLimit = 5

  /// Offers keys until one is accepted. Returns the seconds that a person took for passphrases.
  func authenticate(until deadline: Double) async throws(SSHError) -> Double {
    var faults: [SSHError] = []
    let start = monotonicSeconds()
    let offers = await self.offers(&faults)
    ownSeconds = monotonicSeconds() - start
    var refused: [String] = []
    for offer in offers.prefix(Self.offerLimit) {
      let outcome: Attempt
      do { outcome = try await attempt(offer, deadline) } catch {
        // After too many tries sshd just closes.
        guard error.code == .connectionLost, !refused.isEmpty else { throw error }
        throw authenticationError(refused, faults, "then the host closed the connection")
      }
      switch outcome {
      case .accepted:
        try await finishHandshake(until: deadline)
        return ownSeconds
      case .refused: refused.append(offer.name)
      case .unsigned(let fault): faults.append(fault)
      }
    }
    let skipped = offers.count - min(offers.count, Self.offerLimit)
    throw authenticationError(refused, faults, skipped > 0 ? "\(skipped) more keys were not offered" : nil)
  }

  private func authenticationError(_ refused: [String], _ faults: [SSHError], _ note: String?) -> SSHError {
    let who = "\(configuration.user)@\(configuration.address)"
    var details = faults.map(\.message)
    if let note { details.append(note) }
    let detail = details.isEmpty ? nil : details.joined(separator: "; ")
    if refused.isEmpty, let fault = faults.first {
      return error(
        fault.code, "no key could be used for \(who): \(fault.message)", detail: faults.count > 1 ? detail : nil)
    }
    if refused.isEmpty { return error(.authenticationFailed, "there is no key to offer for \(who)", detail: detail) }
    return error(
      .authenticationFailed, "the host accepts none of these keys for \(who): \(refused.joined(separator: ", "))",
      detail: detail)
  }

  // MARK: One key

  private enum Attempt {
    case accepted, refused
    case unsigned(SSHError)
  }

  private func attempt(_ offer: Offer, _ deadline: Double) async throws(SSHError) -> Attempt {
    measured.roundTrips += 1
    let signature = Signature()
    // libssh2 1.10 would sign RSA with SHA-1 under the name that stands in the blob; a blob that says rsa-sha2-512 is taken by sshd
    // for what it is (seen with 9.2 and 10.0), and the name with it.
    let blob = Self.renamedForSHA2(offer.blob)
    let user = configuration.user
    // What the host says of its RSA algorithms comes with the service.
    if blob.count != offer.blob.count { try await finishHandshake(until: deadline) }
    var context: UnsafeMutableRawPointer? = Unmanaged.passUnretained(signature).toOpaque()
    while true {
      if let failure { throw failure }
      try continueHandshake()
      guard let raw else { throw error(.channelClosed, "not connected") }
      let before = wire.consumed
      let status = withExtendedLifetime(signature) {
        libssh2_userauth_publickey(raw, user, blob, blob.count, signCallback, &context)
      }
      if status == LIBSSH2_ERROR_EAGAIN, signature.isGiven { askAhead() }
      settle()
      if status == 0 { return .accepted }
      if status != LIBSSH2_ERROR_EAGAIN { return try judge(status, signature) }
      if let request = signature.request, signature.askedAt == nil {
        signature.askedAt = monotonicSeconds()
        measured.roundTrips += 1
        let algorithm = Self.algorithm(in: request)
        Task { [weak self] in
          let result = await offer.sign(request, algorithm)
          await self?.take(result, for: signature)
        }
      }
      // One of the three may have read what another waits for.
      if wire.consumed != before { continue }
      // While a person types, or an agent asks one, it isn't the host that is waited for.
      let isSigning = signature.askedAt != nil && signature.result == nil
      try await parkOrThrow(until: deadline + ownSeconds + (isSigning ? 600 : 0), "authentication")
    }
  }

  private func take(_ result: Result<[UInt8], SSHError>, for signature: Signature) {
    signature.result = result
    ownSeconds += monotonicSeconds() - (signature.askedAt ?? monotonicSeconds())
    wakeAll()
  }

  private func judge(_ status: Int32, _ signature: Signature) throws(SSHError) -> Attempt {
    if case .failure(let fault)? = signature.result { return .unsigned(fault) }
    if status == LIBSSH2_ERROR_AUTHENTICATION_FAILED { return .refused }
    throw fault(Int(status), "authentication")
  }

  /// The name of the algorithm that is to sign, from the data to be signed (RFC 4252, section 7).
  private static func algorithm(in request: [UInt8]) -> String {
    var reader = SSHReader(request)
    _ = reader.string()  // session identifier
    _ = reader.byte()  // SSH_MSG_USERAUTH_REQUEST
    for _ in 0..<3 { _ = reader.string() }  // user, service, "publickey"
    _ = reader.byte()  // TRUE
    return reader.text() ?? ""
  }

  private static func renamedForSHA2(_ blob: [UInt8]) -> [UInt8] {
    var reader = SSHReader(blob)
    guard reader.text() == "ssh-rsa" else { return blob }
    var writer = SSHWriter()
    writer.string("rsa-sha2-512")
    return writer.bytes + reader.rest
  }

  // MARK: Which keys

  /// Explicit key texts first; then what the agent has of the configured files; the rest of the agent; the files themselves.
  private func offers(_ faults: inout [SSHError]) async -> [Offer] {
    var first: [Offer] = []
    var files: [Offer] = []
    for identity in configuration.identities {
      switch await offer(identity) {
      case .success(let offer)?:
        if case .key = identity { first.append(offer) } else { files.append(offer) }
      case .failure(let fault)?: faults.append(fault)
      case nil: continue
      }
    }
    var agentKeys: [Offer] = []
    if configuration.agent, let agent = AgentClient(socket: configuration.agentSocket) {
      for key in await offLoop({ agent.keys() }) ?? [] {
        var reader = SSHReader(key.blob)
        guard Self.signable.contains(reader.text() ?? "") else { continue }
        agentKeys.append(Self.offer(of: agent, key))
      }
    }
    let fileBlobs = files.map(\.blob)
    let (matching, others) = (
      agentKeys.filter { fileBlobs.contains($0.blob) }, agentKeys.filter { !fileBlobs.contains($0.blob) }
    )
    let unmatched = files.filter { file in !file.isPublicOnly && !matching.contains { $0.blob == file.blob } }
    // Some of the five tries are kept for the files that were named.
    let room = max(0, Self.offerLimit - first.count - matching.count - min(unmatched.count, 2))
    let kept = configuration.identitiesOnly ? [] : Array(others.prefix(room))
    let late = configuration.identitiesOnly ? [] : Array(others.dropFirst(room))
    return first + matching + kept + unmatched + late
  }

  private static let signable: Set<String> = [
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
  ]

  private static func offer(of agent: AgentClient, _ key: AgentClient.Key) -> Offer {
    Offer(name: "\(key.comment) (agent)", blob: key.blob) { data, algorithm in
      let signature = await offLoop { agent.sign(data, key: key.blob, algorithm: algorithm) }
      return signature.map { .success($0) }
        ?? .failure(SSHError(.keyUnreadable, "the agent didn't sign with \(key.comment)"))
    }
  }

  /// nil: a file that isn't there (ssh -G lists the default names whether they exist or not).
  private func offer(_ identity: SSHIdentity) async -> Result<Offer, SSHError>? {
    let name: String
    let text: [UInt8]
    var publicBlob: [UInt8]?
    switch identity {
    case .key(let secret, let given):
      name = given
      text = Array(secret.reveal().utf8)
    case .file(let path):
      name = path
      if case .success(let line) = readFile(path + ".pub") {
        let words = line.split(whereSeparator: { $0 == 32 || $0 == 9 || $0 == 10 || $0 == 13 })
        if words.count >= 2 { publicBlob = Base64.decode(words[1]) }
      }
      switch readFile(path) {
      case .success(let bytes): text = bytes
      case .failure(let fault) where fault.number == ENOENT:
        guard let publicBlob else { return nil }
        return .success(
          Offer(name: name, blob: publicBlob, isPublicOnly: true) { _, _ in
            .failure(SSHError(.keyUnreadable, "the private half of \(name) isn't there"))
          })
      case .failure(let fault):
        return .failure(error(.keyUnreadable, "the key \(path) can't be read: \(errorText(fault.number))"))
      }
    }
    do throws(PrivateKeyFile.Fault) {
      let file = try PrivateKeyFile(text)
      let fresh = KeyOpener(
        file: file, name: name, passphrase: configuration.passphrase,
        queue: configuration.cache?.questions ?? QuestionQueue())
      let opener = configuration.cache?.opener(of: text, name: name, else: fresh) ?? fresh
      let blob: [UInt8]
      if let known = file.publicBlob ?? publicBlob {
        blob = known
      } else {
        switch await opener.open() {
        case .success(let key): blob = key.publicBlob
        case .failure(let fault): return .failure(fault)
        }
      }
      return .success(
        Offer(name: name, blob: blob) { data, algorithm in
          switch await opener.open() {
          case .failure(let fault): return .failure(fault)
          case .success(let key):
            return key.sign(data, algorithm: algorithm).map { .success($0) }
              ?? .failure(SSHError(.keyUnreadable, "the key \(name) can't sign with \(algorithm)"))
          }
        })
    } catch { return .failure(KeyOpener.describe(error, name)) }
  }
}

/// Called by libssh2 on the loop's thread; may say EAGAIN, and is then called again with the same data.
private let signCallback:
  @convention(c) (
    OpaquePointer?, UnsafeMutablePointer<UnsafeMutablePointer<UInt8>?>?, UnsafeMutablePointer<Int>?,
    UnsafePointer<UInt8>?, Int,
    UnsafeMutablePointer<UnsafeMutableRawPointer?>?
  ) -> Int32 = { _, output, outputCount, data, count, context in
    guard let context = context?.pointee, let data, let output, let outputCount else { return -1 }
    let signature = Unmanaged<Signature>.fromOpaque(context).takeUnretainedValue()
    switch signature.result {
    case nil:
      signature.request = [UInt8](UnsafeBufferPointer(start: data, count: count))
      return LIBSSH2_ERROR_EAGAIN
    case .failure: return -1
    case .success(let bytes)?:
      signature.isGiven = true
      // libssh2 frees it with the session's own function.
      guard let copy = libssh2Allocate(bytes.count) else { return -1 }
      bytes.withUnsafeBytes { copy.copyMemory(from: $0.baseAddress!, byteCount: bytes.count) }
      output.pointee = copy.assumingMemoryBound(to: UInt8.self)
      outputCount.pointee = bytes.count
      return 0
    }
  }

import Crypto

/// One way to the file key: a type, arguments, a body.
struct AgeStanza: Equatable {
  var type: String
  var arguments: [String]
  var body: [UInt8]

  /// Types that are known have their exact form, also where they are another's.
  func check() throws(AgeError) {
    switch type {
    case "X25519":
      guard arguments.count == 1, share(0) != nil, body.count == 32 else { throw malformed }
    case "ssh-ed25519":
      guard arguments.count == 2, AgeHeader.decode(arguments[0])?.count == 4, share(1) != nil, body.count == 32 else {
        throw malformed
      }
    default: break
    }
  }

  private var malformed: AgeError { AgeError(code: .malformed, message: "the age file has a malformed \(type) stanza") }

  func share(_ index: Int) -> [UInt8]? {
    guard let bytes = AgeHeader.decode(arguments[index]), bytes.count == 32 else { return nil }
    return bytes
  }
}

/// What stands before the payload.
struct AgeHeader: Equatable {
  var stanzas: [AgeStanza]
  var mac: [UInt8] = []
  /// The bytes under the MAC: up to and with `---`.
  private var covered: [UInt8] = []

  static let sizeLimit = 64 * 1024
  static let stanzaLimit = 1000

  init(stanzas: [AgeStanza]) {
    self.stanzas = stanzas
    var text = AgeFile.version + "\n"
    for stanza in stanzas {
      text += "-> " + ([stanza.type] + stanza.arguments).joined(separator: " ") + "\n"
      let body = Array(Base64.encode(stanza.body, padded: false).utf8)
      // The last line is the one with fewer than 64 characters, and be it empty.
      for start in stride(from: 0, through: body.count, by: 64) {
        text += String(decoding: body[start..<min(start + 64, body.count)], as: UTF8.self) + "\n"
      }
    }
    covered = Array((text + "---").utf8)
  }

  func code(fileKey: [UInt8]) -> [UInt8] {
    HMACSHA256.authenticate(
      covered, key: HKDFSHA256.derive(from: fileKey, salt: [], info: Array("header".utf8)))
  }

  func text(fileKey: [UInt8]) -> [UInt8] {
    covered + Array((" " + Base64.encode(code(fileKey: fileKey), padded: false) + "\n").utf8)
  }

  /// Canonical base64 without padding.
  static func decode(_ text: String) -> [UInt8]? { text.utf8.contains(UInt8(ascii: "=")) ? nil : Base64.decode(text) }

  /// The header, and where the payload begins.
  static func parse(_ file: [UInt8]) throws(AgeError) -> (header: AgeHeader, end: Int) {
    func malformed(_ why: String) -> AgeError { AgeError(code: .malformed, message: "the age file \(why)") }
    var position = 0
    func line() throws(AgeError) -> String {
      let limit = min(file.count, sizeLimit)
      guard position < limit, let end = file[position..<limit].firstIndex(of: 0x0a) else {
        throw malformed("has no whole header")
      }
      let bytes = file[position..<end]
      guard bytes.allSatisfy({ (0x20...0x7e).contains($0) }) else {
        throw malformed("has a character in its header that doesn't belong there")
      }
      position = end + 1
      return String(decoding: bytes, as: UTF8.self)
    }
    guard try line() == AgeFile.version else { throw malformed("isn't one: its first line isn't \(AgeFile.version)") }
    var stanzas: [AgeStanza] = []
    while true {
      let start = position
      let first = try line()
      if first.hasPrefix("---") {
        guard first.hasPrefix("--- "), let mac = decode(String(first.dropFirst(4))), mac.count == 32 else {
          throw malformed("has a malformed MAC")
        }
        guard !stanzas.isEmpty else { throw malformed("has no recipients") }
        var header = AgeHeader(stanzas: [])
        header.stanzas = stanzas
        header.mac = mac
        header.covered = Array(file[..<(start + 3)])
        return (header, position)
      }
      let words = first.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
      guard words.count >= 2, words[0] == "->", words.dropFirst().allSatisfy({ !$0.isEmpty }),
        stanzas.count < stanzaLimit
      else { throw malformed("has a malformed stanza") }
      var body = ""
      while true {
        let next = try line()
        guard next.utf8.count <= 64, !next.utf8.contains(0x20) else { throw malformed("has a malformed stanza") }
        body += next
        if next.utf8.count < 64 { break }
      }
      guard let bytes = decode(body) else { throw malformed("has a stanza that isn't whole base64") }
      stanzas.append(AgeStanza(type: words[1], arguments: Array(words.dropFirst(2)), body: bytes))
    }
  }
}

private let x25519Label = Array("age-encryption.org/v1/X25519".utf8)
private let sshLabel = Array("age-encryption.org/v1/ssh-ed25519".utf8)
/// Each wrapping key is used once.
private let zeroNonce = [UInt8](repeating: 0, count: ChaCha20Poly1305.nonceCount)

/// An SSH key is signed with elsewhere: a key of its own keeps the two uses apart.
private func sshTweak(_ publicKey: [UInt8]) -> [UInt8] {
  HKDFSHA256.derive(from: [], salt: SSHWire.ed25519Blob(publicKey), info: sshLabel)
}

private func sshTag(_ publicKey: [UInt8]) -> [UInt8] {
  Array(SHA256.hash(SSHWire.ed25519Blob(publicKey)).prefix(4))
}

extension Recipient {
  func wrap(_ fileKey: [UInt8]) throws(SecureRandom.Unavailable) -> AgeStanza {
    let ephemeral = try SecureRandom.bytes(X25519.byteCount)
    let share = X25519.publicKey(ephemeral)
    let type: String, theirs: [UInt8], label: [UInt8]
    var arguments = [Base64.encode(share, padded: false)]
    var secret: [UInt8]?
    switch self {
    case .x25519(let key):
      (type, theirs, label) = ("X25519", key, x25519Label)
      secret = X25519.sharedSecret(ephemeral, key)
    case .sshEd25519(let key, _):
      // Keys without an X25519 form aren't made into recipients.
      (type, theirs, label) = ("ssh-ed25519", Ed25519.x25519PublicKey(key)!, sshLabel)
      secret = X25519.sharedSecret(ephemeral, theirs).flatMap { X25519.sharedSecret(sshTweak(key), $0) }
      arguments.insert(Base64.encode(sshTag(key), padded: false), at: 0)
    }
    // A recipient of small order has no secret: what nobody can open stands for it.
    let input: [UInt8]
    if let secret { input = secret } else { input = try SecureRandom.bytes(32) }
    let key = HKDFSHA256.derive(from: input, salt: share + theirs, info: label)
    return AgeStanza(
      type: type, arguments: arguments, body: ChaCha20Poly1305.seal(fileKey, key: key, nonce: zeroNonce))
  }
}

extension Identity {
  /// The file key, if the stanza (checked before) is this identity's.
  func unwrap(_ stanza: AgeStanza) -> [UInt8]? {
    let secret: [UInt8]?, mine: [UInt8], share: [UInt8], label: [UInt8]
    switch self {
    case .x25519(let key):
      guard stanza.type == "X25519", let theirs = stanza.share(0) else { return nil }
      (mine, share, label) = (X25519.publicKey(key), theirs, x25519Label)
      secret = X25519.sharedSecret(key, theirs)
    case .sshEd25519(let seed, _):
      let publicKey = Ed25519.publicKey(seed: seed)
      guard stanza.type == "ssh-ed25519", AgeHeader.decode(stanza.arguments[0]) == sshTag(publicKey),
        let theirs = stanza.share(1), let converted = Ed25519.x25519PublicKey(publicKey)
      else { return nil }
      (mine, share, label) = (converted, theirs, sshLabel)
      secret = X25519.sharedSecret(Ed25519.x25519PrivateKey(seed: seed), theirs)
        .flatMap { X25519.sharedSecret(sshTweak(publicKey), $0) }
    }
    guard let secret else { return nil }
    let key = HKDFSHA256.derive(from: secret, salt: share + mine, info: label)
    guard let fileKey = ChaCha20Poly1305.open(stanza.body, key: key, nonce: zeroNonce), fileKey.count == 16 else {
      return nil
    }
    return fileKey
  }
}

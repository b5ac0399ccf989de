import Crypto

/// As much of SSH's formats as ssh-ed25519 recipients and identities need (RFC 4251, 5; RFC 8709, 4).
enum SSHWire {
  static let type = Array("ssh-ed25519".utf8)

  static func string(_ bytes: [UInt8]) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: bytes.count >> (24 - 8 * $0)) } + bytes
  }

  static func ed25519Blob(_ key: [UInt8]) -> [UInt8] { string(type) + string(key) }

  /// The 32 bytes of the key in a public key's blob; nil for other types and whatever isn't exact.
  static func ed25519Key(_ blob: [UInt8]) -> [UInt8]? {
    var reader = Reader(blob)
    guard reader.string() == type, let key = reader.string(), key.count == 32, reader.isAtEnd else { return nil }
    return key
  }

  struct Reader {
    private var rest: ArraySlice<UInt8>
    init(_ bytes: [UInt8]) { rest = bytes[...] }

    var isAtEnd: Bool { rest.isEmpty }
    var remainder: [UInt8] { Array(rest) }

    mutating func number() -> Int? {
      guard rest.count >= 4 else { return nil }
      defer { rest = rest.dropFirst(4) }
      return rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
    }

    mutating func string() -> [UInt8]? {
      guard let count = number(), count <= rest.count else { return nil }
      defer { rest = rest.dropFirst(count) }
      return Array(rest.prefix(count))
    }
  }
}

/// An OpenSSH private key (`openssh-key-v1`, OpenSSH's PROTOCOL.key): ssh-ed25519, without a passphrase.
enum OpenSSHPrivateKey {
  static func parse(_ text: String) throws(Identity.Malformed) -> Identity {
    let begin = "-----BEGIN OPENSSH PRIVATE KEY-----", end = "-----END OPENSSH PRIVATE KEY-----"
    let unescaped = text.replacing("\\r", with: "").replacing("\\n", with: "\n")
    guard let start = unescaped.firstRange(of: begin) else {
      throw Identity.Malformed(message: "of private keys in PEM form only OpenSSH's own (ssh-ed25519) is supported")
    }
    guard let stop = unescaped[start.upperBound...].firstRange(of: end) else {
      throw Identity.Malformed(message: "the OpenSSH private key has no end")
    }
    let body = unescaped[start.upperBound..<stop.lowerBound].filter { !$0.isWhitespace }
    let magic = Array("openssh-key-v1\0".utf8)
    guard let data = Base64.decode(body), data.starts(with: magic) else { throw damaged }
    var reader = SSHWire.Reader(Array(data.dropFirst(magic.count)))
    guard let cipher = reader.string(), reader.string() != nil, reader.string() != nil, reader.number() == 1,
      let blob = reader.string(), let secret = reader.string(), reader.isAtEnd
    else { throw damaged }
    guard cipher == Array("none".utf8) else {
      throw Identity.Malformed(
        message: "the OpenSSH private key has a passphrase; the vault opens with keys that have none")
    }
    guard let key = SSHWire.ed25519Key(blob) else {
      throw Identity.Malformed(message: "the OpenSSH private key isn't an ssh-ed25519 key")
    }
    var inner = SSHWire.Reader(secret)
    guard let first = inner.number(), first == inner.number(), inner.string() == SSHWire.type, inner.string() == key,
      let pair = inner.string(), pair.count == 64, Array(pair.suffix(32)) == key, let comment = inner.string(),
      // Padding: 1, 2, 3 … up to a block of 8.
      inner.remainder.count < 8, inner.remainder.enumerated().allSatisfy({ Int($0.element) == $0.offset + 1 }),
      Ed25519.publicKey(seed: Array(pair.prefix(32))) == key
    else { throw damaged }
    let name = String(decoding: comment, as: UTF8.self)
    let isPlain = !name.isEmpty && name.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f }
    return .sshEd25519(Array(pair.prefix(32)), comment: isPlain ? name : nil)
  }

  private static var damaged: Identity.Malformed { Identity.Malformed(message: "the OpenSSH private key is damaged") }
}

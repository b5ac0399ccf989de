public import Crypto

/// Whom something is encrypted for: an age key (`age1…`) or an SSH key (`ssh-ed25519 AAAA…`).
public enum Recipient: Sendable, Hashable, CustomStringConvertible {
  case x25519([UInt8])
  case sshEd25519([UInt8], comment: String?)

  public struct Malformed: Error, Sendable, Equatable {
    public var message: String
  }

  /// Reads one recipient. Throws `Malformed`, with the reason for a person.
  public init(_ text: String) throws(Malformed) {
    let words = text.split(whereSeparator: \.isWhitespace).map(String.init)
    guard let first = words.first else { throw Malformed(message: "the recipient is empty") }
    if first == "ssh-ed25519" {
      guard words.count > 1, let blob = Base64.decode(words[1]), let key = SSHWire.ed25519Key(blob),
        Ed25519.x25519PublicKey(key) != nil
      else { throw Malformed(message: "this isn't a whole ssh-ed25519 public key") }
      self = .sshEd25519(key, comment: words.count > 2 ? words[2...].joined(separator: " ") : nil)
      return
    }
    if first.hasPrefix("ssh-") || first.hasPrefix("ecdsa-") || first.hasPrefix("sk-") {
      throw Malformed(message: "\(first) keys can't be recipients, of SSH keys only ssh-ed25519")
    }
    if first.uppercased().hasPrefix("AGE-SECRET-KEY-") {
      throw Malformed(message: "this is a secret key; its recipient begins with age1")
    }
    guard words.count == 1, let (prefix, bytes) = Bech32.decode(first), prefix == "age", bytes.count == 32,
      first == first.lowercased()
    else {
      let isPlugin = Bech32.decode(first).map { $0.prefix.hasPrefix("age") && $0.prefix != "age" } ?? false
      throw Malformed(
        message: isPlugin
          ? "recipients of age plugins aren't supported" : "this isn't a whole age recipient: age1 and 58 characters")
    }
    self = .x25519(bytes)
  }

  /// As it is written into a file.
  public var description: String {
    switch self {
    case .x25519(let key): return Bech32.encode(prefix: "age", key)
    case .sshEd25519(let key, let comment):
      let text = "ssh-ed25519 " + Base64.encode(SSHWire.ed25519Blob(key))
      return comment.map { "\(text) \($0)" } ?? text
    }
  }

  /// The same key, whatever its comment says.
  public static func == (left: Recipient, right: Recipient) -> Bool { left.key == right.key }
  public func hash(into hasher: inout Hasher) { hasher.combine(key.bytes) }

  private struct Key: Equatable { var isSSH: Bool, bytes: [UInt8] }
  private var key: Key {
    switch self {
    case .x25519(let bytes): Key(isSSH: false, bytes: bytes)
    case .sshEd25519(let bytes, _): Key(isSSH: true, bytes: bytes)
    }
  }
}

/// A private key that opens what is encrypted for its recipient. Its description shows the recipient only.
public enum Identity: Sendable, Equatable, CustomStringConvertible, CustomReflectable {
  case x25519([UInt8])
  /// The seed of an Ed25519 key.
  case sshEd25519([UInt8], comment: String?)

  /// A new age key.
  public static func generate() throws(SecureRandom.Unavailable) -> Identity {
    .x25519(try SecureRandom.bytes(X25519.byteCount))
  }

  public var recipient: Recipient {
    switch self {
    case .x25519(let key): .x25519(X25519.publicKey(key))
    case .sshEd25519(let seed, let comment): .sshEd25519(Ed25519.publicKey(seed: seed), comment: comment)
    }
  }

  /// `AGE-SECRET-KEY-1…`; nil for an SSH key, which stays in its own file.
  public var secretText: String? {
    guard case .x25519(let key) = self else { return nil }
    return Bech32.encode(prefix: "age-secret-key-", key).uppercased()
  }

  public var description: String { "the key of \(recipient)" }
  public var customMirror: Mirror { Mirror(self, children: []) }

  public struct Malformed: Error, Sendable, Equatable {
    /// From 1; nil for a key that isn't a list of lines.
    public var line: Int?
    public var message: String
  }

  /// Reads a key file: lines `AGE-SECRET-KEY-1…`, empty lines and comments (`# …`), or one OpenSSH private key without a
  /// passphrase. A variable may hold the same, line breaks as `\n` or spaces too.
  ///
  /// Throws `Malformed`, which never quotes the text.
  public static func parse(_ text: String) throws(Malformed) -> [Identity] {
    if text.contains("-----BEGIN ") { return [try OpenSSHPrivateKey.parse(text)] }
    var identities: [Identity] = []
    let lines = text.replacing("\\n", with: "\n").split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
    for (index, line) in lines.enumerated() {
      if line.drop(while: \.isWhitespace).first == "#" { continue }
      for word in line.split(whereSeparator: \.isWhitespace) {
        if word.hasPrefix("AGE-PLUGIN-") {
          throw Malformed(line: index + 1, message: "keys of age plugins aren't supported")
        }
        guard let (prefix, bytes) = Bech32.decode(String(word)), prefix == "age-secret-key-", bytes.count == 32,
          word.hasPrefix("AGE-SECRET-KEY-1")
        else {
          throw Malformed(
            line: index + 1,
            message: word.hasPrefix("age1")
              ? "this is a recipient, not a secret key: AGE-SECRET-KEY-1…"
              : "this isn't a whole age secret key: AGE-SECRET-KEY-1 and 58 characters")
        }
        identities.append(.x25519(bytes))
      }
    }
    return identities
  }
}

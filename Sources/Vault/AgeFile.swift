public import Crypto

/// Why something isn't a whole age file, or doesn't open.
public struct AgeError: Error, Sendable, Equatable, CustomStringConvertible {
  public enum Code: Sendable, Equatable {
    /// Not the format, or not exactly: nothing of it was used.
    case malformed
    /// Encrypted for others.
    case noIdentity
    /// For one of the identities, but changed since it was written.
    case damaged
  }
  public var code: Code
  /// What is wrong, in one line; never a part of the contents.
  public var message: String

  public var description: String { message }
}

/// The file format of age, version 1 (age-encryption.org/v1, C2SP age.md): in memory, for small files.
///
/// Written: X25519 and ssh-ed25519 stanzas. Read: these; other stanzas are passed over, as the format wants. Every other
/// deviation is refused.
public enum AgeFile {
  /// More than this is refused: a vault's files hold one key of 32 bytes.
  public static let sizeLimit = 1 << 20

  static let version = "age-encryption.org/v1"

  /// Encrypts for all of the recipients. Precondition: there is one.
  public static func encrypt(_ plaintext: [UInt8], for recipients: [Recipient]) throws(SecureRandom.Unavailable)
    -> [UInt8]
  {
    precondition(!recipients.isEmpty, "age: no recipient")
    let fileKey = try SecureRandom.bytes(16)
    var stanzas: [AgeStanza] = []
    for recipient in recipients { stanzas.append(try recipient.wrap(fileKey)) }
    let header = AgeHeader(stanzas: stanzas)
    let nonce = try SecureRandom.bytes(16)
    return header.text(fileKey: fileKey) + nonce + AgeStream.seal(plaintext, key: streamKey(fileKey, nonce))
  }

  /// Decrypts with the first of the identities that fits.
  public static func decrypt(_ file: [UInt8], with identities: [Identity]) throws(AgeError) -> [UInt8] {
    guard file.count <= sizeLimit else { throw AgeError(code: .malformed, message: "the age file is too big") }
    let (header, end) = try AgeHeader.parse(file)
    guard let fileKey = try fileKey(header, identities) else {
      throw AgeError(code: .noIdentity, message: "the age file is encrypted for other keys")
    }
    guard constantTimeEquals(header.code(fileKey: fileKey), header.mac) else {
      throw AgeError(code: .damaged, message: "the age file's header was changed: its MAC doesn't fit")
    }
    let payload = file[end...]
    guard payload.count >= 16 else { throw AgeError(code: .damaged, message: "the age file is cut off") }
    guard
      let plaintext = AgeStream.open(
        Array(payload.dropFirst(16)), key: streamKey(fileKey, Array(payload.prefix(16))))
    else { throw AgeError(code: .damaged, message: "the age file's contents were changed or cut off") }
    return plaintext
  }

  private static func fileKey(_ header: AgeHeader, _ identities: [Identity]) throws(AgeError) -> [UInt8]? {
    if header.stanzas.contains(where: { $0.type == "scrypt" }) {
      guard header.stanzas.count == 1 else {
        throw AgeError(code: .malformed, message: "the age file has a passphrase beside other recipients")
      }
      throw AgeError(code: .noIdentity, message: "the age file is encrypted with a passphrase, which isn't supported")
    }
    // All stanzas are looked at: one that is malformed makes the file so, whichever opens it.
    var found: [UInt8]?
    for stanza in header.stanzas {
      try stanza.check()
      for identity in identities where found == nil { found = identity.unwrap(stanza) }
    }
    return found
  }

  private static func streamKey(_ fileKey: [UInt8], _ nonce: [UInt8]) -> [UInt8] {
    HKDFSHA256.derive(from: fileKey, salt: nonce, info: Array("payload".utf8))
  }
}

/// ASCII armor: strict PEM (RFC 7468, 3) with the label of age.
public enum AgeArmor {
  static let begin = "-----BEGIN AGE ENCRYPTED FILE-----", end = "-----END AGE ENCRYPTED FILE-----"

  /// Lines of 64 characters; ends with a line break.
  public static func encode(_ bytes: [UInt8]) -> String {
    let body = Array(Base64.encode(bytes).utf8)
    var text = begin + "\n"
    for start in stride(from: 0, to: body.count, by: 64) {
      text += String(decoding: body[start..<min(start + 64, body.count)], as: UTF8.self) + "\n"
    }
    return text + end + "\n"
  }

  /// Space around it is passed over; lines may end in CR LF.
  public static func decode(_ text: String) throws(AgeError) -> [UInt8] {
    func malformed(_ why: String) -> AgeError { AgeError(code: .malformed, message: "the age armor \(why)") }
    guard text.utf8.count <= AgeFile.sizeLimit * 2 else { throw malformed("is too big") }
    var lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
    func isBlank(_ line: Substring?) -> Bool { line.map { $0.allSatisfy { $0 == " " || $0 == "\t" } } ?? false }
    while isBlank(lines.first) { lines.removeFirst() }
    while isBlank(lines.last) { lines.removeLast() }
    guard lines.first.map({ $0 == begin }) ?? false else { throw malformed("has no first line: \(begin)") }
    guard lines.count > 1, lines.last.map({ $0 == end }) ?? false else { throw malformed("has no last line: \(end)") }
    let body = lines.dropFirst().dropLast()
    for (index, line) in body.enumerated() {
      guard line.utf8.count == 64 || (index == body.count - 1 && (1..<64).contains(line.utf8.count)) else {
        throw malformed("has a line of a wrong length")
      }
    }
    let joined = body.joined()
    guard joined.utf8.count.isMultiple(of: 4), let bytes = Base64.decode(joined) else {
      throw malformed("isn't whole base64")
    }
    return bytes
  }
}

/// The payload: chunks of 64 KiB by ChaCha20-Poly1305, numbered, the last one marked (STREAM).
enum AgeStream {
  static let chunkCount = 64 * 1024

  static func seal(_ plaintext: [UInt8], key: [UInt8]) -> [UInt8] {
    var out: [UInt8] = []
    var start = 0, counter: UInt64 = 0
    repeat {
      let end = min(start + chunkCount, plaintext.count)
      out += ChaCha20Poly1305.seal(
        Array(plaintext[start..<end]), key: key, nonce: nonce(counter, isLast: end == plaintext.count))
      start = end
      counter += 1
    } while start < plaintext.count
    return out
  }

  /// Nil for everything that `seal` doesn't write.
  static func open(_ sealed: [UInt8], key: [UInt8]) -> [UInt8]? {
    let whole = chunkCount + ChaCha20Poly1305.tagCount
    var out: [UInt8] = []
    var start = 0, counter: UInt64 = 0
    repeat {
      let end = min(start + whole, sealed.count), isLast = end == sealed.count
      guard
        let chunk = ChaCha20Poly1305.open(
          Array(sealed[start..<end]), key: key, nonce: nonce(counter, isLast: isLast)),
        // An empty chunk is the only one.
        !chunk.isEmpty || counter == 0
      else { return nil }
      out += chunk
      start = end
      counter += 1
    } while start < sealed.count
    return out
  }

  /// 11 bytes of the counter, big-endian, and the mark of the last chunk.
  private static func nonce(_ counter: UInt64, isLast: Bool) -> [UInt8] {
    [0, 0, 0] + (0..<8).map { UInt8(truncatingIfNeeded: counter >> (56 - 8 * $0)) } + [isLast ? 1 : 0]
  }
}

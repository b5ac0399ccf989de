import COpenSSL

/// The text of a private key, looked at but not opened: OpenSSH's own format (PROTOCOL.key), or PEM (PKCS #1, #8, SEC1).
struct PrivateKeyFile: Sendable {
  enum Fault: Error, Equatable {
    case notAKey
    case unsupported(String)
    case passphrase
  }

  private enum Format: Sendable {
    case openSSH(OpenSSHContainer)
    case pem([UInt8])
  }
  private let format: Format

  /// What can be said without opening it. nil for an encrypted PEM file.
  let publicBlob: [UInt8]?
  let isEncrypted: Bool

  /// `text` may have CRLF line ends, no last newline, literal `\n`, or spaces for newlines, as CI variables do.
  init(_ text: [UInt8]) throws(Fault) {
    guard let normalised = Self.normalise(text) else { throw .notAKey }
    if normalised.label == "OPENSSH PRIVATE KEY" {
      guard let data = Base64.decode(normalised.body.utf8), let container = OpenSSHContainer(data) else {
        throw .notAKey
      }
      format = .openSSH(container)
      publicBlob = container.publicBlob
      isEncrypted = container.cipher != "none"
    } else {
      let pem = Array(normalised.pem.utf8)
      format = .pem(pem)
      isEncrypted = normalised.label == "ENCRYPTED PRIVATE KEY" || normalised.pem.contains("Proc-Type: 4,ENCRYPTED")
      publicBlob = isEncrypted ? nil : try Self.openPEM(pem, nil).publicBlob
    }
  }

  /// Opens it. With a passphrase this takes a tenth of a second or more: not on the loop's thread.
  func open(passphrase: [UInt8]?) throws(Fault) -> PrivateKey {
    switch format {
    case .openSSH(let container): return try container.open(passphrase: passphrase)
    case .pem(let text): return try Self.openPEM(text, passphrase)
    }
  }

  private static func openPEM(_ text: [UInt8], _ passphrase: [UInt8]?) throws(Fault) -> PrivateKey {
    guard let bio = BIO_new_mem_buf(text, Int32(text.count)) else { throw .notAKey }
    defer { BIO_free(bio) }
    final class Asked {
      var passphrase: [UInt8]?
      init(_ passphrase: [UInt8]?) { self.passphrase = passphrase }
    }
    let asked = Asked(passphrase)
    let handle = withExtendedLifetime(asked) {
      PEM_read_bio_PrivateKey(
        bio, nil,
        { buffer, size, _, context in
          // Without a callback OpenSSL would ask on the terminal.
          guard let buffer, let context,
            let passphrase = Unmanaged<Asked>.fromOpaque(context).takeUnretainedValue().passphrase,
            passphrase.count <= Int(size)
          else { return -1 }
          for (index, byte) in passphrase.enumerated() { buffer[index] = CChar(bitPattern: byte) }
          return Int32(passphrase.count)
        }, Unmanaged.passUnretained(asked).toOpaque())
    }
    guard let handle else {
      ERR_clear_error()
      let encrypted = String(decoding: text, as: UTF8.self).contains("ENCRYPTED")
      throw encrypted ? .passphrase : .notAKey
    }
    guard let key = PrivateKey(owning: handle) else { throw .unsupported("its type isn't one of SSH's") }
    return key
  }

  struct Normalised: Equatable {
    var label: String
    /// The base64 lines, headers left out.
    var body: String
    /// The whole, with proper line ends.
    var pem: String
  }

  /// The first PEM block of a text, with its line ends put right; nil if there is none.
  static func normalise(_ bytes: [UInt8]) -> Normalised? {
    var text = String(decoding: bytes, as: UTF8.self)
    text = replaceAll(text, #"\r"#, "")
    text = replaceAll(text, #"\n"#, "\n")
    let begin = Array("-----BEGIN ".utf8)
    let dashes = Array("-----".utf8)
    let all = Array(text.utf8)
    guard let start = index(of: begin, in: all, from: 0),
      let labelEnd = index(of: dashes, in: all, from: start + begin.count),
      let end = index(of: Array("-----END ".utf8), in: all, from: labelEnd)
    else { return nil }
    let label = String(decoding: all[(start + begin.count)..<labelEnd], as: UTF8.self)
    guard label.hasSuffix("PRIVATE KEY") else { return nil }
    let middle = all[(labelEnd + dashes.count)..<end]
    var headers: [String] = []
    var body = ""
    for line in middle.split(whereSeparator: { $0 == 10 || $0 == 13 }) {
      if line.contains(UInt8(ascii: ":")) {
        headers.append(trimmed(line))
      } else {
        // A line of its own, or everything on one line with spaces where newlines were.
        for word in line.split(whereSeparator: { $0 == 32 || $0 == 9 }) {
          body += String(decoding: word, as: UTF8.self)
        }
      }
    }
    var pem = "-----BEGIN \(label)-----\n"
    if !headers.isEmpty { pem += headers.joined(separator: "\n") + "\n\n" }
    let characters = Array(body.utf8)
    for start in stride(from: 0, to: characters.count, by: 64) {
      pem += String(decoding: characters[start..<min(start + 64, characters.count)], as: UTF8.self) + "\n"
    }
    pem += "-----END \(label)-----\n"
    return Normalised(label: label, body: body, pem: pem)
  }

  private static func trimmed(_ line: ArraySlice<UInt8>) -> String {
    let words = line.drop { $0 == 32 || $0 == 9 }
    return String(decoding: words, as: UTF8.self)
  }

  private static func index(of needle: [UInt8], in text: [UInt8], from start: Int) -> Int? {
    guard text.count >= needle.count, start <= text.count - needle.count else { return nil }
    return (start...(text.count - needle.count)).first { text[$0..<($0 + needle.count)].elementsEqual(needle) }
  }

  private static func replaceAll(_ text: String, _ needle: String, _ replacement: String) -> String {
    let bytes = Array(text.utf8)
    let wanted = Array(needle.utf8)
    var result: [UInt8] = []
    var position = 0
    while position < bytes.count {
      if position + wanted.count <= bytes.count, bytes[position..<(position + wanted.count)].elementsEqual(wanted) {
        result.append(contentsOf: replacement.utf8)
        position += wanted.count
      } else {
        result.append(bytes[position])
        position += 1
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}

/// `openssh-key-v1` (OpenSSH's PROTOCOL.key).
struct OpenSSHContainer: Sendable {
  let cipher: String
  let kdf: String
  private let kdfOptions: [UInt8]
  let publicBlob: [UInt8]
  private let secret: [UInt8]
  /// The authentication tag of an AEAD cipher, which follows the encrypted part.
  private let tail: [UInt8]

  init?(_ data: [UInt8]) {
    let magic = Array("openssh-key-v1\0".utf8)
    guard data.starts(with: magic) else { return nil }
    var reader = SSHReader(data[magic.count...])
    guard let cipher = reader.text(), let kdf = reader.text(), let options = reader.string(), reader.number() == 1,
      let blob = reader.string(), let secret = reader.string()
    else { return nil }
    self.cipher = cipher
    self.kdf = kdf
    kdfOptions = options
    publicBlob = blob
    self.secret = secret
    tail = Array(reader.rest)
  }

  func open(passphrase: [UInt8]?) throws(PrivateKeyFile.Fault) -> PrivateKey {
    var plain = secret
    if cipher != "none" {
      guard let passphrase, !passphrase.isEmpty else { throw .passphrase }
      plain = try decrypt(passphrase)
    }
    var reader = SSHReader(plain)
    guard let first = reader.number(), let second = reader.number() else { throw .notAKey }
    // The same random number twice: the sign that decryption has worked.
    guard first == second else { throw cipher == "none" ? .notAKey : .passphrase }
    guard let type = reader.text() else { throw .notAKey }
    guard let handle = Self.key(type, &reader) else { throw .unsupported("its type is \(type)") }
    guard let key = PrivateKey(owning: handle) else { throw .notAKey }
    return key
  }

  private func decrypt(_ passphrase: [UInt8]) throws(PrivateKeyFile.Fault) -> [UInt8] {
    let method: (evp: OpaquePointer?, keyLength: Int, ivLength: Int)
    switch cipher {
    case "aes128-ctr": method = (EVP_aes_128_ctr(), 16, 16)
    case "aes192-ctr": method = (EVP_aes_192_ctr(), 24, 16)
    case "aes256-ctr": method = (EVP_aes_256_ctr(), 32, 16)
    case "aes128-cbc": method = (EVP_aes_128_cbc(), 16, 16)
    case "aes256-cbc": method = (EVP_aes_256_cbc(), 32, 16)
    case "aes128-gcm@openssh.com": method = (EVP_aes_128_gcm(), 16, 12)
    case "aes256-gcm@openssh.com": method = (EVP_aes_256_gcm(), 32, 12)
    default: throw .unsupported("it is encrypted with \(cipher)")
    }
    var options = SSHReader(kdfOptions)
    guard kdf == "bcrypt", let salt = options.string(), let rounds = options.number(), rounds > 0, rounds <= 1 << 16
    else {
      throw .unsupported("its passphrase is derived by \(kdf)")
    }
    let derived = bcryptPBKDF(passphrase, salt: salt, rounds: Int(rounds), count: method.keyLength + method.ivLength)
    let key = Array(derived[..<method.keyLength])
    let iv = Array(derived[method.keyLength...])
    guard let context = EVP_CIPHER_CTX_new() else { throw .notAKey }
    defer { EVP_CIPHER_CTX_free(context) }
    var plain = [UInt8](repeating: 0, count: secret.count + 32)
    var count: Int32 = 0
    guard EVP_DecryptInit_ex(context, method.evp, nil, key, iv) == 1, EVP_CIPHER_CTX_set_padding(context, 0) == 1,
      EVP_DecryptUpdate(context, &plain, &count, secret, Int32(secret.count)) == 1
    else { throw .passphrase }
    plain.removeLast(plain.count - Int(count))
    if cipher.contains("gcm") {
      var tag = tail
      var rest = [UInt8](repeating: 0, count: 32)
      guard tag.count == 16, EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, &tag) == 1,
        EVP_DecryptFinal_ex(context, &rest, &count) == 1
      else { throw .passphrase }
    }
    return plain
  }

  /// The numbers of a key as an OpenSSL key, by way of DER.
  private static func key(_ type: String, _ reader: inout SSHReader) -> OpaquePointer? {
    switch type {
    case "ssh-ed25519":
      guard reader.string() != nil, let pair = reader.string(), pair.count == 64 else { return nil }
      return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nil, pair, 32)
    case "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521":
      guard reader.string() != nil, let point = reader.string(), let scalar = reader.string() else { return nil }
      let curves: [String: (oid: [UInt8], size: Int)] = [
        "ecdsa-sha2-nistp256": ([0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], 32),
        "ecdsa-sha2-nistp384": ([0x2b, 0x81, 0x04, 0x00, 0x22], 48),
        "ecdsa-sha2-nistp521": ([0x2b, 0x81, 0x04, 0x00, 0x23], 66),
      ]
      let curve = curves[type]!
      let digits = Array(scalar.drop { $0 == 0 })
      guard digits.count <= curve.size else { return nil }
      let padded = [UInt8](repeating: 0, count: curve.size - digits.count) + digits
      // ECPrivateKey (RFC 5915)
      return read(
        EVP_PKEY_EC,
        DER.element(
          0x30,
          DER.integer([1]) + DER.element(0x04, padded) + DER.element(0xa0, DER.element(0x06, curve.oid))
            + DER.element(0xa1, DER.element(0x03, [0] + point))))
    case "ssh-rsa":
      guard let n = reader.string(), let e = reader.string(), let d = reader.string(), let inverse = reader.string(),
        let p = reader.string(), let q = reader.string(), let dp = remainder(d, lessOne: p),
        let dq = remainder(d, lessOne: q)
      else { return nil }
      // RSAPrivateKey (RFC 8017, A.1.2)
      return read(EVP_PKEY_RSA, DER.element(0x30, [[0], n, e, d, p, q, dp, dq, inverse].flatMap(DER.integer)))
    default: return nil
    }
  }

  private static func read(_ type: Int32, _ der: [UInt8]) -> OpaquePointer? {
    der.withUnsafeBufferPointer { buffer in
      var position = buffer.baseAddress
      return d2i_PrivateKey(type, nil, &position, buffer.count)
    }
  }

  /// `value` mod (`modulus` − 1).
  private static func remainder(_ value: [UInt8], lessOne modulus: [UInt8]) -> [UInt8]? {
    guard let context = BN_CTX_secure_new() else { return nil }
    defer { BN_CTX_free(context) }
    let a = BN_bin2bn(value, Int32(value.count), nil)
    let m = BN_bin2bn(modulus, Int32(modulus.count), nil)
    defer {
      BN_clear_free(a)
      BN_clear_free(m)
    }
    guard let a, let m, BN_sub_word(m, 1) == 1, BN_nnmod(a, a, m, context) == 1 else { return nil }
    var bytes = [UInt8](repeating: 0, count: modulus.count)
    let count = BN_bn2bin(a, &bytes)
    return Array(bytes.prefix(Int(count)))
  }
}

import COpenSSL

/// A private key that is open: signs for its public key. OpenSSL does the arithmetic.
///
/// Sendable because the EVP_PKEY isn't changed any more, and each signature has a context of its own.
final class PrivateKey: @unchecked Sendable {
  let publicBlob: [UInt8]
  /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, …, `ssh-rsa`.
  let type: String
  private let handle: OpaquePointer

  /// Takes the handle over. nil if it is of a kind that SSH doesn't know.
  init?(owning handle: OpaquePointer) {
    guard let (type, blob) = Self.describe(handle) else {
      EVP_PKEY_free(handle)
      return nil
    }
    self.handle = handle
    self.type = type
    publicBlob = blob
  }

  deinit { EVP_PKEY_free(handle) }

  private static func describe(_ key: OpaquePointer) -> (String, [UInt8])? {
    var blob = SSHWriter()
    switch EVP_PKEY_get_base_id(key) {
    case EVP_PKEY_ED25519:
      var raw = [UInt8](repeating: 0, count: 32)
      var count = 32
      guard EVP_PKEY_get_raw_public_key(key, &raw, &count) == 1, count == 32 else { return nil }
      blob.string("ssh-ed25519")
      blob.string(raw)
      return ("ssh-ed25519", blob.bytes)
    case EVP_PKEY_EC:
      let curves = ["prime256v1": "nistp256", "secp384r1": "nistp384", "secp521r1": "nistp521"]
      var name = [CChar](repeating: 0, count: 64)
      var length = 0
      guard EVP_PKEY_get_group_name(key, &name, name.count, &length) == 1, let point = encodedPublicKey(key),
        let curve = curves[String(decoding: name.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)]
      else { return nil }
      blob.string("ecdsa-sha2-" + curve)
      blob.string(curve)
      blob.string(point)
      return ("ecdsa-sha2-" + curve, blob.bytes)
    case EVP_PKEY_RSA:
      // RSAPublicKey ::= SEQUENCE { modulus, publicExponent } (RFC 8017, A.1.1)
      guard let der = encodedPublicKey(key) else { return nil }
      var reader = DERReader(der[...])
      guard var sequence = reader.sequence(), let modulus = sequence.integer(), let exponent = sequence.integer() else {
        return nil
      }
      blob.string("ssh-rsa")
      blob.mpint(exponent)
      blob.mpint(modulus)
      return ("ssh-rsa", blob.bytes)
    default: return nil
    }
  }

  private static func encodedPublicKey(_ key: OpaquePointer) -> [UInt8]? {
    var output: UnsafeMutablePointer<UInt8>?
    let count = i2d_PublicKey(key, &output)
    guard count > 0, let output else { return nil }
    defer { CRYPTO_free(output, nil, 0) }
    return [UInt8](UnsafeBufferPointer(start: output, count: Int(count)))
  }

  /// The signature proper (RFC 4253, 6.6; 5656, 3.1.2; 8332; 8709), without its algorithm's name.
  func sign(_ data: [UInt8], algorithm: String) -> [UInt8]? {
    let digest: OpaquePointer?
    switch algorithm {
    case "ssh-ed25519": digest = nil
    case "ecdsa-sha2-nistp256", "rsa-sha2-256": digest = EVP_sha256()
    case "ecdsa-sha2-nistp384": digest = EVP_sha384()
    case "ecdsa-sha2-nistp521", "rsa-sha2-512": digest = EVP_sha512()
    default: return nil  // ssh-rsa is SHA-1
    }
    guard let context = EVP_MD_CTX_new() else { return nil }
    defer { EVP_MD_CTX_free(context) }
    var count = 0
    guard EVP_DigestSignInit(context, nil, digest, nil, handle) == 1,
      EVP_DigestSign(context, nil, &count, data, data.count) == 1
    else { return nil }
    var signature = [UInt8](repeating: 0, count: count)
    guard EVP_DigestSign(context, &signature, &count, data, data.count) == 1 else { return nil }
    signature.removeLast(signature.count - count)
    guard algorithm.hasPrefix("ecdsa") else { return signature }
    // ECDSA-Sig-Value ::= SEQUENCE { r, s } becomes two mpints.
    var reader = DERReader(signature[...])
    guard var sequence = reader.sequence(), let r = sequence.integer(), let s = sequence.integer() else { return nil }
    var writer = SSHWriter()
    writer.mpint(r)
    writer.mpint(s)
    return writer.bytes
  }
}

/// As much of DER (X.690) as keys and signatures need.
struct DERReader {
  private var rest: ArraySlice<UInt8>
  init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

  private mutating func element(_ tag: UInt8) -> ArraySlice<UInt8>? {
    guard rest.popFirst() == tag, var count = rest.popFirst().map(Int.init) else { return nil }
    if count >= 0x80 {
      let digits = rest.prefix(count & 0x7f)
      guard digits.count == count & 0x7f, digits.count <= 4 else { return nil }
      count = digits.reduce(0) { $0 << 8 | Int($1) }
      rest = rest.dropFirst(digits.count)
    }
    guard rest.count >= count else { return nil }
    defer { rest = rest.dropFirst(count) }
    return rest.prefix(count)
  }

  mutating func sequence() -> DERReader? { element(0x30).map(DERReader.init) }
  mutating func integer() -> [UInt8]? { element(0x02).map(Array.init) }
}

enum DER {
  static func element(_ tag: UInt8, _ content: [UInt8]) -> [UInt8] {
    var length: [UInt8] = []
    if content.count < 0x80 {
      length = [UInt8(content.count)]
    } else {
      var count = content.count
      while count > 0 {
        length.insert(UInt8(count & 0xff), at: 0)
        count >>= 8
      }
      length.insert(0x80 | UInt8(length.count), at: 0)
    }
    return [tag] + length + content
  }

  static func integer(_ value: [UInt8]) -> [UInt8] {
    let digits = value.drop { $0 == 0 }
    if digits.isEmpty { return element(0x02, [0]) }
    return element(0x02, (digits.first! >= 0x80 ? [0] : []) + digits)
  }
}

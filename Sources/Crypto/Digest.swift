import COpenSSL

/// A hash of libcrypto's at work. A value has one owner and may be moved between threads, but not be used by two at once.
/// The only ways in which libcrypto can fail here are no memory and a broken installation: both end the program.
private struct DigestContext: ~Copyable, @unchecked Sendable {
  private let context: OpaquePointer

  init(_ algorithm: OpaquePointer?) {
    // EVP_MD_CTX_new(3): NULL only without memory; EVP_DigestInit_ex: 1 for success.
    guard let context = EVP_MD_CTX_new(), EVP_DigestInit_ex(context, algorithm, nil) == 1 else {
      fatalError("libcrypto gives no hash: \(openSSLErrors())")
    }
    self.context = context
  }

  deinit { EVP_MD_CTX_free(context) }

  mutating func update(_ bytes: UnsafeRawBufferPointer) {
    guard let base = bytes.baseAddress else { return }
    precondition(EVP_DigestUpdate(context, base, bytes.count) == 1, "EVP_DigestUpdate failed")
  }

  consuming func finalize(_ count: Int) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: count)
    var length: UInt32 = 0
    precondition(EVP_DigestFinal_ex(context, &digest, &length) == 1 && length == count, "EVP_DigestFinal_ex failed")
    return digest
  }
}

/// SHA-256 (FIPS 180-4), one shot or streaming, by libcrypto.
public struct SHA256: ~Copyable, Sendable {
  public static let byteCount = 32

  private var context = DigestContext(EVP_sha256())

  public init() {}

  public mutating func update(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { context.update($0) }
  }

  public mutating func update(_ bytes: UnsafeRawBufferPointer) { context.update(bytes) }

  /// The 32 bytes of the digest.
  public consuming func finalize() -> [UInt8] { context.finalize(Self.byteCount) }

  /// The digest of `bytes`.
  public static func hash(_ bytes: [UInt8]) -> [UInt8] {
    var hash = SHA256()
    hash.update(bytes)
    return hash.finalize()
  }

  /// The digest of `bytes` as 64 lowercase hex digits.
  public static func hex(_ bytes: [UInt8]) -> String { Hex.encode(hash(bytes)) }
}

/// SHA-512 (FIPS 180-4), one shot or streaming, by libcrypto.
public struct SHA512: ~Copyable, Sendable {
  public static let byteCount = 64

  private var context = DigestContext(EVP_sha512())

  public init() {}

  public mutating func update(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { context.update($0) }
  }

  /// The 64 bytes of the digest.
  public consuming func finalize() -> [UInt8] { context.finalize(Self.byteCount) }

  /// The digest of `bytes`.
  public static func hash(_ bytes: [UInt8]) -> [UInt8] {
    var hash = SHA512()
    hash.update(bytes)
    return hash.finalize()
  }
}

/// HMAC with SHA-256 (RFC 2104, FIPS 198-1).
public enum HMACSHA256 {
  /// The 32 bytes of the code. A key may have any length.
  public static func authenticate(_ message: [UInt8], key: [UInt8]) -> [UInt8] {
    var code = [UInt8](repeating: 0, count: SHA256.byteCount)
    var length = 0
    // HMAC pads a key with zero bytes (RFC 2104, 2), so a single zero is the empty key, for which EVP_Q_mac has no
    // pointer.
    let key = key.isEmpty ? [0] : key
    // EVP_Q_mac(3): returns the output, or NULL on failure.
    let result = EVP_Q_mac(
      nil, "HMAC", nil, "SHA256", nil, key, key.count, message, message.count, &code, code.count, &length)
    guard result != nil, length == SHA256.byteCount else {
      fatalError("libcrypto gives no HMAC-SHA256: \(openSSLErrors())")
    }
    return code
  }
}

/// Whether both hold the same bytes, in a time that depends on their lengths only (CRYPTO_memcmp(3)).
public func constantTimeEquals(_ left: [UInt8], _ right: [UInt8]) -> Bool {
  guard left.count == right.count else { return false }
  return left.isEmpty || CRYPTO_memcmp(left, right, left.count) == 0
}

/// Text of libcrypto's error queue of this thread, which it empties.
func openSSLErrors() -> String {
  var lines: [String] = []
  while true {
    let code = ERR_get_error()
    if code == 0 { break }
    var buffer = [CChar](repeating: 0, count: 256)
    ERR_error_string_n(code, &buffer, buffer.count)
    lines.append(String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
  }
  return lines.isEmpty ? "no reason given" : lines.joined(separator: "; ")
}

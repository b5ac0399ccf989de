import COpenSSL

/// What a server of SCRAM-SHA-256 (RFC 5802, RFC 7677) keeps of a password, in PostgreSQL's form (pg_authid.rolpassword): with it PostgreSQL knows
/// the password without ever having seen it.
public enum SCRAMVerifier {
  public static let iterations = 4096
  public static let saltCount = 16

  /// `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`. Nil for a password of other characters than printable ASCII: those a client prepares by SASLprep
  /// (RFC 4013) first, which is not done here.
  public static func make(password: String, salt: [UInt8], iterations: Int = Self.iterations) -> String? {
    let bytes = Array(password.utf8)
    guard !bytes.isEmpty, bytes.allSatisfy({ (0x20...0x7e).contains($0) }) else { return nil }
    let salted = pbkdf2(bytes, salt: salt, iterations: iterations)
    let clientKey = HMACSHA256.authenticate(Array("Client Key".utf8), key: salted)
    let serverKey = HMACSHA256.authenticate(Array("Server Key".utf8), key: salted)
    let stored = Base64.encode(SHA256.hash(clientKey))
    return "SCRAM-SHA-256$\(iterations):\(Base64.encode(salt))$\(stored):\(Base64.encode(serverKey))"
  }

  /// PBKDF2 with HMAC-SHA-256 (RFC 8018, 5.2), which is Hi() of RFC 5802.
  private static func pbkdf2(_ password: [UInt8], salt: [UInt8], iterations: Int) -> [UInt8] {
    var key = [UInt8](repeating: 0, count: SHA256.byteCount)
    let status = password.withUnsafeBytes { buffer in
      // PKCS5_PBKDF2_HMAC(3): 1 for success.
      PKCS5_PBKDF2_HMAC(
        buffer.bindMemory(to: CChar.self).baseAddress, Int32(password.count), salt, Int32(salt.count),
        Int32(iterations), EVP_sha256(), Int32(key.count), &key)
    }
    guard status == 1 else { fatalError("libcrypto gives no PBKDF2: \(openSSLErrors())") }
    return key
  }
}

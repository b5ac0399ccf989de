import COpenSSL

/// HKDF with SHA-256 (RFC 5869).
///
/// On libcrypto's HMAC: its own HKDF refuses an empty input, which ssh-ed25519 stanzas of age have.
public enum HKDFSHA256 {
  /// `count` bytes, at most 8,160. Precondition: not more.
  public static func derive(from input: [UInt8], salt: [UInt8], info: [UInt8], count: Int = 32) -> [UInt8] {
    precondition((0...255 * SHA256.byteCount).contains(count), "HKDF: too much is wanted")
    // Without a salt: as many zeroes as the hash is long (2.2), which is what HMAC makes of an empty key.
    let extracted = HMACSHA256.authenticate(input, key: salt)
    var output: [UInt8] = [], block: [UInt8] = [], counter: UInt8 = 0
    while output.count < count {
      counter += 1
      block = HMACSHA256.authenticate(block + info + [counter], key: extracted)
      output += block
    }
    return Array(output.prefix(count))
  }
}

/// scrypt (RFC 7914): a key from a passphrase, at a price of time and memory.
public enum Scrypt {
  /// Nil if the parameters aren't allowed (cost: a power of two above 1) or want more than `memoryLimit` bytes.
  public static func derive(
    from passphrase: [UInt8], salt: [UInt8], cost: UInt64, blockSize: UInt64 = 8, parallelism: UInt64 = 1,
    count: Int = 32, memoryLimit: UInt64 = 1 << 30
  ) -> [UInt8]? {
    guard count > 0 else { return [] }
    var key = [UInt8](repeating: 0, count: count)
    // EVP_PBE_scrypt(3): no pointer for the empty passphrase would mean another thing.
    let bytes = passphrase.isEmpty ? [0] : passphrase.map { CChar(bitPattern: $0) }
    guard
      EVP_PBE_scrypt(
        bytes, passphrase.count, salt.isEmpty ? [0] : salt, salt.count, cost, blockSize, parallelism, memoryLimit, &key,
        count) == 1
    else {
      ERR_clear_error()
      return nil
    }
    return key
  }
}

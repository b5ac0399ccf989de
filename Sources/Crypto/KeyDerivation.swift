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

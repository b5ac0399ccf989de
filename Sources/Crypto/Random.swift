import COpenSSL

/// Randomness by libcrypto's generator, which seeds itself from the kernel (RAND_bytes(3)). Safe to use from any
/// thread.
public enum SecureRandom {
  /// Thrown when the generator has no entropy to give: nothing may be derived then.
  public struct Unavailable: Error, Sendable, Equatable {
    public var message: String
  }

  public static func bytes(_ count: Int) throws(Unavailable) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    guard count > 0 else { return bytes }
    guard let length = Int32(exactly: count), RAND_bytes(&bytes, length) == 1 else {
      throw Unavailable(message: "libcrypto gives no random bytes: \(openSSLErrors())")
    }
    return bytes
  }

  static let alphabet = [UInt8]("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8)

  /// Text of `length` letters and digits `[A-Za-z0-9]`, each equally likely (5.95 bits per character): safe in URLs,
  /// shells and dotenv files without quoting.
  public static func text(_ length: Int) throws(Unavailable) -> String {
    var out: [UInt8] = []
    out.reserveCapacity(length)
    while out.count < length {
      for byte in try bytes(length - out.count + 16) where out.count < length {
        if let character = character(for: byte) { out.append(character) }
      }
    }
    return String(decoding: out, as: UTF8.self)
  }

  /// The character for a random byte, or nil for the bytes of the last, incomplete run of the alphabet, which would
  /// make its first characters likelier.
  static func character(for byte: UInt8) -> UInt8? {
    let limit = 256 / alphabet.count * alphabet.count
    return Int(byte) < limit ? alphabet[Int(byte) % alphabet.count] : nil
  }
}

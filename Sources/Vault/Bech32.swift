/// Bech32 (BIP 173) as age writes its keys: without the limit of 90 characters, with five bits packed into bytes.
enum Bech32 {
  private static let alphabet = Array("qpzry9x8gf2tvdw0s3jn54khce6mua7l".utf8)

  /// `prefix` in lower case.
  static func encode(prefix: String, _ bytes: [UInt8]) -> String {
    let values = regroup(bytes, from: 8, to: 5, padded: true)!
    let sum = polymod(expanded(prefix) + values + [0, 0, 0, 0, 0, 0]) ^ 1
    let check = (0..<6).map { UInt8(sum >> (5 * (5 - $0)) & 31) }
    return prefix + "1" + String(decoding: (values + check).map { alphabet[Int($0)] }, as: UTF8.self)
  }

  /// Prefix (in lower case) and bytes; nil for a wrong checksum, mixed case, other characters, or bits left over.
  static func decode(_ text: String) -> (prefix: String, bytes: [UInt8])? {
    let characters = Array(text.utf8)
    guard characters.count <= 1000, characters.allSatisfy({ (33...126).contains($0) }) else { return nil }
    let isUpper = characters.contains { (65...90).contains($0) }
    let isLower = characters.contains { (97...122).contains($0) }
    guard !(isUpper && isLower) else { return nil }
    let lowered = characters.map { (65...90).contains($0) ? $0 + 32 : $0 }
    guard let separator = lowered.lastIndex(of: UInt8(ascii: "1")), separator > 0, lowered.count - separator > 6 else {
      return nil
    }
    var values: [UInt8] = []
    for character in lowered[(separator + 1)...] {
      guard let value = alphabet.firstIndex(of: character) else { return nil }
      values.append(UInt8(value))
    }
    let prefix = String(decoding: lowered[..<separator], as: UTF8.self)
    guard polymod(expanded(prefix) + values) == 1,
      let bytes = regroup(Array(values.dropLast(6)), from: 5, to: 8, padded: false)
    else { return nil }
    return (prefix, bytes)
  }

  private static func expanded(_ prefix: String) -> [UInt8] {
    prefix.utf8.map { $0 >> 5 } + [0] + prefix.utf8.map { $0 & 31 }
  }

  private static func polymod(_ values: [UInt8]) -> UInt32 {
    let generator: [UInt32] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3]
    var sum: UInt32 = 1
    for value in values {
      let top = sum >> 25
      sum = (sum & 0x1ff_ffff) << 5 ^ UInt32(value)
      for bit in 0..<5 where top >> bit & 1 == 1 { sum ^= generator[bit] }
    }
    return sum
  }

  private static func regroup(_ values: [UInt8], from: Int, to: Int, padded: Bool) -> [UInt8]? {
    var buffer: UInt32 = 0, bits = 0
    var out: [UInt8] = []
    let mask: UInt32 = 1 << to - 1
    for value in values {
      buffer = (buffer << from | UInt32(value)) & 0xfff
      bits += from
      while bits >= to {
        bits -= to
        out.append(UInt8(buffer >> bits & mask))
      }
    }
    if padded {
      if bits > 0 { out.append(UInt8(buffer << (to - bits) & mask)) }
    } else {
      guard bits < from, buffer & (1 << bits - 1) == 0 else { return nil }
    }
    return out
  }
}

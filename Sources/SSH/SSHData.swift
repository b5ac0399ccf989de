/// Reads the protocol's data types (RFC 4251, section 5). Each method returns nil when the bytes don't suffice.
struct SSHReader {
  private(set) var rest: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) { rest = bytes[...] }
  init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

  mutating func byte() -> UInt8? { rest.popFirst() }

  mutating func number() -> UInt32? {
    guard rest.count >= 4 else { return nil }
    let value = rest.prefix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    rest = rest.dropFirst(4)
    return value
  }

  mutating func bytes(_ count: Int) -> [UInt8]? {
    guard count >= 0, rest.count >= count else { return nil }
    defer { rest = rest.dropFirst(count) }
    return Array(rest.prefix(count))
  }

  mutating func string() -> [UInt8]? {
    guard let count = number() else { return nil }
    return bytes(Int(count))
  }

  mutating func text() -> String? { string().map { String(decoding: $0, as: UTF8.self) } }
}

/// Writes the protocol's data types (RFC 4251, section 5).
struct SSHWriter {
  private(set) var bytes: [UInt8] = []

  mutating func byte(_ value: UInt8) { bytes.append(value) }
  mutating func number(_ value: UInt32) { withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) } }
  mutating func string(_ value: some Collection<UInt8>) {
    number(UInt32(value.count))
    bytes.append(contentsOf: value)
  }
  mutating func string(_ value: String) { string(Array(value.utf8)) }
  /// An unsigned number as mpint: no leading zeros but the one that keeps it positive.
  mutating func mpint(_ value: some Collection<UInt8>) {
    let digits = value.drop { $0 == 0 }
    string((digits.first ?? 0) >= 0x80 ? [0] + Array(digits) : Array(digits))
  }
}

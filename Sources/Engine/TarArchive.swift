/// A tar stream in the ustar format (POSIX.1-2017, pax, "ustar Interchange Format"): regular files and directories, owner and time left at zero so
/// that the same content gives the same bytes.
public struct TarArchive: Sendable {
  public private(set) var bytes: [UInt8] = []

  public init() {}

  /// Throws nothing: a path of over 255 bytes, or one that can't be split at a slash, is a defect of the caller's (`canHold`).
  public mutating func add(file path: String, mode: Int = 0o600, _ content: [UInt8]) {
    header(path, mode: mode, size: content.count, type: UInt8(ascii: "0"))
    bytes += content
    bytes += [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
  }

  public mutating func add(directory path: String, mode: Int = 0o700) {
    header(path.hasSuffix("/") ? path : path + "/", mode: mode, size: 0, type: UInt8(ascii: "5"))
  }

  /// Everything that the other one holds.
  public mutating func add(_ other: TarArchive) { bytes += other.bytes }

  /// The stream with its end mark: two blocks of zeros.
  public func finished() -> [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }

  /// Whether the format has room for the path.
  public static func canHold(path: String) -> Bool { split(path) != nil }

  private static func split(_ path: String) -> (prefix: [UInt8], name: [UInt8])? {
    let all = Array(path.utf8)
    if all.count <= 100 { return ([], all) }
    for (index, byte) in all.enumerated().reversed() where byte == UInt8(ascii: "/") && index > 0 {
      let prefix = Array(all[..<index]), name = Array(all[(index + 1)...])
      if prefix.count <= 155, (1...100).contains(name.count) { return (prefix, name) }
    }
    return nil
  }

  private mutating func header(_ path: String, mode: Int, size: Int, type: UInt8) {
    guard let (prefix, name) = Self.split(path) else { preconditionFailure("path too long for tar: \(path)") }
    var block = [UInt8](repeating: 0, count: 512)
    func put(_ text: [UInt8], _ offset: Int) { block.replaceSubrange(offset..<offset + text.count, with: text) }
    func octal(_ value: Int, _ width: Int) -> [UInt8] {
      let digits = Array(String(value, radix: 8).utf8)
      return [UInt8](repeating: UInt8(ascii: "0"), count: width - 1 - digits.count) + digits + [0]
    }
    put(name, 0)
    put(octal(mode, 8), 100)
    put(octal(0, 8), 108)
    put(octal(0, 8), 116)
    put(octal(size, 12), 124)
    put(octal(0, 12), 136)
    put([UInt8](repeating: 0x20, count: 8), 148)
    block[156] = type
    put(Array("ustar".utf8) + [0] + Array("00".utf8), 257)
    put(prefix, 345)
    let sum = block.reduce(0) { $0 + Int($1) }
    put(octal(sum, 7) + [0x20], 148)
    bytes += block
  }
}

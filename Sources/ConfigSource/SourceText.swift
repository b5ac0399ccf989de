public import Diagnostics

/// The text of a file with its name as users know it. Line ends are `\n`; no byte order mark.
public struct SourceText: Sendable, Equatable {
  public let file: String
  public let text: String

  /// For text that is known to be good.
  public init(file: String, text: String) {
    self.file = file
    self.text = text
  }

  /// The biggest configuration file that is read, in bytes.
  public static let sizeLimit = 256 * 1024

  /// Checks size, encoding and control characters. Reports the first fault of that kind, and answers nil.
  public init?(file: String, bytes: [UInt8], diagnostics: DiagnosticCollector) {
    diagnostics.announce(file: file)
    guard bytes.count <= Self.sizeLimit else {
      diagnostics.error(
        at: SourceLocation(file: file, line: 1, column: 1),
        "the file has \(bytes.count) bytes; the limit is \(Self.sizeLimit)", help: "is it the right file?")
      return nil
    }
    if bytes.starts(with: [0xFF, 0xFE]) || bytes.starts(with: [0xFE, 0xFF]) {
      diagnostics.error(
        at: SourceLocation(file: file, line: 1, column: 1), "the file is UTF-16, expected UTF-8",
        help: "save it as UTF-8: iconv -f UTF-16 -t UTF-8")
      return nil
    }
    var text = String.UnicodeScalarView()
    var line = 1, column = 1
    var decoder = UTF8()
    var iterator = bytes.makeIterator()
    var afterReturn = false
    func location() -> SourceLocation { SourceLocation(file: file, line: line, column: column) }
    decoding: while true {
      switch decoder.decode(&iterator) {
      case .emptyInput: break decoding
      case .error:
        diagnostics.error(at: location(), "the file isn't valid UTF-8 here", help: "save it as UTF-8")
        return nil
      case .scalarValue(let scalar):
        if scalar == "\u{FEFF}", text.isEmpty { continue }
        if afterReturn, scalar == "\n" {
          afterReturn = false
          continue
        }
        afterReturn = scalar == "\r"
        guard isAllowed(scalar) else {
          let code = String(scalar.value, radix: 16, uppercase: true)
          diagnostics.error(
            at: location(), "control character U+\(String(repeating: "0", count: max(0, 4 - code.count)))\(code)",
            help: "remove it")
          return nil
        }
        text.append(afterReturn ? "\n" : scalar)
        if isLineBreak(scalar) {
          line += 1
          column = 1
        } else {
          column += 1
        }
      }
    }
    self.file = file
    self.text = String(text)
  }

  public func location(line: Int, column: Int) -> SourceLocation {
    SourceLocation(file: file, line: line, column: column)
  }
}

/// YAML 1.1's line breaks, by which libyaml counts lines.
func isLineBreak(_ scalar: Unicode.Scalar) -> Bool {
  scalar == "\n" || scalar == "\r" || scalar == "\u{85}" || scalar == "\u{2028}" || scalar == "\u{2029}"
}

/// YAML 1.1's printable characters (5.1): what libyaml's reader accepts.
private func isAllowed(_ scalar: Unicode.Scalar) -> Bool {
  switch scalar.value {
  case 0x09, 0x0A, 0x0D, 0x85: true
  case 0x20...0x7E, 0xA0...0xD7FF, 0xE000...0xFFFD, 0x10000...0x10FFFF: true
  default: false
  }
}

extension SourceText {
  /// The place of a line and column in the text (both from 1), if there is one.
  func index(line: Int, column: Int) -> String.UnicodeScalarView.Index? {
    let scalars = text.unicodeScalars
    var index = scalars.startIndex, current = 1
    while current < line {
      guard index < scalars.endIndex else { return nil }
      if isLineBreak(scalars[index]) { current += 1 }
      index = scalars.index(after: index)
    }
    return scalars.index(index, offsetBy: column - 1, limitedBy: scalars.endIndex)
  }

  func line(_ number: Int) -> String {
    guard let start = index(line: number, column: 1) else { return "" }
    return String(String.UnicodeScalarView(text.unicodeScalars[start...].prefix { !isLineBreak($0) }))
  }
}

import ConfigSource
public import Diagnostics

/// A value of a vault with SOPS' type. Its description doesn't show it.
public struct VaultValue: Sendable, Equatable, CustomStringConvertible, CustomReflectable {
  public enum Kind: String, Sendable, Codable, CaseIterable { case str, int, float, bool, bytes, time }

  public let kind: Kind
  /// As SOPS encrypts it and counts it into the MAC: numbers in decimal, booleans as `True` and `False`.
  let bytes: [UInt8]

  public init(_ text: String) {
    kind = .str
    bytes = Array(text.utf8)
  }

  init(_ number: Int) {
    kind = .int
    bytes = Array(String(number).utf8)
  }

  init(_ flag: Bool) {
    kind = .bool
    bytes = Array((flag ? "True" : "False").utf8)
  }

  init(_ number: Double) {
    kind = .float
    bytes = Array(Self.decimal(number).utf8)
  }

  /// What was decrypted, brought to the form in which it counts into the MAC. Nil if it isn't of its type.
  init?(kind: Kind, plaintext: [UInt8]) {
    let text = String(validating: plaintext, as: UTF8.self)
    switch kind {
    case .bytes, .str: break
    case .time: guard text != nil else { return nil }
    case .int:
      guard let text, let number = Int(text), !text.hasPrefix("+") else { return nil }
      self.init(number)
      return
    case .float:
      guard let text, let number = Double(text), number.isFinite else { return nil }
      self.init(number)
      return
    case .bool:
      guard let text else { return nil }
      if ["1", "t", "T", "true", "TRUE", "True"].contains(text) {
        self.init(true)
      } else if ["0", "f", "F", "false", "FALSE", "False"].contains(text) {
        self.init(false)
      } else {
        return nil
      }
      return
    }
    self.init(kind, plaintext)
  }

  private init(_ kind: Kind, _ bytes: [UInt8]) {
    self.kind = kind
    self.bytes = bytes
  }

  init(time: String) {
    kind = .time
    bytes = Array(time.utf8)
  }

  /// The text that an env file gets, booleans as `true` and `false`. Nil for bytes that aren't UTF-8.
  public var text: Secret? {
    guard let text = String(validating: bytes, as: UTF8.self) else { return nil }
    return Secret(kind == .bool ? text.lowercased() : text)
  }

  public var isEmpty: Bool { bytes.isEmpty }

  public var description: String { "********" }
  public var customMirror: Mirror { Mirror(self, children: []) }

  /// The shortest digits that give the number back, without an exponent.
  static func decimal(_ number: Double) -> String {
    let text = number.description
    let sign = text.hasPrefix("-") ? "-" : ""
    let parts = text.drop { $0 == "-" }.split(separator: "e")
    let mantissa = parts[0].split(separator: ".")
    let whole = String(mantissa[0]), fraction = mantissa.count > 1 && mantissa[1] != "0" ? String(mantissa[1]) : ""
    var digits = whole + fraction
    var point = whole.count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0)
    if point <= 0 {
      digits = String(repeating: "0", count: 1 - point) + digits
      point = 1
    }
    if point >= digits.count { return sign + stripped(digits + String(repeating: "0", count: point - digits.count)) }
    let index = digits.index(digits.startIndex, offsetBy: point)
    return sign + stripped(String(digits[..<index])) + "." + digits[index...]
  }

  private static func stripped(_ digits: String) -> String {
    let rest = digits.drop { $0 == "0" }
    return rest.isEmpty ? "0" : String(rest)
  }
}

// MARK: - From YAML

extension VaultValue {
  struct Unreadable: Error {
    var why: String
  }

  /// A scalar that a person wrote. Nil for nothing. Throws for what YAML readers disagree about.
  static func written(_ scalar: YAMLScalar) throws(Unreadable) -> VaultValue? {
    let typed: YAMLScalar.Typed
    do { typed = try scalar.typed() } catch {
      throw Unreadable(why: error.why)
    }
    switch typed {
    case .null: return nil
    case .text(let text): return VaultValue(text)
    case .boolean(let flag): return VaultValue(flag)
    case .number(let number):
      if scalar.text.drop(while: { $0 == "-" }).allSatisfy({ ("0"..."9").contains($0) }) {
        guard let whole = Int(scalar.text) else { throw Unreadable(why: "the number is too big") }
        return VaultValue(whole)
      }
      let value = VaultValue(number), kept = value.text?.reveal() ?? ""
      // With an exponent it is a number to everybody, however it is written.
      guard scalar.text == kept || scalar.text == kept + ".0" || scalar.text.contains(where: { "eE".contains($0) })
      else {
        throw Unreadable(why: "the number would become \(kept): put quotes around it")
      }
      return value
    }
  }

  /// A scalar as SOPS' own YAML reader types it, for values that aren't encrypted: they count into the MAC. Nil for nothing.
  static func asSOPSReads(_ scalar: YAMLScalar) throws(Unreadable) -> VaultValue? {
    let text = scalar.text
    guard scalar.isPlain else { return VaultValue(text) }
    switch text {
    case "", "~", "null", "Null", "NULL": return nil
    case "true", "True", "TRUE": return VaultValue(true)
    case "false", "False", "FALSE": return VaultValue(false)
    default: break
    }
    if let number = try integer(text) { return number }
    if text.wholeMatch(of: /[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?/) != nil,
      let number = Double(text.hasSuffix(".") ? text + "0" : text), number.isFinite
    {
      return VaultValue(number)
    }
    if text.wholeMatch(of: /[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)/) != nil {
      throw Unreadable(why: "infinities aren't supported")
    }
    guard text.firstMatch(of: /^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}/) != nil else { return VaultValue(text) }
    if text.wholeMatch(of: /[0-9]{4}-[0-9]{2}-[0-9]{2}/) != nil { return VaultValue(time: text + "T00:00:00Z") }
    if text.wholeMatch(of: /[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]*[1-9])?Z/) != nil {
      return VaultValue(time: text)
    }
    throw Unreadable(why: "of times only 2026-11-21 and 2026-11-21T09:25:51Z are supported")
  }

  private static func integer(_ text: String) throws(Unreadable) -> VaultValue? {
    let plain = text.filter { $0 != "_" }
    let sign = plain.hasPrefix("-") ? "-" : ""
    var body = plain[...]
    if let first = body.first, first == "-" || first == "+" { body = body.dropFirst() }
    guard let first = body.first, ("0"..."9").contains(first), text.first != "_" else { return nil }
    var radix = 10
    if first == "0", body.count > 1 {
      switch body.dropFirst().first! {
      case "x", "X": (radix, body) = (16, body.dropFirst(2))
      case "o", "O": (radix, body) = (8, body.dropFirst(2))
      case "b", "B": (radix, body) = (2, body.dropFirst(2))
      default: (radix, body) = (8, body.dropFirst())
      }
    }
    guard !body.isEmpty, body.allSatisfy({ $0.isASCII && ($0.hexDigitValue ?? 16) < radix }) else { return nil }
    if let number = Int(sign + body, radix: radix) { return VaultValue(number) }
    if radix == 10 { throw Unreadable(why: "the number is too big") }
    return nil
  }
}

// MARK: - To YAML

enum YAMLText {
  /// A text as a scalar that everybody reads back as that text: plain where it is safe, else as a `|` block (several lines,
  /// not inside brackets), else in double quotes.
  ///
  /// - Parameter column: of the collection that it stands in.
  static func scalar(_ text: String, column: Int, isFlow: Bool) -> String {
    if isSafePlain(text) { return text }
    if !isFlow, let block = block(text, indent: max(column, 0) + 4) { return block }
    return quoted(text)
  }

  static func key(_ text: String) -> String { isSafePlain(text) ? text : quoted(text) }

  static func isSafePlain(_ text: String) -> Bool {
    func isLetter(_ byte: UInt8) -> Bool { (65...90).contains(byte) || (97...122).contains(byte) }
    func isDigit(_ byte: UInt8) -> Bool { (48...57).contains(byte) }
    let bytes = Array(text.utf8)
    guard let first = bytes.first, bytes.count <= 200,
      isLetter(first) || isDigit(first) || first == UInt8(ascii: "_") || first == UInt8(ascii: "/"),
      bytes.allSatisfy({ isLetter($0) || isDigit($0) || "_./@+=-".utf8.contains($0) }),
      // To many readers a time.
      text.firstMatch(of: /^[0-9]{4}-/) == nil, let typed = try? YAMLScalar(text, isPlain: true).typed()
    else { return false }
    return typed == .text(text) && text.lowercased() != "null"
  }

  static func quoted(_ text: String) -> String {
    var out = String.UnicodeScalarView("\"".unicodeScalars)
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\": out.append(contentsOf: ["\\", scalar])
      case "\n": out.append(contentsOf: "\\n".unicodeScalars)
      case "\t": out.append(contentsOf: "\\t".unicodeScalars)
      case "\r": out.append(contentsOf: "\\r".unicodeScalars)
      default:
        if isPrintable(scalar) {
          out.append(scalar)
        } else {
          let hex = String(scalar.value, radix: 16, uppercase: true)
          let (letter, width) = scalar.value < 0x100 ? ("x", 2) : scalar.value < 0x10000 ? ("u", 4) : ("U", 8)
          out.append(
            contentsOf: ("\\" + letter + String(repeating: "0", count: width - hex.count) + hex).unicodeScalars)
        }
      }
    }
    out.append("\"")
    return String(out)
  }

  private static func block(_ text: String, indent: Int) -> String? {
    guard text.contains("\n"), !text.hasSuffix("\n\n"), text != "\n",
      text.unicodeScalars.allSatisfy({ $0 == "\n" || $0 == "\t" || isPrintable($0) })
    else { return nil }
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    let strips = !text.hasSuffix("\n")
    if !strips { lines.removeLast() }
    guard let first = lines.first, let start = first.first, start != " ", start != "\t",
      // What editors strip, and what could be taken for indentation.
      lines.allSatisfy({ $0.last != " " && $0.last != "\t" && $0.first != "\t" })
    else { return nil }
    let space = String(repeating: " ", count: indent)
    return (strips ? "|-" : "|") + lines.map { $0.isEmpty ? "\n" : "\n" + space + $0 }.joined()
  }

  private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x20...0x7E, 0xA0...0x2027, 0x202A...0xD7FF, 0xE000...0xFEFE, 0xFF00...0xFFFD, 0x10000...0x10FFFF: true
    default: false
    }
  }
}

/// A JSON document (RFC 8259). Objects keep the order of their members; of a member that occurs twice the last counts.
public enum JSONValue: Sendable, Equatable {
  case null
  case bool(Bool)
  /// Kept as written, so that no digit is lost.
  case number(String)
  case string(String)
  case array([JSONValue])
  case object(JSONObject)

  public static func int(_ value: some BinaryInteger) -> JSONValue { .number(String(value)) }
}

/// The members of a JSON object, in order.
public struct JSONObject: Sendable, Equatable, ExpressibleByDictionaryLiteral {
  public private(set) var keys: [String] = []
  private var values: [String: JSONValue] = [:]

  public init() {}

  public init(dictionaryLiteral elements: (String, JSONValue)...) {
    for (key, value) in elements { self[key] = value }
  }

  public var isEmpty: Bool { keys.isEmpty }
  public var members: [(key: String, value: JSONValue)] { keys.map { ($0, values[$0]!) } }

  public subscript(key: String) -> JSONValue? {
    get { values[key] }
    set {
      if let newValue {
        if values.updateValue(newValue, forKey: key) == nil { keys.append(key) }
      } else if values.removeValue(forKey: key) != nil {
        keys.removeAll { $0 == key }
      }
    }
  }

  public static func == (left: JSONObject, right: JSONObject) -> Bool { left.values == right.values }
}

extension JSONValue {
  public subscript(key: String) -> JSONValue? {
    if case .object(let object) = self { object[key] } else { nil }
  }
  public subscript(index: Int) -> JSONValue? {
    if case .array(let items) = self, items.indices.contains(index) { items[index] } else { nil }
  }
  /// The value at a path of member names and array indices.
  public subscript(path path: [String]) -> JSONValue? {
    var value = self
    for part in path {
      if let next = value[part] {
        value = next
      } else if case .array = value, let index = Int(part), let next = value[index] {
        value = next
      } else {
        return nil
      }
    }
    return value
  }
  public var stringValue: String? { if case .string(let text) = self { text } else { nil } }
  public var boolValue: Bool? { if case .bool(let flag) = self { flag } else { nil } }
  public var numberValue: Double? { if case .number(let text) = self { Double(text) } else { nil } }
  public var intValue: Int? {
    if case .number(let text) = self { Int(text) ?? Double(text).flatMap { Int(exactly: $0) } } else { nil }
  }
  public var arrayValue: [JSONValue]? { if case .array(let items) = self { items } else { nil } }
  public var objectValue: JSONObject? { if case .object(let object) = self { object } else { nil } }
}

// MARK: - Writing

extension JSONValue {
  /// Compact text; with `sorted`, members in the order of their names (for comparison and hashing).
  public func text(sorted: Bool = false) -> String {
    var out = ""
    write(to: &out, sorted: sorted)
    return out
  }

  private func write(to out: inout String, sorted: Bool) {
    switch self {
    case .null: out += "null"
    case .bool(let flag): out += flag ? "true" : "false"
    case .number(let text): out += text
    case .string(let text): Self.quote(text, to: &out)
    case .array(let items):
      out += "["
      for (index, item) in items.enumerated() {
        if index > 0 { out += "," }
        item.write(to: &out, sorted: sorted)
      }
      out += "]"
    case .object(let object):
      out += "{"
      let keys = sorted ? object.keys.sorted() : object.keys
      for (index, key) in keys.enumerated() {
        if index > 0 { out += "," }
        Self.quote(key, to: &out)
        out += ":"
        object[key]!.write(to: &out, sorted: sorted)
      }
      out += "}"
    }
  }

  private static func quote(_ text: String, to out: inout String) {
    out += "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": out += "\\\""
      case "\\": out += "\\\\"
      case "\n": out += "\\n"
      case "\r": out += "\\r"
      case "\t": out += "\\t"
      case _ where scalar.value < 0x20 || scalar.value == 0x7f:
        let hex = String(scalar.value, radix: 16)
        out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
      default: out.unicodeScalars.append(scalar)
      }
    }
    out += "\""
  }
}

// MARK: - Reading

public struct JSONSyntaxError: Error, Sendable, Equatable {
  /// Byte offset of the fault.
  public var offset: Int
  public var message: String
}

extension JSONValue {
  /// Throws `JSONSyntaxError`. Nesting deeper than 512 is refused.
  public init(parsing text: String) throws(JSONSyntaxError) { try self.init(parsing: Array(text.utf8)) }

  public init(parsing bytes: [UInt8]) throws(JSONSyntaxError) {
    var parser = JSONParser(bytes: bytes)
    parser.skipSpace()
    self = try parser.value(depth: 0)
    parser.skipSpace()
    guard parser.position == bytes.count else { throw parser.fault("text after the end of the document") }
  }
}

private struct JSONParser {
  let bytes: [UInt8]
  var position = 0

  func fault(_ message: String) -> JSONSyntaxError { JSONSyntaxError(offset: position, message: message) }

  var peek: UInt8? { position < bytes.count ? bytes[position] : nil }

  mutating func skipSpace() {
    while let byte = peek, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
  }

  mutating func value(depth: Int) throws(JSONSyntaxError) -> JSONValue {
    guard depth < 512 else { throw fault("nested too deeply") }
    switch peek {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): try word("true"); return .bool(true)
    case UInt8(ascii: "f"): try word("false"); return .bool(false)
    case UInt8(ascii: "n"): try word("null"); return .null
    case .some: return .number(try number())
    case nil: throw fault("the document ends too early")
    }
  }

  mutating func word(_ word: String) throws(JSONSyntaxError) {
    for byte in word.utf8 {
      guard peek == byte else { throw fault("expected \(word)") }
      position += 1
    }
  }

  mutating func object(depth: Int) throws(JSONSyntaxError) -> JSONValue {
    var object = JSONObject()
    position += 1
    skipSpace()
    if peek == UInt8(ascii: "}") { position += 1; return .object(object) }
    while true {
      skipSpace()
      guard peek == UInt8(ascii: "\"") else { throw fault("expected a member name") }
      let key = try string()
      skipSpace()
      guard peek == UInt8(ascii: ":") else { throw fault("expected ':'") }
      position += 1
      skipSpace()
      object[key] = try value(depth: depth + 1)
      skipSpace()
      switch peek {
      case UInt8(ascii: ","): position += 1
      case UInt8(ascii: "}"): position += 1; return .object(object)
      default: throw fault("expected ',' or '}'")
      }
    }
  }

  mutating func array(depth: Int) throws(JSONSyntaxError) -> JSONValue {
    var items: [JSONValue] = []
    position += 1
    skipSpace()
    if peek == UInt8(ascii: "]") { position += 1; return .array(items) }
    while true {
      skipSpace()
      items.append(try value(depth: depth + 1))
      skipSpace()
      switch peek {
      case UInt8(ascii: ","): position += 1
      case UInt8(ascii: "]"): position += 1; return .array(items)
      default: throw fault("expected ',' or ']'")
      }
    }
  }

  mutating func number() throws(JSONSyntaxError) -> String {
    let start = position
    func isDigit(_ byte: UInt8?) -> Bool { byte.map { $0 >= 0x30 && $0 <= 0x39 } ?? false }
    if peek == UInt8(ascii: "-") { position += 1 }
    guard isDigit(peek) else { throw fault("expected a value") }
    if peek == UInt8(ascii: "0") { position += 1 } else { while isDigit(peek) { position += 1 } }
    if peek == UInt8(ascii: ".") {
      position += 1
      guard isDigit(peek) else { throw fault("expected a digit") }
      while isDigit(peek) { position += 1 }
    }
    if peek == UInt8(ascii: "e") || peek == UInt8(ascii: "E") {
      position += 1
      if peek == UInt8(ascii: "+") || peek == UInt8(ascii: "-") { position += 1 }
      guard isDigit(peek) else { throw fault("expected a digit") }
      while isDigit(peek) { position += 1 }
    }
    return String(decoding: bytes[start..<position], as: UTF8.self)
  }

  mutating func string() throws(JSONSyntaxError) -> String {
    position += 1
    var out: [UInt8] = []
    while let byte = peek {
      switch byte {
      case UInt8(ascii: "\""):
        position += 1
        guard let text = String(validating: out, as: UTF8.self) else { throw fault("not UTF-8") }
        return text
      case UInt8(ascii: "\\"):
        position += 1
        try escape(into: &out)
      case 0..<0x20: throw fault("a control character in a string")
      default:
        out.append(byte)
        position += 1
      }
    }
    throw fault("a string without an end")
  }

  mutating func escape(into out: inout [UInt8]) throws(JSONSyntaxError) {
    guard let byte = peek else { throw fault("a string without an end") }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(byte)
    case UInt8(ascii: "b"): out.append(8)
    case UInt8(ascii: "f"): out.append(12)
    case UInt8(ascii: "n"): out.append(10)
    case UInt8(ascii: "r"): out.append(13)
    case UInt8(ascii: "t"): out.append(9)
    case UInt8(ascii: "u"):
      var code = try hex4()
      if (0xd800..<0xdc00).contains(code) {
        guard peek == UInt8(ascii: "\\"), position + 1 < bytes.count, bytes[position + 1] == UInt8(ascii: "u") else {
          throw fault("half a surrogate pair")
        }
        position += 2
        let low = try hex4()
        guard (0xdc00..<0xe000).contains(low) else { throw fault("half a surrogate pair") }
        code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
      }
      guard let scalar = Unicode.Scalar(code) else { throw fault("half a surrogate pair") }
      out.append(contentsOf: Array(String(Character(scalar)).utf8))
    default: throw fault("an unknown escape")
    }
  }

  mutating func hex4() throws(JSONSyntaxError) -> UInt32 {
    guard position + 4 <= bytes.count,
      let code = UInt32(String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16)
    else { throw fault("expected four hex digits") }
    position += 4
    return code
  }
}

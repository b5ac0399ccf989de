public import Diagnostics

/// Reads a mapping by a table of keys and reports every fault: unknown and missing keys at once, wrong values when
/// they are asked for. An accessor answers nil if the key isn't there, or if its value is wrong and was reported.
public struct MappingReader {
  public let path: String
  public let location: SourceLocation
  public let diagnostics: DiagnosticCollector
  private let entries: [String: YAMLEntry]

  /// - Parameters:
  ///   - path: how messages name it: `hosts.bot-1`; empty at the top of a file.
  ///   - extra: further keys, which others read.
  /// Nil if the node is no mapping. Nothing (`env:`) counts as an empty mapping.
  public init?(
    _ node: YAMLNode, _ table: KeyTable, path: String, extra: [String] = [], diagnostics: DiagnosticCollector
  ) {
    var list: [YAMLEntry] = []
    if case .mapping(let found) = node.content {
      list = found
    } else if !node.isNull {
      diagnostics.error(
        at: node.location, "\(path.isEmpty ? "the file" : "`\(path)`"): expected a mapping, found \(node.description)",
        help: table.names.isEmpty ? "write {}" : "keys: \(table.names.joined(separator: ", "))")
      return nil
    }
    self.path = path
    location = node.location
    self.diagnostics = diagnostics
    let known = table.names + extra
    for entry in list where !known.contains(entry.key) {
      let place = path.isEmpty ? "" : " in `\(path)`"
      let help =
        nearestName(to: entry.key, among: known).map { "did you mean `\($0)`?" }
        ?? (known.isEmpty ? "it takes no keys" : "the keys are \(known.joined(separator: ", "))")
      diagnostics.error(at: entry.keyLocation, "unknown key `\(excerpt(entry.key))`\(place)", help: help)
    }
    entries = Dictionary(list.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    for key in table.keys where key.isRequired && (entries[key.name] == nil) {
      diagnostics.error(
        at: node.location, "`\(path.isEmpty ? key.name : path + "." + key.name)` is missing",
        help: "expected: \(key.type)")
    }
  }

  public func has(_ key: String) -> Bool { entries[key] != nil }
  public func entry(_ key: String) -> YAMLEntry? { entries[key] }
  public func node(_ key: String) -> YAMLNode? { entries[key]?.value }
  public func keyPath(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

  /// Where the key's value stands, or else the mapping.
  public func place(_ key: String) -> SourceLocation { entries[key]?.value.location ?? location }

  public func error(_ key: String, _ message: String, help: String? = nil) {
    diagnostics.error(at: place(key), "`\(keyPath(key))`: \(message)", help: help)
  }

  private func expected(_ what: String, _ key: String, help: String? = nil) {
    error(key, "expected \(what), found \(entries[key]?.value.description ?? "nothing")", help: help)
  }

  private func scalar(_ key: String, _ what: String, help: String? = nil) -> YAMLScalar? {
    guard let node = entries[key]?.value else { return nil }
    guard case .scalar(let scalar) = node.content, !scalar.isNull else {
      expected(what, key, help: help)
      return nil
    }
    return scalar.isFaulty ? nil : scalar
  }

  /// Text that isn't empty. Numbers count as their own text; what YAML takes for a boolean needs quotes.
  public func string(_ key: String, _ what: String = "text") -> String? {
    guard let scalar = scalar(key, what) else { return nil }
    return text(scalar, at: place(key), keyPath(key), what)
  }

  private func text(_ scalar: YAMLScalar, at location: SourceLocation, _ path: String, _ what: String) -> String? {
    switch scalar.guess {
    case .boolean, .ambiguousBoolean:
      diagnostics.error(
        at: location, "`\(path)`: expected \(what), found \(scalar.description)",
        help: "put it into quotes: \"\(scalar.text)\"")
      return nil
    default: break
    }
    guard !scalar.text.isEmpty else {
      diagnostics.error(at: location, "`\(path)`: expected \(what), found an empty text")
      return nil
    }
    return scalar.text
  }

  public func bool(_ key: String) -> Bool? {
    guard let scalar = scalar(key, "true or false") else { return nil }
    if scalar.isInterpolated || scalar.guess == .boolean {
      if scalar.text == "true" { return true }
      if scalar.text == "false" { return false }
    }
    let words = [
      "yes": "true", "on": "true", "y": "true", "true": "true", "no": "false", "off": "false", "n": "false",
      "false": "false",
    ]
    expected("true or false", key, help: words[scalar.text.lowercased()].map { "write \($0), without quotes" })
    return nil
  }

  public func integer(_ key: String, in range: ClosedRange<Int>) -> Int? {
    let what =
      range.upperBound == .max
      ? "a whole number from \(range.lowerBound)"
      : "a whole number from \(range.lowerBound) to \(range.upperBound)"
    guard let scalar = scalar(key, what) else { return nil }
    let decimal = scalar.text.drop { $0 == "-" }
    switch scalar.guess {
    case .oddNumber(let why):
      let plain = scalar.text.drop { $0 == "0" || $0 == "+" }
      let simple = !plain.isEmpty && plain.allSatisfy { ("0"..."9").contains($0) }
      expected(what, key, help: simple && why.contains("0") ? "\(why): write \(plain)" : why)
      return nil
    case .integer: break
    case .text where scalar.isInterpolated && !decimal.isEmpty && decimal.allSatisfy({ ("0"..."9").contains($0) }):
      break
    default:
      expected(what, key, help: !scalar.isPlain && Int(scalar.text) != nil ? "remove the quotes" : nil)
      return nil
    }
    guard let value = Int(scalar.text), range.contains(value) else {
      expected(what, key)
      return nil
    }
    return value
  }

  public func duration(_ key: String, in range: ClosedRange<Duration> = .milliseconds(1) ... .seconds(3650 * 86400))
    -> Duration?
  {
    let what = "a duration like 10s, 5m or 1h30m"
    guard let scalar = scalar(key, what) else { return nil }
    do {
      let value = try Quantity.duration(scalar.text)
      guard range.contains(value) else { throw Quantity.Fault.outOfRange }
      return value
    } catch Quantity.Fault.form(let help) {
      expected(what, key, help: help)
    } catch {
      expected("a duration from \(Self.words(range.lowerBound)) to \(Self.words(range.upperBound))", key)
    }
    return nil
  }

  static func words(_ duration: Duration) -> String {
    let milliseconds = duration.components.seconds * 1000 + duration.components.attoseconds / 1_000_000_000_000_000
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] as [(String, Int64)]
    where milliseconds >= size && milliseconds % size == 0 {
      return "\(milliseconds / size)\(unit)"
    }
    return milliseconds == 0 ? "0s" : "\(milliseconds)ms"
  }

  public func size(_ key: String) -> Int64? {
    let what = "a size like 512MiB or 2GiB"
    guard let scalar = scalar(key, what) else { return nil }
    do {
      return try Quantity.size(scalar.text)
    } catch Quantity.Fault.form(let help) {
      expected(what, key, help: help)
    } catch {
      expected("a size of at most 1024 PiB", key)
    }
    return nil
  }

  /// `80%`: whole numbers with their sign.
  public func percentage(_ key: String, in range: ClosedRange<Int>) -> Int? {
    let what = "a percentage from \(range.lowerBound)% to \(range.upperBound)%"
    guard let scalar = scalar(key, what) else { return nil }
    let digits = scalar.text.prefix { ("0"..."9").contains($0) }
    guard scalar.text == "\(digits)%", let value = Int(digits), range.contains(value) else {
      expected(what, key, help: scalar.text == digits && !digits.isEmpty ? "write \(digits)%" : nil)
      return nil
    }
    return value
  }

  public func enumeration<Value: RawRepresentable & CaseIterable>(_ key: String, _ type: Value.Type = Value.self)
    -> Value?
  where Value.RawValue == String {
    let what = "one of \(Value.allCases.map(\.rawValue).joined(separator: ", "))"
    guard let scalar = scalar(key, what) else { return nil }
    return value(of: scalar, at: place(key), keyPath(key), what)
  }

  private func value<Value: RawRepresentable & CaseIterable>(
    of scalar: YAMLScalar, at location: SourceLocation, _ path: String, _ what: String
  ) -> Value? where Value.RawValue == String {
    if let value = Value(rawValue: scalar.text) { return value }
    diagnostics.error(
      at: location, "`\(path)`: expected \(what), found \(scalar.description)",
      help: nearestName(to: scalar.text, among: Value.allCases.map(\.rawValue)).map { "did you mean `\($0)`?" })
    return nil
  }

  /// The elements of a list with their places; a fault for each that is no text. Nil if it is no list.
  public func strings(_ key: String, of what: String = "texts", allowEmpty: Bool = false) -> [(
    text: String, location: SourceLocation
  )]? {
    guard let nodes = sequence(key, of: what, allowEmpty: allowEmpty) else { return nil }
    var result: [(text: String, location: SourceLocation)] = []
    for (index, node) in nodes.enumerated() {
      let path = "\(keyPath(key))[\(index)]"
      guard case .scalar(let scalar) = node.content, !scalar.isNull else {
        diagnostics.error(at: node.location, "`\(path)`: expected text, found \(node.description)")
        continue
      }
      if !scalar.isFaulty, let text = text(scalar, at: node.location, path, "text") {
        result.append((text, node.location))
      }
    }
    return result
  }

  /// A list of names from an enumeration, each at most once.
  public func enumerations<Value: RawRepresentable & CaseIterable & Equatable>(
    _ key: String, _ type: Value.Type = Value.self
  ) -> [Value]?
  where Value.RawValue == String {
    let what = Value.allCases.map(\.rawValue).joined(separator: ", ")
    guard let nodes = sequence(key, of: what, allowEmpty: false) else { return nil }
    var result: [Value] = []
    for (index, node) in nodes.enumerated() {
      let path = "\(keyPath(key))[\(index)]"
      guard case .scalar(let scalar) = node.content else {
        diagnostics.error(at: node.location, "`\(path)`: expected one of \(what), found \(node.description)")
        continue
      }
      guard let found: Value = value(of: scalar, at: node.location, path, "one of \(what)") else { continue }
      if result.contains(found) {
        diagnostics.error(at: node.location, "`\(path)`: \(found.rawValue) stands twice in the list")
      } else {
        result.append(found)
      }
    }
    return result
  }

  public func sequence(_ key: String, of what: String, allowEmpty: Bool = true) -> [YAMLNode]? {
    guard let node = entries[key]?.value else { return nil }
    guard case .sequence(let nodes) = node.content else {
      var help: String?
      if case .scalar(let scalar) = node.content, !scalar.isNull { help = "write [\(excerpt(scalar.text))]" }
      expected("a list of \(what)", key, help: help)
      return nil
    }
    if nodes.isEmpty, !allowEmpty {
      error(key, "the list is empty", help: "expected a list of \(what)")
      return nil
    }
    return nodes
  }

  /// The entries of a mapping whose keys are the user's own. Nil if it is no mapping.
  public func mapping(_ key: String, of what: String) -> [YAMLEntry]? {
    guard let node = entries[key]?.value else { return nil }
    if node.isNull { return [] }
    guard case .mapping(let list) = node.content else {
      expected("a mapping of \(what)", key)
      return nil
    }
    return list
  }

  /// A mapping of names to texts. Numbers, true and false count as their own text; what YAML readers disagree about
  /// needs quotes.
  public func stringMap(_ key: String) -> [(name: String, value: String, location: SourceLocation)]? {
    guard let list = mapping(key, of: "names to texts") else { return nil }
    return list.compactMap { entry in
      let path = "\(keyPath(key)).\(excerpt(entry.key))"
      guard case .scalar(let scalar) = entry.value.content, !scalar.isNull else {
        diagnostics.error(
          at: entry.value.location, "`\(path)`: expected text, found \(entry.value.description)",
          help: entry.value.isNull ? "write \"\" for an empty text" : nil)
        return nil
      }
      if scalar.guess == .ambiguousBoolean {
        diagnostics.error(
          at: entry.value.location, "`\(path)`: \(scalar.text) without quotes is a boolean to many YAML readers",
          help: "put it into quotes: \"\(scalar.text)\"")
        return nil
      }
      return (entry.key, scalar.text, entry.keyLocation)
    }
  }
}

func excerpt(_ text: String) -> String {
  let line = text.replacing("\n", with: "\\n")
  return line.count > 40 ? String(line.prefix(40)) + "…" : line
}

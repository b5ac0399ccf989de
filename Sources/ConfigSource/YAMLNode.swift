public import Diagnostics

/// A node of a YAML document with the place where it stands. Aliases are resolved; keys are text and occur once.
public struct YAMLNode: Sendable, Equatable {
  public enum Content: Sendable, Equatable {
    case scalar(YAMLScalar)
    case sequence([YAMLNode])
    case mapping([YAMLEntry])
  }
  public var content: Content
  public var location: SourceLocation

  public init(_ content: Content, at location: SourceLocation) {
    self.content = content
    self.location = location
  }

  public var isNull: Bool {
    if case .scalar(let scalar) = content { scalar.isNull } else { false }
  }

  /// What the node is, in words for a message. Long texts are cut.
  public var description: String {
    switch content {
    case .sequence: "a list"
    case .mapping: "a mapping"
    case .scalar(let scalar): scalar.description
    }
  }

  /// The same tree with every scalar replaced.
  public func mapScalars(_ transform: (YAMLScalar, SourceLocation) -> YAMLScalar) -> YAMLNode {
    switch content {
    case .scalar(let scalar): YAMLNode(.scalar(transform(scalar, location)), at: location)
    case .sequence(let nodes): YAMLNode(.sequence(nodes.map { $0.mapScalars(transform) }), at: location)
    case .mapping(let entries):
      YAMLNode(
        .mapping(
          entries.map {
            YAMLEntry(key: $0.key, keyLocation: $0.keyLocation, value: $0.value.mapScalars(transform))
          }), at: location)
    }
  }
}

public struct YAMLEntry: Sendable, Equatable {
  public var key: String
  public var keyLocation: SourceLocation
  public var value: YAMLNode

  public init(key: String, keyLocation: SourceLocation, value: YAMLNode) {
    self.key = key
    self.keyLocation = keyLocation
    self.value = value
  }
}

/// A scalar as it was written. Its type is decided by who reads it, not by YAML's guesses.
public struct YAMLScalar: Sendable, Equatable, CustomStringConvertible {
  public var text: String
  /// Without quotes, and not a block scalar.
  public var isPlain: Bool
  /// `${name}` was filled in: the quotes that it needed inside `{ }` say nothing about its type.
  public var isInterpolated = false
  /// A fault in it was reported already: readers take it for absent and say nothing more.
  public var isFaulty = false

  public init(_ text: String, isPlain: Bool) {
    self.text = text
    self.isPlain = isPlain
  }

  /// What YAML 1.1 or 1.2 readers would take a plain scalar for.
  enum Guess: Equatable { case text, null, boolean, ambiguousBoolean, integer, number, oddNumber(String) }

  public var isNull: Bool { guess == .null }

  var guess: Guess {
    guard isPlain, !isInterpolated else { return .text }
    switch text {
    case "", "~", "null", "Null", "NULL": return .null
    case "true", "false": return .boolean
    default: break
    }
    let lowered = text.lowercased()
    if ["yes", "no", "on", "off", "y", "n", "true", "false"].contains(lowered) { return .ambiguousBoolean }
    return numberGuess
  }

  private var numberGuess: Guess {
    var body = text[...]
    if let sign = body.first, sign == "-" || sign == "+" { body = body.dropFirst() }
    guard let first = body.unicodeScalars.first, first == "." || ("0"..."9").contains(first) else { return .text }
    let digits = body.allSatisfy { ("0"..."9").contains($0) }
    if digits {
      if body.count > 1, first == "0" { return .oddNumber("YAML 1.1 reads a leading 0 as octal") }
      return text.hasPrefix("+") ? .oddNumber("write it without a plus sign") : .integer
    }
    if body.hasPrefix("0x") || body.hasPrefix("0o") || body.hasPrefix("0b") {
      let rest = body.dropFirst(2)
      return !rest.isEmpty && rest.allSatisfy(\.isHexDigit) ? .oddNumber("write it as a decimal number") : .text
    }
    if body.contains("_"), body.allSatisfy({ ("0"..."9").contains($0) || $0 == "_" }) {
      return .oddNumber("YAML 1.1 reads it as a number: write it without underscores")
    }
    let parts = body.split(separator: ":", omittingEmptySubsequences: false)
    if (2...3).contains(parts.count),
      parts.dropFirst().allSatisfy({ $0.count <= 2 && Int($0).map { $0 < 60 } ?? false }),
      Int(parts[0]) != nil
    {
      return .oddNumber("YAML 1.1 reads it as a number to the base of 60")
    }
    guard body.allSatisfy({ ("0"..."9").contains($0) || "+-.eE".contains($0) }), Double(text) != nil else {
      return .text
    }
    if body.contains("."), !body.lowercased().contains("e"), body.hasSuffix("0") || body.hasSuffix("."), body.count > 1,
      !body.hasSuffix(".0")
    {
      return .oddNumber("as a number, the last 0 is lost")
    }
    return .number
  }

  public enum Typed: Sendable, Equatable { case text(String), number(Double), boolean(Bool), null }
  public struct Ambiguity: Error { public var why: String }

  /// The value where a value of any type may stand. Throws for a plain scalar that YAML readers disagree about.
  public func typed() throws(Ambiguity) -> Typed {
    switch guess {
    case .text: return .text(text)
    case .null: return .null
    case .boolean: return .boolean(text == "true")
    case .ambiguousBoolean: throw Ambiguity(why: "a boolean to many YAML readers, and text to others")
    case .oddNumber(let why): throw Ambiguity(why: why)
    case .integer, .number:
      guard let number = Double(text), number.isFinite else { throw Ambiguity(why: "the number is too big") }
      return .number(number)
    }
  }

  public var description: String {
    let shown = text.count > 40 ? String(text.prefix(40)) + "…" : text
    let line = shown.replacing("\n", with: "\\n")
    return switch guess {
    case .null: "nothing"
    case .boolean, .ambiguousBoolean: "the boolean \(line)"
    case .integer, .number, .oddNumber: "the number \(line)"
    case .text: "the text \"\(line)\""
    }
  }
}

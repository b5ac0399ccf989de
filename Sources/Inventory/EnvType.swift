import ConfigSource
import Diagnostics

/// `@type` of a name in the template.
public enum EnvType: Sendable, Equatable {
  case string, url, int, bool, port, duration, base64, pem
  case oneOf([String])
  /// The whole value has to match.
  case regex(String)

  static let simple: [String: EnvType] = [
    "string": .string, "url": .url, "int": .int, "bool": .bool, "port": .port, "duration": .duration, "base64": .base64,
    "pem": .pem,
  ]
  /// As they are written in a template.
  public static let names = ["string", "url", "int", "bool", "port", "duration", "base64", "pem", "enum", "regex"]

  /// Reads a type behind `@type`; answers where it ends.
  static func parse(
    _ scalars: [Unicode.Scalar], from start: Int, place: (Int) -> SourceLocation, _ diagnostics: DiagnosticCollector?
  ) -> (type: EnvType?, end: Int) {
    var index = start
    while index < scalars.count, scalars[index] == " " || scalars[index] == "\t" { index += 1 }
    let begin = index
    while index < scalars.count,
      ("a"..."z").contains(scalars[index]) || ("A"..."Z").contains(scalars[index])
        || ("0"..."9").contains(scalars[index])
    { index += 1 }
    let word = text(scalars[begin..<index])
    guard index < scalars.count, scalars[index] == "(" else {
      if let type = simple[word] { return (type, index) }
      if word == "enum" || word == "regex" {
        diagnostics?.error(
          at: place(begin), "`\(word)` needs its \(word == "enum" ? "values" : "pattern")",
          help: word == "enum" ? "like enum(debug,info)" : "like regex([a-z]+)")
      } else {
        diagnostics?.error(
          at: place(begin), word.isEmpty ? "@type without a type" : "unknown type `\(word)`",
          help: nearestName(to: word, among: names).map { "did you mean `\($0)`?" }
            ?? "the types are \(names.joined(separator: ", "))")
      }
      return (nil, index)
    }
    guard let close = closing(scalars, from: index) else {
      diagnostics?.error(at: place(index), "`(` without its `)`")
      return (nil, scalars.count)
    }
    let argument = text(scalars[(index + 1)..<close])
    switch word {
    case "enum":
      let values = argument.split(separator: ",", omittingEmptySubsequences: false).map { value in
        String(value.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
      }
      if values.contains("") {
        diagnostics?.error(at: place(begin), "an empty value in `enum(…)`", help: "like enum(debug,info)")
        return (nil, close + 1)
      }
      return (.oneOf(values), close + 1)
    case "regex":
      if (try? Regex(argument)) == nil {
        diagnostics?.error(at: place(index + 1), "this isn't a regular expression")
        return (nil, close + 1)
      }
      return (.regex(argument), close + 1)
    default:
      diagnostics?.error(
        at: place(begin), "the type `\(word)` takes nothing in parentheses",
        help: nearestName(to: word, among: names).map { "did you mean `\($0)`?" })
      return (nil, close + 1)
    }
  }

  private static func text(_ scalars: ArraySlice<Unicode.Scalar>) -> String {
    var view = String.UnicodeScalarView()
    view.append(contentsOf: scalars)
    return String(view)
  }

  /// The `)` that belongs to the `(` at `start`; escaped ones and those in pairs don't count.
  private static func closing(_ scalars: [Unicode.Scalar], from start: Int) -> Int? {
    var depth = 0, index = start
    while index < scalars.count {
      switch scalars[index] {
      case "\\": index += 1
      case "(": depth += 1
      case ")":
        depth -= 1
        if depth == 0 { return index }
      default: break
      }
      index += 1
    }
    return nil
  }

  /// What was expected, if the value doesn't fit; nil if it does.
  public func fault(in value: String) -> String? {
    let fits: Bool, expected: String
    switch self {
    case .string: return nil
    case .url: (fits, expected) = (Self.isURL(value), "a URL like https://example.com")
    case .int: (fits, expected) = (Int(value) != nil && !value.hasPrefix("+"), "a whole number")
    case .bool:
      (fits, expected) = (
        ["true", "false", "yes", "no", "on", "off", "1", "0"].contains(value.lowercased()), "true or false"
      )
    case .port:
      (fits, expected) = (
        Int(value).map { (1...65535).contains($0) } ?? false && !value.hasPrefix("+"), "a port from 1 to 65535"
      )
    case .duration: (fits, expected) = ((try? Quantity.duration(value)) != nil, "a duration like 10s, 5m or 1h30m")
    case .base64: (fits, expected) = (Self.isBase64(value), "base64")
    case .pem: (fits, expected) = (Self.isPEM(value), "PEM: lines from -----BEGIN …----- to -----END …-----")
    case .oneOf(let values): (fits, expected) = (values.contains(value), "one of \(values.joined(separator: ", "))")
    case .regex(let pattern):
      guard let regex = try? Regex(pattern) else { return "a value that matches an expression which isn't one" }
      (fits, expected) = ((try? regex.wholeMatch(in: value)) != nil, "a value that matches \(pattern)")
    }
    return fits ? nil : expected
  }

  private static func isURL(_ value: String) -> Bool {
    guard let separator = value.firstRange(of: "://"), let first = value.first, first.isASCII, first.isLetter else {
      return false
    }
    let scheme = value[..<separator.lowerBound]
    return scheme.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "+.-".contains($0)) }
      && separator.upperBound < value.endIndex && value[separator.upperBound] != "/"
      && !value.contains { $0.isWhitespace || $0.isNewline }
  }

  private static func isBase64(_ value: String) -> Bool {
    let body = value.reversed().drop { $0 == "=" }
    return !value.isEmpty && value.utf8.count % 4 == 0 && value.count - body.count <= 2
      && body.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "+" || $0 == "/") }
  }

  private static func isPEM(_ value: String) -> Bool {
    let lines = value.split(separator: "\n", omittingEmptySubsequences: true)
    guard lines.count >= 3, let first = lines.first, let last = lines.last else { return false }
    return first.hasPrefix("-----BEGIN ") && first.hasSuffix("-----") && last.hasPrefix("-----END ")
      && last.hasSuffix("-----")
  }
}

/// Which names are secret by their name alone: those that end in TOKEN, PASSWORD, SECRET or KEY.
public enum Secrecy {
  public static let endings = ["TOKEN", "PASSWORD", "SECRET", "KEY"]

  public static func isSecret(name: String) -> Bool {
    let upper = name.uppercased()
    return endings.contains { upper.hasSuffix($0) }
  }
}

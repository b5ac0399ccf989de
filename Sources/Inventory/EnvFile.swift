import ConfigSource
import Diagnostics

/// The env file of a release, in the dotenv dialect that Compose reads.
///
/// Measured on Compose 2.26.1: without quotes `$` is expanded and ` #` begins a comment; in single quotes everything
/// is itself except `\'`, so that a value with a backslash before a quote or at its end can't be written there; in
/// double quotes `\\`, `\"`, `\$` and `\n` are read as one would expect.
public enum EnvFile {
  public struct UnwritableValue: Error, Sendable, Equatable {
    public var name: String
    /// Never the value.
    public var reason: String
  }

  /// Behind the name of a value that is in a file: the variable that holds its path.
  public static let pathSuffix = "_FILE"

  /// One line per value, in the given order; the same values give the same bytes. Of a value in a file the path. Throws `UnwritableValue` for
  /// control characters, and for line breaks in anything but `@type pem`.
  public static func render(_ values: [ResolvedValue]) throws -> String {
    var text = ""
    for value in values {
      let (name, content) = value.variable
      text += try line(name: name, value: content, multiline: value.type == .pem) + "\n"
    }
    return text
  }

  /// The same of the values that are in files: by their own names, and nothing of the others.
  public static func renderFiles(_ values: [ResolvedValue]) throws -> String {
    try values.filter { $0.path != nil }.map { try line(name: $0.name, value: $0.value, multiline: true) + "\n" }
      .joined()
  }

  /// `NAME=value`, quoted so that Compose reads the value back as it is.
  public static func line(name: String, value: String, multiline: Bool = false) throws -> String {
    guard Names.isVariable(name) else { throw UnwritableValue(name: name, reason: "it isn't a name for a variable") }
    if let bad = value.unicodeScalars.first(where: { !isAllowed($0, multiline: multiline) }) {
      throw UnwritableValue(
        name: name,
        reason: bad == "\n" || bad == "\r" ? "the value holds a line break" : "the value holds a control character")
    }
    let plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:@%+,=-".unicodeScalars
    if value.unicodeScalars.allSatisfy(plain.contains) { return "\(name)=\(value)" }
    guard value.unicodeScalars.contains(where: { $0 == "\\" || $0 == "\n" }) else {
      return "\(name)='\(value.replacing("'", with: "\\'"))'"
    }
    var quoted = String.UnicodeScalarView()
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\n": quoted.append(contentsOf: "\\n".unicodeScalars)
      case "\\", "\"", "$": quoted.append(contentsOf: ["\\", scalar])
      default: quoted.append(scalar)
      }
    }
    return "\(name)=\"\(String(quoted))\""
  }

  static func isAllowed(_ scalar: Unicode.Scalar, multiline: Bool) -> Bool {
    if scalar == "\n" { return multiline }
    // NEL and the Unicode separators are letters to Compose, and line ends to others.
    return scalar == "\t" || (scalar.value >= 0x20 && !(0x7F...0x9F).contains(scalar.value) && scalar != "\u{FEFF}")
  }

  /// Reads our own files and ordinary dotenv files: names and values in their order, the last of equal names wins.
  /// `${NAME}` is filled in from the lines above. Throws `ConfigurationError`, which never shows a value.
  public static func read(_ bytes: [UInt8], file: String) throws -> [(name: String, value: String)] {
    let diagnostics = DiagnosticCollector()
    guard let source = SourceText(file: file, bytes: bytes, diagnostics: diagnostics) else {
      throw ConfigurationError(diagnostics.diagnostics)
    }
    var parser = DotenvParser(source, knowsGenerate: false, diagnostics: diagnostics)
    parser.parse()
    var values: [(name: String, value: String)] = []
    var known: [String: Int] = [:]
    func text(of parts: [EnvPart], in entry: String) -> String {
      parts.map { part in
        switch part {
        case .literal(let text): return text
        case .generate, .memory: return ""
        case .reference(let name, let fallback, let location):
          let value = known[name].map { values[$0].value }
          switch fallback {
          case .value(let inner, let emptyCounts):
            if let value, emptyCounts || !value.isEmpty { return value }
            return text(of: inner, in: entry)
          case .none, .required:
            guard let value else {
              diagnostics.error(
                at: location, "a `$` in the value of \(entry) refers to a name that the lines above don't define",
                help: "a dollar itself is written $$, or stands in single quotes")
              return ""
            }
            return value
          }
        }
      }.joined()
    }
    for entry in parser.entries {
      let value = text(of: entry.parts, in: entry.name)
      if let index = known[entry.name] {
        values[index].value = value
      } else {
        known[entry.name] = values.count
        values.append((entry.name, value))
      }
    }
    try diagnostics.throwIfErrors()
    return values
  }
}

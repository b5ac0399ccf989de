import ConfigSource
import Diagnostics

/// A piece of a value in a dotenv file.
indirect enum EnvPart: Sendable, Equatable {
  enum Fallback: Sendable, Equatable {
    case none
    /// `${NAME:-…}`; without the colon an empty value counts as one.
    case value([EnvPart], emptyCounts: Bool)
    /// `${NAME:?…}`
    case required(String, emptyCounts: Bool)
  }
  case literal(String)
  case reference(String, Fallback, SourceLocation)
  case generate(Int, SourceLocation)
  /// `${memory:NAME}`
  case memory(String, SourceLocation)

  /// All references, those in defaults included.
  static func references(in parts: [EnvPart]) -> [(name: String, location: SourceLocation)] {
    parts.flatMap { part -> [(name: String, location: SourceLocation)] in
      guard case .reference(let name, let fallback, let location) = part else { return [] }
      guard case .value(let inner, _) = fallback else { return [(name, location)] }
      return [(name, location)] + references(in: inner)
    }
  }

  /// All names behind `${memory:`, those in defaults included.
  static func memoryNames(in parts: [EnvPart]) -> [(name: String, location: SourceLocation)] {
    parts.flatMap { part -> [(name: String, location: SourceLocation)] in
      switch part {
      case .memory(let name, let location): [(name, location)]
      case .reference(_, .value(let inner, _), _): memoryNames(in: inner)
      default: []
      }
    }
  }

  static func generates(_ parts: [EnvPart]) -> Bool {
    parts.contains { part in
      switch part {
      case .generate: true
      case .reference(_, .value(let inner, _), _): generates(inner)
      default: false
      }
    }
  }
}

struct DotenvComment: Sendable, Equatable {
  /// Behind the `#`.
  var text: String
  /// Of the `#`.
  var location: SourceLocation
}

struct DotenvEntry: Sendable, Equatable {
  var name: String
  var location: SourceLocation
  var parts: [EnvPart]
  var valueLocation: SourceLocation
  /// Directly above it.
  var comments: [DotenvComment]
  /// On its own line.
  var trailingComment: DotenvComment?
}

/// The dotenv dialect of Compose 2.26: names, three kinds of quotes, `${}` forms, comments. By hand, since places
/// matter.
struct DotenvParser {
  private let scalars: [Unicode.Scalar]
  private let file: String
  private let diagnostics: DiagnosticCollector
  private let knowsGenerate: Bool
  /// The entry that is being read.
  private var entryName = ""
  /// How many `${` are open: each is a call deeper, for the parser and for all who walk its result.
  private var depth = 0
  private static let depthLimit = 16
  /// In data, unlike in a template, what looks like a name may be a piece of a password: messages don't repeat it.
  private var hidesValues: Bool { !knowsGenerate }
  private var index = 0
  private var line = 1
  private var column = 1

  private(set) var entries: [DotenvEntry] = []
  /// Comments that stand above no name.
  private(set) var detached: [DotenvComment] = []

  /// - Parameter knowsGenerate: `${generate:32}` and `${memory:app}` are no references to names.
  init(_ source: SourceText, knowsGenerate: Bool, diagnostics: DiagnosticCollector) {
    scalars = Array(source.text.unicodeScalars)
    file = source.file
    self.knowsGenerate = knowsGenerate
    self.diagnostics = diagnostics
  }

  private var here: SourceLocation { SourceLocation(file: file, line: line, column: column) }
  private var current: Unicode.Scalar? { index < scalars.count ? scalars[index] : nil }
  private func peek(_ offset: Int = 1) -> Unicode.Scalar? {
    index + offset < scalars.count ? scalars[index + offset] : nil
  }

  private mutating func advance(_ count: Int = 1) {
    for _ in 0..<count where index < scalars.count {
      if scalars[index] == "\n" {
        line += 1
        column = 1
      } else {
        column += 1
      }
      index += 1
    }
  }

  private mutating func skipBlanks() {
    while current == " " || current == "\t" { advance() }
  }

  private mutating func skipLine() {
    while let scalar = current, scalar != "\n" { advance() }
  }

  mutating func parse() {
    var comments: [DotenvComment] = []
    while let _ = current {
      skipBlanks()
      switch current {
      case nil: break
      case "\n":
        detached += comments
        comments = []
        advance()
      case "#":
        comments.append(comment())
        advance()
      default:
        entry(comments)
        comments = []
        skipLine()
        advance()
      }
    }
    detached += comments
  }

  private mutating func comment() -> DotenvComment {
    let location = here
    advance()
    return DotenvComment(text: text { $0 != "\n" }, location: location)
  }

  private mutating func text(while condition: (Unicode.Scalar) -> Bool) -> String {
    var result = String.UnicodeScalarView()
    while let scalar = current, condition(scalar) {
      result.append(scalar)
      advance()
    }
    return String(result)
  }

  private mutating func entry(_ comments: [DotenvComment]) {
    var location = here
    var name = text { !" \t=\n#".unicodeScalars.contains($0) }
    skipBlanks()
    if name == "export", current != "=" {
      location = here
      name = text { !" \t=\n#".unicodeScalars.contains($0) }
      skipBlanks()
    }
    guard current == "=" else {
      // The line may be a secret that lost its name: it isn't repeated.
      diagnostics.error(at: location, "expected NAME=value, found a line without `=`", help: "a comment begins with #")
      return
    }
    guard Names.isVariable(name) else {
      // A long one may be a line of a key that ends in `=`.
      let what =
        name.isEmpty
        ? "a name is missing before `=`"
        : name.count > 24 || hidesValues
          ? "what stands before `=` isn't a name for a variable" : "`\(name)` isn't a name for a variable"
      diagnostics.error(at: location, what, help: "letters, digits and _, and no digit at its beginning")
      return
    }
    entryName = name
    advance()
    let hadBlank = current == " " || current == "\t"
    skipBlanks()
    if hadBlank, current == "#" {
      diagnostics.error(
        at: here, "Compose takes this for the value of \(name), not for a comment",
        help: "for an empty value, write \(name)='' before the comment")
      return
    }
    let valueLocation = here
    guard let parts = value() else { return }
    var trailing: DotenvComment?
    skipBlanks()
    if current == "#" { trailing = comment() }
    guard current == nil || current == "\n" else {
      diagnostics.error(
        at: here, "something follows the closing quote of \(name)", help: "a quote inside is written \\' or \\\"")
      return
    }
    entries.append(
      DotenvEntry(
        name: name, location: location, parts: parts, valueLocation: valueLocation, comments: comments,
        trailingComment: trailing))
  }

  // MARK: Values

  /// Nil after a fault.
  private mutating func value() -> [EnvPart]? {
    switch current {
    case "'": singleQuoted()
    case "\"": doubleQuoted()
    default: unquoted()
    }
  }

  /// Everything is itself, except `\'`.
  private mutating func singleQuoted() -> [EnvPart]? {
    let opening = here
    advance()
    var result = String.UnicodeScalarView()
    while let scalar = current {
      if scalar == "\\", peek() == "'" {
        result.append("'")
        advance(2)
      } else if scalar == "'" {
        advance()
        return [.literal(String(result))]
      } else {
        result.append(scalar)
        advance()
      }
    }
    diagnostics.error(at: opening, "this quote is never closed", help: "a single quote inside is written \\'")
    return nil
  }

  private mutating func doubleQuoted() -> [EnvPart]? {
    let opening = here
    advance()
    let escapes: [Unicode.Scalar: Unicode.Scalar] = [
      "n": "\n", "r": "\r", "t": "\t", "\\": "\\", "\"": "\"", "$": "$", "a": "\u{7}", "b": "\u{8}", "f": "\u{C}",
      "v": "\u{B}",
    ]
    var builder = PartBuilder()
    while let scalar = current {
      if scalar == "\\", let next = peek() {
        // An unknown escape stays as it is, backslash included.
        if let meant = escapes[next] { builder.append(meant) } else { builder.append(contentsOf: [scalar, next]) }
        advance(2)
      } else if scalar == "\"" {
        advance()
        return builder.parts
      } else if scalar == "$" {
        guard dollar(into: &builder) else { return nil }
      } else {
        builder.append(scalar)
        advance()
      }
    }
    diagnostics.error(at: opening, "this quote is never closed", help: "a double quote inside is written \\\"")
    return nil
  }

  private mutating func unquoted() -> [EnvPart]? {
    var builder = PartBuilder()
    while let scalar = current, scalar != "\n" {
      let next = peek()
      if scalar == "#", index > 0, scalars[index - 1] == " " || scalars[index - 1] == "\t" { break }
      if scalar == "$" {
        if index > 0, scalars[index - 1] == "\\", next.map(Self.beginsName) ?? false || next == "{" {
          diagnostics.error(
            at: here, "without quotes, `\\$` is a backslash and the value of a variable",
            help: "for a dollar, write $$ or use single quotes")
          return nil
        }
        guard dollar(into: &builder) else { return nil }
      } else {
        builder.append(scalar)
        advance()
      }
    }
    return builder.trimmed
  }

  private static func beginsName(_ scalar: Unicode.Scalar) -> Bool {
    scalar == "_" || ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar)
  }
  private static func continuesName(_ scalar: Unicode.Scalar) -> Bool {
    beginsName(scalar) || ("0"..."9").contains(scalar)
  }

  /// `$$`, `$NAME`, `${…}`, or a dollar that stands for itself. False after a fault.
  private mutating func dollar(into builder: inout PartBuilder) -> Bool {
    let location = here
    advance()
    if current == "$" {
      builder.append("$")
      advance()
    } else if current == "{" {
      advance()
      depth += 1
      defer { depth -= 1 }
      guard depth <= Self.depthLimit else {
        diagnostics.error(
          at: location, "more than \(Self.depthLimit) `${` inside one another",
          help: "give the inner ones names of their own")
        return false
      }
      guard let part = braced(at: location) else { return false }
      builder.append(part)
    } else if let scalar = current, Self.beginsName(scalar) {
      builder.append(.reference(text(while: Self.continuesName), .none, location))
    } else {
      builder.append("$")
    }
    return true
  }

  /// Behind `${`.
  private mutating func braced(at location: SourceLocation) -> EnvPart? {
    let name = text(while: Self.continuesName)
    if name == "generate", knowsGenerate { return generate(at: location) }
    // `${memory:-…}` and `${memory:?…}` are a variable's.
    if name == "memory", knowsGenerate, current == ":", let next = peek(), Self.continuesName(next) {
      return memory(at: location)
    }
    guard let first = name.unicodeScalars.first, Self.beginsName(first) else {
      diagnostics.error(at: location, "`${` has to be followed by a name", help: "a dollar itself is written $$")
      return nil
    }
    var emptyCounts = true
    if current == ":" {
      emptyCounts = false
      advance()
    }
    switch current {
    case "}" where emptyCounts:
      advance()
      return .reference(name, .none, location)
    case "-":
      advance()
      guard let parts = inner(from: location) else { return nil }
      return .reference(name, .value(parts, emptyCounts: emptyCounts), location)
    case "?":
      advance()
      guard let message = message(from: location) else { return nil }
      return .reference(name, .required(message, emptyCounts: emptyCounts), location)
    case "+":
      let shown = hidesValues ? "NAME" : name
      diagnostics.error(
        at: location, "`${\(shown):+…}` isn't supported",
        help: "known are ${NAME}, ${NAME:-default} and ${NAME:?message}")
    case nil, "\n": unclosed(location)
    default:
      let shown = hidesValues ? "NAME" : name
      diagnostics.error(
        at: here, "after `${\(shown)` only `}`, `:-` and `:?` may stand",
        help: "like ${\(shown):-default} or ${\(shown):?what it is for}")
    }
    return nil
  }

  private func unclosed(_ location: SourceLocation) {
    diagnostics.error(at: location, "`${` without its `}`", help: "a dollar itself is written $$")
  }

  private mutating func generate(at location: SourceLocation) -> EnvPart? {
    guard current == ":" else {
      diagnostics.error(at: location, "`${generate}` needs a length", help: "like ${generate:32}")
      return nil
    }
    advance()
    let digits = text { $0 != "}" && $0 != "\n" }
    guard current == "}" else {
      unclosed(location)
      return nil
    }
    advance()
    guard digits.allSatisfy({ ("0"..."9").contains($0) }), let length = Int(digits), (8...1024).contains(length) else {
      diagnostics.error(at: location, "`${generate:…}`: expected a length from 8 to 1024", help: "like ${generate:32}")
      return nil
    }
    return .generate(length, location)
  }

  /// Which names there are depends on the inventory (`EnvTemplate.checkMemory`).
  private mutating func memory(at location: SourceLocation) -> EnvPart? {
    advance()
    let name = text { Self.continuesName($0) || $0 == "-" || $0 == "." }
    guard current == "}" else {
      if current == nil || current == "\n" {
        unclosed(location)
      } else {
        diagnostics.error(
          at: here, "after `${memory:\(name)` only `}` may stand",
          help: "for a value of one's own above the planned one: \(entryName)=${\(entryName):-${memory:\(name)}}")
      }
      return nil
    }
    advance()
    return .memory(name, location)
  }

  /// The default, up to its `}`.
  private mutating func inner(from location: SourceLocation) -> [EnvPart]? {
    var builder = PartBuilder()
    while let scalar = current, scalar != "\n" {
      if scalar == "}" {
        advance()
        return builder.parts
      }
      if scalar == "$" {
        guard dollar(into: &builder) else { return nil }
      } else {
        builder.append(scalar)
        advance()
      }
    }
    unclosed(location)
    return nil
  }

  private mutating func message(from location: SourceLocation) -> String? {
    var depth = 0
    var result = String.UnicodeScalarView()
    while let scalar = current, scalar != "\n" {
      if scalar == "}" {
        if depth == 0 {
          advance()
          return String(result)
        }
        depth -= 1
      } else if scalar == "{" {
        depth += 1
      }
      result.append(scalar)
      advance()
    }
    unclosed(location)
    return nil
  }
}

private struct PartBuilder {
  private var finished: [EnvPart] = []
  private var literal = String.UnicodeScalarView()

  mutating func append(_ scalar: Unicode.Scalar) { literal.append(scalar) }
  mutating func append(contentsOf scalars: [Unicode.Scalar]) { literal.append(contentsOf: scalars) }
  mutating func append(_ part: EnvPart) {
    flush()
    finished.append(part)
  }

  private mutating func flush() {
    if !literal.isEmpty { finished.append(.literal(String(literal))) }
    literal = String.UnicodeScalarView()
  }

  var parts: [EnvPart] {
    var copy = self
    copy.flush()
    return copy.finished
  }

  /// Without blanks at the end of the value.
  var trimmed: [EnvPart] {
    var copy = self
    while let last = copy.literal.last, last == " " || last == "\t" { copy.literal.removeLast() }
    copy.flush()
    return copy.finished
  }
}

import Diagnostics

/// Text to nodes.
public enum YAMLParser {
  /// Bounds on what aliases can make of a small file.
  static let nodeLimit = 20_000
  static let depthLimit = 64
  static let aliasLimit = 16
  /// So many keys that stand twice are told one by one.
  static let duplicateLimit = 10

  /// The document's root; nil after a fault, which was reported. An empty document is a null scalar.
  public static func parse(_ source: SourceText, diagnostics: DiagnosticCollector) -> YAMLNode? {
    diagnostics.announce(file: source.file)
    guard aliasesAreBounded(in: source, diagnostics) else { return nil }
    var composer = YAMLComposer(source: source, diagnostics: diagnostics)
    do throws(YAMLEvents.Fault) { return try composer.document() } catch {
      report(error, source, diagnostics)
      return nil
    }
  }

  private static func aliasesAreBounded(in source: SourceText, _ diagnostics: DiagnosticCollector) -> Bool {
    var anchors = 0, aliases = 0, line = 1, column = 1
    var previous: Unicode.Scalar = "\n"
    let scalars = source.text.unicodeScalars
    var index = scalars.startIndex
    while index < scalars.endIndex {
      let scalar = scalars[index]
      index = scalars.index(after: index)
      if scalar == "&" || scalar == "*", " \t\n[{,".unicodeScalars.contains(previous), index < scalars.endIndex,
        scalars[index].properties.isAlphabetic || ("0"..."9").contains(scalars[index])
      {
        if scalar == "&" { anchors += 1 } else { aliases += 1 }
        if anchors > 0, aliases > aliasLimit {
          diagnostics.error(
            at: source.location(line: line, column: column),
            "more than \(aliasLimit) aliases (`*name`) in a file", help: "write the values out")
          return false
        }
      }
      previous = scalar
      if isLineBreak(scalar) {
        line += 1
        column = 1
      } else {
        column += 1
      }
    }
    return true
  }
}

extension YAMLParser {
  /// libyaml's words turned into what to do.
  private static func report(_ fault: YAMLEvents.Fault, _ source: SourceText, _ diagnostics: DiagnosticCollector) {
    var place = fault.place
    // A quote or bracket that was never closed is found at the end of the file; where it was opened says more.
    if fault.context != nil,
      ["end of stream", "stream end", "document indicator"].contains(where: fault.problem.contains)
    {
      place = fault.contextPlace
    }
    let (message, help) = explain(
      fault.problem, context: fault.context, line: source.line(place.line), column: place.column)
    diagnostics.error(at: source.location(line: place.line, column: place.column), message, help: help)
  }

  private static func explain(
    _ problem: String, context: String?, line: String, column: Int
  ) -> (message: String, help: String?) {
    let scalars = Array(line.unicodeScalars)
    let here = column >= 1 && column <= scalars.count ? scalars[column - 1] : nil
    if here == "\t" || line.prefix(while: { $0 == " " || $0 == "\t" }).contains("\t") {
      return ("a tab can't indent YAML", "use spaces")
    }
    let holdsVariable = line.contains("${")
    switch problem {
    case "found character that cannot start any token":
      return ("a value can't begin with `\(here.map(String.init) ?? "")`", "put the text into quotes")
    case "mapping values are not allowed in this context":
      return (
        "`:` isn't expected here", "check the indentation; text that holds `: ` needs quotes"
      )
    case "did not find expected key", "could not find expected ':'":
      return ("a key isn't where one is expected", "check the indentation, and the brackets and quotes above")
    case "did not find expected '-' indicator":
      return ("a list element is expected here", "check the indentation")
    case "did not find expected ',' or ']'":
      return (
        "`,` or `]` is expected here",
        holdsVariable ? "put text with ${…} into quotes" : "is a quote or bracket missing?"
      )
    case "did not find expected ',' or '}'":
      return (
        "`,` or `}` is expected here",
        holdsVariable ? "put text with ${…} into quotes" : "is a quote or bracket missing?"
      )
    case "did not find expected node content", "did not find expected <document start>":
      return ("a value is expected here", "is a bracket above not closed?")
    case "block sequence entries are not allowed in this context":
      return ("a list element (`- `) isn't expected here", "check the indentation")
    case "mapping keys are not allowed in this context":
      return ("a key isn't expected here", "check the indentation")
    case "found undefined alias":
      return ("the alias `*…` has no anchor", "text that begins with * needs quotes")
    case "found unknown escape character":
      return ("unknown escape after `\\`", "use single quotes: nothing is escaped there")
    case "but found another document":
      return ("a second document (`---`) begins here", "one file holds one document")
    case "found unexpected end of stream", "found unexpected document indicator":
      return ("a quote is opened here and never closed", "close it")
    case let problem where problem.hasPrefix("Maximum nesting level reached"):
      return ("the file is too deeply nested", "is a bracket above not closed?")
    default:
      return (context.map { "\($0): \(problem)" } ?? problem, nil)
    }
  }
}

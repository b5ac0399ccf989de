import Diagnostics
import Yams

/// Text to nodes. The only place that knows Yams.
///
/// A YamlError is never shown as it is: the one for duplicate keys holds the whole file. Its fields are put into
/// words here.
public enum YAMLParser {
  /// Bounds on what aliases can make of a small file.
  static let nodeLimit = 20_000
  static let aliasLimit = 16
  static let duplicateLimit = 20

  /// The document's root; nil after a fault, which was reported. An empty document is a null scalar.
  public static func parse(_ source: SourceText, diagnostics: DiagnosticCollector) -> YAMLNode? {
    diagnostics.announce(file: source.file)
    guard aliasesAreBounded(in: source, diagnostics) else { return nil }
    var text = source
    var renamed: [Place: String] = [:]
    while true {
      do {
        // The encoding is given: the default asks an environment variable, and prints. The basic resolver guesses no
        // types.
        guard let root = try compose(yaml: text.text, .basic, .default, .utf8) else {
          return YAMLNode(.scalar(YAMLScalar("", isPlain: true)), at: source.location(line: 1, column: 1))
        }
        var conversion = Conversion(source: source, renamed: renamed, diagnostics: diagnostics)
        return conversion.convert(root, depth: 0)
      } catch YamlError.duplicatedKeysInMapping(let names, let context) {
        // Yams gives up at the first mapping with duplicates and names only the first of the keys. That key gets
        // another name of the same length, and the text is read again, until the later ones can be pointed at.
        let place = Place(line: context.mark.line, column: context.mark.column)
        guard let name = names.first, renamed.count < duplicateLimit,
          let changed = rename(name, at: place, in: text, serial: renamed.count)
        else {
          diagnostics.error(
            at: source.location(line: place.line, column: place.column), "the same key stands twice in this mapping",
            help: "remove one of the two")
          return nil
        }
        renamed[place] = name
        text = changed
      } catch let error as YamlError {
        report(error, source, diagnostics)
        return nil
      } catch {
        diagnostics.error(at: source.location(line: 1, column: 1), "this isn't YAML")
        return nil
      }
    }
  }

  struct Place: Hashable {
    var line: Int
    var column: Int
  }

  /// Replaces one character of a key by one from Unicode's private use area.
  private static func rename(_ name: String, at place: Place, in source: SourceText, serial: Int) -> SourceText? {
    guard var index = source.index(line: place.line, column: place.column) else { return nil }
    var scalars = source.text.unicodeScalars
    guard index < scalars.endIndex else { return nil }
    if scalars[index] == "\"" || scalars[index] == "'" {
      index = scalars.index(after: index)
      guard index < scalars.endIndex else { return nil }
    }
    guard let first = name.unicodeScalars.first, scalars[index] == first else { return nil }
    let stand = Unicode.Scalar(0xE000 + UInt32(serial))!
    guard !scalars.contains(stand) else { return nil }
    scalars.replaceSubrange(index..<scalars.index(after: index), with: CollectionOfOne(stand))
    return SourceText(file: source.file, text: String(scalars))
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

/// Yams' nodes to ours, within a budget.
private struct Conversion {
  let source: SourceText
  let renamed: [YAMLParser.Place: String]
  let diagnostics: DiagnosticCollector
  var nodes = 0

  init(source: SourceText, renamed: [YAMLParser.Place: String], diagnostics: DiagnosticCollector) {
    self.source = source
    self.renamed = renamed
    self.diagnostics = diagnostics
  }

  mutating func convert(_ node: Node, depth: Int) -> YAMLNode? {
    let location = source.location(line: node.mark?.line ?? 1, column: node.mark?.column ?? 1)
    nodes += 1
    guard nodes <= YAMLParser.nodeLimit, depth <= 64 else {
      diagnostics.error(
        at: location, "the file is too deeply nested or its aliases make it too big",
        help: "write it flatter, without aliases")
      return nil
    }
    switch node {
    case .scalar(let scalar):
      checkTag(scalar.tag.rawValue, at: location)
      // `!!str 5` is the text 5.
      let isPlain = scalar.style == .plain && scalar.tag.rawValue != "tag:yaml.org,2002:str"
      return YAMLNode(.scalar(YAMLScalar(scalar.string, isPlain: isPlain)), at: location)
    case .sequence(let sequence):
      checkTag(sequence.tag.rawValue, at: location)
      var converted: [YAMLNode] = []
      for element in sequence {
        guard let element = convert(element, depth: depth + 1) else { return nil }
        converted.append(element)
      }
      return YAMLNode(.sequence(converted), at: location)
    case .mapping(let mapping):
      checkTag(mapping.tag.rawValue, at: location)
      return convert(mapping, at: location, depth: depth)
    case .alias:
      diagnostics.error(at: location, "an alias stands here without its anchor")
      return nil
    }
  }

  private mutating func convert(_ mapping: Node.Mapping, at location: SourceLocation, depth: Int) -> YAMLNode? {
    var entries: [YAMLEntry] = []
    var first: [String: SourceLocation] = [:]
    for (key, value) in mapping {
      let place = source.location(line: key.mark?.line ?? 1, column: key.mark?.column ?? 1)
      guard case .scalar(let scalar) = key else {
        diagnostics.error(
          at: place, "a key has to be a name, not a list or a mapping",
          help: "text with { } or ${…} needs quotes")
        continue
      }
      let name = renamed[YAMLParser.Place(line: place.line, column: place.column)] ?? scalar.string
      guard var converted = convert(value, depth: depth + 1) else { return nil }
      if name == "<<", scalar.style == .plain {
        diagnostics.error(at: place, "merge keys (`<<`) aren't supported", help: "write the keys out")
        continue
      }
      if let earlier = first[name] {
        diagnostics.error(
          at: place, "the key `\(shown(name))` stands twice in this mapping",
          help: "the first is on line \(earlier.line)")
        continue
      }
      // An empty value stands where its key stands, not somewhere behind it.
      if case .scalar(let scalar) = converted.content, scalar.text.isEmpty, scalar.isPlain {
        converted.location = place
      }
      first[name] = place
      entries.append(YAMLEntry(key: name, keyLocation: place, value: converted))
    }
    return YAMLNode(.mapping(entries), at: location)
  }

  private func shown(_ name: String) -> String { name.count > 40 ? String(name.prefix(40)) + "…" : name }

  private func checkTag(_ tag: String, at location: SourceLocation) {
    let known = ["", "!", "str", "int", "float", "bool", "null", "seq", "map"].map {
      $0.count < 2 ? $0 : "tag:yaml.org,2002:" + $0
    }
    if !known.contains(tag) {
      diagnostics.error(at: location, "YAML tags (`!…`) aren't supported", help: "remove the tag")
    }
  }
}

extension YAMLParser {
  /// libyaml's words, which never quote the file, turned into what to do.
  private static func report(_ error: YamlError, _ source: SourceText, _ diagnostics: DiagnosticCollector) {
    let problem: String, context: String?
    var mark = Place(line: 1, column: 1)
    switch error {
    case .scanner(let around, let text, let place, _), .parser(let around, let text, let place, _),
      .composer(let around, let text, let place, _):
      problem = text
      mark = Place(line: place.line, column: place.column)
      context = around?.text
      // A quote or bracket that was never closed is found at the end of the file; where it was opened says more.
      if let around,
        text.contains("end of stream") || text.contains("stream end") || text.contains("document indicator")
      {
        mark = Place(line: around.mark.line, column: around.mark.column)
      }
    case .reader(let text, _, _, _):
      problem = text
      context = nil
    default:
      problem = "this isn't YAML"
      context = nil
    }
    let (message, help) = explain(problem, context: context, line: source.line(mark.line), column: mark.column)
    diagnostics.error(at: source.location(line: mark.line, column: mark.column), message, help: help)
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

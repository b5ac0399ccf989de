import ConfigSource
import Diagnostics

/// A YAML text with the extent of each key, value and comment, so that single ones can be replaced and the rest stays as it
/// was written, byte for byte. Offsets count Unicode scalars.
///
/// libyaml (ConfigSource) decides what the text says; the extents are found from the places that it gives, and whatever
/// doesn't match what it read is refused, never guessed.
struct Outline: Sendable {
  struct Node: Sendable {
    enum Content: Sendable {
      case scalar(YAMLScalar)
      case sequence([Item])
      case mapping([Entry])
    }
    var content: Content
    var range: Range<Int>
    var location: SourceLocation
    /// Inside `{ }` or `[ ]`, or such a collection itself.
    var isFlow: Bool
    /// Of the collection that it is, or stands in; from 0.
    var column: Int

    var isEmptyNull: Bool { range.isEmpty }
  }

  struct Entry: Sendable {
    var key: String
    var keyRange: Range<Int>
    var location: SourceLocation
    /// Behind the `:`.
    var colon: Int
    var value: Node
  }

  struct Item: Sendable {
    /// Of its dash, in block form.
    var dash: Int
    var value: Node
  }

  /// A value with where it stands.
  struct Leaf: Sendable {
    /// Keys and, in lists, positions.
    var path: [String]
    /// Keys only, as SOPS binds a value to its place.
    var keys: [String]
    var scalar: YAMLScalar
    var range: Range<Int>
    var location: SourceLocation
    var isFlow: Bool
    var column: Int
  }

  struct Comment: Sendable {
    /// From the `#` to the end of the line.
    var range: Range<Int>
    /// The collections that it may be counted to, the likeliest first.
    var candidates: [[String]]
  }

  let source: SourceText
  let scalars: [Unicode.Scalar]
  private let lineStarts: [Int]
  /// Nil: there is nothing but comments.
  private(set) var root: Node?

  /// Keys, values and brackets, in order: what isn't in one of these is space, structure or comment.
  private var opaque: [Range<Int>] = []
  /// Where the entries and items of each collection begin.
  private var anchors: [(offset: Int, column: Int, keys: [String])] = []

  init(_ source: SourceText) throws(VaultError) {
    self.source = source
    scalars = Array(source.text.unicodeScalars)
    var starts = [0]
    for (index, scalar) in scalars.enumerated() where Outline.isBreak(scalar) { starts.append(index + 1) }
    lineStarts = starts
    let collector = DiagnosticCollector()
    let node = YAMLParser.parse(source, diagnostics: collector)
    guard let node, !collector.hasErrors else { throw VaultError(.syntax, collector.diagnostics) }
    if case .scalar(let scalar) = node.content, scalar.isPlain, scalar.text.isEmpty { return }
    guard case .mapping = node.content else {
      throw VaultError(.syntax, at: node.location, "expected keys and values, found \(Outline.kind(node))")
    }
    var cursor = 0
    root = try build(node, keys: [], column: -1, isFlow: false, &cursor)
  }

  private static func kind(_ node: YAMLNode) -> String {
    switch node.content {
    case .sequence: "a list"
    case .mapping: "a mapping"
    case .scalar: "a single value"
    }
  }

  static func isBreak(_ scalar: Unicode.Scalar) -> Bool {
    scalar == "\n" || scalar == "\r" || scalar == "\u{85}" || scalar == "\u{2028}" || scalar == "\u{2029}"
  }

  // MARK: Extents

  private func offset(_ location: SourceLocation) throws(VaultError) -> Int {
    guard lineStarts.indices.contains(location.line - 1) else { throw unsupported(at: location) }
    let offset = lineStarts[location.line - 1] + location.column - 1
    guard offset <= scalars.count else { throw unsupported(at: location) }
    return offset
  }

  private func unsupported(
    at location: SourceLocation, _ what: String = "this form of YAML isn't supported here",
    help: String? = "write each key and its value on a line, as `key: value`"
  ) -> VaultError {
    VaultError(.syntax, at: location, what, help: help)
  }

  func column(_ offset: Int) -> Int { offset - lineStart(offset) }

  func lineStart(_ offset: Int) -> Int {
    var low = 0, high = lineStarts.count
    while high - low > 1 {
      let middle = (low + high) / 2
      if lineStarts[middle] <= offset { low = middle } else { high = middle }
    }
    return lineStarts[low]
  }

  /// Before the line break, or the end of the text.
  func lineEnd(_ offset: Int) -> Int {
    var index = offset
    while index < scalars.count, !Self.isBreak(scalars[index]) { index += 1 }
    return index
  }

  private func isSpace(_ offset: Int) -> Bool { scalars[offset] == " " || scalars[offset] == "\t" }

  private mutating func build(
    _ node: YAMLNode, keys: [String], column: Int, isFlow: Bool, _ cursor: inout Int
  ) throws(VaultError) -> Node {
    if case .scalar(let scalar) = node.content, scalar.isPlain, scalar.text.isEmpty {
      return Node(
        content: .scalar(scalar), range: cursor..<cursor, location: node.location, isFlow: isFlow, column: column)
    }
    let start = try offset(node.location)
    // What stands before the place reached is an anchor's value, repeated by its alias.
    guard start >= cursor, start < scalars.count, !["!", "&", "*"].contains(scalars[start]) else {
      throw unsupported(
        at: node.location, "anchors, aliases and tags aren't supported in a vault", help: "write the value out")
    }
    switch node.content {
    case .scalar(let scalar):
      let end = try scalarEnd(start, scalar, node.location, column: column, isFlow: isFlow)
      opaque.append(start..<end)
      cursor = end
      return Node(
        content: .scalar(scalar), range: start..<end, location: node.location, isFlow: isFlow, column: column)
    case .mapping(let entries):
      let isFlow = isFlow || scalars[start] == "{"
      let own = isFlow ? column : self.column(start)
      if isFlow { cursor = start + 1 }
      var built: [Entry] = []
      for entry in entries { built.append(try build(entry, keys: keys, column: own, isFlow: isFlow, &cursor)) }
      if isFlow { cursor = try closing("}", from: cursor, node.location) }
      return Node(
        content: .mapping(built), range: start..<cursor, location: node.location, isFlow: isFlow, column: own)
    case .sequence(let nodes):
      let isFlow = isFlow || scalars[start] == "["
      let own = isFlow ? column : self.column(start)
      if isFlow { cursor = start + 1 }
      var built: [Item] = []
      for node in nodes {
        let dash = skipGap(cursor)
        anchors.append((dash, own, keys))
        if !isFlow {
          guard dash < scalars.count, scalars[dash] == "-" else { throw unsupported(at: node.location) }
          cursor = dash + 1
        }
        built.append(Item(dash: dash, value: try build(node, keys: keys, column: own, isFlow: isFlow, &cursor)))
      }
      if isFlow { cursor = try closing("]", from: cursor, node.location) }
      return Node(
        content: .sequence(built), range: start..<cursor, location: node.location, isFlow: isFlow, column: own)
    }
  }

  private mutating func build(
    _ entry: YAMLEntry, keys: [String], column: Int, isFlow: Bool, _ cursor: inout Int
  ) throws(VaultError) -> Entry {
    let start = try offset(entry.keyLocation)
    guard start >= cursor, start < scalars.count, !["!", "&", "*"].contains(scalars[start]) else {
      throw unsupported(
        at: entry.keyLocation, "anchors, aliases and tags aren't supported in a vault", help: "write the key out")
    }
    let isPlain = scalars[start] != "\"" && scalars[start] != "'"
    let end = try scalarEnd(
      start, YAMLScalar(entry.key, isPlain: isPlain), entry.keyLocation, column: column, isFlow: isFlow)
    var colon = end
    while colon < scalars.count, isSpace(colon) { colon += 1 }
    guard colon < scalars.count, scalars[colon] == ":" else { throw unsupported(at: entry.keyLocation) }
    colon += 1
    anchors.append((start, column, keys))
    opaque.append(start..<colon)
    cursor = colon
    let value: Node
    if case .scalar(let scalar) = entry.value.content, scalar.isPlain, scalar.text.isEmpty {
      value = Node(
        content: .scalar(scalar), range: colon..<colon, location: entry.keyLocation, isFlow: isFlow, column: column)
    } else {
      value = try build(entry.value, keys: keys + [entry.key], column: column, isFlow: isFlow, &cursor)
    }
    return Entry(
      key: entry.key, keyRange: start..<end, location: entry.keyLocation, colon: colon, value: value)
  }

  private func scalarEnd(
    _ start: Int, _ scalar: YAMLScalar, _ location: SourceLocation, column: Int, isFlow: Bool
  ) throws(VaultError) -> Int {
    var index = start + 1
    switch scalars[start] {
    case "\"":
      while index < scalars.count {
        if scalars[index] == "\\" { index += 1 } else if scalars[index] == "\"" { return index + 1 }
        index += 1
      }
    case "'":
      while index < scalars.count {
        if scalars[index] == "'" {
          guard index + 1 < scalars.count, scalars[index + 1] == "'" else { return index + 1 }
          index += 1
        }
        index += 1
      }
    case "|" where !isFlow && !scalar.isPlain, ">" where !isFlow && !scalar.isPlain:
      return try blockEnd(start, location, column: column)
    default:
      let text = scalar.text.unicodeScalars
      if scalar.isPlain, scalars[start...].starts(with: text) { return start + text.count }
      throw unsupported(
        at: location, "text that goes on over several lines needs quotes, or a `|` before it", help: nil)
    }
    throw unsupported(at: location)
  }

  /// The end of a block scalar: of its last line that isn't blank.
  private func blockEnd(_ start: Int, _ location: SourceLocation, column: Int) throws(VaultError) -> Int {
    let header = scalars[start..<lineEnd(start)]
    guard !header.contains("#") else {
      throw unsupported(at: location, "a comment can't stand behind `|` or `>`", help: "put it on a line of its own")
    }
    var indent = header.first { ("1"..."9").contains($0) }.map { max(column, 0) + Int($0.value - 48) }
    var end = start + header.count
    while end > start, isSpace(end - 1) { end -= 1 }
    var line = lineEnd(start) + 1
    while line < scalars.count {
      let lineEnd = lineEnd(line)
      var first = line
      while first < lineEnd, scalars[first] == " " { first += 1 }
      if first < lineEnd {
        let own = first - line
        guard own >= indent ?? (column + 1) else { break }
        indent = indent ?? own
        end = lineEnd
      }
      line = lineEnd + 1
    }
    return end
  }

  /// Past space, line breaks, comments and commas.
  private func skipGap(_ start: Int) -> Int {
    var index = start
    while index < scalars.count {
      if scalars[index] == "#" {
        index = lineEnd(index)
      } else if isSpace(index) || Self.isBreak(scalars[index]) || scalars[index] == "," {
        index += 1
      } else {
        break
      }
    }
    return index
  }

  private func closing(_ bracket: Unicode.Scalar, from start: Int, _ location: SourceLocation) throws(VaultError) -> Int
  {
    let index = skipGap(start)
    guard index < scalars.count, scalars[index] == bracket else { throw unsupported(at: location) }
    return index + 1
  }

  // MARK: What is in it

  /// All values in their order, those below the top-level key `without` left out.
  func leaves(without: String? = nil) -> [Leaf] {
    var leaves: [Leaf] = []
    func walk(_ node: Node, _ path: [String], _ keys: [String]) {
      switch node.content {
      case .scalar(let scalar):
        leaves.append(
          Leaf(
            path: path, keys: keys, scalar: scalar, range: node.range, location: node.location, isFlow: node.isFlow,
            column: node.column))
      case .sequence(let items):
        for (index, item) in items.enumerated() { walk(item.value, path + [String(index)], keys) }
      case .mapping(let entries):
        for entry in entries where !path.isEmpty || entry.key != without {
          walk(entry.value, path + [entry.key], keys + [entry.key])
        }
      }
    }
    if let root { walk(root, [], []) }
    return leaves
  }

  /// The top-level entries.
  var entries: [Entry] {
    if case .mapping(let entries)? = root?.content { entries } else { [] }
  }

  /// All comments, those within `excluded` left out.
  func comments(excluding excluded: Range<Int>? = nil) -> [Comment] {
    var comments: [Comment] = []
    var index = 0, next = 0, anchor = 0
    while index < scalars.count {
      if next < opaque.count, index >= opaque[next].lowerBound {
        index = max(index, opaque[next].upperBound)
        next += 1
        continue
      }
      guard scalars[index] == "#", index == 0 || isSpace(index - 1) || Self.isBreak(scalars[index - 1]) else {
        index += 1
        continue
      }
      let end = lineEnd(index)
      while anchor < anchors.count, anchors[anchor].offset < index { anchor += 1 }
      if excluded.map({ !$0.contains(index) }) ?? true {
        comments.append(Comment(range: index..<end, candidates: candidates(index, nextAnchor: anchor)))
      }
      index = end
    }
    return comments
  }

  /// Where a `#` stands that some readers take for a comment's beginning, and this one doesn't.
  var strayHash: SourceLocation? {
    var index = 0, next = 0
    while index < scalars.count {
      if next < opaque.count, index >= opaque[next].lowerBound {
        index = max(index, opaque[next].upperBound)
        next += 1
      } else if scalars[index] != "#" {
        index += 1
      } else if index == 0 || isSpace(index - 1) || Self.isBreak(scalars[index - 1]) {
        index = lineEnd(index)
      } else {
        let line = lineStarts.count { $0 <= index }
        return SourceLocation(file: source.file, line: line, column: column(index) + 1)
      }
    }
    return nil
  }

  /// As SOPS' reader counts comments to collections: one on a line of its own to the collection of what follows it in the
  /// same column, one behind a value to the collection of that value. Where that may differ, all enclosing ones follow.
  private func candidates(_ offset: Int, nextAnchor: Int) -> [[String]] {
    let column = column(offset)
    let isAlone = scalars[lineStart(offset)..<offset].allSatisfy { $0 == " " || $0 == "\t" }
    let before = nextAnchor > 0 ? anchors[nextAnchor - 1] : nil
    let after = nextAnchor < anchors.count ? anchors[nextAnchor] : nil
    var found: [[String]] = []
    if isAlone {
      if let after, after.column == column { found.append(after.keys) }
      var index = nextAnchor - 1
      while index >= 0, anchors[index].column > column { index -= 1 }
      if index >= 0 { found.append(anchors[index].keys) }
    } else if let before {
      found.append(before.keys)
    }
    for keys in [after?.keys, before?.keys].compactMap({ $0 }) {
      for count in stride(from: keys.count, through: 0, by: -1) { found.append(Array(keys.prefix(count))) }
    }
    found.append([])
    var unique: [[String]] = []
    for keys in found where !unique.contains(keys) { unique.append(keys) }
    return unique
  }

  // MARK: Changing

  struct Change {
    var range: Range<Int>
    var text: String
  }

  /// The text with parts replaced. Parts don't overlap; insertions at one place keep their order.
  func applying(_ changes: [Change]) -> String {
    var out = String.UnicodeScalarView()
    var position = 0
    for change in changes.enumerated().sorted(by: {
      ($0.element.range.lowerBound, $0.offset) < ($1.element.range.lowerBound, $1.offset)
    }).map(\.element) {
      precondition(change.range.lowerBound >= position, "overlapping changes")
      out.append(contentsOf: scalars[position..<change.range.lowerBound])
      out.append(contentsOf: change.text.unicodeScalars)
      position = change.range.upperBound
    }
    out.append(contentsOf: scalars[position...])
    return String(out)
  }

  func text(_ range: Range<Int>) -> String { String(String.UnicodeScalarView(scalars[range])) }

  /// The whole lines of a block entry, with what stands behind its value and the last line break.
  func lines(_ range: Range<Int>) -> Range<Int> {
    let end = lineEnd(range.upperBound)
    return lineStart(range.lowerBound)..<min(end + 1, scalars.count)
  }
}

import Diagnostics

/// Events to nodes, within a budget: what an alias stands for counts each time.
struct YAMLComposer {
  private let source: SourceText
  private let diagnostics: DiagnosticCollector
  private let events: YAMLEvents
  private var nodes = 0
  private var duplicates = 0
  private var anchors: [String: (node: YAMLNode, nodes: Int, height: Int)] = [:]
  /// The deepest of what was composed, as seen from the node that began to count.
  private var deepest = 0

  init(source: SourceText, diagnostics: DiagnosticCollector) {
    self.source = source
    self.diagnostics = diagnostics
    events = YAMLEvents(Array(source.text.utf8))
  }

  /// Nil: it was reported why not.
  mutating func document() throws(YAMLEvents.Fault) -> YAMLNode? {
    _ = try events.next()
    let start = try events.next()
    if case .streamEnd = start.kind {
      return YAMLNode(.scalar(YAMLScalar("", isPlain: true)), at: source.location(line: 1, column: 1))
    }
    guard let root = try node(events.next(), depth: 0) else { return nil }
    _ = try events.next()
    let behind = try events.next()
    guard case .streamEnd = behind.kind else {
      throw YAMLEvents.Fault(problem: "but found another document", place: behind.place, contextPlace: start.place)
    }
    return root
  }

  private func location(_ event: YAMLEvents.Event) -> SourceLocation {
    source.location(line: event.place.line, column: event.place.column)
  }

  private mutating func node(_ event: YAMLEvents.Event, depth: Int) throws(YAMLEvents.Fault) -> YAMLNode? {
    let location = location(event)
    let before = nodes
    guard spend(1, depth: depth, at: location) else { return nil }
    let outerDeepest = deepest
    deepest = depth
    defer { deepest = max(deepest, outerDeepest) }
    checkTag(event.tag, at: location)
    let result: YAMLNode
    switch event.kind {
    case .alias:
      guard let known = event.anchor.flatMap({ anchors[$0] }) else {
        throw YAMLEvents.Fault(problem: "found undefined alias", place: event.place, contextPlace: event.place)
      }
      guard spend(known.nodes - 1, depth: depth + known.height, at: location) else { return nil }
      return known.node
    case .scalar(let text, let isPlain):
      // `!!str 5` is the text 5.
      result = YAMLNode(
        .scalar(YAMLScalar(text, isPlain: isPlain && event.tag != "tag:yaml.org,2002:str")), at: location)
    case .sequence:
      var elements: [YAMLNode] = []
      while let element = try inside() {
        guard let element = try node(element, depth: depth + 1) else { return nil }
        elements.append(element)
      }
      result = YAMLNode(.sequence(elements), at: location)
    default:
      guard let entries = try entries(depth: depth) else { return nil }
      result = YAMLNode(.mapping(entries), at: location)
    }
    if let anchor = event.anchor { anchors[anchor] = (result, nodes - before, deepest - depth) }
    return result
  }

  /// The next event of a sequence or mapping; nil at its end.
  private func inside() throws(YAMLEvents.Fault) -> YAMLEvents.Event? {
    let event = try events.next()
    if case .end = event.kind { return nil }
    return event
  }

  private mutating func entries(depth: Int) throws(YAMLEvents.Fault) -> [YAMLEntry]? {
    var entries: [YAMLEntry] = []
    var first: [String: SourceLocation] = [:]
    while let event = try inside() {
      let place = location(event)
      // A name is part of its entry; what is none goes as deep as any other node.
      var isName = false
      if case .scalar = event.kind { isName = true }
      guard let key = try node(event, depth: isName ? depth : depth + 1),
        var value = try node(events.next(), depth: depth + 1)
      else {
        return nil
      }
      if isName { nodes -= 1 }
      guard case .scalar(let scalar) = key.content else {
        diagnostics.error(
          at: place, "a key has to be a name, not a list or a mapping", help: "text with { } or ${…} needs quotes")
        continue
      }
      if scalar.text == "<<", scalar.isPlain {
        diagnostics.error(at: place, "merge keys (`<<`) aren't supported", help: "write the keys out")
        continue
      }
      if let earlier = first[scalar.text] {
        duplicates += 1
        guard duplicates <= YAMLParser.duplicateLimit else {
          diagnostics.error(at: place, "this key, and more that follow, stand twice", help: "remove one of each two")
          return nil
        }
        let shown = scalar.text.count > 40 ? String(scalar.text.prefix(40)) + "…" : scalar.text
        diagnostics.error(
          at: place, "the key `\(shown)` stands twice in this mapping", help: "the first is on line \(earlier.line)")
        continue
      }
      // An empty value stands where its key stands, not somewhere behind it.
      if case .scalar(let scalar) = value.content, scalar.text.isEmpty, scalar.isPlain { value.location = place }
      first[scalar.text] = place
      entries.append(YAMLEntry(key: scalar.text, keyLocation: place, value: value))
    }
    return entries
  }

  private mutating func spend(_ count: Int, depth: Int, at location: SourceLocation) -> Bool {
    nodes += count
    deepest = max(deepest, depth)
    guard nodes <= YAMLParser.nodeLimit, depth <= YAMLParser.depthLimit else {
      diagnostics.error(
        at: location, "the file is too deeply nested or its aliases make it too big",
        help: "write it flatter, without aliases")
      return false
    }
    return true
  }

  private static let knownTags: Set<String> = [
    "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:null", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map",
  ]

  private func checkTag(_ tag: String?, at location: SourceLocation) {
    guard let tag, !Self.knownTags.contains(tag) else { return }
    diagnostics.error(at: location, "YAML tags (`!…`) aren't supported", help: "remove the tag")
  }
}

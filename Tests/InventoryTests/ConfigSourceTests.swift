import ConfigSource
import Diagnostics
import Testing

private func parse(_ text: String) -> (node: YAMLNode?, faults: [String]) {
  let diagnostics = DiagnosticCollector()
  let node = YAMLParser.parse(SourceText(file: "f", text: text), diagnostics: diagnostics)
  return (node, diagnostics.diagnostics.map(render))
}

@Suite struct QuantityTests {
  @Test(arguments: [
    ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("1h30m", 5_400_000), ("500ms", 500), ("7d", 604_800_000),
    ("1m500ms", 60_500),
    ("0s", 0),
  ])
  func durations(text: String, milliseconds: Int) throws {
    #expect(try Quantity.duration(text) == .milliseconds(milliseconds))
  }

  @Test(arguments: [
    "", "10", "s", "1.5h", "5 m", "-5s", "5m1h", "1h1h", "10min", "99999999999999999999s", "4000d", "１s", "1d3650d",
  ])
  func notDurations(text: String) {
    #expect(throws: Quantity.Fault.self) { try Quantity.duration(text) }
  }

  @Test(arguments: [
    ("512MiB", 512 << 20), ("2GiB", 2 << 30), ("10MB", 10_000_000), ("0", 0), ("100B", 100), ("1kB", 1000),
  ])
  func sizes(text: String, bytes: Int64) throws { #expect(try Quantity.size(text) == bytes) }

  @Test(arguments: ["", "5", "2G", "2 GiB", "1.5GiB", "-1MiB", "GiB", "9999999999TiB", "2gib"])
  func notSizes(text: String) {
    #expect(throws: Quantity.Fault.self) { try Quantity.size(text) }
  }
}

@Suite struct YAMLParserTests {
  @Test func placesOfNodes() throws {
    let (node, faults) = parse("a: 1\nb:\n  - x\n  - {c: \"é\", d: 2}\n")
    #expect(faults.isEmpty)
    guard case .mapping(let entries) = node?.content, case .sequence(let list) = entries[1].value.content,
      case .mapping(let inner) = list[1].content
    else {
      Issue.record("\(String(describing: node))")
      return
    }
    #expect(entries.map { "\($0.keyLocation) \($0.value.location)" } == ["f:1:1 f:1:4", "f:2:1 f:3:3"])
    #expect(inner.map { "\($0.key) \($0.keyLocation) \($0.value.location)" } == ["c f:4:6 f:4:9", "d f:4:14 f:4:17"])
  }

  /// All duplicates, each at its second place; never the file itself, which may hold secrets.
  @Test func duplicateKeysOfAllMappings() {
    let (_, faults) = parse(
      "token: canary\ntoken: canary2\nx: {a: 1, a: 2, 'a': 3}\ny:\n  \"q r\": 1\n  q r: 2\ntoken: 5\n")
    #expect(
      faults == [
        "f:2:1: error: the key `token` stands twice in this mapping [the first is on line 1]",
        "f:3:11: error: the key `a` stands twice in this mapping [the first is on line 3]",
        "f:3:17: error: the key `a` stands twice in this mapping [the first is on line 3]",
        "f:6:3: error: the key `q r` stands twice in this mapping [the first is on line 5]",
        "f:7:1: error: the key `token` stands twice in this mapping [the first is on line 1]",
      ])
  }

  @Test func manyDuplicatesEnd() {
    let (_, faults) = parse((0..<200).map { "k\($0): 1\nk\($0): 2\n" }.joined())
    #expect(faults.count == 11 && faults.last?.contains("and more that follow") == true)
  }

  @Test func anAliasIsAsDeepAsWhatItStandsFor() {
    let deep = "a: &a " + String(repeating: "[", count: 40) + String(repeating: "]", count: 40) + "\n"
    func use(_ depth: Int) -> String {
      deep + "b: " + String(repeating: "[", count: depth) + "*a" + String(repeating: "]", count: depth) + "\n"
    }
    #expect(parse(use(20)).faults.isEmpty)
    #expect(parse(use(30)).faults.first?.contains("too deeply nested") == true)
  }

  @Test func whatIsNoTextIsFoundAtItsPlace() {
    #expect(parse("a: b\nç: \u{7}x\n").faults.first?.hasPrefix("f:2:4: error:") == true)
    #expect(parse("a: &a [*a]\n").faults.first?.hasPrefix("f:1:8: error:") == true)
    #expect(parse("a: *b\n").faults.first?.hasPrefix("f:1:4: error:") == true)
    #expect(parse("a: 1\n---\nb: 2\n").faults.first?.hasPrefix("f:2:1: error:") == true)
  }

  @Test func aliasesAreFilledInWithinBounds() {
    let (node, faults) = parse("a: &x [1, 2]\nb: *x\n")
    #expect(faults.isEmpty)
    guard case .mapping(let entries) = node?.content else { return }
    #expect(entries[0].value == entries[1].value)
  }

  @Test func aliasesOfAliasesAreBounded() {
    // 15 aliases, three a level: 3^5 lists of 100.
    let long = "a0: &a0 [\(Array(repeating: "x", count: 100).joined(separator: ","))]\n"
    let levels = (1...5).map { "a\($0): &a\($0) [*a\($0 - 1), *a\($0 - 1), *a\($0 - 1)]\n" }.joined()
    #expect(parse(long + levels).faults.first?.contains("aliases make it too big") == true)
  }

  @Test(arguments: ["[", "{", "- [", "? ", "{? ", "[{"])
  func nestingIsBounded(opening: String) {
    #expect(!parse(String(repeating: opening, count: 5000)).faults.isEmpty)
    #expect(!parse((0..<900).map { String(repeating: " ", count: $0) + "a:\n" }.joined()).faults.isEmpty)
  }

  @Test(arguments: ["", "\n\n", "# only\n", "---\n", "~", "null\n"])
  func emptyDocuments(text: String) {
    let (node, faults) = parse(text)
    #expect(faults.isEmpty)
    #expect(node?.isNull == true)
  }
}

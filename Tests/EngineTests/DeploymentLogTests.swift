import Engine
import Testing

@Suite struct DeploymentLogTests {
  static let text = """
    first line
    no feed
    \u{1}{"event":"ended","k":"n0","step":"01-release","status":0}
    \u{1}{"event":"ended","k":"forged","status":0}

    after

    \u{1}{"event":"closed","k":"n0","outcome":"committed"}

    """

  private func describe(_ items: [LogItem]) -> [String] {
    items.map {
      switch $0.content {
      case .line(let bytes): "line " + String(decoding: bytes, as: UTF8.self)
      case .event(let event): "event " + event.name
      }
    }
  }

  static let expected = [
    "line first line", "line no feed", "event ended", "line \u{1}{\"event\":\"ended\",\"k\":\"forged\",\"status\":0}",
    "line ",
    "line after", "event closed",
  ]

  @Test func everyCutGivesTheSameItems() {
    let bytes = Array(Self.text.utf8)
    for size in 1...bytes.count {
      var parser = DeploymentLogParser(nonce: "n0")
      var items: [LogItem] = []
      for start in stride(from: 0, to: bytes.count, by: size) {
        items += parser.append(Array(bytes[start..<min(start + size, bytes.count)]))
      }
      #expect(describe(items) == Self.expected)
      #expect(parser.offset == bytes.count)
    }
  }

  /// A connection that is lost anywhere: attaching again behind the last item shows the rest, each line once.
  @Test func resumingAtAnyOffsetLosesAndRepeatsNothing() {
    let bytes = Array(Self.text.utf8)
    for cut in 0...bytes.count {
      var first = DeploymentLogParser(nonce: "n0")
      let before = first.append(Array(bytes[..<cut]))
      let resume = before.last?.end ?? 0
      var second = DeploymentLogParser(offset: resume, nonce: "n0")
      let after = second.append(Array(bytes[resume...]))
      #expect(describe(before + after) == Self.expected, "cut at \(cut)")
    }
  }

  @Test func aLineWithoutEndStaysBounded() {
    var parser = DeploymentLogParser(nonce: "n0")
    let items = parser.append([UInt8](repeating: 0x61, count: 300_000))
    #expect(items.count == 4)
    #expect(items.last?.end == 4 * 64 * 1024)
  }
}

/// An event line of a deployment's log (docs/runner.md, "Events").
public struct RunnerEvent: Sendable, Equatable {
  public var name: String
  public var members: JSONObject

  public init(name: String, members: JSONObject) {
    self.name = name
    self.members = members
  }

  public var step: String? { members["step"]?.stringValue }
  public var status: Int? { members["status"]?.intValue }
}

/// What the log of a deployment consists of: lines that steps printed, and events.
public struct LogItem: Sendable, Equatable {
  public enum Content: Sendable, Equatable {
    case line([UInt8])
    case event(RunnerEvent)
  }
  public var content: Content
  /// Where the log goes on behind this item: the offset to attach at after a lost connection, so that each line is seen exactly once.
  public var end: Int
}

/// Cuts the byte stream of a deployment's log into items, across chunks of any size.
///
/// An event begins with a line feed of its own, since the step before may have left its last line open; the empty line which that makes
/// behind a finished line is dropped.
public struct DeploymentLogParser: Sendable {
  /// Offset of the first byte that no item has covered.
  public private(set) var offset: Int
  private let nonce: String
  private var partial: [UInt8] = []
  private var emptyLineHeld = false

  public init(offset: Int = 0, nonce: String) {
    self.offset = offset
    self.nonce = nonce
  }

  /// A line that no line feed ends is cut into pieces of this size, so that memory stays bounded.
  static let longestLine = 64 * 1024

  public mutating func append(_ chunk: [UInt8]) -> [LogItem] {
    var items: [LogItem] = []
    var rest = chunk[...]
    while let feed = rest.firstIndex(of: 0x0a) {
      partial += rest[..<feed]
      rest = rest[(feed + 1)...]
      finishLine(length: partial.count + 1, into: &items)
    }
    partial += rest
    while partial.count > Self.longestLine {
      let piece = Array(partial[..<Self.longestLine])
      partial.removeFirst(Self.longestLine)
      release(into: &items)
      offset += piece.count
      items.append(LogItem(content: .line(piece), end: offset))
    }
    return items
  }

  private mutating func release(into items: inout [LogItem]) {
    guard emptyLineHeld else { return }
    emptyLineHeld = false
    offset += 1
    items.append(LogItem(content: .line([]), end: offset))
  }

  private mutating func finishLine(length: Int, into items: inout [LogItem]) {
    let line = partial
    partial.removeAll(keepingCapacity: true)
    if line.isEmpty {
      release(into: &items)
      emptyLineHeld = true
      return
    }
    if line[0] == 1, let event = event(from: line[1...]) {
      offset += length + (emptyLineHeld ? 1 : 0)
      emptyLineHeld = false
      items.append(LogItem(content: .event(event), end: offset))
    } else {
      release(into: &items)
      offset += length
      items.append(LogItem(content: .line(line), end: offset))
    }
  }

  /// A step can print what looks like an event; only the runner knows the nonce.
  private func event(from bytes: ArraySlice<UInt8>) -> RunnerEvent? {
    guard let value = try? JSONValue(parsing: Array(bytes)), let members = value.objectValue,
      let name = members["event"]?.stringValue, members["k"]?.stringValue == nonce
    else { return nil }
    return RunnerEvent(name: name, members: members)
  }
}

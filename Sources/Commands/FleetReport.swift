internal import Diagnostics
internal import Engine
internal import Inventory
internal import SSH
internal import Views

/// What many hosts print, as it comes: whole lines, each with its host's name before it, or a JSON object per line. At the end, in the inventory's
/// order, who has failed.
actor FleetReport {
  private struct Source: Hashable {
    var host: String
    var stream: OutputStream
  }

  /// A line that is longer is told in parts: nobody's output is kept whole.
  private static let lineLimit = 64 << 10

  private let output: any OutputSink
  private let isJSON: Bool
  private let width: Int
  private var rests: [Source: [UInt8]] = [:]

  init(_ hosts: [HostEntry], output: any OutputSink, isJSON: Bool) {
    self.output = output
    self.isJSON = isJSON
    width = hosts.map(\.name.count).max() ?? 0
  }

  func take(_ chunk: SSHChunk, from host: HostEntry) {
    let source: Source
    switch chunk {
    case .stdout: source = Source(host: host.name, stream: .standardOutput)
    case .stderr: source = Source(host: host.name, stream: .standardError)
    }
    var rest = rests.removeValue(forKey: source) ?? []
    rest += chunk.bytes
    var lines = rest.split(separator: 10, omittingEmptySubsequences: false)
    let last = lines.removeLast()
    tell(lines, of: source)
    if last.count > Self.lineLimit { tell([last], of: source) } else if !last.isEmpty { rests[source] = Array(last) }
  }

  /// The host has ended: what it left without a line's end, and in JSON how.
  func close(_ host: HostEntry, _ ending: Fleet.Ending, seconds: Double) {
    for stream in [OutputStream.standardOutput, .standardError] {
      if let rest = rests.removeValue(forKey: Source(host: host.name, stream: stream)) {
        tell([rest[...]], of: Source(host: host.name, stream: stream))
      }
    }
    guard isJSON else { return }
    var members: [(String, JSONValue)] = [
      ("host", .string(host.name)), ("seconds", jsonValue(of: [seconds])[0] ?? .null),
    ]
    switch ending {
    case .exit(.status(let status)): members.append(("status", .int(status)))
    case .exit(.signal(let name, _, _)): members.append(("signal", .string(name)))
    case .fault(let error): members.append(("problem", jsonValue(of: ProblemDocument(error))))
    case .exit(.missing), .notBegun: break
    }
    event("host_ended", members)
  }

  /// Who has failed, and how many haven't.
  func finish(_ hosts: [HostEntry], _ endings: [Fleet.Ending], seconds: Double) {
    func names(_ belongs: (Fleet.Ending) -> Bool) -> [String] {
      zip(hosts, endings).filter { belongs($1) }.map(\.0.name)
    }
    let failed = names(\.hasFailed), left = names { $0 == .notBegun }
    if isJSON {
      event(
        "finished",
        [
          ("hosts", .int(hosts.count)), ("failed", .array(failed.map { .string($0) })),
          ("not_begun", .array(left.map { .string($0) })), ("seconds", jsonValue(of: [seconds])[0] ?? .null),
        ])
      return
    }
    var lines = zip(hosts, endings).compactMap { host, ending in Self.text(of: ending).map { "\(host.name): \($0)" } }
    if !left.isEmpty { lines.append("not begun: \(left.joined(separator: ", "))") }
    let done = hosts.count - failed.count - left.count
    lines.append("\(done) of \(hosts.count) hosts done in \(((seconds * 10).rounded() / 10)) s")
    output.write(lines.joined(separator: "\n") + "\n", to: .standardError)
  }

  private static func text(of ending: Fleet.Ending) -> String? {
    switch ending {
    case .exit(.status(0)), .notBegun: nil
    case .exit(.status(let status)): "exit status \(status)"
    case .exit(.signal(let name, _, _)): "killed by SIG\(name)"
    case .exit(.missing): "ended without an exit status"
    case .fault(let error): [error.summary, error.cause].compactMap(\.self).joined(separator: ": ")
    }
  }

  private func tell(_ lines: [ArraySlice<UInt8>], of source: Source) {
    guard !lines.isEmpty else { return }
    if isJSON {
      let stream = source.stream == .standardOutput ? "stdout" : "stderr"
      for line in lines {
        event(
          "output",
          [
            ("host", .string(source.host)), ("stream", .string(stream)),
            ("text", .string(String(decoding: line, as: UTF8.self))),
          ])
      }
      return
    }
    let name = Array((source.host + String(repeating: " ", count: width - source.host.count) + " | ").utf8)
    output.write(lines.flatMap { name + $0 + [10] }, to: source.stream)
  }

  private func event(_ name: String, _ members: [(String, JSONValue)]) {
    var object = JSONObject()
    object["event"] = .string(name)
    for (key, value) in members { object[key] = value }
    output.write(JSONValue.object(object).text() + "\n", to: .standardOutput)
  }
}

import Diagnostics
import Engine
import Foundation
import Inventory
import Synchronization

/// A host that speaks the runner's protocol (docs/runner.md) from memory: steps "run" by looking up how they should end. No clock, no network.
actor ScriptedHost {
  struct Step: Sendable { var directory: String, kind: String, side: String, changes: Bool, after: Bool }

  var files: [String: String] = [:]
  var facts = "user=deploy\ncurrent=\ndocker_server=26.1.5\ncompose=2.26.1\n"
  /// Step name → status that it ends with.
  var failing: [String: Int] = [:]
  /// Facts that a step reports: step name → members.
  var reports: [String: [String: String]] = [:]
  /// The release that is current when the lock is granted.
  var previous = 0
  /// JSON of the holder, where the lock is held.
  var lockedBy: String?
  /// The connection breaks once, when this step has started.
  var breakAt: String?
  /// Reported as the health of what the undo left.
  var healthyAfterUndo = "true"
  var undoFails = false
  /// Why nothing can be opened.
  var openError: String?
  /// The connection breaks at each message of this name.
  var breaksAtMessage: String?
  /// What was closed before ours was opened.
  var recovered: [String] = []
  /// Who opens is shown no log; who follows is.
  var hidesLog = false
  /// What the watch behind the commit comes to, as members of its last event: `watched` or `breached`; nil: it goes on.
  var watchEnds: (event: String, members: String)?
  /// The outcome of the deployment 8 that goes back.
  var wayBack = "committed"
  /// Nothing more happens after the result of a client-side step.
  var staysAfterResult = false
  /// Bodies of the signs of life before the lock is granted.
  var waits: [String] = []
  /// Messages of this name are never answered.
  var muteAt: String?
  /// What `follow` says of the runner, if not the truth.
  var runner: String?

  private(set) var log = ""
  private var logOfWayBack = ""
  /// Paths of all the tars that came with steps.
  private(set) var paths: [String] = []
  private(set) var texts: [String: String] = [:]
  private(set) var messages: [String] = []
  /// Step name → its file `params`.
  private(set) var parameters: [String: String] = [:]
  private(set) var aborts: [String] = []
  private(set) var connections = 0
  private var nonce = ""
  private var queue: [Step] = []
  private var ran: [Step] = []
  private var sealed = false
  private var opened = false
  private var closed = false
  private var committed = false
  private var waitingFor: Step?
  private var subscribers: [ScriptedChannel] = []

  func set(_ change: @Sendable (isolated ScriptedHost) -> Void) { change(self) }

  func connect() -> ScriptedChannel {
    connections += 1
    let channel = ScriptedChannel(host: self)
    channel.push(.error(Array("H\n".utf8)))
    return channel
  }

  func receive(_ line: String, body: [UInt8], from channel: ScriptedChannel) {
    messages.append(line)
    let words = line.split(separator: " ").map(String.init)
    if words[0] == muteAt { return }
    if words[0] == breaksAtMessage { return channel.cut() }
    switch words[0] {
    case "facts": channel.reply("facts", facts)
    case "get":
      if let text = files[words[1]] ?? configFile(words[1]) {
        channel.reply("file", text)
      } else {
        channel.reply("none", "")
      }
    case "open":
      if let openError { return channel.reply("error", openError) }
      if let lockedBy { return channel.reply("locked", lockedBy) }
      nonce = words[1]
      opened = true
      subscribers = hidesLog ? [] : [channel]
      for wait in waits { channel.reply("waiting", wait) }
      let isOurs = words.suffix(2) == ["7", "\(previous)"]
      if isOurs { queue += steps(inTar: Array(body.dropFirst(Int(words[4])!))) }
      channel.reply(
        "granted", (["7 \(previous)" + (isOurs ? " taken" : "")] + recovered).joined(separator: "\n"))
      event("opened", #""number":7,"previous":null"#)
      if isOurs { advance() } else { event("waiting", #""step":null"#) }  // the first steps are still on their way
    case "follow" where words[1] == "8":
      channel.reply("following", "ended")
      channel.push(.output(Array(Array(logOfWayBack.utf8)[Int(words[2])!...])))
    case "follow":
      channel.reply("following", runner ?? (closed ? "ended" : "live"))
      channel.push(.output(Array(Array(log.utf8)[Int(words[2])!...])))
      subscribers = [channel]
      advance()
    case "steps" where closed: channel.reply("refused", "Deployment 7 is not open.")
    case "steps":
      queue += steps(inTar: body)
      channel.reply("ok", "")
      advance()
    // A look without a lock: every step runs, and tells its facts.
    case "query" where words[1] == "plan":
      let nonce = nonce(inTar: body)
      var text = ""
      for step in steps(inTar: body) {
        let name = StepBatch.name(of: step.directory)
        for (key, value) in (reports[name] ?? [:]).sorted(by: { $0.key < $1.key }) {
          text +=
            "\n\u{1}{\"event\":\"fact\",\"k\":\"\(nonce)\",\"t\":5000,\"step\":\"\(step.directory)\",\"key\":\"\(key)\",\"value\":\(value)}\n"
        }
      }
      channel.reply("output", text)
    case "seal":
      sealed = true
      channel.reply("ok", "")
      advance()
    case "result":
      channel.reply("ok", "")
      if let step = waitingFor {
        waitingFor = nil
        guard !staysAfterResult else { return }
        finish(step, status: Int(words[3])!)
        advance()
      }
    case "state": channel.reply("state", closed ? runner ?? "ended" : runner ?? "live")
    case "recover":
      runner = "watching"
      channel.reply("recovered", "")
      event("watching", #""release":7,"seconds":120"#)
      endWatch()
    case "detach" where sealed && waitingFor == nil && !queue.contains { $0.side == "client" }: channel.reply("ok", "")
    case "abort":
      aborts.append(String(decoding: body, as: UTF8.self))
      channel.reply("ok", "")
      undo("aborted", aborts.last!)
    case "beat": channel.reply("beat", closed ? "dead" : "live")
    default: channel.reply("refused", "unknown")
    }
  }

  /// What env leaves in its directory.
  private func configFile(_ path: String) -> String? {
    let directory = path.split(separator: "/").dropLast().last.map(String.init) ?? ""
    return path.hasSuffix("-env/config.json") && ran.contains { $0.directory == directory } ? files["config.json"] : nil
  }

  /// The connection that shows the log breaks.
  func cut() {
    for subscriber in subscribers { subscriber.cut() }
    subscribers = []
  }

  private func advance() {
    guard opened, !closed, waitingFor == nil else { return }
    while !queue.isEmpty {
      let step = queue[0]
      if step.side == "commit" {
        queue.removeFirst()
        committed = true
        event("committed", #""release":7"#)
        continue
      }
      if !ran.contains(where: { $0.directory == step.directory }) {
        ran.append(step)
        event("started", #""step":"\#(step.directory)""#)
        if breakAt == String(step.directory.drop { $0 != "-" }.dropFirst()) {
          breakAt = nil
          for subscriber in subscribers { subscriber.cut() }
          subscribers = []
          return
        }
      }
      queue.removeFirst()
      if step.side == "client" {
        waitingFor = step
        event("waiting", #""step":"\#(step.directory)""#)
        return
      }
      let name = StepBatch.name(of: step.directory)
      output("output of \(name)\n")
      for (key, value) in (reports[name] ?? [:]).sorted(by: { $0.key < $1.key }) {
        event("fact", #""step":"\#(step.directory)","key":"\#(key)","value":\#(value)"#)
      }
      if !finish(step, status: failing[name] ?? 0) { return }
    }
    if sealed, !committed, !ran.contains(where: \.changes) {
      event("undoing", #""reason":"no-commit","text":"There was nothing to commit.""#)
      close(undoFails ? "stuck" : "unchanged", healthy: "null")
    } else if sealed {
      close("committed")
    } else {
      event("waiting", #""step":null"#)
    }
  }

  @discardableResult private func finish(_ step: Step, status: Int) -> Bool {
    event("ended", #""step":"\#(step.directory)","status":\#(status),"signal":null,"timeout":false,"seconds":0.1"#)
    guard status != 0, !step.after else { return true }
    undo("step-failed", "\(step.directory) failed")
    return false
  }

  func undo(_ reason: String, _ text: String) {
    guard !closed, !committed else { return }
    queue = []
    event("undoing", #""reason":"\#(reason)","text":\#(JSONValue.string(text).text())"#)
    let changed = ran.contains(where: \.changes)
    for step in ran.reversed() {
      event("undone", #""step":"\#(step.directory)","status":\#(undoFails ? 1 : 0),"attempts":1"#)
    }
    close(undoFails ? "stuck" : changed ? "undone" : "unchanged", healthy: changed ? healthyAfterUndo : "null")
  }

  private func close(_ outcome: String, healthy: String = "true") {
    closed = true
    let seconds = outcome == "committed" ? watchSeconds : nil
    event(
      "closed",
      #""outcome":"\#(outcome)","healthy":\#(healthy)\#(seconds.map { #","watch":\#($0)"# } ?? ""),"recovery":false"#)
    guard let seconds else { return }
    event("watching", #""release":7,"seconds":\#(seconds)"#)
    if runner != "dead" { endWatch() }
  }

  private var watchSeconds: Int? {
    texts["watch/params"]?.split(separator: "\n").first { $0.hasPrefix("WATCH=") }.flatMap {
      Int($0.dropFirst("WATCH='".count).dropLast())
    }
  }

  func endWatch() {
    guard let watchEnds else { return }
    if watchEnds.event == "breached" {
      let nonce = try? JSONValue(parsing: texts["watch/request"] ?? "")["k"]?.stringValue
      for (name, members) in [
        ("opened", #""number":8,"previous":7"#), ("started", #""step":"05-recreate""#),
        (
          "ended",
          #""step":"05-recreate","status":\#(wayBack == "committed" ? 0 : 1),"signal":null,"timeout":false,"seconds":1"#
        ),
        ("closed", #""outcome":"\#(wayBack)","healthy":null,"recovery":false"#),
      ] {
        logOfWayBack += "\n\u{1}{\"event\":\"\(name)\",\"k\":\"\(nonce ?? "")\",\"t\":9000,\(members)}\n"
      }
    }
    event(watchEnds.event, watchEnds.members)
  }

  private func event(_ name: String, _ members: String) {
    output("\n\u{1}{\"event\":\"\(name)\",\"k\":\"\(nonce)\",\"t\":5000,\(members)}\n")
  }

  private func output(_ text: String) {
    log += text
    for subscriber in subscribers { subscriber.push(.output(Array(text.utf8))) }
  }

  private func nonce(inTar tar: [UInt8]) -> String {
    let text = String(decoding: tar, as: UTF8.self)
    guard let name = text.range(of: "nonce\0") else { return "" }
    return String(text[text.index(name.lowerBound, offsetBy: 512)...].prefix { $0 != "\n" })
  }

  private func steps(inTar tar: [UInt8]) -> [Step] {
    var steps: [Step] = []
    var offset = 0
    while offset + 512 <= tar.count, tar[offset] != 0 {
      let name = String(decoding: tar[offset..<offset + 100].prefix { $0 != 0 }, as: UTF8.self)
      let size = Int(String(decoding: tar[offset + 124..<offset + 135], as: UTF8.self), radix: 8)!
      paths.append(name)
      texts[name] = String(decoding: tar[offset + 512..<offset + 512 + size], as: UTF8.self)
      if name.hasPrefix("watch/") {
        offset += 512 + (size + 511) / 512 * 512
        continue
      }
      if name.hasSuffix("/params") {
        parameters[StepBatch.name(of: String(name.dropLast(7)))] = String(
          decoding: tar[offset + 512..<offset + 512 + size], as: UTF8.self)
      }
      if name.hasSuffix("/meta") {
        let text = String(decoding: tar[offset + 512..<offset + 512 + size], as: UTF8.self)
        func value(_ key: String) -> String {
          text.split(separator: "\n").first { $0.hasPrefix(key + "=") }.map { $0.dropFirst(key.count + 2).dropLast() }
            .map(String.init) ?? ""
        }
        steps.append(
          Step(
            directory: String(name.dropLast(5)), kind: value("KIND"), side: value("SIDE"),
            changes: value("CHANGES") == "1",
            after: value("AFTER") == "1"))
      }
      offset += 512 + (size + 511) / 512 * 512
    }
    return steps
  }
}

/// The client's end of a conversation with a `ScriptedHost`.
final class ScriptedChannel: ByteChannel {
  private struct Cut: Error {}
  private let host: ScriptedHost
  private let stream: AsyncThrowingStream<ByteChunk, any Error>
  private let continuation: AsyncThrowingStream<ByteChunk, any Error>.Continuation
  private let iterator: Mutex<AsyncThrowingStream<ByteChunk, any Error>.AsyncIterator?>
  private let incoming = Mutex<[UInt8]>([])

  init(host: ScriptedHost) {
    self.host = host
    (stream, continuation) = AsyncThrowingStream.makeStream()
    iterator = Mutex(nil)
  }

  func push(_ chunk: ByteChunk) { continuation.yield(chunk) }
  func cut() { continuation.finish(throwing: Cut()) }
  func reply(_ tag: String, _ body: String) { push(.error(Array("\(tag) \(body.utf8.count)\n\(body)".utf8))) }

  func write(_ bytes: [UInt8]) async throws {
    let messages = incoming.withLock { buffer -> [(String, [UInt8])] in
      buffer += bytes
      var messages: [(String, [UInt8])] = []
      while let feed = buffer.firstIndex(of: 0x0a) {
        let line = String(decoding: buffer[..<feed], as: UTF8.self)
        let hasBody = ["open", "steps", "result", "abort", "query"].contains { line.hasPrefix($0 + " ") }
        let words = line.split(separator: " ")
        let sizes = words[0] == "open" ? words[4...].prefix(2) : words.suffix(1)
        let count = hasBody ? sizes.compactMap { Int($0) }.reduce(0, +) : 0
        guard buffer.count >= feed + 1 + count else { break }
        messages.append((line, Array(buffer[(feed + 1)..<(feed + 1 + count)])))
        buffer.removeFirst(feed + 1 + count)
      }
      return messages
    }
    for (line, body) in messages { await host.receive(line, body: body, from: self) }
  }

  func read() async throws -> ByteChunk? {
    for try await chunk in stream { return chunk }
    return nil
  }

  func close() async { continuation.finish() }
}

/// A client whose every answer the test gives; an unexpected call is a fault.
struct ScriptedClient: DeploymentClient {
  let host: ScriptedHost
  let bundle: HostBundle
  var answer: String?
  var clientStep = ClientStepResult(succeeded: true, message: "status 200")
  var env: ResolvedEnv?
  /// Milliseconds since 1970.
  var time: Int64 = 0
  var rotationFault: OrchestrateError?
  /// Rollback: what was rotated since.
  var carried = Rotation(key: "", values: [], before: [:], after: [:])
  /// Why the playbooks of releases can't be read.
  var playbookFault: OrchestrateError?
  /// Happens when a question is asked, before the answer.
  var whenAsked: @Sendable () async -> Void = {}
  var whenPerforming: @Sendable () async -> Void = {}
  /// What the proof of a new connection does.
  var whenReaching: @Sendable () async throws -> Void = {}
  var clock: @Sendable (Duration) async throws -> Void = { _ in try await Task.sleep(for: .seconds(3600)) }

  func attach(asking: [String]) async throws -> Attachment {
    let channel = await host.connect()
    let attachment = Attachment(host: "bot-1", channel: channel, bundle: bundle, asked: asking)
    for line in asking { await host.receive(line, body: [], from: channel) }
    await attachment.start()
    return attachment
  }
  func resolveEnv(
    host: String?, generated: String?, current: Release?, hasVolumes: Bool, machine: MachineSize?
  ) throws -> ResolvedEnv? { env }
  func rotation(of key: String, host: String?, generated: String?, current: Release) throws -> Rotation {
    if let rotationFault { throw rotationFault }
    return Rotation(
      key: key,
      values: [ResolvedValue(name: key, value: "new", isSecret: true, origin: .source(.generated))],
      before: [key: Secret("old")], after: [key: Secret("new")])
  }
  func carriedOver(from current: Release, host: String?, to target: Release, env: String?) throws -> Rotation {
    carried
  }
  func verifier(of password: Secret) -> Secret? {
    password.reveal() == "ü" ? nil : Secret("verifier of \(password.reveal())")
  }
  func secrets(envFiles: [String], generated: String?) -> [Secret] {
    (envFiles + [generated].compactMap { $0 }).map { Secret($0) }
  }
  func registryPassword() throws -> Secret? { nil }
  func now() -> Int64 { time }
  func playbook(of release: Release, only kinds: Set<StepKindName>) throws -> Playbook {
    if let playbookFault { throw playbookFault }
    return Playbook(name: release.version, steps: try Fixtures.steps(release.playbook))
  }
  func ask(_ question: DeploymentQuestion) async -> String? {
    await whenAsked()
    return answer
  }
  func perform(_ step: StepSpec, context: StepContext) async -> ClientStepResult {
    await whenPerforming()
    return clientStep
  }
  func reach() async throws { try await whenReaching() }
  func sleep(_ duration: Duration) async throws { try await clock(duration) }
  func uptime() -> Double { 0 }
  func timestamp() -> String { "2026-11-21T03:00:00Z" }
}

internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory

/// `lock --abort`: asks the holder of the lock to undo, and tells what becomes of that.
struct LockAbort: Sendable {
  let number: Int
  let reason: String?
  let attachment: Attachment
  let command: ReadingCommand
  /// How long a deployment's end is waited for, in seconds: a gate's minute, and the way back.
  var patience = 120.0
  /// A watch has nothing to finish.
  var watchPatience = 30.0
  var sleep: @Sendable (Duration) async throws -> Void = { try await Task.sleep(for: $0) }

  private var host: String { command.host.name }
  private var environment: String { command.inventory.environment }

  /// Nil: the deployment has ended. Throws where nothing could be asked of anybody.
  func run(isRunning: Bool) async throws -> OrchestrateError? {
    // Nobody is left who could be asked: whoever takes the lock closes what is open.
    guard isRunning else { return try await recover() }
    let why = Array((reason ?? "aborted by `orchestrate lock --abort`").utf8)
    let reply = try await attachment.request("abort \(number) \(why.count)", body: why)
    guard reply.tag == "ok" else {
      throw OrchestrateError(.failed, "the deployment can't be aborted", host: host, cause: reply.text)
    }
    command.session.context.narrate(
      "\(host): deployment \(number) is asked to undo; \(try await Self.doing(journal(), now: now()))\n")
    var died = 0
    for _ in 0..<Int(patience * 2) {
      switch try await attachment.request("state \(number)").text {
      case "ended": return Self.fault(after: try await journal(), number: number, host: host, environment: environment)
      // Four times: systemd starts it again within a second.
      case "dead" where died == 3: return try await recover()
      case "dead": died += 1
      default: died = 0
      }
      try await sleep(.milliseconds(500))
    }
    return OrchestrateError(
      .outcomeUnknown, "deployment \(number) hasn't ended within \(Int(patience)) s of being asked to undo", host: host,
      state: try await Self.doing(journal(), now: now()), remedy: "orchestrate attach \(environment)")
  }

  /// Of a watch there is nothing to undo. Nil: it has ended.
  func endWatch(of version: String?) async throws -> OrchestrateError? {
    let reply = try await attachment.request("abort \(number) 0")
    guard reply.tag == "ok" else {
      throw OrchestrateError(.failed, "the watch can't be ended", host: host, cause: reply.text)
    }
    for _ in 0..<Int(watchPatience * 2) {
      if try await attachment.request("state \(number)").text == "ended" {
        command.session.context.narrate("\(host): the watch has ended; \(version ?? "the release") stays\n")
        return nil
      }
      try await sleep(.milliseconds(500))
    }
    return OrchestrateError(
      .outcomeUnknown, "the watch hasn't ended within \(Int(watchPatience)) s of being asked to", host: host,
      remedy: "orchestrate attach \(environment)")
  }

  private func recover() async throws -> OrchestrateError? {
    let reply = try await attachment.request("recover \(SecureRandom.word(16).lowercased())")
    return Self.fault(ofRecovery: reply, host: host, environment: environment)
  }

  private func journal() async throws -> JournalReport {
    JournalReport(
      journal: try await attachment.request("get \(command.paths.deployment(number))/journal.jsonl").found ?? "")
  }

  /// The host's clock.
  private func now() async throws -> Int64? {
    HostFacts(parsing: try await attachment.request("facts").text).integer("epoch_ms")
  }

  /// What the deployment does now, for a person who waits for its end.
  static func doing(_ journal: JournalReport, now: Int64?) -> String {
    if journal.isUndoing { return "it is undoing" }
    guard let step = journal.step else { return "it undoes now" }
    let age = now.flatMap { now in journal.since.map { " for \(max(0, now - $0) / 1000) s" } } ?? ""
    return "the step \(step) has run\(age) and isn't killed: the host undoes when it has ended"
  }

  /// Nil: it was undone, or nothing had been changed.
  static func fault(after journal: JournalReport, number: Int, host: String, environment: String) -> OrchestrateError? {
    switch journal.outcome {
    case .undone, .unchanged, .abandoned: nil
    case .committed:
      OrchestrateError(
        .failed, "deployment \(number) was committed before it could be aborted", host: host,
        remedy: "to go back: orchestrate rollback \(environment)")
    case .stuck:
      OrchestrateError(
        .rollbackFailed, "the undo failed: the host may be between two releases", host: host,
        remedy: "orchestrate attach \(environment) shows its log")
    case .unknown, nil:
      OrchestrateError(
        .outcomeUnknown, "deployment \(number) has ended, and its journal doesn't say how", host: host,
        cause: journal.fault.map { "journal.jsonl, \($0.text)" },
        remedy: "orchestrate attach \(environment)")
    }
  }

  /// Nil: everything that was open is closed.
  static func fault(ofRecovery reply: Reply, host: String, environment: String) -> OrchestrateError? {
    switch reply.tag {
    case "recovered" where reply.text.split(separator: "\n").contains { $0.hasSuffix(" stuck") }:
      OrchestrateError(
        .rollbackFailed, "the undo failed: the host may be between two releases", host: host,
        remedy: "orchestrate attach \(environment) shows its log")
    case "recovered": nil
    case "locked":
      OrchestrateError(
        .locked, "somebody else has the lock now, and closes what was open", host: host,
        remedy: "orchestrate lock \(environment)")
    default:
      OrchestrateError(
        .failed, "what was left open couldn't be closed", host: host, cause: reply.text,
        remedy: "orchestrate doctor \(environment)")
    }
  }
}

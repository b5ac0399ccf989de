internal import Diagnostics
public import Inventory

/// Watches a deployment that somebody else (or an earlier, lost client) opened: its log from the beginning to its end. Decides nothing and gives no sign of life
/// in anybody's name, so that it never holds up the lease.
public struct DeploymentFollower: Sendable {
  public var host: String
  public var paths: HostPaths
  public var emit: @Sendable (DeploymentEvent) -> Void

  public init(host: String, paths: HostPaths, emit: @escaping @Sendable (DeploymentEvent) -> Void) {
    self.host = host
    self.paths = paths
    self.emit = emit
  }

  /// Throws `OrchestrateError` if nothing was ever deployed, or the connection is lost.
  public func follow(_ attachment: Attachment, inventory: Inventory) async throws -> DeploymentSummary {
    let facts = HostFacts(parsing: try await attachment.request("facts").text)
    guard let number = Int(facts["open"]) ?? Int(facts["sequence"]) else {
      throw OrchestrateError(
        .failed, "nothing has been deployed here yet", host: host,
        remedy: "orchestrate deploy \(inventory.environment) VERSION")
    }
    guard let text = try await attachment.request("get \(paths.deployment(number))/holder.json").foundText,
      let holder = try? JSONValue(parsing: text), let nonce = holder["k"]?.stringValue
    else {
      throw OrchestrateError(
        .failed, "the log of deployment \(number) isn't there any more", host: host,
        remedy: "orchestrate history \(inventory.environment)")
    }
    let from = holder["from_version"]?.stringValue, to = holder["version"]?.stringValue
    emit(
      .starting(
        DeploymentHeading(
          command: "attach", environment: inventory.environment, app: inventory.app, to: to, hosts: [host])))
    emit(.opened(host: host, number: number, from: from, to: to ?? ""))
    await attachment.expectLog(nonce: nonce)
    let reply = try await attachment.request("follow \(number) 0")
    if reply.text == "dead" {
      emit(.warning(host: host, text: "the runner of deployment \(number) is gone; the next deploy or rollback closes what it left"))
    }
    var reader = EventReader(host: host)
    for try await item in attachment.log {
      for event in reader.read(item) { emit(event) }
      if reader.outcome != nil { break }
    }
    let summary = reader.summary(command: "attach", inventory: inventory, number: number, from: from, to: to)
    emit(.finished(summary))
    return summary
  }
}

/// Turns the items of a deployment's log into what a view is told.
struct EventReader {
  let host: String
  private(set) var outcome: DeploymentOutcome?
  private(set) var healthy: Bool?
  private var step: String?
  private var failedStep: String?
  private var tail: [String] = []
  private var timings: [DeploymentSummary.StepTiming] = []
  private var facts: [String: JSONValue] = [:]

  init(host: String) { self.host = host }

  mutating func read(_ item: LogItem) -> [DeploymentEvent] {
    switch item.content {
    case .line(let bytes):
      let text = String(decoding: bytes, as: UTF8.self)
      if failedStep == nil { tail = (tail + [text]).suffix(60) }
      return [.log(host: host, step: step, text: text)]
    case .event(let event): return read(event)
    }
  }

  private mutating func read(_ event: RunnerEvent) -> [DeploymentEvent] {
    let name = event.step.map(StepBatch.name(of:)) ?? ""
    switch event.name {
    case "started":
      step = name
      if failedStep == nil { tail = [] }
      return [.stepStarted(host: host, step: name)]
    case "fact":
      guard let key = event.members["key"]?.stringValue, let value = event.members["value"] else { return [] }
      facts[key] = value
      return [.fact(host: host, step: name, key: key, value: value)]
    case "ended":
      let ending = StepEnding(
        status: event.status ?? 1, seconds: event.members["seconds"]?.numberValue ?? 0,
        signal: event.members["signal"]?.stringValue, timedOut: event.members["timeout"]?.boolValue ?? false)
      timings.append(.init(host: host, step: name, seconds: ending.seconds, state: ending.succeeded ? "done" : "failed"))
      if !ending.succeeded, failedStep == nil { failedStep = name }
      step = nil
      return [.stepEnded(host: host, step: name, ending: ending)]
    case "committed": return [.committed(host: host, release: event.members["release"]?.intValue ?? 0)]
    case "undoing":
      return [
        .undoing(
          host: host, reason: event.members["reason"]?.stringValue ?? "", text: event.members["text"]?.stringValue ?? "")
      ]
    case "undone":
      timings.append(.init(host: host, step: name, seconds: 0, state: "undone"))
      return [.stepUndone(host: host, step: name, status: event.status ?? 0, attempts: event.members["attempts"]?.intValue ?? 1)]
    case "closed":
      let ended = DeploymentOutcome(rawValue: event.members["outcome"]?.stringValue ?? "") ?? .unknown
      outcome = ended
      healthy = event.members["healthy"]?.boolValue
      return [.closed(host: host, outcome: ended, healthy: healthy, recovery: event.members["recovery"]?.boolValue ?? false)]
    default: return []
    }
  }

  func summary(command: String, inventory: Inventory, number: Int, from: String?, to: String?) -> DeploymentSummary {
    let code: ErrorCode? =
      switch outcome {
      case .committed: nil
      case .unchanged: .failed
      case .undone: healthy == false ? .rollbackFailed : .rolledBack
      case .stuck: .rollbackFailed
      case .unknown, nil: .outcomeUnknown
      }
    var summary = DeploymentSummary(
      command: command, environment: inventory.environment, app: inventory.app, hosts: [host],
      exitStatus: code.map { ExitStatus($0) } ?? .done, seconds: 0)
    summary.number = number
    summary.from = from
    summary.to = to
    summary.outcome = outcome
    summary.healthy = healthy
    summary.steps = timings
    summary.downtimeMilliseconds = facts["gap_ms"]?.intValue
    if let code {
      summary.problem = ProblemDocument(
        OrchestrateError(
          code, failedStep.map { "the step \($0) failed" } ?? "the deployment didn't commit", host: host, step: failedStep,
          cause: tail.isEmpty ? nil : tail.joined(separator: "\n"), remedy: "orchestrate history \(inventory.environment)"))
    }
    return summary
  }
}

internal import Diagnostics
public import Inventory
internal import Synchronization

/// Watches a deployment that somebody else (or an earlier, lost client) opened: its log from the beginning to its end, and to that of its watch. Decides nothing
/// and gives no sign of life in anybody's name, so that it never holds up the lease.
public struct DeploymentFollower: Sendable {
  public var host: String
  public var paths: HostPaths
  public var emit: @Sendable (DeploymentEvent) -> Void
  /// The clock between two looks at the runner; tests have one of their own.
  public var sleep: @Sendable (Duration) async throws -> Void

  public init(
    host: String, paths: HostPaths, emit: @escaping @Sendable (DeploymentEvent) -> Void,
    sleep: @escaping @Sendable (Duration) async throws -> Void = { try await Task.sleep(for: $0) }
  ) {
    self.host = host
    self.paths = paths
    self.emit = emit
    self.sleep = sleep
  }

  /// Throws `OrchestrateError` if nothing was ever deployed, or the connection is lost.
  public func follow(_ attachment: Attachment, inventory: Inventory) async throws -> DeploymentSummary {
    let facts = HostFacts(parsing: try await attachment.request("facts").text)
    guard var number = Int(facts["open"]) ?? Int(facts["sequence"]) else {
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
    // Of a watch whose runner is gone (what was watched is closed) at least the log can be shown.
    if reply.text == "dead", !facts["open"].isEmpty { throw died(number, inventory) }
    let followed = Mutex(number)
    // Nobody would ever write the last line that is waited for where the runner dies without systemd.
    let watch = Task {
      var missed = 0
      while missed < 2 {
        do { try await sleep(.seconds(5)) } catch { return }
        // Twice: systemd starts it again within a second.
        guard let state = try? await attachment.request("state \(followed.withLock { $0 })") else { return }
        missed = state.text == "dead" ? missed + 1 : 0
      }
      await attachment.close()
    }
    defer { watch.cancel() }
    var reader = EventReader(host: host), watched: EventReader?
    for try await item in attachment.log {
      for event in reader.read(item) { emit(event) }
      guard reader.isOver else { continue }
      guard let next = reader.watchEnding?.by, reader.watchEnding?.reason == "breached" else { break }
      // The release wasn't well: what follows is the way back.
      let opener = try await attachment.request("get \(paths.deployment(next))/holder.json").foundText
      guard let nonce = opener.flatMap({ try? JSONValue(parsing: $0) })?["k"]?.stringValue else { break }
      (watched, reader) = (reader, EventReader(host: host))
      followed.withLock { $0 = next }
      await attachment.expectLog(nonce: nonce)
      _ = try await attachment.request("follow \(next) 0")
    }
    if !reader.isOver {
      number = followed.withLock { $0 }
      throw reader.outcome == nil ? died(number, inventory) : unwatched(number, inventory)
    }
    var summary = (watched ?? reader).summary(
      command: "attach", inventory: inventory, number: number, from: from, to: to)
    if let watched {
      let ending = WatchedEnding(watch: watched, back: reader, from: from, to: to)
      let problem = ending.problem(host: host, environment: inventory.environment, stuckHint: "")
      ending.fill(&summary)
      summary.problem = problem.map(ProblemDocument.init)
      summary.exitStatus = (problem.map { ExitStatus($0.code) } ?? .done).rawValue
    }
    emit(.finished(summary))
    return summary
  }

  private func unwatched(_ number: Int, _ inventory: Inventory) -> OrchestrateError {
    OrchestrateError(
      .outcomeUnknown, "deployment \(number) is committed, and the runner that watched over it is gone", host: host,
      state: "nobody watches the release now; the next start of the host, or of a runner, begins the watch afresh",
      remedy: "orchestrate status \(inventory.environment)")
  }

  private func died(_ number: Int, _ inventory: Inventory) -> OrchestrateError {
    OrchestrateError(
      .outcomeUnknown, "the runner of deployment \(number) is gone and has left it open", host: host,
      state: "whoever takes the lock next closes it first: undone, or finished if it was committed",
      remedy: "orchestrate lock \(inventory.environment) --abort closes it now; so does the next deploy or rollback")
  }
}

internal import Diagnostics
internal import Inventory

/// The line to the host while the deployment is open: signs of life, and another connection when one is lost.
extension DeploymentRun {
  func startBeating() {
    let interval = max(1, Double(request.lease.components.seconds) / 5)
    beats = Task { [weak self] in
      while !Task.isCancelled {
        guard let self, let (attachment, number) = await self.beatTarget() else { return }
        do {
          if try await attachment.request("beat \(number)").text == "dead" { await self.beatWasDead() }
        } catch {
          // Nobody may be reading the log now: a person is being asked, or a step runs on this machine. The new connection has beats of its own.
          guard !Task.isCancelled else { return }
          return _ = try? await self.reconnect(after: error, on: attachment)
        }
        do { try await self.client.sleep(.milliseconds(Int(interval * 1000))) } catch { return }
      }
    }
  }

  private func beatTarget() -> (Attachment, Int)? {
    guard reader.outcome == nil, let attachment, let number else { return nil }
    return (attachment, number)
  }

  /// A deployment that has just ended looks the same until its last line has arrived; systemd starts a runner again
  /// within a second.
  private func beatWasDead() async {
    guard (try? await client.sleep(.seconds(2))) != nil, let (attachment, number) = beatTarget(),
      let reply = try? await attachment.request("beat \(number)"), reply.text == "dead"
    else { return }
    if let state = try? await attachment.request("state \(number)"), state.text == "ended" {
      // The log tells how; whoever is being asked a question needn't answer it any more.
      refusedAsClosed = true
      return answered(nil, question: questions)
    }
    await runnerDied()
  }

  /// The runner is gone without an outcome (without systemd nothing starts it again): whoever notices closes what it left.
  private func runnerDied() async {
    guard reader.outcome == nil, let attachment else { return }
    emit(.warning(host: host, text: "the runner on the host died; what it left open is being closed"))
    _ = try? await attachment.request("recover \(request.nonce)r")
  }

  /// Whoever notices first that the connection which it used is lost makes another; the others wait for it.
  func reconnect(after error: any Error, on used: Attachment?) async throws {
    if let abandoned { throw abandoned }
    guard number != nil else { throw error }
    if reconnection == nil {
      guard used == nil || used === attachment, !detached, !hasLeftWatch else { return }
      reconnection = Task { try await connectAgain(after: error) }
    }
    try await reconnection?.value
  }

  private func connectAgain(after error: any Error) async throws {
    guard let number else { throw error }
    defer { reconnection = nil }
    connection += 1
    let lost = client.uptime()
    await attachment?.close()
    attachment = nil
    let limit = Double(request.lease.components.seconds) + 60
    var attempt = 0
    while client.uptime() - lost < limit {
      attempt += 1
      emit(.reconnecting(host: host, attempt: attempt, since: client.uptime() - lost))
      if let fresh = try? await client.attach(asking: []) {
        await fresh.expectLog(nonce: logNonce, offset: logOffset)
        if let reply = try? await fresh.request("follow \(number) \(logOffset)", deadline: .seconds(30)),
          reply.tag == "following"
        {
          attachment = fresh
          log = fresh.log.makeAsyncIterator()
          emit(.reconnected(host: host))
          if reply.text == "dead" { await runnerDied() }
          if let interrupted, !isWatching {
            _ = try? await fresh.request("abort \(number) \(interrupted.utf8.count)", body: Array(interrupted.utf8))
          }
          beats?.cancel()
          startBeating()
          return
        }
        await fresh.close()
      }
      try await client.sleep(.milliseconds(min(5000, 250 << min(attempt, 5))))
    }
    let lostForGood = lostError(error)
    abandoned = lostForGood
    clientStep?.cancel()
    answered(nil, question: questions)
    throw lostForGood
  }

  func lostError(_ error: any Error) -> OrchestrateError {
    OrchestrateError(
      .outcomeUnknown, "the connection to the host was lost and couldn't be made again", host: host, step: reader.step,
      cause: Self.describe(error),
      state: reader.committed
        ? "the release is committed; the host does what is left by itself"
        : "the host undoes by itself \(request.lease.components.seconds) s after it last heard from here, once the running step has ended",
      remedy: "orchestrate attach \(request.inventory.environment)")
  }

  func detachedError() -> OrchestrateError {
    OrchestrateError(
      .outcomeUnknown, "detached: the host goes on by itself", host: host,
      remedy: "orchestrate attach \(request.inventory.environment)")
  }

  static func describe(_ error: any Error) -> String {
    if let error = error as? OrchestrateError { return error.summary + (error.cause.map { ": \($0)" } ?? "") }
    return "\(error)"
  }
}

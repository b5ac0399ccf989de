import Diagnostics
import Engine
import Inventory
import Synchronization
import Testing

/// What happens when somebody doesn't answer: the host, the person, or the client itself.
@Suite(.timeLimit(.minutes(1))) struct InterruptionTests {
  private let host = ScriptedHost()

  private func run(
    _ request: DeploymentRequest, answer: String? = nil, whenAsked: @escaping @Sendable () async -> Void = {},
    clock: (@Sendable (Duration) async throws -> Void)? = nil,
    emit: @escaping @Sendable (DeploymentEvent) -> Void = { _ in }
  ) async -> DeploymentRun {
    await host.set { $0.files["config.json"] = #"{"services":{"bot":{"image":"bot:v1.1.0"}}}"# }
    var client = ScriptedClient(host: host, bundle: HostBundle(sha256: Fixtures.digest), answer: answer)
    client.whenAsked = whenAsked
    if let clock { client.clock = clock }
    return DeploymentRun(
      request: request, host: "bot-1", catalog: Fixtures.catalog(), client: client, sha256: Fixtures.digest, emit: emit)
  }

  private func interactive() throws -> DeploymentRequest {
    var request = try Fixtures.request()
    request.isInteractive = true
    return request
  }

  private static let forever: @Sendable () async -> Void = { try? await Task.sleep(for: .seconds(3600)) }

  @Test func aQuestionThatNobodyAnswersGivesTheLockBack() async throws {
    let clock: @Sendable (Duration) async throws -> Void = { duration in
      if duration != .seconds(300) { try await Task.sleep(for: .seconds(3600)) }
    }
    let summary = await run(try interactive(), whenAsked: Self.forever, clock: clock).run()
    #expect(summary.exitStatus == 1)
    #expect(summary.outcome == .unchanged)
  }

  @Test func anInterruptionEndsAQuestion() async throws {
    let asked = AsyncStream<Void>.makeStream()
    let run = await run(
      try interactive(), whenAsked: Self.forever,
      emit: { if case .asked = $0 { asked.continuation.yield() } })
    async let summary = run.run()
    for await _ in asked.stream { break }
    await run.interrupt(reason: "interrupted by Ctrl-C")
    #expect(await summary.exitStatus == 1)
    #expect(await summary.problem?.summary == "interrupted by Ctrl-C")
  }

  @Test func aDeploymentThatEndedDuringTheQuestionTellsWhy() async throws {
    let host = host
    let run = await run(
      try interactive(), answer: "yes",
      whenAsked: { await host.undo("lease", "No sign of the client for more than 60 s.") })
    let summary = await run.run()
    #expect(summary.exitStatus == 1)
    #expect(summary.problem?.summary == "No sign of the client for more than 60 s.")
    #expect(summary.problem?.state == "nothing was changed")
  }

  @Test func whoWaitsForTheLockCanBeInterrupted() async throws {
    let host = host
    await host.set { $0.muteAt = "open" }
    let run = await run(try Fixtures.request())
    async let summary = run.run()
    while await !host.messages.contains(where: { $0.hasPrefix("open") }) { await Task.yield() }
    await run.interrupt(reason: "interrupted by SIGTERM")
    #expect(await summary.exitStatus == 1)
    #expect(await summary.number == nil)
    #expect(await summary.problem?.summary == "interrupted by SIGTERM")
  }

  @Test func anInterruptionBeforeTheLockTakesNone() async throws {
    let run = await run(try Fixtures.request())
    await run.interrupt(reason: "interrupted by Ctrl-C")
    let summary = await run.run()
    #expect(summary.exitStatus == 1)
    let messages = await host.messages
    #expect(!messages.contains { $0.hasPrefix("open") })
  }

  @Test func aConnectionLostBeforeTheLockIsNoFaultOfTheDeployment() async throws {
    await host.set { $0.breaksAtMessage = "open" }
    let summary = await run(try Fixtures.request()).run()
    #expect(summary.exitStatus == 6)
    #expect(summary.problem?.state?.hasPrefix("nothing was changed") == true)
  }

  @Test(arguments: [
    ("identity The project is prod's.", 78), ("stuck Deployment 6.", 4), ("space Less than 16 MiB.", 1),
  ])
  func whatCantBeOpenedHasItsStatus(text: String, status: Int32) async throws {
    await host.set { $0.openError = text }
    let summary = await run(try Fixtures.request()).run()
    #expect(summary.exitStatus == status)
    #expect(summary.number == nil)
  }

  @Test func aMessageThatBreaksEveryConnectionIsGivenUp() async throws {
    await host.set { $0.breaksAtMessage = "steps" }
    let summary = await run(try Fixtures.request()).run()
    #expect(summary.exitStatus == 7)
    #expect(summary.next?.contains("attach") == true)
    let connections = await host.connections
    #expect(connections == 5)
  }

  @Test func aHostThatSaysNothingMoreIsGivenUp() async throws {
    await host.set { $0.muteAt = "facts" }
    let attachment = Attachment(
      host: "bot-1", channel: await host.connect(), bundle: HostBundle(sha256: Fixtures.digest), sleep: { _ in })
    await attachment.start()
    await #expect { try await attachment.request("facts") } throws: { ($0 as? OrchestrateError)?.code == .unreachable }
    await #expect { try await attachment.request("facts") } throws: { ($0 as? OrchestrateError)?.code == .unreachable }
  }

  @Test func anUndoThatFailedIsNeverCalledDone() async throws {
    await host.set {
      $0.undoFails = true
      $0.facts = "user=deploy\ncurrent=6\n"
    }
    let release = try Fixtures.release(6, "v1.0.0", previous: 5)
    await host.set { $0.files["/opt/market-bot/current/release.json"] = release }
    let summary = await run(try Fixtures.request(.run(playbook: "backup"), steps: "backup")).run()
    #expect(summary.exitStatus == 4)
    #expect(summary.outcome == .stuck)
  }

  @Test(arguments: [DeploymentRequest.Kind.rollback(to: nil), .run(playbook: "backup"), .deploy(version: "v1.1.0")])
  func whatTheHostKeepsSecretIsNeverShown(kind: DeploymentRequest.Kind) async throws {
    let current = try Fixtures.release(6, "v1.0.0", previous: 3), old = try Fixtures.release(3, "v0.9.0", previous: 1)
    await host.set {
      $0.files["/opt/market-bot/current/release.json"] = current
      $0.files["/opt/market-bot/current/.env"] = "of-current"
      $0.files["/var/lib/orchestrate/market-bot/generated.env"] = "generated"
      $0.files["/opt/market-bot/releases/3/release.json"] = old
      $0.files["/opt/market-bot/releases/3/.env"] = "of-target"
    }
    let order = Mutex<[String]>([])
    let steps = kind == .run(playbook: "backup") ? "backup" : "preflight release env recreate health commit"
    let run = await run(
      try Fixtures.request(kind, steps: steps),
      emit: { event in
        order.withLock {
          if case .secrets(let secrets) = event { $0 += secrets.map { $0.reveal() } }
          if case .log = event { $0.append("log") }
        }
      })
    _ = await run.run()
    let before = order.withLock { $0.prefix { $0 != "log" } }
    #expect(before.contains("of-current") && before.contains("generated"))
    #expect(order.withLock { $0.contains("log") })
    if case .rollback = kind { #expect(before.contains("of-target")) }
  }

  @Test func nobodyWaitsForARunnerThatIsGone() async throws {
    await host.set {
      $0.facts = "open=7\nsequence=7\n"
      $0.files["/var/lib/orchestrate/market-bot/deployments/7/holder.json"] = #"{"k":"0123456789abcdef"}"#
      $0.runner = "dead"
    }
    let inventory = try Fixtures.request().inventory
    let follower = DeploymentFollower(host: "bot-1", paths: HostPaths(project: "market-bot"), emit: { _ in })
    let attachment = Attachment(
      host: "bot-1", channel: await host.connect(), bundle: HostBundle(sha256: Fixtures.digest))
    await attachment.start()
    await #expect { try await follower.follow(attachment, inventory: inventory) } throws: {
      ($0 as? OrchestrateError)?.code == .outcomeUnknown
    }
  }
}

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
    whenPerforming: @escaping @Sendable () async -> Void = {},
    clock: (@Sendable (Duration) async throws -> Void)? = nil,
    emit: @escaping @Sendable (DeploymentEvent) -> Void = { _ in }
  ) async -> DeploymentRun {
    await host.set { $0.files["config.json"] = #"{"services":{"bot":{"image":"bot:v1.1.0"}}}"# }
    var client = ScriptedClient(host: host, bundle: HostBundle(sha256: Fixtures.digest), answer: answer)
    client.whenAsked = whenAsked
    client.whenPerforming = whenPerforming
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
    let notices = Mutex<[String]>([])
    let run = await run(
      try interactive(), whenAsked: Self.forever,
      emit: {
        if case .asked = $0 { asked.continuation.yield() }
        if case .notice(_, let text) = $0 { notices.withLock { $0.append(text) } }
      })
    async let summary = run.run()
    for await _ in asked.stream { break }
    await run.interrupt(reason: "interrupted by Ctrl-C")
    await run.interrupt(reason: "interrupted by Ctrl-C")
    #expect(
      notices.withLock { $0 } == [
        "interrupted by Ctrl-C: the host undoes: nothing runs, as before; orchestrate attach prod shows it, too"
      ])
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

  /// Time passes at once, except for whoever thinks about a question.
  private static let fast: @Sendable (Duration) async throws -> Void = { duration in
    if duration > .seconds(20) { try await Task.sleep(for: .seconds(3600)) } else { await Task.yield() }
    try Task.checkCancellation()
  }

  private static let withURL = "preflight release env recreate url commit"

  @Test(arguments: [true, false]) func aConnectionLostWhileNobodyReadsTheLogIsMadeAgain(underAQuestion: Bool)
    async throws
  {
    let host = host, again = AsyncStream<Void>.makeStream()
    let lose: @Sendable () async -> Void = {
      await host.cut()
      for await _ in again.stream { break }
    }
    let nothing: @Sendable () async -> Void = {}
    var request = try Fixtures.request(steps: Self.withURL)
    request.isInteractive = underAQuestion
    let run = await run(
      request, answer: "yes", whenAsked: underAQuestion ? lose : nothing,
      whenPerforming: underAQuestion ? nothing : lose,
      clock: Self.fast, emit: { if case .reconnected = $0 { again.continuation.yield() } })
    let summary = await run.run()
    #expect(summary.exitStatus == 0)
    #expect(await host.connections == 2)
  }

  @Test func whatTheHostClosedUnderAQuestionNeedsNoAnswer() async throws {
    let host = host
    let run = await run(
      try interactive(),
      whenAsked: {
        await host.undo("lease", "No sign of the client for more than 60 s.")
        await Self.forever()
      }, clock: Self.fast)
    let summary = await run.run()
    #expect(summary.exitStatus == 1)
    #expect(summary.problem?.summary == "No sign of the client for more than 60 s.")
  }

  @Test(arguments: [("abort", 3), ("detach", 7)]) func abortOrDetach(answer: String, status: Int32) async throws {
    let host = host, answered = AsyncStream<Void>.makeStream(), events = Mutex<[DeploymentEvent]>([])
    let current = try Fixtures.release(6, "v1.0.0", previous: 5)
    await host.set {
      $0.files["/opt/market-bot/current/release.json"] = current
      $0.staysAfterResult = answer == "detach"
    }
    let box = Mutex<DeploymentRun?>(nil)
    var request = try Fixtures.request(steps: Self.withURL)
    request.isInteractive = true
    request.assumeYes = true
    let run = await run(
      request, answer: answer,
      whenPerforming: {
        await box.withLock { $0 }?.askToStop(reason: "interrupted by Ctrl-C")
        for await _ in answered.stream { break }
        // An abort is on its way before this step ends.
        while answer == "abort", await host.aborts.isEmpty { await Task.yield() }
      },
      emit: { event in
        events.withLock { $0.append(event) }
        if case .answered = event { answered.continuation.yield() }
      })
    box.withLock { $0 = run }
    let summary = await run.run()
    #expect(summary.exitStatus == status)
    let asked = events.withLock { $0.compactMap { if case .asked(let question) = $0 { question } else { nil } } }
    #expect(asked.map(\.id) == ["stop"])
    #expect(asked[0].text.contains("the step url runs to its end") || asked[0].text.contains("v1.0.0 stays"))
    #expect(asked[0].text.contains("orchestrate attach prod"))
    #expect(await host.messages.contains("detach 7") == (answer == "detach"))
  }

  @Test func whoHoldsTheLockIsToldOnce() async throws {
    await host.set { $0.waits = [#"{"who":"grace@desk","since":"2026-11-21T02:00:00Z","number":6}"#, "", ""] }
    var request = try Fixtures.request()
    request.lockWait = .seconds(600)
    let told = Mutex<[DeploymentEvent]>([])
    let run = await run(
      request, emit: { event in if case .waitingForLock = event { told.withLock { $0.append(event) } } })
    #expect(await run.run().exitStatus == 0)
    let holder = LockHolder(who: "grace@desk", since: "2026-11-21T02:00:00Z", number: 6)
    #expect(told.withLock { $0 } == [.waitingForLock(host: "bot-1", holder: holder, limit: 600)])
  }

  @Test func whatHadBeenLeftOpenIsTold() async throws {
    await host.set { $0.recovered = ["6 undone", "5 committed"] }
    let told = Mutex<[DeploymentEvent]>([])
    let run = await run(
      try Fixtures.request(), emit: { event in if case .recovered = event { told.withLock { $0.append(event) } } })
    #expect(await run.run().number == 7)
    let expected = [(6, "undone"), (5, "committed")].map {
      DeploymentEvent.recovered(host: "bot-1", number: $0.0, outcome: $0.1)
    }
    #expect(told.withLock { $0 } == expected)
  }

  @Test func aLogThatIsntShownAfterTheGrantIsAskedForAgain() async throws {
    await host.set { $0.hidesLog = true }
    let clock: @Sendable (Duration) async throws -> Void = { duration in
      if duration != .seconds(30) { try await Task.sleep(for: .seconds(3600)) }
    }
    let summary = await run(try Fixtures.request(), clock: clock).run()
    #expect(summary.exitStatus == 0)
    #expect(await host.connections == 2)
  }

  @Test func aHostWithoutAWordIsGivenUpWhileTheLockIsAskedFor() async throws {
    await host.set { $0.muteAt = "open" }
    let attachment = Attachment(
      host: "bot-1", channel: await host.connect(), bundle: HostBundle(sha256: Fixtures.digest), sleep: { _ in })
    await attachment.start()
    await #expect { try await attachment.request("open x 60 600 0", body: []) } throws: {
      ($0 as? OrchestrateError)?.code == .unreachable
    }
  }

  @Test func aRunnerThatDiesIsNotFollowedForEver() async throws {
    await host.set {
      $0.facts = "open=7\nsequence=7\n"
      $0.files["/var/lib/orchestrate/market-bot/deployments/7/holder.json"] = #"{"k":"0123456789abcdef"}"#
    }
    let host = host
    let follower = DeploymentFollower(host: "bot-1", paths: HostPaths(project: "market-bot")) { event in
      if case .opened = event {
        Task {
          while await host.messages.last?.hasPrefix("follow") != true { await Task.yield() };
          await host.set { $0.runner = "dead" }
        }
      }
    } sleep: { _ in
      await Task.yield()
    }
    let attachment = Attachment(
      host: "bot-1", channel: await host.connect(), bundle: HostBundle(sha256: Fixtures.digest))
    await attachment.start()
    let inventory = try Fixtures.request().inventory
    await #expect { try await follower.follow(attachment, inventory: inventory) } throws: {
      ($0 as? OrchestrateError)?.code == .outcomeUnknown
    }
    #expect(await host.messages.contains("state 7"))
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

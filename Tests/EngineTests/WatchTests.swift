import Diagnostics
import Engine
import Foundation
import Inventory
import Synchronization
import Testing

/// The watch behind the commit, as the client ships and follows it.
@Suite(.timeLimit(.minutes(1))) struct WatchTests {
  private let host = ScriptedHost()
  private let events = DeploymentRunTests.Events()

  private func request(watch: Duration? = .seconds(120), steps: String = Fixtures.standard) throws -> DeploymentRequest
  {
    var request = try Fixtures.request(steps: steps)
    request.playbook.watch = watch
    request.wayBack = Playbook(
      name: "rollback", steps: try Fixtures.steps("preflight release backup migrate recreate health commit"))
    return request
  }

  /// v1.0.0 runs, as release 5.
  private func running(_ version: String = "v1.0.0", playbook: String = Fixtures.standard) async throws {
    let release = try Fixtures.release(5, version, previous: 4, playbook: playbook)
    await host.set {
      $0.facts += "current=5\n"
      $0.files["/opt/market-bot/current/release.json"] = release
      $0.files["/opt/market-bot/current/effective.json"] = #"{"services":{"bot":{"image":"old"}}}"#
      $0.files["config.json"] = #"{"services":{"bot":{"image":"new"}}}"#
    }
  }

  private static let catalog: StepCatalog = {
    var catalog = Fixtures.catalog()
    catalog.sealed = { context in
      context.config.map {
        (
          Release(
            number: context.number, version: context.version, previous: 5, created: "", playbook: ""), $0
        )
      }
    }
    return catalog
  }()

  private func run(
    _ request: DeploymentRequest,
    clock: @escaping @Sendable (Duration) async throws -> Void = { _ in try await Task.sleep(for: .seconds(3600)) }
  )
    -> DeploymentRun
  {
    var client = ScriptedClient(host: host, bundle: HostBundle(sha256: Fixtures.digest))
    client.clock = clock
    return DeploymentRun(
      request: request, host: "bot-1", catalog: Self.catalog, client: client, sha256: Fixtures.digest,
      emit: { event in self.events.all.withLock { $0.append(event) } })
  }

  private func notices() -> [String] {
    events.names { if case .notice(_, let text) = $0 { text } else { nil } }
  }

  private func shipped() async -> [String] {
    await host.paths.filter { $0.hasPrefix("watch/") && $0.hasSuffix("/meta") }.map {
      String($0.dropFirst(6).dropLast(5))
    }
  }

  @Test func theWayBackTravelsWithTheSteps() async throws {
    try await running()
    await host.set { $0.watchEnds = ("watched", #""reason":"over""#) }
    let summary = await run(try request()).run()
    #expect(summary.exitStatus == 0 && summary.outcome == .committed && summary.watch == .init(reason: "over"))
    #expect(await shipped() == ["01-preflight", "02-release", "03-recreate", "04-health", "05-commit"])
    #expect(await host.messages.filter { $0.hasPrefix("steps ") }.count == 2)
    let opener = try JSONValue(parsing: await host.texts["watch/request"] ?? "")
    #expect(opener["who"]?.stringValue == "the watch over #7" && opener["command"]?.stringValue == "rollback")
    #expect(opener["version"]?.stringValue == "v1.0.0" && opener["from_version"]?.stringValue == "v1.1.0")
    #expect(opener["k"]?.stringValue == "0123456789abcdefw" && opener["accept_data_loss"] == nil)
    #expect(await host.texts["watch/params"] == "WATCH='120'\nVERSION='v1.1.0'\n")
    #expect(
      events.all.withLock {
        $0.contains(.watching(host: "bot-1", seconds: 120))
          && $0.contains(.watched(host: "bot-1", reason: "over", by: nil))
      })
  }

  /// Without `watch` nothing of it travels, and the end is that of the commit.
  @Test func withoutOneNothingIsNew() async throws {
    try await running()
    let summary = await run(try request(watch: nil)).run()
    #expect(summary.exitStatus == 0 && summary.watch == nil)
    #expect(await shipped().isEmpty)
  }

  @Test(arguments: [
    ("v1.1.0", Fixtures.standard, #"{"services":{"bot":{"image":"new"}}}"#, "what ran before is the same"),
    ("v1.0.0", "preflight release env pull backup migrate-down recreate health commit", "", "--accept-data-loss"),
    ("", Fixtures.standard, "", "nothing ran before"),
  ])
  func whyThereIsNone(from: String, steps: String, config: String, why: String) async throws {
    if from.isEmpty {
      await host.set { $0.files["config.json"] = #"{"services":{"bot":{"image":"new"}}}"# }
    } else {
      try await running(from)
      if !config.isEmpty {
        await host.set { $0.files["/opt/market-bot/current/effective.json"] = config }
      }
    }
    let summary = await run(try request(steps: steps)).run()
    #expect(summary.exitStatus == 0 && summary.watch == nil)
    #expect(await shipped().isEmpty)
    #expect(notices().contains { $0.hasPrefix("no watch behind the commit: ") && $0.contains(why) }, "\(notices())")
  }

  /// A schema that stays needs nobody's word; data that may be lost does.
  @Test(arguments: [(true, false), (false, true)])
  func downGoesBackWhereItMay(schemaStays: Bool, accepts: Bool) async throws {
    try await running()
    await host.set {
      $0.watchEnds = ("watched", #""reason":"over""#)
      if schemaStays { $0.reports["pull"] = ["pending": "[]"] }
    }
    var request = try request(steps: "preflight release env pull backup migrate-down recreate health commit")
    request.options.acceptDataLoss = accepts
    #expect(await run(request).run().exitStatus == 0)
    #expect(await shipped().contains { $0.hasSuffix("-backup") } == accepts)
    #expect(await shipped().contains { $0.hasSuffix("-migrate-down") })
    let migrate = try #require(await shipped().first { $0.hasSuffix("-migrate-down") })
    #expect(await host.texts["watch/\(migrate)/params"] == "ACCEPT_DATA_LOSS='\(accepts ? 1 : 0)'\n")
  }

  /// Nobody is there then who could ask from outside.
  @Test func whatOnlyTheClientCanDoStaysBehind() async throws {
    try await running(playbook: "preflight release env pull recreate url commit")
    await host.set { $0.watchEnds = ("watched", #""reason":"over""#) }
    #expect(await run(try request()).run().exitStatus == 0)
    #expect(await shipped() == ["01-preflight", "02-release", "03-recreate", "04-health", "05-commit"])
  }

  @Test(arguments: [
    ("committed", Diagnostics.ExitStatus.rolledBack, DeploymentOutcome.undone), ("undone", .rollbackFailed, .committed),
    ("unchanged", .rollbackFailed, .committed), ("stuck", .rollbackFailed, .stuck),
  ])
  func aBreachIsFollowedToItsEnd(wayBack: String, status: Diagnostics.ExitStatus, outcome: DeploymentOutcome)
    async throws
  {
    try await running()
    await host.set {
      $0.watchEnds = ("breached", #""text":"bot: it was restarted","rollback":8"#)
      $0.wayBack = wayBack
    }
    let summary = await run(try request()).run()
    #expect(summary.exitStatus == status.rawValue && summary.outcome == outcome && summary.number == 7)
    #expect(summary.watch == .init(reason: "breached", text: "bot: it was restarted", by: 8))
    #expect(summary.problem?.summary.contains("bot: it was restarted") == true)
    #expect(await host.messages.contains("follow 8 0"))
    #expect(
      events.all.withLock { $0.contains(.breached(host: "bot-1", text: "bot: it was restarted", rollback: 8)) })
    let restarted = events.names { if case .stepStarted(_, "recreate") = $0 { "yes" } else { nil } }
    #expect(restarted.count == 2)
  }

  @Test func whoDoesNotFollowIsTold() async throws {
    try await running()
    var request = try request()
    request.follow = false
    let summary = await run(request).run()
    #expect(summary.exitStatus == 0 && summary.outcome == .committed)
    #expect(
      notices().contains { $0.contains("the host watches v1.1.0 for 2 min") && $0.contains("orchestrate attach prod") })
  }

  @Test(arguments: ["superseded", "aborted", "gave-up"])
  func anEndBeforeItsTimeIsNoFault(reason: String) async throws {
    try await running()
    await host.set { $0.watchEnds = ("watched", #""reason":"\#(reason)","by":8"#) }
    let summary = await run(try request()).run()
    #expect(summary.exitStatus == 0 && summary.watch?.reason == reason)
  }

  /// There is nothing to abort: whoever interrupts leaves.
  @Test func ctrlCLeaves() async throws {
    try await running()
    let run = run(try request())
    let summary = Task { await run.run() }
    while !events.all.withLock({ $0.contains(.watching(host: "bot-1", seconds: 120)) }) { await Task.yield() }
    await run.interrupt(reason: "interrupted by Ctrl-C")
    let ended = await summary.value
    #expect(
      ended.exitStatus == Diagnostics.ExitStatus.outcomeUnknown.rawValue
        && ended.problem?.remedy == "orchestrate attach prod")
    #expect(ended.problem?.summary.contains("goes on watching") == true)
    #expect(await host.aborts.isEmpty)
  }

  @Test func aLostConnectionIsMadeAgain() async throws {
    try await running()
    let run = run(try request(), clock: { _ in await Task.yield() })
    let summary = Task { await run.run() }
    while !events.all.withLock({ $0.contains(.watching(host: "bot-1", seconds: 120)) }) { await Task.yield() }
    await host.cut()
    while !events.all.withLock({ $0.contains(.reconnected(host: "bot-1")) }) { await Task.yield() }
    await host.set {
      $0.watchEnds = ("breached", #""text":"bot: it was restarted","rollback":8"#)
      $0.endWatch()
    }
    #expect(await summary.value.exitStatus == Diagnostics.ExitStatus.rolledBack.rawValue)
  }

  /// Where no systemd starts the runner again, the client does.
  @Test func aDeadWatchIsTakenUp() async throws {
    try await running()
    await host.set {
      $0.runner = "dead"
      $0.watchEnds = ("watched", #""reason":"over""#)
    }
    let summary = await run(try request(), clock: { _ in await Task.yield() }).run()
    #expect(summary.exitStatus == 0 && summary.watch?.reason == "over")
    #expect(await host.messages.contains("recover 0123456789abcdefr"))
  }

  /// What a release has taken the place of.
  @Test func whoTakesTheLockFromAWatchIsTold() async throws {
    await host.set {
      $0.recovered = ["6 watch"]
      $0.files["config.json"] = #"{"services":{"bot":{"image":"new"}}}"#
    }
    #expect(await run(try request(watch: nil)).run().exitStatus == 0)
    #expect(notices().contains { $0.contains("the watch over #6 has ended") })
    #expect(!events.all.withLock { $0.contains { if case .recovered = $0 { true } else { false } } })
  }
}

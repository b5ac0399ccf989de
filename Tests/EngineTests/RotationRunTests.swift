import Diagnostics
import Inventory
import Synchronization
import Testing

@testable import Engine

@Suite(.timeLimit(.minutes(1))) struct RotationRunTests {
  private static let steps = "preflight release env recreate health commit"

  private func run(
    _ host: ScriptedHost, _ kind: DeploymentRequest.Kind = .rotate(key: "DB_PASSWORD"),
    roles: String = #"{"DB_PASSWORD":"market"}"#,
    database: String? = "postgres", events: DeploymentRunTests.Events = .init(), current: String? = nil,
    hosts: Int = 1, change: (inout ScriptedClient) -> Void = { _ in }
  ) async throws -> DeploymentSummary {
    let running = try current ?? Fixtures.release(6, "v1.0.0", previous: 5)
    await host.set {
      $0.files["config.json"] = #"{"services":{"bot":{"roles":\#(roles)}}}"#
      $0.files["/opt/market-bot/current/release.json"] = running
    }
    var client = ScriptedClient(host: host, bundle: HostBundle(sha256: Fixtures.digest))
    change(&client)
    var request = try Fixtures.request(kind, steps: Self.steps)
    request.inventory.services.database = database
    for number in 1..<hosts {
      request.inventory.hosts.append(HostEntry(name: "bot-\(number + 1)", address: "203.0.113.1\(number)"))
    }
    let run = DeploymentRun(
      request: request, host: "bot-1", catalog: Fixtures.catalog(), client: client, sha256: Fixtures.digest,
      emit: { event in events.all.withLock { $0.append(event) } })
    return await run.run()
  }

  private func started(_ events: DeploymentRunTests.Events) -> [String] {
    events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
  }

  /// The role right before the containers, and asked about before the plan; the values are secret.
  @Test func theRoleChangesRightBeforeTheContainers() async throws {
    let host = ScriptedHost(), events = DeploymentRunTests.Events()
    let summary = try await run(host, events: events)
    #expect(summary.exitStatus == 0 && summary.from == "v1.0.0" && summary.to == "v1.0.0", "\(summary)")
    #expect(
      started(events) == ["preflight", "release", "env", "role-probe", "seal", "role", "recreate", "health"])
    #expect(await host.parameters["role"]?.contains("verifier of new") == true)
    let plans = events.all.withLock { $0.compactMap { if case .planned(let plan) = $0 { plan } else { nil } } }
    #expect(plans[0].steps.map(\.step) == ["preflight", "release", "env", "role", "recreate", "health", "commit"])
    #expect(plans[0].steps[3].changes.map(\.subject) == ["database role market"])
    var secrets: [String] = []
    for case .secrets(let values) in events.all.withLock({ $0 }) { secrets += values.map { $0.reveal() } }
    #expect(secrets.contains("new"))
  }

  @Test func anotherValueChangesNoRole() async throws {
    let events = DeploymentRunTests.Events()
    #expect(try await run(ScriptedHost(), roles: "{}", database: nil, events: events).exitStatus == 0)
    #expect(started(events) == ["preflight", "release", "env", "seal", "recreate", "health"])
  }

  @Test func aGateThatFailsUndoesIt() async throws {
    let host = ScriptedHost()
    await host.set { $0.failing = ["health": 1] }
    let summary = try await run(host)
    #expect(summary.exitStatus == 3 && summary.outcome == .undone)
  }

  /// A database that wouldn't let its own superuser in is told before anything changes.
  @Test func aProbeThatFailsChangesNothing() async throws {
    let host = ScriptedHost(), events = DeploymentRunTests.Events()
    await host.set { $0.failing = ["role-probe": 1] }
    let summary = try await run(host, events: events)
    #expect(summary.exitStatus == 1 && summary.outcome == .unchanged)
    #expect(!started(events).contains("role"))
  }

  @Test func whatCannotBeRotatedOpensNothing() async throws {
    let host = ScriptedHost()
    let summary = try await run(host) { $0.rotationFault = OrchestrateError(.usage, "made from something else") }
    #expect(summary.exitStatus == 64 && summary.number == nil)
    let messages = await host.messages
    #expect(!messages.contains { $0.hasPrefix("open") })
  }

  @Test func withoutADatabaseARoleIsAFault() async throws {
    let summary = try await run(ScriptedHost(), database: nil)
    #expect(summary.exitStatus == 78, "\(summary)")
  }

  /// The apps on the others would be locked out.
  @Test func severalHostsAreAFault() async throws {
    let events = DeploymentRunTests.Events()
    let summary = try await run(ScriptedHost(), events: events, hosts: 2)
    #expect(summary.exitStatus == 1 && summary.problem?.summary.contains("locked out") == true, "\(summary)")
    #expect(!started(events).contains("role"))
  }

  // MARK: Rollback

  private func release(
    _ number: Int, _ version: String, previous: Int, hash: String, roles: [String: String]? = ["DB_PASSWORD": "market"]
  ) throws -> String {
    var release = Release(
      number: number, version: version, previous: previous, created: "2026-11-01T00:00:00Z", playbook: Self.steps)
    release.env = ["DB_PASSWORD": hash]
    release.roles = roles
    return String(decoding: try release.json(), as: UTF8.self)
  }

  private func rollBack(
    from now: String, to then: String, roles: [String: String]? = ["DB_PASSWORD": "market"],
    now nowRoles: [String: String]? = ["DB_PASSWORD": "market"], password: String = "pw",
    events: DeploymentRunTests.Events = .init(), host: ScriptedHost = ScriptedHost(),
    change: (inout ScriptedClient) -> Void = { _ in }
  ) async throws -> DeploymentSummary {
    let target = try release(5, "v0.9.0", previous: 0, hash: then, roles: roles)
    await host.set {
      $0.files["/opt/market-bot/releases/5/release.json"] = target
      $0.files["/opt/market-bot/releases/5/effective.json"] =
        #"{"services":{"bot":{"roles":{"DB_PASSWORD":"market"}}}}"#
      $0.files["/opt/market-bot/releases/5/.env"] = "DB_PASSWORD='\(password)'\n"
    }
    return try await run(
      host, .rollback(to: nil), events: events, current: release(6, "v1.0.0", previous: 5, hash: now, roles: nowRoles),
      change: change)
  }

  /// What was rotated since stays as it is: no role changes, and the plan says what should be known.
  @Test func whatWasRotatedSinceStays() async throws {
    let events = DeploymentRunTests.Events()
    let summary = try await rollBack(from: Fixtures.digest([]), to: "a", events: events) { client in
      let value = ResolvedValue(name: "DB_PASSWORD", value: "new", isSecret: true, origin: .source(.host))
      client.carried = Rotation(
        key: "", values: [value], before: ["DB_PASSWORD": Secret("pw")], after: ["DB_PASSWORD": Secret("new")])
      client.carried.note = "a note"
    }
    #expect(summary.exitStatus == 0, "\(summary)")
    #expect(started(events) == ["preflight", "release", "env", "recreate", "health"])
    let plans = events.all.withLock { $0.compactMap { if case .planned(let plan) = $0 { plan } else { nil } } }
    #expect(plans[0].warnings == ["a note", "too short"])
    var secrets: [String] = []
    for case .secrets(let values) in events.all.withLock({ $0 }) { secrets += values.map { $0.reveal() } }
    #expect(secrets.contains("new"))
  }

  /// A role that was annotated in the template only after the older release was made.
  @Test(arguments: [true, false]) func aRoleThatTheOlderReleaseDoesNotKnowOf(isRecorded: Bool) async throws {
    let events = DeploymentRunTests.Events(), host = ScriptedHost()
    let summary = try await rollBack(
      from: "b", to: "a", roles: [:], now: isRecorded ? ["DB_PASSWORD": "market"] : [:], events: events, host: host
    ) { $0.carried.roles = isRecorded ? [:] : ["DB_PASSWORD": "market"] }
    #expect(summary.exitStatus == 0, "\(summary)")
    #expect(await host.parameters["role"]?.contains("verifier of pw") == true)
  }

  @Test func aDatabaseThatCannotBeGivenTheOlderPasswordIsToldBeforeAnythingChanges() async throws {
    let host = ScriptedHost(), events = DeploymentRunTests.Events()
    await host.set { $0.failing = ["role-probe": 1] }
    let summary = try await rollBack(from: "b", to: "a", events: events, host: host)
    #expect(summary.exitStatus == 1 && summary.outcome == .unchanged, "\(summary)")
  }

  /// A role has another password than the older release's, and no rotation is known that did it: it gets that one, the plan says so.
  @Test(arguments: [["DB_PASSWORD": "market"], nil] as [[String: String]?])
  func goingBackAcrossARotation(roles: [String: String]?) async throws {
    let events = DeploymentRunTests.Events(), host = ScriptedHost()
    let summary = try await rollBack(from: "b", to: "a", roles: roles, events: events, host: host)
    #expect(summary.exitStatus == 0, "\(summary)")
    #expect(started(events) == ["preflight", "release", "env", "role-probe", "role", "recreate", "health"])
    #expect(await host.parameters["role"]?.contains("verifier of pw") == true)
    let plans = events.all.withLock { $0.compactMap { if case .planned(let plan) = $0 { plan } else { nil } } }
    #expect(plans[0].steps.flatMap(\.changes).first { $0.subject == "database role market" }?.detail == ["v0.9.0"])
  }

  @Test func withoutARotationBetweenNothingOfThatHappens() async throws {
    let events = DeploymentRunTests.Events()
    #expect(try await rollBack(from: "a", to: "a", events: events).exitStatus == 0)
    #expect(!started(events).contains("role"))
  }

  @Test func aPasswordThatTheDatabaseCannotBeGivenIsTold() async throws {
    let summary = try await rollBack(from: "b", to: "a", password: "ü")
    #expect(summary.exitStatus == 1 && summary.number == nil, "\(summary)")
    #expect(summary.problem?.summary.contains("printable ASCII") == true)
  }
}

import Diagnostics
import Engine
import Foundation
import Inventory
import Synchronization
import Testing

enum Fixtures {
  /// Playbooks of tests: names of kinds, separated by blanks; `url` is a health step that the client carries out.
  static func steps(_ text: String) throws -> [StepSpec] {
    text.split(separator: " ").map { word in
      let settings: StepSettings =
        switch word {
        case "preflight": .preflight(PreflightSettings())
        case "release": .release(ReleaseSettings())
        case "env": .env(EnvSettings())
        case "pull": .pull(PullSettings())
        case "backup", "db-dump": .backup(BackupSettings())
        case "recreate": .recreate(RecreateSettings())
        case "migrate": .migrate(MigrateSettings())
        case "migrate-down":
          .migrate(
            {
              var settings = MigrateSettings()
              settings.rollback = .down
              return settings
            }())
        case "url":
          .health(
            {
              var settings = HealthSettings()
              settings.probe = .url("https://bot.example.com/health")
              return settings
            }())
        case "commit": .commit
        case "time": .host(.time(zone: "Etc/UTC"))
        case "firewall": .host(.firewall(allow: [], revert: .seconds(180)))
        case "prune": .prune(PruneSettings())
        default: .health(HealthSettings())
        }
      return StepSpec(name: String(word), settings: settings)
    }
  }

  struct Kind: StepKind {
    var spec: StepSpec?
    var changes: [Change] = []
    func plan(_ context: StepContext) throws -> [Change] {
      if let spec, spec.kind.preparesHost, let found = context.reported[spec.name]?["changes"]?.arrayValue {
        return found.map { Change(.update, $0["subject"]?.stringValue ?? "") }
      }
      return changes.filter { !($0.losesData && context.schemaStays) }
    }
    func payload(_ context: StepContext) throws -> StepPayload {
      let kind = spec?.kind
      var side = StepPayload.Side.host
      if kind == .commit { side = .commit }
      if case .health(let settings)? = spec?.settings, case .url = settings.probe { side = .client }
      let prepares = kind?.preparesHost == true
      return StepPayload(
        script: kind?.rawValue ?? "seal", side: side, timeout: .seconds(60),
        changes: kind == .recreate || kind == .migrate || prepares,
        hasUndo: kind == .recreate || prepares,
        parameters: kind == .migrate
          ? [("ACCEPT_DATA_LOSS", context.options.acceptDataLoss ? "1" : "0")]
          : kind == .release ? [("NOW", "\(context.now)")] : [])
    }
  }

  struct Role: StepKind {
    func plan(_ context: StepContext) -> [Change] {
      context.roleChanges.map { Change(.update, "database role \($0.role)", detail: [$0.backTo ?? ""]) }
    }
    func payload(_ context: StepContext) -> StepPayload {
      StepPayload(
        script: "role", timeout: .seconds(60), changes: true, hasUndo: true,
        parameters: context.roleChanges.map { ("ROLE_\($0.name)", $0.verifier.reveal()) })
    }
  }

  static func catalog(changes: [Change] = [Change(.recreate, "service bot")], problems: [String] = []) -> StepCatalog {
    StepCatalog(
      kind: { Kind(spec: $0, changes: $0.kind == .recreate ? changes : []) }, seal: Kind(), drain: { _ in nil },
      probe: { _ in nil }, role: Role(), roleProbe: Kind(),
      roles: { config, _, _ in
        config.service("bot")?["roles"]?.objectValue?.members.reduce(into: [:]) { $0[$1.key] = $1.value.stringValue }
          ?? [:]
      },
      rotated: { context in
        var rotated = RotatedConfig(config: context.config!)
        rotated.services = ["redis"]
        return rotated
      },
      carriedOver: { _ in
        var carried = RotatedConfig(config: ComposeConfig(.object(["services": .object(["bot": .object([:])])])))
        carried.warnings = ["too short"]
        return carried
      },
      inspect: { _ in (problems, []) }, misread: { _, _ in [] })
  }

  /// Its migrate step loses data unless the schema stays, and asks before.
  static var rollbackCatalog: StepCatalog {
    var catalog = catalog()
    catalog.kind = {
      Kind(spec: $0, changes: $0.kind == .migrate ? [Change(.run, "schema back", losesData: true)] : [])
    }
    catalog.drain = { $0.kind == .migrate ? Kind() : nil }
    catalog.schemaProbe = { $0.kind == .migrate ? Kind() : nil }
    return catalog
  }

  static func request(_ kind: DeploymentRequest.Kind = .deploy(version: "v1.1.0"), steps: String = standard) throws
    -> DeploymentRequest
  {
    var inventory = Inventory(environment: "prod", app: "market-bot")
    inventory.hosts = [HostEntry(name: "bot-1", address: "203.0.113.10")]
    return DeploymentRequest(
      kind: kind, inventory: inventory, playbook: Playbook(name: "deploy", steps: try Self.steps(steps)),
      playbookText: steps,
      holder: LockHolder(who: "ada@laptop"), nonce: "0123456789abcdef")
  }

  static let standard = "preflight release env pull backup recreate health commit prune"
  static let digest: @Sendable ([UInt8]) -> String = { _ in String(repeating: "0", count: 64) }

  static func release(_ number: Int, _ version: String, previous: Int, playbook: String = standard) throws -> String {
    String(
      decoding: try Release(
        number: number, version: version, previous: previous, created: "2026-11-01T00:00:00Z", playbook: playbook
      ).json(),
      as: UTF8.self)
  }
}

@Suite(.timeLimit(.minutes(1))) struct DeploymentRunTests {
  final class Events: Sendable {
    let all = Mutex<[DeploymentEvent]>([])
    func names(_ pick: (DeploymentEvent) -> String?) -> [String] { all.withLock { $0.compactMap(pick) } }
  }

  private func deploy(
    _ host: ScriptedHost, request: DeploymentRequest? = nil, catalog: StepCatalog = Fixtures.catalog(),
    answer: String? = nil,
    clientStep: ClientStepResult = ClientStepResult(succeeded: true, message: "200"), events: Events = Events(),
    change: (inout ScriptedClient) -> Void = { _ in }
  ) async throws -> DeploymentSummary {
    await host.set { $0.files["config.json"] = #"{"services":{"bot":{"image":"bot:v1.1.0"}}}"# }
    var client = ScriptedClient(
      host: host, bundle: HostBundle(sha256: Fixtures.digest), answer: answer, clientStep: clientStep)
    change(&client)
    let run = DeploymentRun(
      request: try request ?? Fixtures.request(), host: "bot-1", catalog: catalog, client: client,
      sha256: Fixtures.digest,
      emit: { event in events.all.withLock { $0.append(event) } })
    return await run.run()
  }

  @Test func aDeployCommits() async throws {
    let host = ScriptedHost(), events = Events()
    await host.set { $0.reports = ["health": ["gap_ms": "1234"], "backup": ["backup": "{\"file\":\"x.dump\"}"]] }
    let summary = try await deploy(host, events: events)
    #expect(summary.exitStatus == 0)
    #expect(summary.outcome == .committed)
    #expect(summary.number == 7)
    #expect(summary.downtimeMilliseconds == 1234)
    #expect(summary.restorePoint == "x.dump")
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started == ["preflight", "release", "env", "pull", "seal", "backup", "recreate", "health", "prune"])
    let aborts = await host.aborts
    #expect(aborts.isEmpty)
  }

  /// What needs nothing but the look travels with the request for the lock; not taken for another deployment than it was made for.
  @Test(arguments: [(6, 0, 1), (6, 3, 2), (8, 0, 2)])
  func theFirstStepsTravelWithTheRequestForTheLock(sequence: Int, previous: Int, batches: Int) async throws {
    let host = ScriptedHost(), events = Events()
    await host.set {
      $0.facts += "sequence=\(sequence)\n"
      $0.previous = previous
    }
    let summary = try await deploy(host, events: events)
    #expect(summary.exitStatus == 0)
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started == ["preflight", "release", "env", "pull", "seal", "backup", "recreate", "health", "prune"])
    let messages = await host.messages.filter { $0.hasPrefix("steps ") }
    #expect(messages.count == batches)
  }

  @Test func aRollbackThatNeedsNoAnswerIsSentAtOnce() async throws {
    let host = ScriptedHost(), events = Events()
    let current = try Fixtures.release(6, "v1.4.0", previous: 3),
      target = try Fixtures.release(3, "v1.1.0", previous: 1)
    await host.set {
      $0.facts += "sequence=6\n"
      $0.previous = 6
      $0.files["/opt/market-bot/current/release.json"] = current
      $0.files["/opt/market-bot/releases/3/release.json"] = target
    }
    let request = try Fixtures.request(
      .rollback(to: nil), steps: "preflight release backup migrate recreate health commit")
    let summary = try await deploy(host, request: request, events: events)
    #expect(summary.exitStatus == 0 && summary.to == "v1.1.0")
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started == ["preflight", "release", "recreate", "health"])
    let planned = events.names { if case .planned = $0 { "planned" } else { nil } }
    #expect(planned.count == 1)
    let messages = await host.messages
    #expect(!messages.contains { $0.hasPrefix("steps ") } && messages.contains("seal 7"))
  }

  @Test(arguments: [
    ("pull", 1, DeploymentOutcome.unchanged), ("backup", 1, .unchanged), ("recreate", 3, .undone),
    ("health", 3, .undone),
  ])
  func aFailingStepIsUndone(step: String, status: Int32, outcome: DeploymentOutcome) async throws {
    let host = ScriptedHost()
    await host.set { $0.failing = [step: 9] }
    let summary = try await deploy(host)
    #expect(summary.exitStatus == status)
    #expect(summary.outcome == outcome)
    #expect(summary.problem?.step == step)
    #expect(summary.problem?.cause?.contains("output of \(step)") == true)
  }

  @Test(arguments: [(false, "v1.0.0 is current again and healthy"), (true, "between two releases")])
  func theProblemSaysWhatStateTheSchemaIsIn(undoFails: Bool, expected: String) async throws {
    let host = ScriptedHost()
    let release = try Fixtures.release(6, "v1.0.0", previous: 5)
    await host.set {
      $0.failing = ["recreate": 1]
      $0.files["/opt/market-bot/current/release.json"] = release
      $0.reports["backup"] = ["schema": #""back at 0002""#]
      $0.undoFails = undoFails
    }
    let summary = try await deploy(host)
    #expect(summary.problem?.state?.hasSuffix("\(expected); schema: back at 0002") == true)
  }

  /// Nobody could undo to it: refused before anything is opened, with the way out.
  @Test(arguments: [nil, "{"])
  func aRunningReleaseThatIsGoneOrDamagedIsRefused(description: String?) async throws {
    let host = ScriptedHost()
    await host.set {
      $0.facts += "current=6\n"
      $0.files["/opt/market-bot/current/release.json"] = description
    }
    let summary = try await deploy(host)
    #expect(summary.exitStatus == 1 && summary.number == nil)
    #expect(summary.problem?.state == "nothing was changed")
    #expect(summary.problem?.remedy?.contains("ln -sfn releases/NUMBER /opt/market-bot/current") == true)
    let messages = await host.messages
    #expect(!messages.contains { $0.hasPrefix("open ") })
  }

  @Test func withoutDockerNothingBegins() async throws {
    let host = ScriptedHost()
    await host.set { $0.facts = "user=deploy\ncurrent=\ndocker_client=26.1\ndocker_server=\ncompose=2.26\n" }
    let catalog = Fixtures.catalog(problems: ["the daemon doesn't answer", "the disk is full"])
    let summary = try await deploy(host, catalog: catalog)
    #expect(summary.exitStatus == 1 && summary.number == nil)
    #expect(summary.problem?.summary == "the daemon doesn't answer")
    #expect(summary.problem?.cause == "the disk is full" && summary.problem?.state == "nothing was changed")
    let messages = await host.messages
    #expect(!messages.contains { $0.hasPrefix("open ") })
  }

  /// The old version's first good answer comes from the undo; the verdict from the gate, else from the event that begins the undo (at 5000).
  @Test(arguments: [("health", "4200", 3300), ("recreate", nil, 2500)] as [(String, String?, Int)])
  func fromTheVerdictToTheOldVersionsAnswer(step: String, verdict: String?, expected: Int) async throws {
    let host = ScriptedHost()
    await host.set {
      $0.failing = [step: 1]
      $0.reports["recreate"] = ["undone_healthy_ms": "7500"]
      if let verdict { $0.reports["health"] = ["verdict_ms": verdict] }
    }
    #expect(try await deploy(host).rollbackMilliseconds == expected)
    let unchanged = ScriptedHost()
    await unchanged.set { $0.failing = ["pull": 1] }
    #expect(try await deploy(unchanged).rollbackMilliseconds == nil)
  }

  @Test func afterTheCommitNothingFailsTheDeployment() async throws {
    let host = ScriptedHost()
    await host.set { $0.failing = ["prune": 1] }
    let summary = try await deploy(host)
    #expect(summary.exitStatus == 0)
  }

  @Test func anUndoThatFailsIsForAPerson() async throws {
    let host = ScriptedHost()
    await host.set {
      $0.failing = ["health": 1]
      $0.undoFails = true
    }
    let summary = try await deploy(host)
    #expect(summary.exitStatus == 4)
    #expect(summary.outcome == .stuck)
  }

  @Test func anUnhealthyUndoIsNotCalledHealthy() async throws {
    let host = ScriptedHost()
    await host.set {
      $0.failing = ["health": 1]
      $0.healthyAfterUndo = "false"
    }
    let summary = try await deploy(host)
    #expect(summary.exitStatus == 4)
  }

  @Test func whatWasUnhealthyBeforeIsRolledBackAndSaidToBeSo() async throws {
    let host = ScriptedHost()
    let release = try Fixtures.release(6, "v1.0.0", previous: 5)
    await host.set {
      $0.failing = ["health": 1]
      $0.files["/opt/market-bot/current/release.json"] = release
      $0.healthyAfterUndo = #"false,"unhealthy_before":true"#
    }
    let summary = try await deploy(host)
    #expect(summary.exitStatus == 3)
    #expect(summary.healthy == false && summary.unhealthyBefore == true)
    #expect(summary.problem?.state?.contains("isn't healthy: as before this deployment") == true)
  }

  @Test func theLockedOneIsToldByWhom() async throws {
    let host = ScriptedHost()
    await host.set {
      $0.lockedBy = #"{"who":"grace@ci","since":"2026-11-21T02:59:00Z","command":"deploy","version":"v1.2.0"}"#
    }
    let summary = try await deploy(host)
    #expect(summary.exitStatus == 5)
    #expect(summary.problem?.summary.contains("grace@ci") == true)
    #expect(summary.problem?.summary.contains("2026-11-21T02:59:00Z") == true)
    #expect(summary.number == nil)
  }

  @Test func aLostConnectionIsMadeAgainAndNothingIsSeenTwice() async throws {
    let host = ScriptedHost(), events = Events()
    await host.set { $0.breakAt = "recreate" }
    let summary = try await deploy(host, events: events)
    #expect(summary.exitStatus == 0)
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started == ["preflight", "release", "env", "pull", "seal", "backup", "recreate", "health", "prune"])
    #expect(events.names { if case .reconnected = $0 { "x" } else { nil } }.count == 1)
    let connections = await host.connections
    #expect(connections == 2)
  }

  @Test func problemsForbidTheDeployment() async throws {
    let host = ScriptedHost()
    let summary = try await deploy(host, catalog: Fixtures.catalog(problems: ["no disk", "no memory"]))
    #expect(summary.exitStatus == 1)
    #expect(summary.outcome == .unchanged)
    #expect(summary.problem?.cause == "no disk\nno memory")
    #expect(summary.problem?.state == "nothing was changed")
  }

  @Test func theRunningVersionAgainIsNothingToDo() async throws {
    let host = ScriptedHost()
    let release = try Fixtures.release(6, "v1.1.0", previous: 5)
    await host.set { $0.files["/opt/market-bot/current/release.json"] = release }
    let summary = try await deploy(host, catalog: Fixtures.catalog(changes: []))
    #expect(summary.exitStatus == 0)
    #expect(summary.problem == nil)
  }

  /// Its containers were gone after a rollback: its migrations needn't know the schema that the newer version has left.
  @Test(arguments: [0, 3]) func whatWasGoneBackToIsNotMigrated(copyOf: Int) async throws {
    let host = ScriptedHost(), events = Events()
    let release = String(
      decoding: try Release(
        number: 6, version: "v1.1.0", previous: 1, copyOf: copyOf, created: "", playbook: Fixtures.standard
      ).json(), as: UTF8.self)
    await host.set { $0.files["/opt/market-bot/current/release.json"] = release }
    let request = try Fixtures.request(steps: "preflight release env pull backup migrate recreate health commit")
    #expect(try await deploy(host, request: request, events: events).exitStatus == 0)
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started.contains("migrate") == (copyOf == 0) && started.contains("recreate"))
  }

  @Test func aPlanThatLosesDataNeedsItsFlag() async throws {
    let risky = Fixtures.catalog(changes: [Change(.run, "restore", losesData: true)])
    let refused = try await deploy(ScriptedHost(), catalog: risky)
    #expect(refused.exitStatus == 1)
    var request = try Fixtures.request()
    request.options.acceptDataLoss = true
    let accepted = try await deploy(ScriptedHost(), request: request, catalog: risky)
    #expect(accepted.exitStatus == 0)
  }

  @Test func onATerminalAPersonIsAsked() async throws {
    var request = try Fixtures.request()
    request.isInteractive = true
    let no = try await deploy(ScriptedHost(), request: request, answer: "no")
    #expect(no.exitStatus == 1)
    #expect(no.outcome == .unchanged)
    let yes = try await deploy(ScriptedHost(), request: request, answer: "yes")
    #expect(yes.exitStatus == 0)
  }

  @Test func theClientsOwnGateDecides() async throws {
    let request = try Fixtures.request(steps: "preflight release env pull recreate health url commit")
    let bad = try await deploy(
      ScriptedHost(), request: request, clientStep: ClientStepResult(succeeded: false, message: "502"))
    #expect(bad.exitStatus == 3)
    #expect(bad.problem?.cause?.contains("502") == true)
    let good = try await deploy(ScriptedHost(), request: request)
    #expect(good.exitStatus == 0)
  }

  @Test func skippedStepsStayOut() async throws {
    let host = ScriptedHost(), events = Events()
    var request = try Fixtures.request()
    request.options.skip = ["backup"]
    let summary = try await deploy(host, request: request, events: events)
    #expect(summary.exitStatus == 0)
    #expect(!events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }.contains("backup"))
  }

  /// It creates the services that keep data.
  @Test(arguments: [nil, "v1.0.0"]) func theBackupOfAFirstDeploymentIsNotSkipped(running: String?) async throws {
    let host = ScriptedHost(), events = Events()
    if let running {
      let release = try Fixtures.release(6, running, previous: 5)
      await host.set { $0.files["/opt/market-bot/current/release.json"] = release }
    }
    var request = try Fixtures.request()
    request.inventory.services.database = "postgres"
    request.options.skip = ["backup"]
    #expect(try await deploy(host, request: request, events: events).exitStatus == 0)
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started.contains("backup") == (running == nil))
  }

  @Test func stepsOfAnotherRoleStayOutAndThePlanSaysSo() async throws {
    let host = ScriptedHost(), events = Events()
    var request = try Fixtures.request()
    request.inventory.hosts[0].roles = ["app"]
    let backup = try #require(request.playbook.steps.firstIndex { $0.kind == .backup })
    request.playbook.steps[backup].role = "db"
    request.playbook.steps[backup + 1].role = "app"
    #expect(try await deploy(host, request: request, events: events).exitStatus == 0)
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started == ["preflight", "release", "env", "pull", "seal", "recreate", "health", "prune"])
    let plans = events.all.withLock { $0.compactMap { if case .planned(let plan) = $0 { plan } else { nil } } }
    let left = try #require(plans.first).steps.filter(\.skipped)
    #expect(left.map(\.step) == ["backup"] && left[0].reason == "bot-1 doesn't have the role db")
  }

  @Test func aPlaybookOnTheRunningReleaseNamesItsServices() async throws {
    let host = ScriptedHost()
    let release = try Fixtures.release(6, "v1.1.0", previous: 5)
    await host.set { $0.files["/opt/market-bot/current/release.json"] = release }
    var catalog = Fixtures.catalog()
    catalog.unknownServices = { steps, _ in steps.map { "no service for \($0.name)" } }
    let summary = try await deploy(
      host, request: try Fixtures.request(.run(playbook: "warm"), steps: "backup"), catalog: catalog)
    #expect(summary.exitStatus == 1 && summary.problem?.summary == "no service for backup")
    #expect(await host.parameters.isEmpty)
  }

  @Test func aRollbackThatCannotReadAPlaybookTakesNoLock() async throws {
    let host = try await hostAfterAMigration()
    let request = try Fixtures.request(.rollback(to: nil), steps: "preflight release recreate health commit")
    let fault = OrchestrateError(.configuration, "nobody defines ${tag}")
    let summary = try await deploy(host, request: request) { $0.playbookFault = fault }
    #expect(summary.exitStatus == 78 && summary.number == nil && summary.problem?.summary == fault.summary)
    #expect(await host.messages.allSatisfy { !$0.hasPrefix("open") })
  }

  @Test(arguments: [("db-dump", 0), ("backup", 64), ("commit", 64)] as [(String, Int32)])
  func aRollbackSkipsByTheNamesOfTheReleases(name: String, status: Int32) async throws {
    let host = ScriptedHost(), events = Events()
    let current = try Fixtures.release(
      6, "v1.4.0", previous: 3, playbook: "preflight release db-dump migrate-down recreate health commit")
    let target = try Fixtures.release(3, "v1.1.0", previous: 1)
    await host.set {
      $0.files["/opt/market-bot/current/release.json"] = current
      $0.files["/opt/market-bot/releases/3/release.json"] = target
    }
    var request = try Fixtures.request(
      .rollback(to: nil), steps: "preflight release backup migrate recreate health commit")
    request.options.skip = [name]
    let summary = try await deploy(host, request: request, events: events)
    #expect(summary.exitStatus == status && (summary.number != nil) == (status == 0))
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started == (status == 0 ? ["preflight", "release", "migrate-down", "recreate", "health"] : []))
  }

  /// By it the next rollback knows how long ago this one was.
  @Test func aRollbackKnowsWhatTimeItIs() async throws {
    let host = try await hostAfterAMigration()
    let request = try Fixtures.request(.rollback(to: nil), steps: "preflight release recreate health commit")
    let summary = try await deploy(host, request: request) { $0.time = 1_795_254_600_000 }
    #expect(summary.exitStatus == 0)
    #expect(await host.parameters["release"]?.contains("NOW='1795254600000'") == true)
  }

  @Test func rollbackGoesToPreviousNeverToTheNextLowerNumber() async throws {
    let host = ScriptedHost()
    let current = try Fixtures.release(6, "v1.4.0", previous: 3),
      target = try Fixtures.release(3, "v1.1.0", previous: 1)
    await host.set {
      $0.files["/opt/market-bot/current/release.json"] = current
      $0.files["/opt/market-bot/releases/3/release.json"] = target
    }
    let request = try Fixtures.request(
      .rollback(to: nil), steps: "preflight release backup migrate recreate health commit")
    let events = Events()
    let summary = try await deploy(host, request: request, events: events)
    #expect(summary.exitStatus == 0)
    #expect(summary.to == "v1.1.0")
    #expect(summary.from == "v1.4.0")
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started == ["preflight", "release", "recreate", "health"])
  }

  /// v1.4.0 was deployed again because its containers were gone: what a rollback means is the version before.
  @Test(arguments: [("v1.4.0", "v1.1.0"), ("v1.4.0-other", "v1.4.0")])
  func aRollbackPassesOverTheSameReleaseDeployedAgain(image: String, expected: String) async throws {
    let host = ScriptedHost()
    let current = try Fixtures.release(7, "v1.4.0", previous: 6), again = try Fixtures.release(6, "v1.4.0", previous: 3)
    let target = try Fixtures.release(3, "v1.1.0", previous: 1)
    await host.set {
      $0.files["/opt/market-bot/current/release.json"] = current
      $0.files["/opt/market-bot/current/effective.json"] = #"{"services":{"bot":{"image":"bot:v1.4.0"}}}"#
      $0.files["/opt/market-bot/releases/6/release.json"] = again
      $0.files["/opt/market-bot/releases/6/effective.json"] = #"{"services":{"bot":{"image":"bot:\#(image)"}}}"#
      $0.files["/opt/market-bot/releases/3/release.json"] = target
    }
    let request = try Fixtures.request(.rollback(to: nil), steps: "preflight release recreate health commit")
    #expect(try await deploy(host, request: request).to == expected)
  }

  /// The files of the release before come with the look; those of another, after a deployment in between, don't count.
  @Test(arguments: [(3, []), (5, ["release.json", "effective.json", ".env", ".secrets"])])
  func theReleaseBeforeComesWithTheLook(shown: Int, asked: [String]) async throws {
    let host = ScriptedHost()
    let current = try Fixtures.release(6, "v1.4.0", previous: 3),
      target = try Fixtures.release(3, "v1.1.0", previous: 1),
      looked = try Fixtures.release(shown, shown == 3 ? "v1.1.0" : "v1.3.0", previous: 1)
    await host.set {
      $0.files["/opt/market-bot/current/release.json"] = current
      $0.files["/opt/market-bot/previous/release.json"] = looked
      $0.files["/opt/market-bot/releases/3/release.json"] = target
    }
    let request = try Fixtures.request(.rollback(to: nil), steps: "preflight release recreate health commit")
    let summary = try await deploy(host, request: request)
    #expect(summary.to == "v1.1.0")
    let messages = await host.messages
    #expect(
      Set(messages.filter { $0.hasPrefix("get /opt/market-bot/releases/") })
        == Set(asked.map { "get /opt/market-bot/releases/3/\($0)" }))
  }

  /// By the policy `down`: where the probe finds the schema, and which steps run then. The scripted plan loses data unless the schema stays.
  @Test(arguments: [
    (true, "preflight release migrate-down-probe migrate-down recreate health", 0),
    (false, "preflight release migrate-down-probe", 1),
  ])
  func aRollbackAsksForDataLossOnlyIfThereIsSomethingToLose(stays: Bool, expected: String, status: Int32)
    async throws
  {
    let host = try await hostAfterAMigration(), events = Events()
    await host.set {
      $0.reports["migrate-down-probe"] = ["schema_stays": "\(stays)"]
    }
    let request = try Fixtures.request(
      .rollback(to: nil), steps: "preflight release backup migrate recreate health commit")
    let summary = try await deploy(host, request: request, catalog: Fixtures.rollbackCatalog, events: events)
    #expect(summary.exitStatus == status)
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started.joined(separator: " ") == expected)
  }

  /// A person's yes to the plan is what the host's own check is told of.
  @Test func aYesToALosingPlanReachesTheHost() async throws {
    let host = try await hostAfterAMigration(), events = Events()
    var request = try Fixtures.request(
      .rollback(to: nil), steps: "preflight release backup migrate recreate health commit")
    request.isInteractive = true
    let summary = try await deploy(
      host, request: request, catalog: Fixtures.rollbackCatalog, answer: "yes", events: events)
    #expect(summary.exitStatus == 0)
    #expect(await host.parameters["migrate-down"]?.contains("ACCEPT_DATA_LOSS='1'") == true)
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(
      started == [
        "preflight", "release", "migrate-down-probe", "drain", "backup", "migrate-down", "recreate", "health",
      ]
    )
  }

  /// v1.4.0 runs, whose policy is `down`; before it v1.1.0 did.
  private func hostAfterAMigration() async throws -> ScriptedHost {
    let host = ScriptedHost()
    let current = try Fixtures.release(
      6, "v1.4.0", previous: 3, playbook: "preflight release backup migrate-down recreate health commit")
    let target = try Fixtures.release(3, "v1.1.0", previous: 1)
    await host.set {
      $0.files["/opt/market-bot/current/release.json"] = current
      $0.files["/opt/market-bot/releases/3/release.json"] = target
    }
    return host
  }

  @Test func aSecondRollbackInARowIsNotTakenForGranted() async throws {
    let host = ScriptedHost()
    var rolledBack = Release(
      number: 6, version: "v1.1.0", previous: 1, copyOf: 3, created: "2026-11-21T03:00:00Z", playbook: Fixtures.standard
    )
    rolledBack.services = ["bot"]
    let current = String(decoding: try rolledBack.json(), as: UTF8.self),
      target = try Fixtures.release(1, "v1.0.0", previous: 0)
    await host.set {
      $0.facts = "epoch_ms=\(Timestamp("2026-11-21T03:05:00Z")!.milliseconds)\n"
      $0.files["/opt/market-bot/current/release.json"] = current
      $0.files["/opt/market-bot/releases/1/release.json"] = target
    }
    let steps = "preflight release recreate health commit"
    let refused = try await deploy(host, request: try Fixtures.request(.rollback(to: nil), steps: steps))
    #expect(refused.exitStatus == 64)
    #expect(refused.number == nil)
    var sure = try Fixtures.request(.rollback(to: nil), steps: steps)
    sure.assumeYes = true
    let done = try await deploy(host, request: sure)
    #expect(done.to == "v1.0.0")
    #expect(done.exitStatus == 0)
  }

  @Test func withNothingOlderRollbackSaysSo() async throws {
    let host = ScriptedHost()
    let current = try Fixtures.release(1, "v1.0.0", previous: 0)
    await host.set { $0.files["/opt/market-bot/current/release.json"] = current }
    let summary = try await deploy(
      host, request: try Fixtures.request(.rollback(to: nil), steps: "preflight release recreate health commit"))
    #expect(summary.exitStatus == 1)
    #expect(summary.problem?.state == "nothing was changed")
  }
}

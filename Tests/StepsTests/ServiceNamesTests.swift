import Diagnostics
import Engine
import Inventory
import Testing

@testable import Steps

private func composed(_ services: [String]) throws -> ComposeConfig {
  ComposeConfig(
    try json("{\"services\":{\(services.map { "\"\($0)\":{\"image\":\"\($0):1\"}" }.joined(separator: ","))}}"))
}

private func playbook(
  recreate: [String] = [], health: String? = nil, migrate: String? = nil, backup: String? = nil
) -> Playbook {
  var recreating = RecreateSettings(), gate = HealthSettings(), migrating = MigrateSettings(), dump = BackupSettings()
  recreating.services = recreate
  gate.service = health
  migrating.service = migrate
  dump.service = backup
  let place = SourceLocation(file: "playbooks/deploy.yml", line: 7, column: 5)
  return Playbook(
    name: "deploy",
    steps: [
      StepSpec(name: "dump", settings: .backup(dump), location: place),
      StepSpec(name: "schema", settings: .migrate(migrating), location: place),
      StepSpec(name: "switch", settings: .recreate(recreating), location: place),
      StepSpec(name: "gate", settings: .health(gate), location: place),
    ])
}

/// The containers of preflight's fact: service → Docker's word.
private func baseline(_ containers: [(String, String)]) throws -> [String: JSONValue] {
  let items = containers.map { "{\"service\":\"\($0.0)\",\"status\":\"\($0.1)\"}" }
  return ["baseline": try json("[\(items.joined(separator: ","))]")]
}

@Suite struct ServiceNamesTests {
  @Test(
    arguments: [
      (playbook(), []), (playbook(recreate: ["bot"], health: "bot", migrate: "bot", backup: "postgres"), []),
      (
        playbook(recreate: ["bto"]),
        ["`recreate.services` of the step switch names the service bto", "did you mean bot?"]
      ),
      (playbook(health: "postgre"), ["`health.service` of the step gate", "did you mean postgres?"]),
      (playbook(migrate: "nosuch"), ["`migrate.service` of the step schema names the service nosuch"]),
      (playbook(backup: "db"), ["`backup.service` of the step dump names the service db"]),
    ] as [(Playbook, [String])])
  func namesOfThePlaybookAreThoseOfTheComposeFile(playbook: Playbook, expected: [String]) throws {
    var context = shopContext()
    context.config = try composed(["bot", "postgres"])
    let problems = StepCatalog.standard(playbook).inspect(context).problems
    #expect(problems.count == (expected.isEmpty ? 0 : 1), "\(problems)")
    for text in expected { #expect(problems.first?.contains(text) == true, "\(problems)") }
    if !expected.isEmpty { #expect(problems.first?.hasPrefix("playbooks/deploy.yml:7:5: ") == true) }
    #expect(StepCatalog.standard(playbook).unknownServices(playbook.steps, context) == problems)
    // A step that doesn't run asks for nothing.
    context.options.skip = Set(playbook.steps.map(\.name))
    #expect(StepCatalog.standard(playbook).inspect(context).problems == [])
  }

  @Test func includeIsCheckedToo() throws {
    var context = shopContext()
    context.config = try composed(["bot", "postgres", "nginx"])
    context.options.include = ["ngnix"]
    let problems = absentServices([], context)
    #expect(
      problems.count == 1 && problems[0].contains("--include ngnix") && problems[0].contains("did you mean nginx?"))
    context.options.include = ["nginx"]
    #expect(StepCatalog.standard(playbook()).inspect(context).problems == [])
  }

  @Test func aPlaybookOnTheRunningReleaseAsksForItsServices() throws {
    var context = shopContext()
    context.currentConfig = try composed(["bot"])
    #expect(absentServices(playbook(health: "bot").steps, context) == [])
    #expect(
      absentServices(playbook(health: "web").steps, context).first?.contains("the running release doesn't have") == true
    )
  }

  @Test func whatNobodyManagesIsNamed() throws {
    var context = shopContext()
    context.config = try composed(["bot", "postgres", "nginx"])
    let problems = StepCatalog.standard(playbook()).inspect(context).problems
    #expect(problems.count == 1 && problems[0].contains("service nginx") && problems[0].contains("services.app"))
    #expect(StepCatalog.standard(playbook(recreate: ["bot", "nginx"])).inspect(context).problems == [])
    #expect(StepCatalog.standard(playbook(migrate: "nginx")).inspect(context).problems == [])
    // Somebody has started it with --include: it goes on. Without a container nobody has.
    context.current = Release(number: 6, version: "v1", previous: 5, created: "", playbook: "")
    context.currentConfig = context.config
    context.reported["preflight"] = try baseline([("bot", "running"), ("postgres", "running"), ("nginx", "running")])
    #expect(StepCatalog.standard(playbook()).inspect(context).problems == [])
    context.reported["preflight"] = try baseline([("bot", "running"), ("postgres", "running")])
    #expect(StepCatalog.standard(playbook()).inspect(context).problems.count == 1)
  }

  @Test func whatNoRecreateStepNamesIsAWarning() throws {
    var context = shopContext()
    context.inventory.services.app = ["bot", "worker"]
    context.config = try composed(["bot", "postgres", "worker"])
    let findings = StepCatalog.standard(playbook(recreate: ["bot"])).inspect(context)
    #expect(findings.problems == [] && findings.warnings.count == 1 && findings.warnings[0].contains("worker"))
    #expect(StepCatalog.standard(playbook()).inspect(context).warnings == [])
  }

  @Test func aServiceThatLeftIsIncludedOnceAndNotStarted() throws {
    var context = shopContext()
    context.current = Release(number: 6, version: "v1", previous: 5, created: "", playbook: "")
    context.config = try composed(["bot", "postgres"])
    context.currentConfig = try composed(["bot", "postgres", "old"])
    context.images = ["bot": image("bot", "2")]
    context.current?.images = ["postgres": image("postgres", "9")]
    context.options.include = ["old"]
    let findings = StepCatalog.standard(playbook()).inspect(context)
    #expect(findings.problems == [] && findings.warnings.contains { $0.contains("old leaves the release") })
    #expect(RecreateStep().payload(context).parameters.first { $0.name == "SERVICES" }?.value == "'bot'")
    #expect(RecreateStep().plan(context).contains { $0.action == .delete && $0.subject == "service old" })
  }

  @Test(arguments: [(["bot", "postgres"], false), (["web", "db"], true), (["bot", "db"], false)])
  func anotherProjectsComposeFileIsRefused(running: [String], refused: Bool) throws {
    var context = shopContext()
    context.current = Release(number: 6, version: "v1", previous: 5, created: "", playbook: "")
    context.config = try composed(["bot", "postgres"])
    context.currentConfig = try composed(running)
    let problems = StepCatalog.standard(playbook()).inspect(context).problems
    #expect(problems.contains { $0.contains("holds none of them") && $0.contains("`project:`") } == refused)
  }
}

@Suite struct StoppedServicesTests {
  /// v1 over v1, with nothing changed.
  private func same(_ containers: [(String, String)]?) throws -> StepContext {
    var context = shopContext(version: "v1")
    context.config = try composed(["bot", "postgres"])
    context.images = ["bot": image("bot", "2"), "postgres": image("postgres", "9")]
    context.current = Release(number: 6, version: "v1", previous: 5, created: "", playbook: "")
    context.current?.images = context.images
    context.currentConfig = effectiveConfig(context)?.config
    context.reported["migrate-probe"] = ["pending": .array([])]
    if let containers { context.reported["preflight"] = try baseline(containers) }
    return context
  }

  private func changes(_ context: StepContext) throws -> [Change] {
    let catalog = StepCatalog.standard(playbook())
    return try playbook().steps.flatMap { try catalog.kind($0).plan(context) }
  }

  @Test func theRunningVersionIsNothingToDoOnlyWhereItRuns() throws {
    #expect(try changes(same(nil)) == [])
    #expect(try changes(same([("bot", "exited"), ("bot", "running"), ("postgres", "running")])) == [])
    let stopped = try changes(same([("bot", "exited"), ("postgres", "running")]))
    #expect(stopped.first { $0.subject == "service bot" }?.detail == ["  bot: not running (exited)"])
    #expect(stopped.contains { $0.subject == "health of bot" })
    let gone = try changes(same([]))
    #expect(gone.first { $0.subject == "service bot" }?.detail == ["  bot: not running"])
    #expect(gone.first { $0.subject == "service postgres" }?.action == .create)
  }

  /// After a rollback by the policy `compatible` the schema is ahead: the older image would call all of its own migrations pending.
  @Test(arguments: [(4, true), (0, false)]) func whatWasGoneBackToRunsOnTheSchemaAsItIs(copyOf: Int, empty: Bool) throws
  {
    var context = try same([("bot", "running"), ("postgres", "running")])
    context.reported["migrate-probe"] = ["pending": .array([.string("0001 the first")])]
    context.current?.copyOf = copyOf
    #expect(context.isGoneBackTo == empty)
    #expect(try changes(context).isEmpty == empty)
    let effective = try #require(effectiveConfig(context))
    #expect(SealStep(playbook: playbook()).release(context, effective).copyOf == copyOf)
    context.images["bot"] = image("bot", "3")
    #expect(!context.isGoneBackTo)
  }

  /// An older version deployed over the schema of a newer one: its own migrations would fail, after the application was stopped.
  @Test func aSchemaOfSomethingNewerIsRefused() throws {
    var context = try same([("bot", "running"), ("postgres", "running")])
    context.version = "v0.9"
    context.reported["migrate-probe"] = ["pending": .array([]), "unknown_revision": .string("0002")]
    let problem = try #require(strangeSchema(playbook().steps, context))
    for words in ["at 0002, which v0.9 doesn't know", "orchestrate rollback", "--skip schema "] {
      #expect(problem.contains(words))
    }
    #expect(StepCatalog.standard(playbook()).inspect(context).problems.contains(problem))
    context.options.skip = ["schema"]
    #expect(strangeSchema(playbook().steps, context) == nil)
    context.options.skip = []
    context.version = context.current?.version ?? ""
    context.current?.copyOf = 4
    #expect(strangeSchema(playbook().steps, context) == nil)
  }

  @Test func whatIsScaledToNothingNeedsNoContainer() throws {
    var context = try same([("postgres", "running")])
    context.config = ComposeConfig(
      try json(#"{"services":{"bot":{"image":"b:1","deploy":{"replicas":0}},"postgres":{"image":"p:1"}}}"#))
    context.currentConfig = effectiveConfig(context)?.config
    #expect(try changes(context) == [])
  }

  @Test func aDatabaseThatStandsStillIsAProblemBeforeAnythingIsChanged() throws {
    let catalog = StepCatalog.standard(playbook())
    let problems = catalog.inspect(try same([("bot", "running"), ("postgres", "exited")])).problems
    #expect(problems.count == 1 && problems[0].contains("postgres has a container, but it doesn't run (exited)"))
    #expect(catalog.inspect(try same([("bot", "running")])).problems == [])
    var skipping = try same([("bot", "running"), ("postgres", "exited")])
    skipping.options.skip = ["dump"]
    #expect(catalog.inspect(skipping).problems == [])
  }
}

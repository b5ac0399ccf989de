import Diagnostics
import Engine
import Inventory
import Steps
import Testing

/// A deployment of v2 over v1, or the first one.
private func context(current: String? = "v1", image: String = "bot:2", pending: [String]? = nil) -> StepContext {
  var inventory = Inventory(environment: "prod", app: "market-bot")
  inventory.services.app = ["bot"]
  inventory.services.database = "postgres"
  inventory.services.cache = "redis"
  var context = StepContext(inventory: inventory, version: "v2", number: 7, facts: HostFacts(), sha256: { _ in "hash" })
  func config(_ image: String) -> ComposeConfig {
    let services: JSONObject = [
      "bot": .object(["image": .string(image)]), "postgres": .object(["image": .string("pg:17")]),
    ]
    return ComposeConfig(.object(["services": .object(services)]))
  }
  if let current {
    context.current = Release(number: 6, version: current, previous: 5, created: "", playbook: "")
    context.currentConfig = config("bot:1")
    context.target = Release(number: 5, version: "v2", previous: 4, created: "", playbook: "")
    context.targetConfig = config(image)
    if pending != nil { context.target = nil }
  }
  if let pending { context.reported["migrate-probe"] = ["pending": .array(pending.map(JSONValue.string))] }
  return context
}

private func parameters(_ payload: StepPayload) -> [String: String] {
  Dictionary(payload.parameters.map { ($0.name, $0.value) }) { $1 }
}

@Suite struct DatabaseAndSwitchTests {
  @Test func backupTakesItsServiceFromTheInventory() {
    let payload = BackupStep().payload(context())
    let parameters = parameters(payload)
    #expect(parameters["SERVICE"] == "postgres")
    #expect(parameters["CREATE"] == "'postgres' 'redis'")
    #expect(parameters["VERSION"] == "v1")
    #expect(payload.hasUndo && !payload.changes)
  }

  /// While the registry answers, the database is asked what the probe wants to know; without a probe nothing.
  @Test(
    arguments: [
      (["alembic", "upgrade", "head"], [], true), (["flyway", "migrate"], [], false),
      (["alembic", "upgrade", "head"], ["migrate"], false),
    ] as [([String], Set<String>, Bool)])
  func pullAsksAheadForTheProbe(up: [String], skipped: Set<String>, asks: Bool) throws {
    var migrate = MigrateSettings()
    migrate.up = up
    var context = context()
    context.options.skip = skipped
    context.steps = [
      StepSpec(name: "env", settings: .env(EnvSettings())), StepSpec(name: "migrate", settings: .migrate(migrate)),
    ]
    #expect(parameters(try PullStep().payload(context))["DB_SERVICE"] == (asks ? "postgres" : nil))
  }

  /// What is migrated and brought back is what is backed up.
  @Test func migrationsWorkOnTheDatabaseOfTheBackup() {
    var migrate = MigrateSettings()
    migrate.up = ["alembic", "upgrade", "head"]
    migrate.rollback = .restore
    var backup = BackupSettings()
    var context = context()
    let payloads = {
      [
        MigrateStep(settings: migrate).payload(context), MigrateProbeStep(settings: migrate)!.payload(context),
        SchemaProbeStep(settings: migrate)!.payload(context),
      ].map(parameters)
    }
    for found in payloads() {
      #expect(found["DB_SERVICE"] == "postgres" && found["DB_NAME"] == "" && found["DB_USER"] == "")
    }
    (backup.service, backup.database, backup.user) = ("db", "market", "owner")
    context.steps = [StepSpec(name: "db-dump", settings: .backup(backup))]
    for found in payloads() {
      #expect(found["DB_SERVICE"] == "db" && found["DB_NAME"] == "market" && found["DB_USER"] == "owner")
    }
  }

  @Test func firstDeploymentCreatesWhatKeepsData() {
    let first = context(current: nil)
    #expect(BackupStep().plan(first).map(\.subject) == ["service postgres", "service redis"])
    #expect(BackupStep().payload(first).changes)
  }

  @Test func stepsThatAccompanyAChangeAreNoneByThemselves() throws {
    var same = context(pending: [])
    same.current?.version = "v2"
    same.config = same.currentConfig
    same.images["bot"] = Release.Image(
      reference: "bot:1", digest: "sha256:ab", id: "sha256:ab", tag: "orchestrate/market-bot/bot:ab")
    same.currentConfig = effectiveConfig(same)?.config
    #expect(BackupStep().plan(same).isEmpty)
    #expect(HealthStep().plan(same).isEmpty)
    #expect(RunStep().plan(same).isEmpty)
    same.reported["migrate-probe"] = ["pending": .array([.string("0002 add a column")])]
    #expect(BackupStep().plan(same).map(\.subject) == ["backup of postgres"])
  }

  struct Down: Sendable {
    var words: [String]
    var expected: String
  }

  @Test(arguments: [
    Down(words: ["alembic", "downgrade", "${revision}"], expected: #"'alembic' 'downgrade' ''"$revision"''"#),
    Down(words: ["migrate", "goto=${revision}!"], expected: #"'migrate' 'goto='"$revision"'!'"#),
    Down(words: ["it's", "$HOME"], expected: #"'it'\''s' '$HOME'"#),
  ])
  func theRevisionIsReferredToNeverInterpolated(down: Down) {
    var settings = MigrateSettings()
    settings.up = ["alembic", "upgrade", "head"]
    settings.down = down.words
    #expect(parameters(MigrateStep(settings: settings).payload(context()))["DOWN"] == down.expected)
  }

  struct Tool: Sendable {
    var up: [String]
    var tool: String
    var probes: Bool
  }

  @Test(arguments: [
    Tool(up: ["alembic", "upgrade", "head"], tool: "alembic", probes: true),
    Tool(up: ["python", "-m", "alembic", "upgrade", "head"], tool: "alembic", probes: true),
    Tool(up: ["/usr/local/bin/alembic", "upgrade", "head"], tool: "alembic", probes: true),
    Tool(up: ["migrate", "-path", "m", "up"], tool: "migrate", probes: false),
    Tool(up: ["./manage.py", "migrate"], tool: "", probes: false),
  ])
  func toolsAreRecognised(tool: Tool) {
    var settings = MigrateSettings()
    settings.up = tool.up
    #expect(parameters(MigrateStep(settings: settings).payload(context()))["TOOL"] == tool.tool)
    #expect((MigrateProbeStep(settings: settings) != nil) == tool.probes)
  }

  @Test func pendingMigrationsArePlanned() {
    var settings = MigrateSettings()
    settings.up = ["alembic", "upgrade", "head"]
    let step = MigrateStep(settings: settings)
    let changes = step.plan(context(pending: ["0002 add a column", "0003 fill it"]))
    #expect(changes.map(\.subject) == ["migration 0002", "migration 0003"])
    #expect(step.plan(context(pending: [])).isEmpty)
  }

  @Test(arguments: zip(SchemaPolicy.allCases, [false, true, true]))
  func aRollbackSaysWhetherDataIsLost(policy: SchemaPolicy, loses: Bool) {
    var settings = MigrateSettings()
    settings.up = ["alembic", "upgrade", "head"]
    settings.down = ["alembic", "downgrade", "${revision}"]
    settings.rollback = policy
    #expect(MigrateStep(settings: settings).plan(context()).contains(where: \.losesData) == loses)
    #expect((DrainStep(for: settings) != nil) == loses)
    #expect((SchemaProbeStep(settings: settings) != nil) == loses)
    var stays = context()
    stays.reported["migrate-probe"] = ["schema_stays": .bool(true)]
    #expect(MigrateStep(settings: settings).plan(stays).isEmpty)
    #expect(parameters(MigrateStep(settings: settings).payload(context()))["TARGET"] == "5")
  }

  @Test func recreateNamesOnlyTheAppsServices() {
    let changes = RecreateStep().plan(context())
    #expect(changes.map(\.subject) == ["service bot"])
    #expect(RecreateStep().plan(context(image: "bot:1")).isEmpty)
  }

  @Test func theImagesOwnSignalNeedsNone() {
    var settings = RecreateSettings()
    #expect(parameters(RecreateStep(settings: settings).payload(context()))["SIGNAL"]?.isEmpty == true)
    settings.drainSignal = "SIGINT"
    settings.drainTimeout = .milliseconds(1500)
    let parameters = parameters(RecreateStep(settings: settings).payload(context()))
    #expect(parameters["SIGNAL"] == "SIGINT")
    #expect(parameters["GRACE"] == "2")
    #expect(RecreateStep().payload(context()).files.map(\.path) == ["check.sh"])
  }

  struct Bound: Sendable {
    var bound: JSONBound
    var expected: String
  }

  @Test(arguments: [
    Bound(bound: .string("a\tb\\"), expected: "string\ta\\tb\\\\"), Bound(bound: .number(200), expected: "number\t200"),
    Bound(bound: .number(0.5), expected: "number\t0.5"), Bound(bound: .bool(true), expected: "bool\ttrue"),
    Bound(bound: .null, expected: "null\tnull"), Bound(bound: .below(30), expected: "below\t30"),
    Bound(bound: .above(1), expected: "above\t1"), Bound(bound: .atLeast(1), expected: "at_least\t1"),
    Bound(bound: .atMost(9), expected: "at_most\t9"), Bound(bound: .notEqual("x"), expected: "not\tx"),
  ])
  func expectationsTravelAsLines(bound: Bound) {
    var settings = HealthSettings()
    settings.probe = .http("http://localhost:8000/health")
    settings.expectJSON = [JSONExpectation(path: ["checks", "0", "state"], bound: bound.bound)]
    #expect(
      parameters(HealthStep(settings: settings).payload(context()))["EXPECT"]
        == "checks\u{1f}0\u{1f}state\t" + bound.expected)
  }

  @Test func theGateIsToldInWords() {
    var settings = HealthSettings()
    settings.probe = .http("http://localhost:8000/health")
    settings.expectStatus = 200
    settings.expectJSON = [
      JSONExpectation(path: ["status"], bound: .string("healthy")),
      JSONExpectation(path: ["last_poll_age_s"], bound: .below(30)),
    ]
    let change = HealthStep(settings: settings).plan(context()).first
    #expect(change?.subject == "health of bot")
    #expect(
      change?.detail == [
        "  http://localhost:8000/health answers 200, status = healthy, last_poll_age_s < 30, within 60 s, stable for 5 s"
      ])
  }

  @Test func aURLIsAskedByTheClient() {
    var settings = HealthSettings()
    settings.probe = .url("https://bot.example.com/health")
    let payload = HealthStep(settings: settings).payload(context())
    #expect(payload.side == .client)
    #expect(payload.script.isEmpty)
  }

  @Test func aScriptTravelsWithItsUndo() throws {
    var settings = RunSettings()
    settings.script = "scripts/warm-up.sh"
    settings.undo = "scripts/cool-down.sh"
    var context = context()
    #expect(throws: OrchestrateError.self) { try RunStep(settings: settings).payload(context) }
    context.projectFiles = [
      "scripts/warm-up.sh": StepPayload.File("scripts/warm-up.sh", bytes: [1]),
      "scripts/cool-down.sh": StepPayload.File("scripts/cool-down.sh", bytes: [2]),
    ]
    let payload = try RunStep(settings: settings).payload(context)
    #expect(
      payload.files == [
        StepPayload.File("script", mode: 0o700, bytes: [1]), StepPayload.File("undo-script", mode: 0o700, bytes: [2]),
      ])
    #expect(payload.hasUndo)
  }
}

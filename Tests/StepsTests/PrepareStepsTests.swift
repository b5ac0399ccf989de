import Diagnostics
import Engine
import Inventory
import Testing

@testable import Steps

@Suite struct PreflightTests {
  static let healthy: [String: String] = [
    "user": "deploy", "docker_client": "26.1.5", "docker_server": "26.1.5+dfsg1", "compose": "2.26.1-4",
    "state_dir": "1", "opt_dir": "1",
    "disk.state.path": "/var/lib/orchestrate", "disk.state.available": "9000000000", "disk.state.inodes": "500000",
    "disk.state.device": "a",
    "disk.opt.path": "/opt", "disk.opt.available": "9000000000", "disk.opt.inodes": "500000", "disk.opt.device": "a",
    "disk.docker.path": "/var/lib/docker", "disk.docker.available": "9000000000", "disk.docker.inodes": "500000",
    "disk.docker.device": "a",
    "memory_available": "1000000000", "epoch_ms": "1790000000000",
  ]

  static func findings(_ changed: [String: String] = [:], config: String? = nil) throws -> (
    problems: [String], warnings: [String]
  ) {
    var context = shopContext(facts: healthy.merging(changed) { $1 })
    context.now = 1_790_000_000_000
    if let config { context.config = ComposeConfig(try json(config)) }
    return PreflightStep().preflightProblems(context)
  }

  @Test func aGoodHostHasNone() throws {
    let (problems, warnings) = try Self.findings()
    #expect(problems == [] && warnings == [])
  }

  @Test(arguments: [
    (["docker_server": "", "docker_client": ""], "isn't installed"),
    (["docker_server": "", "docker_error": "permission denied"], "permission denied"),
    (["docker_server": "23.0.9"], "23.0.9"),
    (["compose": ""], "Compose v2 isn't installed"),
    (["compose": "2.19.1"], "2.19.1"),
    (["opt_dir": "0"], "/opt on the host isn't writable"),
    (["disk.docker.available": "1000000"], "are free at /var/lib/docker"),
    (["disk.docker.inodes": "100"], "100 inodes"),
    (["memory_available": "1048576"], "1 MiB of memory"),
    (["epoch_ms": "1790000400000"], "400 s ahead of"),
    (["epoch_ms": "1789999600000"], "400 s behind"),
    (["identity": "staging shop"], "staging shop"),
  ])
  func eachFaultOfTheHostIsOneProblem(changed: [String: String], expected: String) throws {
    let (problems, _) = try Self.findings(changed)
    #expect(problems.count == 1 && problems[0].contains(expected), "\(problems)")
  }

  @Test(arguments: [
    ["docker_server": "24.0.0"], ["docker_server": "v28.0.1"], ["compose": "5.0.0"], ["compose": "2.20"],
    ["identity": "prod shop"],
    ["disk.docker.inodes": "0"],
  ])
  func whatIsGoodEnough(changed: [String: String]) throws { #expect(try Self.findings(changed).problems == []) }

  @Test func aClockThatIsALittleWrongIsAWarning() throws {
    let (problems, warnings) = try Self.findings(["epoch_ms": "1790000040000"])
    #expect(problems == [] && warnings.count == 1)
  }

  @Test func aClockDoesNotHoldUpARollback() throws {
    var context = shopContext(facts: Self.healthy)
    context.now = 1_790_000_400_000
    context.target = Release(number: 5, version: "v1", previous: 4, created: "", playbook: "")
    let (problems, warnings) = PreflightStep().preflightProblems(context)
    #expect(problems == [] && warnings.count == 1)
  }

  @Test func aUserWithoutSudoIsToldWhatIsMissing() throws {
    let (problems, warnings) = try Self.findings(["sudo": "0", "user": "limited"])
    #expect(problems == [] && warnings.count == 1 && warnings[0].contains("limited has no sudo"))
    #expect(try Self.findings(["sudo": "1"]).warnings == [])
  }

  @Test func separateDisksAreJudgedSeparately() throws {
    let (problems, _) = try Self.findings([
      "disk.opt.device": "b", "disk.opt.available": "5", "disk.state.available": "5",
    ])
    #expect(problems.count == 1 && problems[0].contains("/opt"))
  }

  @Test(arguments: [
    (#"{"published":"8080","target":80}"#, 1, 0), (#"{"published":"8080","target":80,"host_ip":"0.0.0.0"}"#, 1, 0),
    (#"{"published":"5432","target":5432,"host_ip":"::"}"#, 1, 0), (#"{"published":"80","target":8000}"#, 0, 0),
    (#"{"published":"443","target":443}"#, 0, 0), (#"{"published":"8080","target":80,"host_ip":"127.0.0.1"}"#, 0, 0),
    (#"{"published":"8080","target":80,"host_ip":"10.0.0.5"}"#, 0, 1), (#"{"target":80}"#, 0, 0),
    (#"{"published":80443,"target":1}"#, 1, 0),
    (#"{"published":"8000-8010","target":80}"#, 1, 0),
  ])
  func publishedPorts(port: String, problems: Int, warnings: Int) throws {
    let found = try Self.findings(
      config: #"{"services":{"bot":{"image":"b:1","ports":[\#(port)]},"postgres":{"image":"p:1"}}}"#)
    #expect(found.problems.count == problems && found.warnings.count == warnings, "\(found)")
  }

  @Test(arguments: [
    ("bot", "bot:latest", 1, 0), ("bot", "bot", 1, 0), ("bot", "registry:5000/bot", 1, 0),
    ("bot", "registry:5000/bot:v1", 0, 0),
    ("bot", "bot@sha256:abc", 0, 0), ("postgres", "postgres:latest", 0, 1), ("postgres", "postgres", 0, 1),
  ])
  func tags(service: String, reference: String, problems: Int, warnings: Int) throws {
    var images = ["bot": "b:1", "postgres": "p:1"]
    images[service] = reference
    let found = try Self.findings(
      config: #"{"services":{"bot":{"image":"\#(images["bot"]!)"},"postgres":{"image":"\#(images["postgres"]!)"}}}"#)
    #expect(found.problems.count == problems && found.warnings.count == warnings, "\(found)")
  }

  @Test(arguments: [
    ("bot", #"{"image":"b:1","deploy":{"replicas":2}}"#, 1), ("bot", #"{"image":"b:1","scale":3}"#, 1),
    ("bot", #"{"image":"b:1","deploy":{"replicas":1}}"#, 0), ("worker", #"{"image":"b:1","deploy":{"replicas":2}}"#, 0),
  ])
  func aGatedServiceHasOneContainer(name: String, service: String, problems: Int) throws {
    var context = shopContext(facts: Self.healthy)
    context.steps = [StepSpec(name: "health", settings: .health(HealthSettings()))]
    var services = ["bot": #"{"image":"b:1"}"#, "postgres": #"{"image":"p:1"}"#]
    services[name] = service
    let text = services.map { #""\#($0)":\#($1)"# }.joined(separator: ",")
    context.config = ComposeConfig(try json(#"{"services":{\#(text)}}"#))
    let found = PreflightStep().preflightProblems(context).problems
    #expect(found.count == problems && found.allSatisfy { $0.contains("service bot asks for") }, "\(found)")
  }

  @Test(arguments: [
    ("Web2", 0), ("a-b", 0), ("a--b", 0), ("a_b", 0), ("a__b.c", 0), ("a..b", 1), ("api_", 1), ("a___b", 1),
    ("a-_b", 1),
  ])
  func aServiceNamesAnImage(name: String, problems: Int) throws {
    let found = try Self.findings(
      config: #"{"services":{"bot":{"image":"b:1"},"postgres":{"image":"p:1"},"\#(name)":{"image":"w:1"}}}"#)
    #expect(found.problems.count == problems, "\(found)")
  }

  @Test func servicesThatTheInventoryNamesMustExist() throws {
    let found = try Self.findings(config: #"{"services":{"bots":{"image":"w:1"}}}"#)
    #expect(found.problems.count == 2 && found.problems[0].contains("bot") && found.problems[1].contains("postgres"))
    #expect(found.problems[0].contains("did you mean bots?"))
  }
}

@Suite struct EnvStepTests {
  private func context(_ values: [(String, String)], current: [String: String]? = nil) -> StepContext {
    var context = shopContext()
    context.env = values.map { ResolvedValue(name: $0.0, value: $0.1, isSecret: true, origin: .fixed) }
    if let current {
      var release = Release(number: 1, version: "v1", previous: 0, created: "", playbook: "")
      release.env = current.mapValues { testHash(Array($0.utf8)) }
      context.current = release
    }
    return context
  }

  @Test func planNamesOnly() {
    let changes = EnvStep().plan(
      context([("A", "1"), ("B", "new"), ("C", "3")], current: ["A": "1", "B": "old", "D": "4"]))
    #expect(changes.flatMap(\.detail) == ["~ B", "+ C", "- D"])
    #expect(changes.map(\.action) == [.update, .create, .delete])
  }

  @Test func payloadAsksComposeForEachName() throws {
    var context = context([("A", "x"), ("B", "y")])
    context.generated = ["B": Secret("it's \\ new")]
    let payload = try EnvStep().payload(context)
    let files = Dictionary(
      uniqueKeysWithValues: payload.files.map { ($0.path, String(decoding: $0.bytes, as: UTF8.self)) })
    #expect(files["env"] == "A=x\nB=y\n")
    #expect(files["generated"] == "B=\"it's \\\\ new\"\n")
    #expect(files["version.env"] == "VERSION=v2\n")
    #expect(files["check.json"] == #"{"x-orchestrate-env":{"A":"${A}","B":"${B}"}}"# + "\n")
    #expect(payload.files.allSatisfy { $0.mode == 0o600 })
  }

  @Test func withoutATemplateThereIsNoFile() throws {
    #expect(try EnvStep().payload(shopContext()).files.map(\.path) == ["version.env", "check.json"])
  }

  @Test func whatComposeReadIsCompared() throws {
    let context = context([("PLAIN", "abc"), ("DOLLAR", "pa$$w$rd"), ("SPACE", "a b"), ("GONE", "1")])
    let config = ComposeConfig(
      try json(
        #"{"x-orchestrate-env":{"PLAIN":"abd","DOLLAR":"pa$$$$w$$rd","SPACE":"a b"},"services":{"raw":{"environment":{"SPACE":"'a b'"}}}}"#
      ))
    #expect(verifyEnv(context, config) == ["GONE", "PLAIN", "SPACE"])
    let good = ComposeConfig(
      try json(
        #"{"x-orchestrate-env":{"PLAIN":"abc","DOLLAR":"pa$$$$w$$rd","SPACE":"a b","GONE":"1"},"services":{"x":{"environment":{"SPACE":"another"}}}}"#
      ))
    #expect(verifyEnv(context, good) == [])
  }
}

@Suite struct ReleaseAndPullTests {
  @Test(
    arguments: [
      ("bot", "bot", nil, nil), ("bot:v1", "bot", "v1", nil), ("registry:5000/bot", "registry:5000/bot", nil, nil),
      ("registry:5000/a/bot:v1", "registry:5000/a/bot", "v1", nil), ("bot@sha256:ab", "bot", nil, "sha256:ab"),
      ("r:1/bot:v1@sha256:ab", "r:1/bot", "v1", "sha256:ab"),
    ] as [(String, String, String?, String?)])
  func references(text: String, name: String, tag: String?, digest: String?) {
    let reference = ImageReference(text)
    #expect(reference.name == name && reference.tag == tag && reference.digest == digest)
  }

  @Test func theReleaseTakesItsFilesAlong() throws {
    var context = shopContext()
    context.inventory.compose = "deploy/compose.yml"
    context.projectFiles = [
      "deploy/compose.yml": file("deploy/compose.yml", "services: {}\n", mode: 0o600),
      "run.sh": file("run.sh", "x", mode: 0o700),
    ]
    context.playbookText = "steps: []\n"
    let payload = try ReleaseStep().payload(context)
    #expect(
      payload.files.map(\.path) == ["compose.yml", "playbook.yml", "project/deploy/compose.yml", "project/run.sh"])
    #expect(payload.files.map(\.mode) == [0o600, 0o600, 0o644, 0o755])
    #expect(payload.parameters.first { $0.name == "COMPOSE_DIR" }?.value == "deploy")
  }

  @Test func withoutAComposeFileThereIsNoRelease() {
    #expect(throws: OrchestrateError.self) { try ReleaseStep().payload(shopContext()) }
  }

  @Test func pullNeedsThePasswordThatTheInventoryNames() throws {
    var context = shopContext()
    let running = #"{"services":{"bot":{"image":"r/bot:v1"},"postgres":{"image":"p:17"},"redis":{"image":"r:8"}}}"#
    context.currentConfig = ComposeConfig(try json(running))
    context.options.include = ["redis"]
    context.steps = [StepSpec(name: "env", settings: .env(EnvSettings()))]
    context.inventory.registry = RegistrySettings(server: "r", username: "u", password: "R_PASSWORD")
    #expect(throws: OrchestrateError.self) { try PullStep().payload(context) }
    var unknown = context
    unknown.steps = []
    let error = #expect(throws: OrchestrateError.self) { try PullStep().payload(unknown) }
    #expect(error?.code == .configuration)
    let sealing = #expect(throws: OrchestrateError.self) {
      try SealStep(playbook: Playbook(name: "deploy", steps: [])).payload(unknown)
    }
    #expect(sealing?.code == .configuration)
    context.registryPassword = Secret("pw")
    let payload = try PullStep().payload(context)
    #expect(payload.files.map(\.path) == ["password"] && payload.files[0].mode == 0o600)
    // A deployment that ends before its pull takes the password along.
    #expect(payload.secrets == ["password"])
    #expect(payload.parameters.first { $0.name == "KEPT" }?.value == "'postgres'")
    #expect(!payload.parameters.contains { $0.value.contains("pw") })
  }

  @Test func sealWritesWhatIsRecorded() throws {
    var context = shopContext(number: 12)
    context.now = 1_795_254_600_000
    context.config = ComposeConfig(try json(#"{"services":{"bot":{"image":"r/bot:v2"}}}"#))
    context.images = ["bot": image("bot", "2")]
    context.env = [
      ResolvedValue(name: "A", value: "1", isSecret: false, origin: .fallback),
      ResolvedValue(name: "B", value: "2", isSecret: true, origin: .fixed),
    ]
    context.variables = ["domain": "bot.example.com"]
    var migrate = MigrateSettings()
    migrate.rollback = .down
    let playbook = Playbook(name: "deploy", steps: [StepSpec(name: "migrate", settings: .migrate(migrate))])
    let payload = try SealStep(playbook: playbook).payload(context)
    let files = Dictionary(
      uniqueKeysWithValues: payload.files.map { ($0.path, String(decoding: $0.bytes, as: UTF8.self)) })
    let release = try Release(json: files["release.json"]!, host: "h")
    #expect(
      release.number == 12 && release.previous == 0 && release.schemaPolicy == "down"
        && release.created == "2026-11-21T09:50:00Z")
    #expect(release.variables == ["domain": "bot.example.com"])
    #expect(release.env["A"] == testHash(Array("1".utf8)) && release.envDefaults == ["A"])
    #expect(
      files["images.yml"]
        == "services:\n  \"bot\":\n    reference: \"registry:5000/bot:v2\"\n    digest: \"\(image("bot", "2").digest)\"\n"
        + "    id: \"\(image("bot", "2").id)\"\n    tag: \"orchestrate/shop/bot:222222222222\"\n")
    // The host's scripts read `previous` by this form (releases.sh).
    #expect(files["release.json"]!.contains("\n  \"previous\" : 0,\n"))
  }

  @Test(
    arguments: [
      (0, "1970-01-01T00:00:00Z"), (951_782_400, "2000-02-29T00:00:00Z"), (4_107_542_399, "2100-02-28T23:59:59Z"),
      (1_795_254_600, "2026-11-21T09:50:00Z"),
    ] as [(Int64, String)])
  func timestamps(seconds: Int64, text: String) { #expect(timestamp(milliseconds: seconds * 1000) == text) }
}

@Suite struct PruneTests {
  private func releases(_ list: [(Int, Int, Bool)]) -> [KnownRelease] {
    list.map { KnownRelease(number: $0.0, previous: $0.1, committed: $0.2) }
  }

  @Test(
    arguments: [
      (5, 3, [3, 4, 5]), (5, 1, [4, 5]), (5, 9, [1, 2, 3, 4, 5]),
    ] as [(Int, Int, Set<Int>)])
  func keepsCurrentItsPreviousAndTheNewest(current: Int, count: Int, kept: Set<Int>) {
    let all = releases([(1, 0, true), (2, 1, true), (3, 2, true), (4, 3, true), (5, 4, true)])
    #expect(keptReleases(all, current: current, count: count) == kept)
  }

  @Test func whatNeverPassedItsGateGoesAndAFarPreviousStays() {
    let all = releases([(1, 0, true), (2, 1, true), (3, 2, false), (4, 2, true), (5, 1, true)])
    #expect(keptReleases(all, current: 5, count: 3) == [1, 4, 5])
  }

  @Test func planListsWhatWouldGo() throws {
    var context = shopContext(number: 4)
    context.current = Release(number: 3, version: "v3", previous: 2, created: "", playbook: "")
    context.reported["preflight"] = [
      "releases": try json(
        #"[{"number":1,"previous":0,"committed":true,"version":"v1"},{"number":2,"previous":1,"committed":true,"version":"v2"},{"number":3,"previous":2,"committed":true,"version":"v3"}]"#
      )
    ]
    var settings = PruneSettings()
    settings.releases = 2
    #expect(PruneStep(settings: settings).plan(context).map(\.subject) == ["release 1", "release 2"])
    settings.releases = 5
    #expect(PruneStep(settings: settings).plan(context) == [])
  }
}

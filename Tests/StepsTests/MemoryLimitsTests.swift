import Engine
import Inventory
import Testing

@testable import Steps

/// bot is the app's, postgres the database (`shopContext`).
private func config(bot: String, postgres: String) throws -> ComposeConfig {
  ComposeConfig(
    try json(
      #"{"services":{"bot":{"image":"r/bot:v2"\#(bot)},"postgres":{"image":"r/postgres:17"\#(postgres)}}}"#))
}

private func limit(_ mebibytes: Int) -> String { #","mem_limit":"\#(mebibytes << 20)""# }

private func context(
  bot: String, postgres: String, machine: Int = 1024, running: (bot: String, postgres: String)? = nil
) throws -> StepContext {
  var facts = PreflightTests.healthy
  facts["memory_total"] = String(machine << 20)
  var context = shopContext(facts: facts)
  context.now = 1_790_000_000_000
  context.config = try config(bot: bot, postgres: postgres)
  if let running { context.currentConfig = try config(bot: running.bot, postgres: running.postgres) }
  return context
}

private func findings(_ context: StepContext, allowed: Int = 80) -> (problems: [String], warnings: [String]) {
  var settings = PreflightSettings()
  settings.memoryCommit = allowed
  return PreflightStep(settings: settings).preflightProblems(context)
}

@Suite struct MemoryLimitsTests {
  @Test(
    arguments: [
      (#"{"mem_limit":"1048576"}"#, 1_048_576), (#"{"mem_limit":1048576}"#, 1_048_576), ("{}", nil),
      (#"{"mem_limit":"0"}"#, nil), (#"{"deploy":{"resources":{"limits":{"memory":"2097152"}}}}"#, 2_097_152),
      (#"{"deploy":{"resources":{"limits":{"cpus":1}}}}"#, nil),
    ] as [(String, Int64?)])
  func limits(service: String, expected: Int64?) throws { #expect(memoryLimit(try json(service)) == expected) }

  @Test func theSumAndItsOrder() throws {
    let context = try context(bot: limit(100) + #","deploy":{"replicas":3}"#, postgres: limit(256))
    let memory = try #require(memoryCommitment(context, allowed: 80))
    #expect(memory.promised == 556 << 20 && memory.percent == 55 && !memory.isOver)
    #expect(memory.services.map(\.service) == ["bot", "postgres"])
    #expect(memory.services.map(\.containers) == [3, 1])
    #expect(findings(context).problems == [] && findings(context).warnings == [])
    #expect(StepCatalog.standard(Playbook(name: "deploy", steps: [])).memory(context) == memory)
  }

  @Test func withoutFactsNothingIsKnown() throws {
    var context = try context(bot: "", postgres: "")
    context.facts.values["memory_total"] = nil
    #expect(memoryCommitment(context, allowed: 80) == nil && findings(context).warnings == [])
  }

  @Test func servicesWithoutALimitAreNamed() throws {
    let found = findings(try context(bot: "", postgres: ""))
    #expect(found.problems == [])
    #expect(found.warnings.count == 1 && found.warnings[0].hasPrefix("bot, postgres may take all"), "\(found)")
    // One that isn't started takes nothing.
    #expect(findings(try context(bot: limit(1), postgres: #","scale":0"#)).warnings == [])
  }

  /// 80 % of 1 GiB are 819.2 MiB.
  @Test func moreThanIsAllowedIsRefused() throws {
    #expect(findings(try context(bot: limit(307), postgres: limit(512))).problems == [])
    let over = try context(bot: limit(308), postgres: limit(512))
    #expect(
      findings(over).problems == [
        "the containers are promised 820 of the machine's 1024 MiB, 81 %, and 80 % are allowed; most of it goes to postgres, 512 MiB: "
          + "lower its limit in compose.yml (`${memory:…}` in the env template plans one that fits), take a larger machine, or allow more: "
          + "`preflight: { memory_commit: 81% }`"
      ])
    // The way out that it names is one.
    #expect(findings(over, allowed: 81).problems == [])
    #expect(findings(try context(bot: limit(307), postgres: limit(512)), allowed: 79).problems.count == 1)
  }

  /// The control group's limit is the machine.
  @Test func theSmallerOfMemoryAndLimitCounts() throws {
    var context = try context(bot: limit(300), postgres: limit(300), machine: 24000)
    #expect(findings(context).problems == [])
    context.facts.values["memory_limit"] = String(512 << 20)
    #expect(findings(context).problems.count == 1)
    context.facts.values["memory_limit"] = ""
    #expect(findings(context).problems == [])
  }

  /// A database that stays counts with what it runs with; the plan says what waits.
  @Test func keptServicesCountAsTheyRun() throws {
    let found = try context(
      bot: limit(100), postgres: limit(280), machine: 512, running: (bot: limit(90), postgres: limit(384)))
    let memory = try #require(memoryCommitment(found, allowed: 80))
    #expect(memory.promised == 484 << 20)
    let (problems, warnings) = findings(found)
    #expect(
      warnings == [
        "service postgres goes on with 384 MiB of memory, the compose file has 280 MiB of memory: that waits for a deploy with --include postgres"
      ])
    #expect(problems.count == 1 && problems[0].contains("apply its new limit with --include postgres, or take"))
    var included = found
    included.options.include = ["postgres"]
    #expect(findings(included).problems == [] && findings(included).warnings == [])
  }

  /// Two projects on one machine share it.
  @Test func othersOnTheMachineCount() throws {
    var context = try context(bot: limit(307), postgres: limit(212))
    context.reported["preflight"] = ["others_memory": .int(Int64(300) << 20)]
    #expect(findings(context).problems == [])
    context.reported["preflight"] = ["others_memory": .int(Int64(301) << 20)]
    #expect(memoryCommitment(context, allowed: 80)?.others == 301 << 20)
    #expect(
      findings(context).problems.first?.hasPrefix(
        "the containers are promised 820 of the machine's 1024 MiB (of other projects here: 301 MiB), 81 %, and 80 %")
        == true)
  }

  /// A rollback goes back to what ran here before.
  @Test func aRollbackIsNotHeldUp() throws {
    var context = try context(bot: limit(900), postgres: limit(900))
    context.targetConfig = context.config
    context.config = nil
    context.target = Release(number: 5, version: "v1", previous: 4, created: "", playbook: "")
    #expect(!findings(context).problems.contains { $0.contains("promised") })
    #expect(memoryCommitment(context, allowed: 80)?.promised == 1800 << 20)
  }

  /// A service that no step brings up and that has no container takes nothing; one that somebody started does.
  @Test func whatHasNoContainerIsNotPromised() throws {
    let tools = ComposeConfig(
      try json(#"{"services":{"bot":{"mem_limit":"1048576"},"tools":{"mem_limit":"1048576000"}}}"#))
    var context = try context(bot: limit(1), postgres: limit(1))
    (context.config, context.currentConfig) = (tools, tools)
    context.reported["preflight"] = ["baseline": .array([try json(#"{"service":"bot","status":"running"}"#)])]
    #expect(memoryCommitment(context, allowed: 80)?.services.map(\.service) == ["bot"])
    context.reported["preflight"] = [
      "baseline": .array([try json(#"{"service":"bot"}"#), try json(#"{"service":"tools"}"#)])
    ]
    #expect(memoryCommitment(context, allowed: 80)?.services.map(\.service) == ["tools", "bot"])
    context.reported = [:]
    context.currentConfig = nil
    #expect(memoryCommitment(context, allowed: 80)?.services.map(\.service) == ["bot"])
    context.options.include = ["tools"]
    #expect(memoryCommitment(context, allowed: 80)?.services.map(\.service) == ["tools", "bot"])
    context.options.include = []
    var recreate = RecreateSettings()
    recreate.services = ["bot", "tools"]
    context.steps = [StepSpec(name: "recreate", settings: .recreate(recreate))]
    #expect(memoryCommitment(context, allowed: 80)?.services.map(\.service) == ["tools", "bot"])
  }

  /// Limits that nobody can mean are too much, and no crash.
  @Test(arguments: ["9223372036854775807", "92233720368547758", "4611686018427387904"])
  func absurdLimitsAreTooMuch(bytes: String) throws {
    let found = try context(
      bot: #","mem_limit":"\#(bytes)","deploy":{"replicas":1000}"#, postgres: #","mem_limit":"\#(bytes)""#)
    let memory = try #require(memoryCommitment(found, allowed: 80))
    #expect(memory.isOver && memory.promised > 0)
    #expect(findings(found).problems.count == 1)
    var others = try context(bot: limit(1), postgres: limit(1))
    others.reported["preflight"] = ["others_memory": .number("1e30")]
    #expect(memoryCommitment(others, allowed: 80)?.isOver == true)
  }

  @Test func aMigrationsContainerIsGoneBeforeTheOthersStart() throws {
    var context = try context(bot: limit(100), postgres: limit(100))
    context.config = ComposeConfig(
      try json(#"{"services":{"bot":{"mem_limit":"1048576"},"migrator":{"mem_limit":"1048576000"}}}"#))
    var settings = MigrateSettings()
    settings.service = "migrator"
    context.steps = [StepSpec(name: "migrate", settings: .migrate(settings))]
    #expect(memoryCommitment(context, allowed: 80)?.services.map(\.service) == ["bot"])
  }
}

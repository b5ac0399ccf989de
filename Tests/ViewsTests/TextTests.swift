import Diagnostics
import Engine
import Testing

@testable import Views

@Suite struct StyleTests {
  @Test(
    arguments: [
      (0, "0.0s"), (0.04, "0.0s"), (12.34, "12.3s"), (59.94, "59.9s"), (59.96, "1m00s"), (125, "2m05s"),
      (3599.9, "1h00m"),
      (3725, "1h02m"), (90_000, "1d01h"), (-1, "0.0s"),
    ] as [(Double, String)])
  func durations(seconds: Double, text: String) { #expect(durationText(seconds) == text) }

  @Test(
    arguments: [
      (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (200 << 20, "200 MiB"), (20 << 30, "20 GiB"),
      (1_048_575, "1 MiB"),
    ] as [(Int64, String)])
  func sizes(bytes: Int64, text: String) { #expect(sizeText(bytes) == text) }

  @Test(arguments: [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("世界人", 5, "世界…"), ("é́x", 2, "é́x"), ("abc", 0, "")])
  func cutting(text: String, limit: Int, expected: String) { #expect(truncated(text, to: limit) == expected) }

  @Test(arguments: [
    ("a\tb", "a  b"), ("a\u{0}b\u{7f}c", "a?b?c"), ("\u{1b}[1;31mred\u{1b}[0m", "red"), ("\u{1b}]0;x\u{1b}\\y", "y"),
    ("10%\r20%", "20%"), ("line\r\n", "line "), ("\u{202e}evil", "?evil"), ("\u{1b}", ""), ("ü界", "ü界"),
  ])
  func control(text: String, expected: String) { #expect(printable(text) == expected) }
}

@Suite struct PlanTextTests {
  @Test func bySteps() {
    var plan = Plan.example
    plan.steps.insert(StepPlan(step: "backup", kind: "backup", changes: []), at: 1)
    plan.steps[1].skipped = true
    plan.warnings = ["port 5432 is published"]
    plan.problems = ["disk: 1 GiB is missing"]
    #expect(
      text(of: plan) == """
        market-bot in prod: v1.0.0 → v1.1.0

          backup skipped

          env
            + env FEATURE_X
            ~ env LOG_LEVEL
                -INFO
                +DEBUG
            - env OLD

          migrate
            > migration 0003  DATA MAY BE LOST
                ~ adds a column

          recreate
            ~ service bot (recreated)

        warning: port 5432 is published
        problem: disk: 1 GiB is missing

        Plan: 1 to create, 1 to change, 1 to recreate, 1 to delete, 1 to run. 1 of them may lose data. 1 problem forbids it.

        """)
  }

  @Test func nothingToDo() {
    let plan = Plan(environment: "prod", app: "bot", from: nil, to: "v1")
    #expect(text(of: plan) == "bot in prod: v1 (first deployment)\n\nPlan: nothing to do.\n")
  }

  @Test func whatTheContainersArePromised() {
    var plan = Plan(environment: "prod", app: "bot", from: nil, to: "v1")
    plan.memory = MemoryCommitment(
      machine: 957 << 20, allowed: 80,
      services: [
        .init(service: "web", limit: nil), .init(service: "redis", limit: 96 << 20),
        .init(service: "bot", limit: 134 << 20, containers: 2), .init(service: "postgres", limit: 256 << 20),
      ])
    let line =
      "memory: 620 of 957 MiB (65 %) promised to containers: bot 2 × 134, postgres 256, redis 96, web without a limit"
    #expect(text(of: plan) == "bot in prod: v1 (first deployment)\n\n\(line)\n\nPlan: nothing to do.\n")
    plan.memory?.others = 100 << 20
    #expect(text(of: plan).contains("web without a limit, other projects 100\n"))
    plan.memory?.others = 0
    plan.warnings = ["web may take all"]
    #expect(text(of: plan).contains("\(line)\n\nwarning: web"))
    #expect(
      jsonValue(of: plan)["memory"]?.text(sorted: true)
        == #"{"allowed":80,"machine":1003487232,"others":0,"percent":65,"promised":650117120,"services":["#
        + #"{"containers":2,"limit":140509184,"service":"bot"},{"containers":1,"limit":268435456,"service":"postgres"},"#
        + #"{"containers":1,"limit":100663296,"service":"redis"},{"containers":1,"service":"web"}]}"#)
  }

  @Test func coloursFollowTheSigns() {
    let painted = text(of: .example, style: Style(colour: true))
    #expect(painted.contains("\u{1b}[32m+ env FEATURE_X\u{1b}[0m"))
    #expect(painted.contains("\u{1b}[31m- env OLD\u{1b}[0m"))
    #expect(painted.contains("\u{1b}[1;31mDATA MAY BE LOST\u{1b}[0m"))
    #expect(painted.contains("\u{1b}[32m+DEBUG\u{1b}[0m"))
  }
}

@Suite struct ProblemTextTests {
  @Test func diagnostics() {
    let place = SourceLocation(file: "inventories/prod.yml", line: 3, column: 3)
    let faults = [
      Diagnostic(at: place, "unknown key 'adress'", help: "did you mean 'address'?"),
      Diagnostic(.warning, at: SourceLocation(file: "inventories/prod.yml", line: 4, column: 8), "an odd name"),
      Diagnostic(at: nil, "no compose file"),
    ]
    let source = ["app: bot", "hosts:", "  adress: 1", "  界: \tx"]
    #expect(
      text(of: faults, source: { $0 == "inventories/prod.yml" ? source : nil }) == """
        inventories/prod.yml:3:3: error: unknown key 'adress'
          3 |   adress: 1
            |   ^
          help: did you mean 'address'?
        inventories/prod.yml:4:8: warning: an odd name
          4 |   界:   x
            |          ^
        error: no compose file
        2 errors

        """)
  }

  @Test func errors() {
    let error = OrchestrateError(
      .failed, "the gate wasn't passed", host: "bot-1", step: "health",
      cause: "last answer:\n\n  {\"status\": \"bad\"}\n",
      state: "v1.0.0 answers again", remedy: "orchestrate logs prod bot")
    #expect(
      text(of: error) == """
        error: bot-1: health: the gate wasn't passed
            last answer:

              {"status": "bad"}
          Now:  v1.0.0 answers again
          Next: orchestrate logs prod bot

        """)
    #expect(text(of: OrchestrateError(.usage, "no such environment")) == "error: no such environment\n")
    #expect(ProblemDocument(error).error == error)
  }
}

@Suite struct SummaryTextTests {
  @Test func committed() {
    #expect(
      text(of: DeploymentSummary.committedExample, timings: true) == """
        ✓ market-bot in prod runs v1.1.0
          deployment     #13
          from           v1.0.0
          to             v1.1.0
          duration       1m24s
          downtime       812 ms
          restore point  20261121T0900Z-v1.0.0-d13.dump
          round trips    6
            pull         20.0s
          next           orchestrate status prod

        """)
  }

  @Test func undone() {
    var summary = DeploymentSummary(
      command: "deploy", environment: "prod", app: "bot", exitStatus: .rolledBack, seconds: 12)
    (summary.outcome, summary.healthy, summary.from, summary.to) = (.undone, true, "v1.0.0", "v2")
    summary.rollbackMilliseconds = 2340
    #expect(
      text(of: summary) == """
        ↺ bot in prod: undone; v1.0.0 runs and is healthy
          from           v1.0.0
          to             v2
          duration       12.0s
          answers again  2.3s after the verdict

        """)
  }

  static let headlines: [(DeploymentOutcome?, Bool?, Diagnostics.ExitStatus, String?, String)] = [
    (.undone, true, .rolledBack, "v1.0.0", "↺ bot in prod: undone; v1.0.0 runs and is healthy"),
    (.undone, false, .rolledBack, "v1.0.0", "↺ bot in prod: undone; v1.0.0 runs; it is not healthy"),
    (.undone, nil, .rolledBack, nil, "↺ bot in prod: undone; nothing runs, as before"),
    (.stuck, nil, .rollbackFailed, "v1.0.0", "✗ bot in prod: the undo failed; a person must look"),
    (.abandoned, nil, .rollbackFailed, "v1.0.0", "✗ bot in prod: the undo failed; it was settled by hand"),
    (.unknown, nil, .outcomeUnknown, nil, "? bot in prod: the outcome isn't known here"),
    (.committed, true, .rolledBack, nil, "✗ bot in prod: v2 was committed, but isn't well"),
    (nil, nil, .done, nil, "✓ bot in prod: nothing to do"),
    (nil, nil, .locked, nil, "✗ bot in prod: not started; nothing was changed"),
  ]

  @Test(arguments: headlines.indices) func headlineOf(index: Int) {
    let (outcome, healthy, status, from, expected) = Self.headlines[index]
    var summary = DeploymentSummary(command: "deploy", environment: "prod", app: "bot", exitStatus: status, seconds: 1)
    (summary.outcome, summary.healthy, summary.from, summary.to) = (outcome, healthy, from, "v2")
    #expect(headline(of: summary, Style(colour: false)) == expected)
  }
}

import Diagnostics
import Engine
import Synchronization
import Testing

@testable import Views

/// A deployment that runs into a missing image, in seconds since the event before.
private let failingDeployment: [(after: Double, events: [DeploymentEvent])] = [
  (0, [.starting(.example), .connecting(host: "bot-1", address: "203.0.113.10")]),
  (0.2, [.connected(host: "bot-1", timings: ConnectTimings(total: 0.2))]),
  (0.1, [.opened(host: "bot-1", number: 12, from: "v1.0.0", to: "v1.1.0")]),
  (0.1, [.stepStarted(host: "bot-1", step: "preflight")]),
  (0.4, [.stepEnded(host: "bot-1", step: "preflight", ending: StepEnding(status: 0, seconds: 0.4))]),
  (0.1, [.notice(host: "bot-1", text: "a note")]),
  (0.1, [.stepStarted(host: "bot-1", step: "pull")]),
  (0.3, [.log(host: "bot-1", step: "pull", text: "layer 1")]),
  (0.3, [.log(host: "bot-1", step: "pull", text: "layer 2")]),
  (0.3, [.log(host: "bot-1", step: "pull", text: "layer 3"), .log(host: "bot-1", step: "pull", text: "")]),
  (0.3, [.log(host: "bot-1", step: "pull", text: "layer 4")]),
]

private let itsEnd: [(after: Double, events: [DeploymentEvent])] = [
  (1, [.stepEnded(host: "bot-1", step: "pull", ending: StepEnding(status: 1, seconds: 2.2))]),
  (0.2, [.undoing(host: "bot-1", reason: "step-failed", text: "pull failed")]),
  (0.1, [.stepUndone(host: "bot-1", step: "preflight", status: 0, attempts: 1)]),
  (0.1, [.closed(host: "bot-1", outcome: .unchanged, healthy: true, recovery: false), .finished(.failedExample)]),
]

extension DeploymentSummary {
  static let failedExample: DeploymentSummary = {
    var summary = DeploymentSummary(
      command: "deploy", environment: "prod", app: "market-bot", hosts: ["bot-1"], exitStatus: .failed, seconds: 4.25)
    summary.number = 12
    summary.from = "v1.0.0"
    summary.to = "v1.1.0"
    summary.outcome = .unchanged
    summary.next = "orchestrate deploy prod v1.1.0"
    summary.problem = ProblemDocument(
      OrchestrateError(
        .failed, "the image can't be pulled", host: "bot-1", step: "pull", cause: "manifest unknown\nsecond line",
        state: "v1.0.0 runs as before", remedy: "push the image, then deploy again"))
    return summary
  }()

  static let committedExample: DeploymentSummary = {
    var summary = DeploymentSummary(
      command: "deploy", environment: "prod", app: "market-bot", hosts: ["bot-1"], exitStatus: .done, seconds: 84.2)
    summary.number = 13
    summary.from = "v1.0.0"
    summary.to = "v1.1.0"
    summary.outcome = .committed
    summary.healthy = true
    summary.downtimeMilliseconds = 812
    summary.restorePoint = "20261121T0900Z-v1.0.0-d13.dump"
    summary.roundTrips = 6
    summary.steps = [
      .init(host: "bot-1", step: "pull", seconds: 20.04, state: "done"),
      .init(host: "bot-1", step: "backup", seconds: 0, state: "skipped"),
    ]
    summary.next = "orchestrate status prod"
    return summary
  }()
}

private func play(_ view: HumanView, _ stage: Stage, _ script: [(after: Double, events: [DeploymentEvent])]) {
  for (after, events) in script {
    stage.clock.advance(after)
    for event in events { view.handle(event) }
    view.tick()
  }
}

@Suite struct HumanViewTests {
  @Test func liveList() {
    let stage = Stage()
    play(HumanView(stage.context), stage, failingDeployment)
    var terminal = Terminal()
    terminal.feed(stage.output.text(.standardOutput))
    #expect(terminal.faults == [])
    #expect(
      terminal.text == """
        deploy prod v1.1.0: market-bot on bot-1
        Deployment #12 on bot-1: v1.0.0 → v1.1.0
        a note
          ✓ preflight     0.4s
          ⠋ pull          1.2s
              │ layer 2
              │ layer 3
              │ layer 4
          · backup
          · recreate
          · health
          · commit
        """)
  }

  @Test func pictureThatNobodySeesIsNotDrawn() {
    let behind = Mutex(true)
    var stage = Stage()
    stage.isBehind = { behind.withLock { $0 } }
    let view = HumanView(stage.context)
    play(view, stage, Array(failingDeployment.dropLast()))
    #expect(!stage.output.text().contains("layer"))
    #expect(stage.output.text().contains("Deployment #12"), "what is said once waits for its reader")
    behind.withLock { $0 = false }
    play(view, stage, Array(failingDeployment.suffix(1)))
    var terminal = Terminal()
    terminal.feed(stage.output.text(.standardOutput))
    #expect(terminal.faults == [])
    #expect(terminal.text.contains("│ layer 4"))
  }

  @Test func closingScreen() {
    let stage = Stage()
    play(HumanView(stage.context), stage, failingDeployment + itsEnd)
    var terminal = Terminal()
    terminal.feed(stage.output.text())
    #expect(terminal.faults == [])
    #expect(
      terminal.text == """
        deploy prod v1.1.0: market-bot on bot-1
        Deployment #12 on bot-1: v1.0.0 → v1.1.0
        a note
        undoing: pull failed (step-failed)
          ↺ preflight     undone
          ✗ pull          2.2s exit status 1
        error: bot-1: pull: the image can't be pulled
            manifest unknown
            second line
          Now:  v1.0.0 runs as before
          Next: push the image, then deploy again

        ✗ market-bot in prod: nothing was changed
          deployment  #12
          from        v1.0.0
          to          v1.1.0
          duration    4.3s
          next        orchestrate deploy prod v1.1.0
        """)
    #expect(!stage.output.text(.standardOutput).contains("manifest unknown"))
    #expect(stage.output.text(.standardError).hasPrefix("error: bot-1: pull: the image"))
  }

  private static let watch: [(after: Double, events: [DeploymentEvent])] = [
    (0, [.starting(.example), .opened(host: "bot-1", number: 12, from: "v1.0.0", to: "v1.1.0")]),
    (1, [.stepStarted(host: "bot-1", step: "commit"), .committed(host: "bot-1", release: 12)]),
    (0.1, [.stepEnded(host: "bot-1", step: "commit", ending: StepEnding(status: 0, seconds: 0.1))]),
    (
      0.1,
      [
        .closed(host: "bot-1", outcome: .committed, healthy: nil, recovery: false),
        .watching(host: "bot-1", seconds: 120),
      ]
    ), (40.3, []),
  ]

  @Test func howLongTheHostStillWatches() {
    let stage = Stage()
    play(HumanView(stage.context), stage, Self.watch)
    var terminal = Terminal()
    terminal.feed(stage.output.text(.standardOutput))
    #expect(terminal.faults == [])
    #expect(terminal.text.hasSuffix("bot-1 watches the new release for another 1m20s"), "\(terminal.text)")
    #expect(terminal.text.contains("committed: release 12 is current"))
  }

  @Test func aWatchThatEndsWell() {
    let stage = Stage()
    var summary = DeploymentSummary.committedExample
    summary.watch = .init(reason: "over")
    play(
      HumanView(stage.context), stage,
      Self.watch + [(80, [.watched(host: "bot-1", reason: "over", by: nil), .finished(summary)])])
    var terminal = Terminal()
    terminal.feed(stage.output.text())
    #expect(terminal.faults == [])
    #expect(terminal.text.contains("watched to the end: all is well\n"), "\(terminal.text)")
    #expect(terminal.text.contains("✓ market-bot in prod runs v1.1.0") && !terminal.text.contains("for another"))
  }

  @Test func aBreachIsToldBeforeTheWayBack() {
    let stage = Stage()
    play(
      HumanView(stage.context), stage,
      Self.watch + [
        (1, [.breached(host: "bot-1", text: "bot: it ended with exit status 3", rollback: 13)]),
        (0.5, [.stepStarted(host: "bot-1", step: "recreate")]), (1, []),
      ])
    var terminal = Terminal()
    terminal.feed(stage.output.text())
    #expect(terminal.faults == [])
    #expect(
      terminal.text.contains("not well: bot: it ended with exit status 3; going back, as deployment #13\n"),
      "\(terminal.text)")
    #expect(
      terminal.text.contains("recreate      1.0s") && terminal.text.hasSuffix("bot-1 goes back"), "\(terminal.text)")
  }

  @Test func redrawsAtMostTenTimesPerSecond() {
    let stage = Stage()
    let view = HumanView(stage.context)
    play(view, stage, [(0, [.starting(.example), .stepStarted(host: "bot-1", step: "pull")])])
    let before = stage.output.writes
    for index in 0..<1000 {
      stage.clock.advance(0.002)
      view.handle(.log(host: "bot-1", step: "pull", text: "line \(index)"))
      view.tick()
    }
    #expect((15...21).contains(stage.output.writes - before), "\(stage.output.writes - before) redraws in two seconds")
  }

  /// Whatever the terminal's size: lines are cut, the list is cut, and nothing is left behind on the screen.
  @Test(arguments: [(20, 5), (40, 6), (80, 8), (200, 50)]) func anySize(columns: Int, rows: Int) {
    var stage = Stage()
    stage.columns = columns
    stage.rows = rows
    let view = HumanView(stage.context)
    let long = String(repeating: "界 wide and long ", count: 30)
    var terminal = Terminal(columns: columns, rows: rows)
    play(view, stage, failingDeployment)
    for index in 0..<20 {
      stage.clock.advance(0.15)
      view.handle(.log(host: "bot-1", step: "pull", text: "\(index) \(long)"))
    }
    play(view, stage, [(1, [.stepEnded(host: "bot-1", step: "pull", ending: StepEnding(status: 0, seconds: 9))])])
    play(view, stage, [(1, [.finished(.committedExample)])])
    terminal.feed(stage.output.text())
    #expect(terminal.faults == [])
    let lines = terminal.text.split(separator: "\n").map(String.init)
    #expect(!lines.contains { $0.contains("│") || $0.contains("·") }, "remnants of the live list")
    #expect(lines.count { $0.contains("✓ preflight") } == 1)
  }

  @Test func whatAHostPrintsDoesNotDriveTheTerminal() {
    let stage = Stage()
    let view = HumanView(stage.context)
    play(
      view, stage,
      [
        (0, [.starting(.example), .stepStarted(host: "bot-1", step: "pull")]),
        (
          1,
          [
            .log(
              host: "bot-1", step: "pull", text: "\u{1b}[2J\u{1b}]0;title\u{7}gone\u{8}\u{1b}[31mred\u{1b}[0m 50%\r100%"
            )
          ]
        ),
        (1, [.warning(host: nil, text: "a\u{1b}[2Jb")]),
      ])
    var terminal = Terminal()
    terminal.feed(stage.output.text())
    #expect(terminal.faults == [])
    #expect(terminal.text.contains("│ 100%"))
    #expect(terminal.text.contains("warning: ab\n"))
  }

  @Test func secretsAreMaskedBeforeLinesAreCut() {
    var stage = Stage()
    stage.columns = 40
    let view = HumanView(stage.context)
    let secret = "hunter2-hunter2-hunter2"
    play(
      view, stage,
      [
        (0, [.secrets([Secret(secret)]), .starting(.example), .stepStarted(host: "bot-1", step: "pull")]),
        (1, [.log(host: "bot-1", step: "pull", text: "a password, long ago: \(secret)")]),
        (1, [.notice(host: nil, text: "token=\(secret)"), .undoing(host: "bot-1", reason: "x", text: secret)]),
      ])
    var plan = Plan.example
    plan.problems = ["value \(secret) is bad"]
    var summary = DeploymentSummary.failedExample
    summary.problem?.cause = "psql: \(secret)"
    play(view, stage, [(1, [.planned(plan), .finished(summary)])])
    #expect(!stage.output.text().contains("hunter2"))
    #expect(stage.output.text().contains("token=********"))
  }

  @Test(arguments: [10, 24]) func aQuestionStandsBelowWhatGoesOn(rows: Int) {
    var stage = Stage()
    stage.rows = rows
    let view = HumanView(stage.context)
    var terminal = Terminal(rows: rows)
    var seen = ""
    func feed() {
      let text = stage.output.text()
      terminal.feed(String(text.dropFirst(seen.count)))
      seen = text
    }
    let question = DeploymentQuestion(
      id: "stop", text: "Interrupted.\n  abort   undoes\n  detach  leaves\nAbort or detach?",
      choices: ["abort", "detach"])
    play(
      view, stage, [(0, [.starting(.example), .stepStarted(host: "bot-1", step: "pull")]), (1, [.asked(question)])])
    #expect(stage.output.text(.standardError).hasSuffix("Abort or detach? [abort/detach] "))
    feed()
    terminal.feed("det")  // typed
    play(
      view, stage,
      [
        (1, [.log(host: "bot-1", step: "pull", text: "layer 1")]),
        (1, [.stepEnded(host: "bot-1", step: "pull", ending: StepEnding(status: 0, seconds: 3))]),
        (1, [.notice(host: nil, text: "later")]), (1, []),
      ])
    feed()
    #expect(terminal.text.hasSuffix("\nAbort or detach? [abort/detach] det"))
    #expect(terminal.text.contains("✓ pull"))
    #expect(!terminal.text.contains("later"))
    terminal.feed("ach\n")
    play(view, stage, [(1, [.answered(question: "stop", answer: "detach")]), (1, [])])
    feed()
    #expect(!terminal.text.contains("[abort/detach]"))
    #expect(terminal.text.contains("Abort or detach? detach\nlater\n"))
    #expect(terminal.text.ranges(of: "✓ pull").count == 1)
    #expect(terminal.faults == [])
  }

  @Test func aQuestionThatIsCalledOffLeavesNothingBehind() {
    let stage = Stage()
    let question = DeploymentQuestion(id: "stop", text: "Well?", choices: ["abort", "detach"])
    play(
      HumanView(stage.context), stage,
      [
        (0, [.starting(.example), .asked(question)]), (1, [.committed(host: "bot-1", release: 7)]),
        (1, [.answered(question: "stop", answer: "")]), (1, [.finished(.committedExample)]),
      ])
    var terminal = Terminal()
    terminal.feed(stage.output.text())
    #expect(!terminal.text.contains("Well?"))
    #expect(terminal.text.contains("committed: release 7 is current"))
    #expect(terminal.faults == [])
  }

  @Test func severalHosts() {
    let stage = Stage()
    var heading = DeploymentHeading.example
    heading.hosts = ["bot-1", "bot-2"]
    heading.steps = [.init(name: "pull", kind: "pull"), .init(name: "commit", kind: "commit")]
    play(
      HumanView(stage.context), stage,
      [
        (
          0, [.starting(heading), .stepStarted(host: "bot-1", step: "pull"), .stepStarted(host: "bot-2", step: "pull")]
        ),
        (1, [.log(host: "bot-2", step: "pull", text: "layer 1")]),
        (1, [.stepEnded(host: "bot-1", step: "pull", ending: StepEnding(status: 0, seconds: 2))]),
      ])
    var terminal = Terminal()
    terminal.feed(stage.output.text())
    #expect(
      terminal.text == """
        deploy prod v1.1.0: market-bot on bot-1, bot-2
          ⠹ pull          bot-1 2.0s, bot-2 2.0s
              │ bot-2: layer 1
          · commit
        """)
  }

  @Test func coloursOnlyWhenAsked() {
    for colour in [false, true] {
      var stage = Stage()
      stage.colour = colour
      play(HumanView(stage.context), stage, failingDeployment + itsEnd)
      let codes = stage.output.text().split(separator: "\u{1b}[").dropFirst().compactMap {
        $0.first { !$0.isNumber && $0 != ";" }
      }
      #expect(codes.contains("m") == colour)
    }
  }
}

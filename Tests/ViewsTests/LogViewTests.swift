import Diagnostics
import Engine
import Testing

@testable import Views

private let events: [DeploymentEvent] = [
  .secrets([Secret("hunter2-hunter2"), Secret("short")]),
  .starting(.example),
  .opened(host: "bot-1", number: 12, from: "v1.0.0", to: "v1.1.0"),
  .stepStarted(host: "bot-1", step: "pull"),
  .log(host: "bot-1", step: "pull", text: "password hunter2-hunter2"),
  .log(host: "bot-1", step: "pull", text: "::set-output name=x::y"),
  .fact(host: "bot-1", step: "pull", key: "digest", value: .string("sha256:1")),
  .stepEnded(host: "bot-1", step: "pull", ending: StepEnding(status: 0, seconds: 1.25)),
  .stepSkipped(host: "bot-1", step: "backup", reason: "--skip"),
  .warning(host: "bot-1", text: "50% full"),
  .stepStarted(host: "bot-1", step: "health"),
  .stepEnded(host: "bot-1", step: "health", ending: StepEnding(status: 137, seconds: 9, signal: "KILL")),
  .undoing(host: "bot-1", reason: "step-failed", text: "health failed"),
  .stepUndone(host: "bot-1", step: "pull", status: 0, attempts: 1),
  .closed(host: "bot-1", outcome: .undone, healthy: true, recovery: false),
]

@Suite struct PlainViewTests {
  @Test func aWatchAndItsBreach() {
    let stage = Stage()
    let view = PlainView(stage.context)
    for event: DeploymentEvent in [
      .watching(host: "bot-1", seconds: 120),
      .breached(host: "bot-1", text: "bot: it was restarted", rollback: 13),
      .watched(host: "bot-1", reason: "superseded", by: 14), .watched(host: "bot-1", reason: "over", by: nil),
      .watched(host: "bot-1", reason: "aborted", by: nil),
    ] {
      view.handle(event)
    }
    #expect(
      stage.output.text() == """
        2026-11-21T09:00:00Z bot-1 watching for 2m00s
        2026-11-21T09:00:00Z bot-1 not well: bot: it was restarted; going back, as deployment #13
        2026-11-21T09:00:00Z bot-1 the watch has ended: #14 takes its place
        2026-11-21T09:00:00Z bot-1 watched to the end: all is well
        2026-11-21T09:00:00Z bot-1 the watch was ended by hand

        """)
    #expect(stage.output.text(.standardError).split(separator: "\n").count == 1)
  }

  @Test func aLinePerEvent() {
    let stage = Stage()
    let view = PlainView(stage.context)
    for event in events { view.handle(event) }
    view.handle(.finished(.failedExample))
    #expect(
      stage.output.text() == """
        2026-11-21T09:00:00Z deploy prod v1.1.0: market-bot on bot-1
        2026-11-21T09:00:00Z bot-1 deployment #12: v1.0.0 → v1.1.0
        2026-11-21T09:00:00Z bot-1 pull started
        2026-11-21T09:00:00Z bot-1 pull password ********
        2026-11-21T09:00:00Z bot-1 pull ::set-output name=x::y
        2026-11-21T09:00:00Z bot-1 pull done in 1.3s
        2026-11-21T09:00:00Z bot-1 backup skipped: --skip
        2026-11-21T09:00:00Z bot-1 warning: 50% full
        2026-11-21T09:00:00Z bot-1 health started
        2026-11-21T09:00:00Z bot-1 health failed after 9.0s: killed by SIGKILL
        2026-11-21T09:00:00Z bot-1 undoing (step-failed): health failed
        2026-11-21T09:00:00Z bot-1 pull undone
        2026-11-21T09:00:00Z bot-1 closed: undone, healthy
        2026-11-21T09:00:00Z error: bot-1: pull: the image can't be pulled
        2026-11-21T09:00:00Z     manifest unknown
        2026-11-21T09:00:00Z     second line
        2026-11-21T09:00:00Z   Now:  v1.0.0 runs as before
        2026-11-21T09:00:00Z   Next: push the image, then deploy again
        2026-11-21T09:00:00Z ✗ market-bot in prod: nothing was changed
        2026-11-21T09:00:00Z   deployment  #12
        2026-11-21T09:00:00Z   from        v1.0.0
        2026-11-21T09:00:00Z   to          v1.1.0
        2026-11-21T09:00:00Z   duration    4.3s
        2026-11-21T09:00:00Z   next        orchestrate deploy prod v1.1.0

        """)
    let errors = stage.output.text(.standardError)
    #expect(errors.split(separator: "\n").count == 8)
    #expect(errors.contains("warning: 50% full") && errors.contains("health failed after"))
  }

  @Test func signsOfLifeInSilence() {
    let stage = Stage()
    let view = PlainView(stage.context)
    view.handle(.stepStarted(host: "bot-1", step: "migrate"))
    for _ in 0..<950 {
      stage.clock.advance(0.1)
      view.tick()
    }
    #expect(
      stage.output.text() == """
        2026-11-21T09:00:00Z bot-1 migrate started
        2026-11-21T09:00:30Z bot-1 migrate still running after 30.0s
        2026-11-21T09:01:00Z bot-1 migrate still running after 1m00s
        2026-11-21T09:01:30Z bot-1 migrate still running after 1m30s

        """)
    view.handle(.log(host: "bot-1", step: "migrate", text: "x"))
    stage.clock.advance(29)
    view.tick()
    #expect(stage.output.text().hasSuffix("migrate x\n"))
  }
}

@Suite struct JSONViewTests {
  @Test func anObjectPerLine() throws {
    let stage = Stage()
    let view = JSONView(stage.context)
    for event in events { view.handle(event) }
    view.handle(.planned(.example))
    view.handle(.finished(.committedExample))
    #expect(stage.output.text(.standardError) == "")
    let lines = stage.output.text().split(separator: "\n").map(String.init)
    let objects = try lines.map { try JSONValue(parsing: $0) }
    #expect(
      objects.map { $0["event"]?.stringValue } == [
        "starting", "opened", "step_started", "log", "log", "fact", "step_ended", "step_skipped", "warning",
        "step_started",
        "step_ended", "undoing", "step_undone", "closed", "planned", "finished",
      ])
    #expect(objects.allSatisfy { $0["time"]?.stringValue == "2026-11-21T09:00:00.000Z" })
    #expect(
      lines[3]
        == #"{"event":"log","time":"2026-11-21T09:00:00.000Z","host":"bot-1","step":"pull","text":"password ********"}"#
    )
    #expect(objects[6]["status"]?.intValue == 0 && objects[6]["seconds"]?.numberValue == 1.25)
    #expect(objects[6]["timed_out"]?.boolValue == false && objects[10]["signal"]?.stringValue == "KILL")
    #expect(objects[14][path: ["plan", "steps", "2", "changes", "0", "loses_data"]]?.boolValue == true)
    let summary = objects[15]["summary"]
    #expect(summary?["exit_status"]?.intValue == 0)
    #expect(summary?["downtime_ms"]?.intValue == 812)
    #expect(summary?["restore_point"]?.stringValue == "20261121T0900Z-v1.0.0-d13.dump")
    #expect(summary?["round_trips"]?.intValue == 6)
    #expect(summary?["outcome"]?.stringValue == "committed")
    #expect(summary?["problem"] == nil)
  }
}

@Suite struct GitHubViewTests {
  @Test func foldsCommandsAndGuards() {
    let stage = Stage()
    let view = GitHubView(stage.context, token: "TOKEN") { _ in }
    for event in events { view.handle(event) }
    #expect(
      stage.output.text() == """
        ::stop-commands::TOKEN
        2026-11-21T09:00:00Z deploy prod v1.1.0: market-bot on bot-1
        2026-11-21T09:00:00Z bot-1 deployment #12: v1.0.0 → v1.1.0
        ::TOKEN::
        ::group::pull
        ::stop-commands::TOKEN
        2026-11-21T09:00:00Z bot-1 pull started
        2026-11-21T09:00:00Z bot-1 pull password ********
        2026-11-21T09:00:00Z bot-1 pull ::set-output name=x::y
        2026-11-21T09:00:00Z bot-1 pull done in 1.3s
        ::TOKEN::
        ::endgroup::
        ::stop-commands::TOKEN
        2026-11-21T09:00:00Z bot-1 backup skipped: --skip
        ::TOKEN::
        ::warning::bot-1: 50%25 full
        ::group::health
        ::stop-commands::TOKEN
        2026-11-21T09:00:00Z bot-1 health started
        2026-11-21T09:00:00Z bot-1 health failed after 9.0s: killed by SIGKILL
        ::TOKEN::
        ::endgroup::
        ::stop-commands::TOKEN
        2026-11-21T09:00:00Z bot-1 undoing (step-failed): health failed
        2026-11-21T09:00:00Z bot-1 pull undone
        2026-11-21T09:00:00Z bot-1 closed: undone, healthy

        """)
    #expect(stage.output.text(.standardError) == "")
  }

  @Test func endsWithAnAnnotationAndASummary() async {
    let stage = Stage()
    let (summaries, signal) = AsyncStream<String>.makeStream()
    let view = GitHubView(stage.context, token: "TOKEN") { signal.yield($0) }
    view.handle(.finished(.failedExample))
    signal.finish()
    let lines = stage.output.text().split(separator: "\n").map(String.init)
    #expect(
      lines.contains(
        "::error title=bot-1%3A pull::the image can't be pulled%0Amanifest unknown%0Asecond line%0A"
          + "v1.0.0 runs as before%0ANext: push the image, then deploy again"))
    let markdown = await summaries.reduce("", +)
    #expect(
      markdown == ##"""
        ### ✗ market-bot in prod: nothing was changed

        | | |
        |---|---|
        | deployment | \#12 |
        | from | v1.0.0 |
        | to | v1.1.0 |
        | duration | 4.3s |
        | next | orchestrate deploy prod v1.1.0 |

        **bot-1: pull: the image can't be pulled**

            manifest unknown
            second line

        Now: v1.0.0 runs as before

        Next: push the image, then deploy again


        """##)
  }

  @Test func masksEveryLineOfASecret() {
    let stage = Stage()
    let view = GitHubView(stage.context, token: "T") { _ in }
    view.handle(.secrets([Secret("first-line%\nsecond-line\nab")]))
    #expect(stage.output.text() == "")
    view.handle(.warning(host: nil, text: "saw second-line"))
    #expect(stage.output.text() == "::warning::saw ********\n")
  }

  @Test func tokensDiffer() { #expect(randomToken() != randomToken()) }
}

import Diagnostics
import Inventory
import SSH
import Synchronization
import Testing
import Views

@testable import Commands

@Suite struct FleetTests {
  private func hosts(_ count: Int) -> [HostEntry] {
    (1...count).map { HostEntry(name: "h\($0)", address: "192.0.2.\($0)") }
  }

  @Test func neverMoreThanTheWindowAtOnceAndEveryEndingInItsPlace() async {
    let under = Mutex((now: 0, most: 0))
    let endings = await Fleet(parallel: 3).run(hosts(20)) { host in
      under.withLock {
        $0.now += 1
        $0.most = max($0.most, $0.now)
      }
      for _ in 0..<5 { await Task.yield() }
      under.withLock { $0.now -= 1 }
      return .exit(.status(Int(host.name.dropFirst())!))
    }
    #expect(under.withLock { $0.most } == 3)
    #expect(endings == (1...20).map { .exit(.status($0)) })
  }

  @Test(arguments: [(nil, 10), (0, 3), (1, 4)] as [(Int?, Int)])
  func failuresEndTheBeginning(maxFailures: Int?, begun: Int) async {
    // One at a time: the third and the fourth fail.
    let endings = await Fleet(parallel: 1, maxFailures: maxFailures).run(hosts(10)) { host in
      ["h3", "h4"].contains(host.name) ? .fault(OrchestrateError(.unreachable, "gone")) : .exit(.status(0))
    }
    #expect(endings.filter { $0 != .notBegun }.count == begun)
    #expect(endings[2].hasFailed && !endings[1].hasFailed && !Fleet.Ending.notBegun.hasFailed)
  }

  @Test func aHostThatHangsHoldsUpNobody() async {
    let rest = Mutex(0)
    let (freed, free) = AsyncStream<Void>.makeStream()
    let endings = await Fleet(parallel: 2).run(hosts(10)) { host in
      if host.name == "h1" {
        for await _ in freed { break }
      } else if rest.withLock({
        $0 += 1; return $0
      }) == 9 {
        free.yield()
      }
      return .exit(.status(0))
    }
    #expect(endings.allSatisfy { $0 == .exit(.status(0)) })
  }

  @Test func linesComeWholeWithTheirHostAndTheFailuresInOrder() async {
    let sink = RecordedOutput()
    let all = hosts(2) + [HostEntry(name: "db-10", address: "192.0.2.10")]
    let report = FleetReport(all, output: sink, isJSON: false)
    await report.take(.stdout(Array("one\ntw".utf8)), from: all[0])
    await report.take(.stderr(Array("oh\n".utf8)), from: all[2])
    await report.take(.stdout(Array("o\nrest".utf8)), from: all[0])
    let endings: [Fleet.Ending] = [
      .exit(.status(0)), .exit(.signal(name: "KILL", coreDumped: false, message: "")),
      .fault(OrchestrateError(.unreachable, "no answer", cause: "silence")),
    ]
    await report.close(all[0], endings[0], seconds: 1)
    await report.finish(all, endings, seconds: 1.26)
    #expect(sink.text(.standardOutput) == "h1    | one\nh1    | two\nh1    | rest\n")
    #expect(
      sink.text(.standardError)
        == "db-10 | oh\nh2: killed by SIGKILL\ndb-10: no answer: silence\n1 of 3 hosts done in 1.3 s\n")
  }

  @Test func forAProgramEachLineIsAnObject() async {
    let sink = RecordedOutput()
    let all = hosts(2)
    let report = FleetReport(all, output: sink, isJSON: true)
    await report.take(.stdout(Array("a \"b\"\n".utf8)), from: all[0])
    await report.close(all[0], .exit(.status(3)), seconds: 0.5)
    await report.finish(all, [.exit(.status(3)), .notBegun], seconds: 0.5)
    #expect(
      sink.text(.standardOutput) == """
        {"event":"output","host":"h1","stream":"stdout","text":"a \\"b\\""}
        {"event":"host_ended","host":"h1","seconds":0.5,"status":3}
        {"event":"finished","hosts":2,"failed":["h1"],"not_begun":["h2"],"seconds":0.5}

        """)
  }

  @Test func aLineWithoutEndIsToldInParts() async {
    let sink = RecordedOutput()
    let all = hosts(1)
    let report = FleetReport(all, output: sink, isJSON: false)
    for _ in 0..<5 { await report.take(.stdout([UInt8](repeating: 120, count: 32 << 10)), from: all[0]) }
    #expect(sink.text(.standardOutput).utf8.count > 64 << 10)
  }
}

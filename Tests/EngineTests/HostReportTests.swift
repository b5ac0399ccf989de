import Diagnostics
import Engine
import Inventory
import Testing

@Suite struct HostReportTests {
  private func status(
    _ containers: [String], gates: String = "", facts: String = "", history: [HistoryEntry] = []
  ) throws -> HostStatus {
    var release = Release(number: 3, version: "v1.1.0", previous: 2, created: "2026-11-21T03:00:00Z", playbook: "")
    release.services = ["bot", "postgres"]
    return HostReport(
      host: "bot-1", facts: HostFacts(parsing: facts), release: release, history: history, holder: nil,
      containers: containers.joined(separator: "\n"), gates: gates, app: ["bot"]
    ).status
  }

  private func container(_ service: String, _ state: String = "running", health: String? = "healthy") -> String {
    let judged = health.map { #","Health":{"Status":"\#($0)","Log":[]}"# } ?? ""
    let own = #""Status":"\#(state)","StartedAt":"2026-11-21T03:00:00Z","OOMKilled":false"#
    return #"{"service":"\#(service)","state":{\#(own)\#(judged)},"restarts":0}"#
  }

  @Test func allWell() throws {
    #expect(try status([container("bot"), container("postgres")]).state == .healthy)
  }

  @Test func aWatchIsToldAsLongAsItLasts() {
    let text =
      #"{"who":"the watch over deployment 3","version":"v1.1.0","number":3,"watching":3,"seconds":120,"until":1795251720000}"#
    for (locked, watching) in [("1", 3), ("0", nil)] {
      let report = HostReport(
        host: "bot-1", facts: HostFacts(parsing: "locked=\(locked)\n"), release: nil, history: [],
        holder: LockHolder(json: text), containers: container("bot"), gates: "", app: ["bot"])
      #expect(report.status.lock?.watching == watching)
      #expect(report.status.lock?.until == watching.map { _ in "2026-11-21T09:02:00Z" })
    }
  }

  @Test func theAppDecidesTheOthersDegrade() throws {
    #expect(try status([container("bot", "exited"), container("postgres")]).state == .unhealthy)
    #expect(try status([container("bot"), container("postgres", "restarting")]).state == .degraded)
    #expect(try status([container("bot")]).state == .degraded)
    #expect(try status([container("postgres")]).state == .unhealthy)
  }

  @Test func ofSeveralContainersTheWorstCounts() throws {
    for bots in [
      [container("bot"), container("bot", "restarting")], [container("bot", "restarting"), container("bot")],
    ] {
      #expect(try status(bots + [container("postgres")]).state == .unhealthy)
    }
  }

  /// `current` names what isn't there, or can't be read: told, not failed at.
  @Test func aReleaseThatIsGoneIsUnhealthy() {
    let report = HostReport(
      host: "bot-1", facts: HostFacts(parsing: "current=3\n"), release: nil, history: [], holder: nil,
      containers: container("bot"), gates: "", app: ["bot"])
    #expect(report.status.state == .unhealthy && report.status.release == 3)
    #expect(report.status.reason?.contains("release 3") == true)
    #expect(report.status.services.map(\.service) == ["bot"])
  }

  private func crashed(_ state: String, restarts: Int, started: String) -> [String] {
    let own = #""Status":"\#(state)","StartedAt":"\#(started)","OOMKilled":false,"ExitCode":1"#
    return [
      #"{"service":"bot","id":"b0","state":{\#(own)},"restarts":\#(restarts)}"#,
      #"{"id":"b0","last_line":"ValueError: no token"}"#, container("postgres"),
    ]
  }

  @Test func aCrashLoopIsToldWithItsReason() throws {
    let waits = try status(crashed("restarting", restarts: 7, started: "2026-11-21T03:00:00Z"))
    #expect(waits.state == .unhealthy)
    #expect(waits.reason == "bot restarts again and again (7 times, exit status 1): ValueError: no token")
  }

  /// Between two crashes it runs, and Docker calls it healthy.
  @Test(arguments: [
    (3, "2026-11-21T03:00:00.5Z", true), (2, "2026-11-21T03:00:00Z", false), (9, "2026-11-21T02:58:00Z", false),
  ])
  func oneThatWasRestartedAMomentAgo(restarts: Int, started: String, isTold: Bool) throws {
    let now = try #require(Timestamp("2026-11-21T03:00:20Z")).milliseconds
    let found = try status(crashed("running", restarts: restarts, started: started), facts: "epoch_ms=\(now)\n")
    #expect(found.state == (isTold ? .degraded : .healthy))
    #expect((found.reason == "bot was restarted \(restarts) times, last 19 s ago: ValueError: no token") == isTold)
  }

  @Test func certificatesAreJudged() throws {
    let now = try #require(Timestamp("2026-11-21T00:00:00Z"))
    func certificate(_ begins: Int64, _ ends: Int64) throws -> CertificateStatus {
      let seconds = now.milliseconds / 1000
      return try #require(
        CertificateStatus(line: "a.example.com acme \(seconds + begins * 86400) \(seconds + ends * 86400) own"))
    }
    let cases: [(Int64, Int64, CertificateStatus.Standing)] = [
      (-60, 30, .valid(days: 30)), (-69, 21, .valid(days: 21)), (-70, 20, .late(days: 20)), (-90, 0, .expired),
      (-91, -1, .expired), (-3, 3, .valid(days: 3)), (-5, 1, .late(days: 1)),
    ]
    for (begins, ends, standing) in cases { #expect(try certificate(begins, ends).standing(at: now) == standing) }
    #expect(CertificateStatus(line: "a.example.com given - - -")?.standing(at: now) == .absent)
    #expect(CertificateStatus(line: "a.example.com acme 1 9999999999 other")?.standing(at: now) == .refused(.other))
    #expect(CertificateStatus(line: "a.example.com acme 1 2 temporary")?.standing(at: now) == .refused(.temporary))
    #expect(CertificateStatus(line: "openssl: not found") == nil)
    var report = HostReport(
      host: "bot-1", facts: HostFacts(),
      release: Release(number: 3, version: "v1", previous: 2, created: "2026-11-21T03:00:00Z", playbook: ""),
      history: [], holder: nil, containers: container("bot"), gates: "", app: ["bot"])
    report.now = now
    report.certificates = "b.example.com acme 1 2 own\na.example.com acme - - -\n"
    #expect(report.status.state == .degraded)
    #expect(report.status.certificates.map(\.domain) == ["a.example.com", "b.example.com"])
    #expect(
      report.status.reason
        == "the proxy doesn't answer for a.example.com; the certificate of b.example.com has expired (1970-01-01T00:00:02Z)"
    )
  }

  @Test func nothingAskedIsNotGood() {
    #expect(!HealthDocument(environment: "prod", app: "shop", probes: []).isGood)
    #expect(HealthDocument(environment: "prod", app: "shop", probes: [.init(probe: "gate", healthy: true)]).isGood)
  }

  /// Just after a start Docker has not asked yet; the gate has.
  @Test func startingIsJudgedByTheGate() throws {
    let containers = [container("bot", health: "starting"), container("postgres")]
    #expect(try status(containers).state == .degraded)
    #expect(try status(containers, gates: #"{"service":"bot","healthy":true,"answer":"200"}"#).state == .healthy)
    let bad = #"{"service":"bot","healthy":false,"answer":"503","reason":"x"}"#
    #expect(try status(containers, gates: bad).state == .degraded)
  }

  /// Its containers aren't missing: nobody can say.
  @Test func withoutDockerNothingIsSaidOfContainers() throws {
    let found = try status([], facts: "docker_server=\ndocker_error=Cannot connect to the Docker daemon\n")
    #expect(found.state == .unhealthy)
    #expect(found.reason == "Docker on the host can't be used: Cannot connect to the Docker daemon")
  }

  @Test func whatIsStuckIsSaidUntilAPersonHasAbandonedIt() throws {
    let stuck = #"{"number":7,"outcome":"stuck","reason":"hotfix"}"#
    let abandoned =
      #"{"number":7,"outcome":"abandoned","reason":"hotfix","abandoned":{"who":"grace","reason":"settled"}}"#
    let well = [container("bot"), container("postgres")]
    let before = try status(well, history: HistoryEntry.all(in: stuck))
    #expect(before.state == .degraded && before.reason?.contains("deployment 7") == true)
    let after = HistoryEntry.all(in: abandoned)
    #expect(try status(well, history: after).state == .healthy)
    #expect(after.first?.reason == "settled")
  }

  @Test func whatWasLeftOpenIsSaid() throws {
    let open = try status([container("bot"), container("postgres")], facts: "open=7\nlocked=0\n")
    #expect(open.state == .degraded)
    #expect(open.reason?.contains("deployment 7") == true)
  }

  @Test(arguments: [
    ("boot 90.50\n", 9.75), ("boot 90.50 7\n7\n", 9.75), ("another 90.50", nil), ("boot 101.00", 0), ("", nil),
  ])
  func ageOfASignOfLife(text: String, seconds: Double?) {
    #expect(HostFacts(parsing: "boot_id=boot\nuptime=100.25\n").age(ofBeat: text) == seconds)
  }
}

@Suite struct MachineSizeTests {
  @Test(
    arguments: [
      (["memory_total": "4096", "cpus": "4"], 4096, 4),
      (["memory_total": "4096", "memory_limit": "1024", "cpus": "4", "cpu_limit": "1500"], 1024, 2),
      (["memory_total": "4096", "memory_limit": "8192", "cpus": "2", "cpu_limit": "8000"], 4096, 2),
      (["memory_total": "4096", "memory_limit": "", "cpus": "2", "cpu_limit": ""], 4096, 2),
      (["memory_total": "4096", "cpus": "2", "cpu_limit": "0"], 4096, 1), (["memory_total": "4096"], 4096, 1),
    ] as [([String: String], Int64, Int)])
  func theSmallerCounts(facts: [String: String], memory: Int64, cpus: Int) {
    #expect(HostFacts(facts).machine == MachineSize(memory: memory, cpus: cpus))
  }

  @Test func unknown() { #expect(HostFacts(["cpus": "2"]).machine == nil) }
}

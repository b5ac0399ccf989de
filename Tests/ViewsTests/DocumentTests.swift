import Diagnostics
import Engine
import Foundation
import Testing

@testable import Views

private let holder = LockHolder(
  who: "ada@laptop", from: "198.51.100.7", reason: "hotfix", since: "2026-11-21T08:59:00Z", number: 14,
  version: "v1.2.0",
  command: "deploy")

private let entry: HistoryEntry = {
  var entry = HistoryEntry(number: 13, command: "deploy", outcome: "undone")
  (entry.from, entry.to, entry.healthy, entry.reason, entry.who) = (
    "v1.0.0", "v1.1.0", true, "health failed", "ada@laptop"
  )
  (entry.opened, entry.closed, entry.seconds) = ("2026-11-21T07:00:00Z", "2026-11-21T07:01:30Z", 90)
  (entry.downtimeMilliseconds, entry.restorePoint, entry.skipped) = (812, "x.dump", ["backup"])
  return entry
}()

private let status: StatusDocument = {
  var host = HostStatus(host: "bot-1", state: .degraded)
  (host.since, host.reason) = ("2026-11-21T08:30:00Z", "redis restarts again and again")
  (host.version, host.release, host.schema) = ("v1.0.0", 12, .init(revision: "0002", policy: "compatible"))
  var bot = ServiceStatus(service: "bot", state: "running")
  (bot.health, bot.restarts, bot.outOfMemory, bot.started) = ("healthy", 0, false, "2026-11-20T09:00:00Z")
  bot.image = "registry.example.com/market-bot:v1.0.0"
  var redis = ServiceStatus(service: "redis", state: "restarting")
  (redis.health, redis.restarts, redis.outOfMemory, redis.image) = ("starting", 7, true, "redis:7.4.1")
  host.services = [bot, redis]
  (host.lastDeployment, host.lock, host.openDeployment) = (entry, holder, 14)
  host.disks = [DiskStatus(holds: "docker", path: "/var/lib/docker", available: 5 << 30, size: 20 << 30)]
  host.certificates = [
    CertificateStatus(
      domain: "bot.example.com", kind: "acme", begins: "2026-10-01T00:00:00Z", expires: "2026-12-30T00:00:00Z"),
    CertificateStatus(domain: "www.example.com", kind: "given"),
    CertificateStatus(
      domain: "new.example.com", kind: "acme", begins: "2026-11-20T00:00:00Z", expires: "2026-11-27T00:00:00Z",
      fault: .temporary),
  ]
  return StatusDocument(environment: "prod", app: "market-bot", checked: "2026-11-21T09:00:00Z", hosts: [host])
}()

private let history = HistoryDocument(
  environment: "prod", app: "market-bot", hosts: [.init(host: "bot-1", deployments: [entry])])

private let lock: LockDocument = {
  var taken = LockDocument.Host(host: "bot-1", locked: true)
  (taken.holder, taken.openDeployment, taken.heartbeatAge) = (holder, 14, 2.5)
  var free = LockDocument.Host(host: "bot-2", locked: false)
  free.openDeployment = 9
  return LockDocument(environment: "prod", app: "market-bot", hosts: [taken, free])
}()

private let watch = LockHolder(
  who: "the watch over deployment 12", since: "2026-11-21T08:59:40Z", number: 12, version: "v1.0.0", command: "watch",
  watching: 12, until: "2026-11-21T09:01:20Z")

private let backups: BackupsDocument = {
  var backup = BackupEntry(name: "20261121T0300Z-v1.0.0-d12.dump", size: 1536, verified: true)
  (backup.created, backup.sha256, backup.database, backup.revision) = ("2026-11-21T03:00:00Z", "ab", "market", "0002")
  (backup.version, backup.deployment, backup.neededByRelease) = ("v1.0.0", 12, 12)
  let bad = BackupEntry(name: "other.dump", size: 0, verified: false)
  return BackupsDocument(environment: "prod", app: "market-bot", host: "bot-1", backups: [backup, bad])
}()

private let env = EnvDocument(
  environment: "prod", app: "market-bot", host: "bot-1",
  entries: [
    .init(name: "LOG_LEVEL", secret: false, origin: "fixed", value: "DEBUG", difference: .changed),
    .init(name: "TELEGRAM_TOKEN", secret: true, origin: "environment", value: "123:abc", difference: .same),
    .init(name: "OLD", secret: false, value: "x", difference: .removed),
  ])

private let doctor = DoctorReport(
  environment: "prod",
  checks: [
    .init("configuration", .passed, "inventories/prod.yml is well formed"),
    .init("clock", .warning, "3 s behind", host: "bot-1", remedy: "sudo timedatectl set-ntp true"),
    .init("docker", .failed, "not installed", host: "bot-1", remedy: "orchestrate bootstrap prod"),
    .init("registry", .skipped, "no Docker"),
  ])

private let health: HealthDocument = {
  var probe = HealthDocument.Probe(probe: "http://localhost:8000/health", healthy: false)
  (probe.host, probe.service, probe.status, probe.seconds, probe.message) = (
    "bot-1", "bot", 503, 0.25, "status: bad\nmore"
  )
  return HealthDocument(environment: "prod", app: "market-bot", probes: [probe])
}()

private let inventory: InventoryDocument = {
  var document = InventoryDocument(
    environment: "prod", app: "market-bot", project: "market-bot", compose: "compose.prod.yml")
  document.isDefault = true
  document.envTemplate = "env.template"
  document.vars = ["domain": "bot.example.com"]
  document.services = .init(app: ["bot"], database: "postgres", cache: "redis")
  document.hosts = [.init(name: "bot-1", address: "203.0.113.10", port: 22, user: "deploy", roles: ["app", "db"])]
  return document
}()

private let documents: [any TextDocument] = [
  status, history, lock, backups, env, doctor, health, inventory, Plan.example,
]

@Suite struct DocumentTextTests {
  @Test func statusOfAHost() {
    #expect(
      status.text() == """
        market-bot in prod  2026-11-21T09:00:00Z

        bot-1: degraded since 2026-11-21T08:30:00Z (30m00s): redis restarts again and again
          version  v1.0.0 (release 12)
          schema   0002 (compatible)
          last     #13 deploy v1.0.0 → v1.1.0: undone, 1h58m ago (health failed)
          locked   ada@laptop from 198.51.100.7 since 2026-11-21T08:59:00Z (deploy v1.2.0, #14: hotfix)
          open     #14 has not ended (orchestrate attach prod)
          disk /var/lib/docker: 5 GiB of 20 GiB free (25%)
          certificate bot.example.com: until 2026-12-30T00:00:00Z (38d15h)
          certificate www.example.com: nobody answers on port 443
          certificate new.example.com: until 2026-11-27T00:00:00Z (5d15h), temporary: nobody trusts it

          SERVICE  STATE       HEALTH    RESTARTS  UP     IMAGE
          bot      running     healthy   0         1d00h  registry.example.com/market-bot:v1.0.0
          redis    restarting  starting  7 (OOM)          redis:7.4.1

        """)
  }

  @Test func theOthers() {
    #expect(
      history.text() == """
        NUMBER  ENDED                 COMMAND  VERSION          OUTCOME  TOOK   DOWNTIME  WHO         REASON
        #13     2026-11-21T07:01:30Z  deploy   v1.0.0 → v1.1.0  undone   1m30s  812 ms    ada@laptop  health failed

        """)
    #expect(
      lock.text() == """
        bot-1: locked by ada@laptop from 198.51.100.7 since 2026-11-21T08:59:00Z (deploy v1.2.0, #14: hotfix)
          last sign of life 2.5s ago
          deployment #14 is open: orchestrate attach prod
        bot-2: free
          deployment #9 has not ended: whoever takes the lock next closes it first

        """)
    #expect(
      backups.text() == """
        BACKUP                          SIZE     DATABASE  SCHEMA  VERSION  DEPLOYMENT  VERIFIED  NEEDED BY
        20261121T0300Z-v1.0.0-d12.dump  1.5 KiB  market    0002    v1.0.0   #12         yes       release 12
        other.dump                      0 B                                             NO

        """)
    #expect(
      env.text() == """
           NAME            FROM         VALUE
        ~  LOG_LEVEL       fixed        DEBUG
           TELEGRAM_TOKEN  environment  ********
        -  OLD                          x

        """)
    #expect(
      doctor.text() == """
        ✓ configuration: inventories/prod.yml is well formed
        ! bot-1: clock: 3 s behind
            sudo timedatectl set-ntp true
        ✗ bot-1: docker: not installed
            orchestrate bootstrap prod
        - registry: no Docker

        1 passed, 1 warning, 1 failed: 1 failed

        """)
    #expect(!doctor.isGood && !health.isGood)
    #expect(
      health.text() == "✗ bot-1: bot: http://localhost:8000/health (status 503, 0.3s)\n    status: bad\n    more\n")
    #expect(
      inventory.text() == """
        market-bot in prod (the default)
          project       market-bot
          compose       compose.prod.yml
          env template  env.template
          app services  bot
          database      postgres
          cache         redis
          var domain = bot.example.com

          HOST   ADDRESS       PORT  USER    ROLES
          bot-1  203.0.113.10  22    deploy  app, db

        """)
  }

  @Test func emptyOnes() {
    let none = HistoryDocument(environment: "prod", app: "bot", hosts: [.init(host: "h", deployments: [])])
    #expect(none.text() == "bot in prod: no deployments on h yet\n")
    #expect(BackupsDocument(environment: "prod", app: "bot", host: "h").text() == "bot in prod: no backups on h\n")
    #expect(EnvDocument(environment: "prod", app: "bot", host: "h").text() == "bot in prod: no env file\n")
  }

  /// A table's last column is cut at the terminal's edge, and colours don't move the columns.
  @Test func tablesKeepTheirShape() {
    let narrow = status.text(width: 60, style: Style(colour: false)).split(separator: "\n").map(String.init)
    #expect(narrow.contains("  bot      running     healthy   0         1d00h  registry.…"))
    let painted = status.text(width: .max, style: Style(colour: true))
    var terminal = Terminal(columns: 200, rows: 50)
    terminal.feed(painted)
    #expect(terminal.text + "\n" == status.text())
  }
}

@Suite struct DocumentJSONTests {
  @Test func aSecretsValueNeverEntersADocument() {
    #expect(!jsonValue(of: env).text().contains("123:abc"))
    #expect(jsonValue(of: env)[path: ["entries", "0", "value"]]?.stringValue == "DEBUG")
  }

  @Test func membersAreInSnakeCase() throws {
    let text = jsonValue(of: status).text()
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    #expect(try decoder.decode(StatusDocument.self, from: Data(text.utf8)) == status)
    #expect(jsonValue(of: status)[path: ["hosts", "0", "last_deployment", "downtime_ms"]]?.intValue == 812)
    #expect(jsonValue(of: lock)[path: ["hosts", "0", "heartbeat_age"]]?.numberValue == 2.5)
  }

  @Test func aWatchIsNoLockThatHoldsAnybodyUp() {
    var watched = status
    (watched.hosts[0].lock, watched.hosts[0].openDeployment) = (watch, nil)
    let text = watched.text()
    #expect(text.contains("v1.0.0 for another 1m20s (orchestrate attach prod)") && !text.contains("locked"), "\(text)")
    var host = LockDocument.Host(host: "bot-1", locked: true)
    host.holder = watch
    let lock = LockDocument(environment: "prod", app: "market-bot", hosts: [host]).text()
    #expect(
      lock == """
        bot-1: locked by the watch over deployment 12, v1.0.0, until 2026-11-21T09:01:20Z
          a deploy, rollback or restore takes its place at once; what leaves the release alone waits

        """)
  }

  @Test func shownOnStdoutMasked() throws {
    for format in OutputFormat.allCases {
      let stage = Stage()
      stage.masker.add([Secret("redis restarts")])
      show(status, format, stage.context)
      #expect(stage.output.text(.standardError) == "")
      #expect(!stage.output.text().contains("redis restarts") && stage.output.text().contains("********"))
      if format == .json { _ = try JSONValue(parsing: stage.output.text()) }
    }
  }

  /// Every member that any document or event may have is named in docs/json-output.md, in backquotes.
  @Test func everyMemberIsDocumented() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let page = try String(contentsOf: root.appending(path: "docs/json-output.md"), encoding: .utf8)
    var members: Set<String> = []
    func collect(_ value: JSONValue, free: Bool = false) {
      for (key, member) in value.objectValue?.members ?? [] {
        // Names below `vars` are the user's.
        if !free { members.insert(key) }
        collect(member, free: key == "vars")
      }
      for item in value.arrayValue ?? [] { collect(item) }
    }
    for document in documents { collect(jsonValue(of: document)) }
    collect(jsonValue(of: watch))
    var summary = DeploymentSummary.failedExample
    (summary.downtimeMilliseconds, summary.restorePoint, summary.roundTrips, summary.healthy) = (1, "x", 1, true)
    summary.rollbackMilliseconds = 1
    summary.watch = .init(reason: "breached", text: "bot: it was restarted", by: 2)
    summary.steps = [.init(host: "h", step: "s", seconds: 1, state: "done")]
    let events: [DeploymentEvent] = [
      .starting(.example), .connecting(host: "h", address: "a"), .reconnected(host: "h"),
      .connected(host: "h", timings: ConnectTimings(total: 1, tcp: 1, handshake: 1, authentication: 1)),
      .reconnecting(host: "h", attempt: 1, since: 1), .waitingForLock(host: "h", holder: holder, limit: 1),
      .opened(host: "h", number: 1, from: "a", to: "b"), .recovered(host: "h", number: 1, outcome: "undone"),
      .planned(.example), .asked(DeploymentQuestion(id: "a", text: "b", choices: ["c"], timeout: 1)),
      .answered(question: "a", answer: "b"), .stepStarted(host: "h", step: "s"),
      .stepEnded(host: "h", step: "s", ending: StepEnding(status: 1, seconds: 1, signal: "KILL", timedOut: true)),
      .stepSkipped(host: "h", step: "s", reason: "r"), .stepUndone(host: "h", step: "s", status: 0, attempts: 1),
      .log(host: "h", step: "s", text: "t"), .fact(host: "h", step: "s", key: "k", value: .null),
      .undoing(host: "h", reason: "r", text: "t"), .committed(host: "h", release: 1), .watching(host: "h", seconds: 1),
      .breached(host: "h", text: "t", rollback: 2), .watched(host: "h", reason: "superseded", by: 2),
      .closed(host: "h", outcome: .committed, healthy: true, recovery: false), .notice(host: "h", text: "t"),
      .warning(host: "h", text: "t"), .finished(summary),
    ]
    for event in events {
      let (name, pairs) = document(of: event)
      members.insert(name)
      for (key, value) in pairs {
        members.insert(key)
        collect(value)
      }
    }
    #expect(members.count > 100)
    for member in members.sorted() {
      #expect(page.contains("`\(member)`"), "docs/json-output.md doesn't name `\(member)`")
    }
  }
}

@Suite struct ProcessOutputTests {
  @Test func aReaderThatIsGoneEndsNothing() {
    _ = ProcessOutput()
    var ends: [Int32] = [0, 0]
    #expect(pipe(&ends) == 0)
    #expect(writeAll(Array("x".utf8), to: ends[1]))
    close(ends[0])
    #expect(!writeAll(Array("x".utf8), to: ends[1]))
    close(ends[1])
  }

  /// A pipe that somebody else made non-blocking, read slowly: nothing is lost.
  @Test func aFullPipeIsWaitedFor() async {
    var ends: [Int32] = [0, 0]
    #expect(pipe(&ends) == 0)
    _ = fcntl(ends[1], F_SETFL, O_NONBLOCK)
    let reader = ends[0]
    let length = 1 << 20
    let counted = Task.detached {
      var buffer = [UInt8](repeating: 0, count: 1000)
      var total = 0
      while total < length {
        let count = read(reader, &buffer, buffer.count)
        if count <= 0 { break }
        total += count
      }
      return total
    }
    let writer = ends[1]
    let written = await Task.detached { writeAll([UInt8](repeating: 120, count: length), to: writer) }.value
    #expect(written)
    #expect(await counted.value == length)
    close(ends[0])
    close(ends[1])
  }
}

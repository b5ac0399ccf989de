import Diagnostics
import Inventory
import Testing

@Suite struct LoadingTests {
  @Test func theDesignsInventoryDecodesEntirely() throws {
    let inventory = try Sample().loader.inventory(environment: "prod").inventory
    var expected = Inventory(environment: "prod", app: "market-bot")
    expected.isDefault = true
    expected.hosts = [
      HostEntry(name: "bot-1", address: "203.0.113.10", port: 22, user: "deploy", roles: ["app", "db"])
    ]
    expected.ssh.identity = "~/.ssh/prod"
    expected.ssh.knownHosts = "known_hosts"
    expected.compose = "compose.prod.yml"
    expected.env.templates = ["env.template"]
    expected.secrets = "prod.secrets.yml"
    expected.services.app = ["bot"]
    expected.services.database = "postgres"
    expected.services.cache = "redis"
    expected.vars = ["domain": "bot.example.com"]
    #expect(inventory == expected)
  }

  @Test func theDesignsPlaybookDecodesEntirely() throws {
    let playbook = try Sample().load().playbook
    #expect(playbook.watch == .seconds(120))
    #expect(
      playbook.steps.map(\.name) == [
        "preflight", "release", "env", "pull", "backup", "migrate", "recreate", "health", "health-2", "warm-up",
        "commit", "prune",
      ])
    var preflight = PreflightSettings()
    preflight.diskFree = 2 << 30
    preflight.memoryFree = 256 << 20
    #expect(playbook.steps[0].settings == .preflight(preflight))
    var release = ReleaseSettings()
    release.files = ["redis.conf", "nginx/"]
    #expect(playbook.steps[1].settings == .release(release))
    var backup = BackupSettings()
    (backup.service, backup.database, backup.user) = ("postgres", "market", "market")
    #expect(playbook.steps[4].settings == .backup(backup))
    var migrate = MigrateSettings()
    migrate.service = "bot"
    migrate.up = ["alembic", "upgrade", "head"]
    migrate.revision = ["alembic", "current"]
    migrate.down = ["alembic", "downgrade", "${revision}"]
    #expect(playbook.steps[5].settings == .migrate(migrate))
    var recreate = RecreateSettings()
    recreate.services = ["bot"]
    #expect(playbook.steps[6].settings == .recreate(recreate))
    var health = HealthSettings()
    health.service = "bot"
    health.probe = .http("http://localhost:8000/health")
    health.expectStatus = 200
    health.expectJSON = [
      JSONExpectation(path: ["status"], bound: .string("healthy")),
      JSONExpectation(path: ["last_poll_age_s"], bound: .below(30)),
    ]
    #expect(playbook.steps[7].settings == .health(health))
    var fromOutside = HealthSettings()
    fromOutside.probe = .url("https://bot.example.com/health")
    fromOutside.within = .seconds(30)
    #expect(playbook.steps[8].settings == .health(fromOutside))
    var run = RunSettings()
    run.script = "scripts/warm-up.sh"
    run.undo = "scripts/cool-down.sh"
    #expect(playbook.steps[9].settings == .run(run))
    #expect(playbook.steps[9].role == "app")
    #expect(playbook.steps[11].settings == .prune(PruneSettings()))
    #expect(playbook.steps[11].location == SourceLocation(file: "playbooks/deploy.yml", line: 14, column: 5))
  }
}

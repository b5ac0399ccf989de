import Diagnostics
import Inventory

/// A project in memory, in /p.
struct Sample {
  var files: [String: String] = [
    "/p/compose.yml": "services: {}\n", "/p/compose.prod.yml": "services: {}\n",
    "/p/env.template": "LOG_LEVEL=INFO\n", "/p/redis.conf": "\n", "/p/nginx/site.conf": "\n",
    "/p/scripts/warm-up.sh": "\n", "/p/scripts/cool-down.sh": "\n",
    "/p/inventories/prod.yml": Sample.inventory, "/p/playbooks/deploy.yml": Sample.playbook,
  ]

  static let inventory = """
    app: market-bot
    default: true
    hosts:
      bot-1: { address: 203.0.113.10, port: 22, user: deploy, roles: [app, db] }
    ssh:
      identity: ~/.ssh/prod
      known_hosts: known_hosts
    compose: compose.prod.yml
    env: { template: env.template, from: [flags, environment, vault, host, generated] }
    secrets: prod.secrets.yml
    services: { app: [bot], database: postgres, cache: redis }
    vars: { domain: bot.example.com }
    project: market-bot

    """

  static let playbook = #"""
    watch: 2m
    steps:
      - preflight: { disk_free: 2GiB, memory_free: 256MiB }
      - release: { files: [redis.conf, nginx/] }
      - env: {}
      - pull: {}
      - backup: { service: postgres, database: market, user: market, keep: { last: 7, days: 7 } }
      - migrate: { service: bot, up: [alembic, upgrade, head], revision: [alembic, current], down: [alembic, downgrade, "${revision}"], rollback: compatible, timeout: 10m }
      - recreate: { services: [bot], drain: { signal: SIGTERM, timeout: 30s } }
      - health: { service: bot, http: "http://localhost:8000/health", expect: { status: 200, json: { status: healthy, last_poll_age_s: { below: 30 } } }, within: 60s, stable: 5s }
      - health: { url: "https://${domain}/health", within: 30s }
      - run: { role: app, name: warm-up, script: scripts/warm-up.sh, undo: scripts/cool-down.sh }
      - commit: {}
      - prune: { releases: 5, images: true }

    """#

  var loader: ProjectLoader { ProjectLoader(files: .memory(files), startDirectory: "/p") }

  func load(
    _ environment: String? = "prod", playbook: String = "deploy", builtin: [String: String] = [:],
    version: String? = "v1.1.0",
    set: [String: String] = [:]
  ) throws -> LoadedProject {
    try loader.load(environment: environment, playbook: playbook, builtin: builtin, version: version, set: set)
  }

  /// The faults of loading, one per line: `file:line:col: error: message [help]`.
  func faults(_ environment: String? = "prod", playbook: String = "deploy", set: [String: String] = [:]) -> [String] {
    do {
      _ = try load(environment, playbook: playbook, set: set)
      return []
    } catch let error as ConfigurationError {
      return error.diagnostics.map(render)
    } catch {
      return ["not a ConfigurationError: \(error)"]
    }
  }
}

func render(_ diagnostic: Diagnostic) -> String {
  "\(diagnostic.location.map { "\($0): " } ?? "")\(diagnostic.severity): \(diagnostic.message)"
    + (diagnostic.help.map { " [\($0)]" } ?? "")
}

public import Diagnostics

/// An ordered list of steps, as the user wrote it in playbooks/NAME.yml (or the built-in one).
public struct Playbook: Sendable, Equatable {
  public var name: String
  /// How long the host goes on watching after the commit. Nil: not at all.
  public var watch: Duration?
  public var steps: [StepSpec]

  public init(name: String, watch: Duration? = nil, steps: [StepSpec]) {
    self.name = name
    self.watch = watch
    self.steps = steps
  }
}

/// One step of a playbook: what kind it is, its name (unique in the playbook, by default the kind's) and its settings.
public struct StepSpec: Sendable, Equatable {
  public var name: String
  public var role: String?
  public var settings: StepSettings
  public var location: SourceLocation?

  public init(name: String, role: String? = nil, settings: StepSettings, location: SourceLocation? = nil) {
    self.name = name
    self.role = role
    self.settings = settings
    self.location = location
  }

  public var kind: StepKindName { settings.kind }
}

/// The kinds of steps that a playbook may hold. The raw value is the key in the YAML.
public enum StepKindName: String, Sendable, CaseIterable, Codable {
  case preflight, release, env, pull, backup, migrate, recreate, health, run, commit, prune
  // Those that prepare a machine.
  case packages, user, directories, firewall, docker, sysctl, swap, time, updates, file, fail2ban
  case sshHardening = "ssh-hardening"
  case logRetention = "log-retention"
  case systemdUnit = "systemd-unit"
  case reverseProxy = "reverse-proxy"

  /// It prepares a machine: a step of the playbook `bootstrap`.
  public var preparesHost: Bool {
    switch self {
    case .preflight, .release, .env, .pull, .backup, .migrate, .recreate, .health, .run, .commit, .prune: false
    case .packages, .user, .directories, .firewall, .docker, .sysctl, .swap, .time, .updates, .file, .fail2ban,
      .sshHardening, .logRetention, .systemdUnit, .reverseProxy:
      true
    }
  }
}

public enum StepSettings: Sendable, Equatable {
  case preflight(PreflightSettings)
  case release(ReleaseSettings)
  case env(EnvSettings)
  case pull(PullSettings)
  case backup(BackupSettings)
  case migrate(MigrateSettings)
  case recreate(RecreateSettings)
  case health(HealthSettings)
  case run(RunSettings)
  case commit
  case prune(PruneSettings)
  case host(HostStepSettings)

  public var kind: StepKindName {
    switch self {
    case .preflight: .preflight
    case .release: .release
    case .env: .env
    case .pull: .pull
    case .backup: .backup
    case .migrate: .migrate
    case .recreate: .recreate
    case .health: .health
    case .run: .run
    case .commit: .commit
    case .prune: .prune
    case .host(let settings): settings.kind
    }
  }
}

public struct PreflightSettings: Sendable, Equatable {
  /// Bytes that must be free where images, backups and releases lie.
  public var diskFree: Int64 = 1 << 30
  /// Bytes of memory that must be available.
  public var memoryFree: Int64 = 128 << 20
  /// How much of the machine's memory the containers' limits may add up to, in percent.
  public var memoryCommit = MemoryPlan.allowedPercent
  public init() {}
}

public struct ReleaseSettings: Sendable, Equatable {
  /// Files and folders (trailing slash) of the project that travel with the release, relative to the project folder.
  public var files: [String] = []
  public init() {}
}

public struct EnvSettings: Sendable, Equatable {
  public init() {}
}

public struct PullSettings: Sendable, Equatable {
  public var timeout: Duration = .seconds(600)
  public init() {}
}

public struct BackupSettings: Sendable, Equatable {
  /// Compose service of the database; default: the inventory's `services.database`.
  public var service: String?
  /// Database and user; default: what the container's POSTGRES_DB and POSTGRES_USER say.
  public var database: String?
  public var user: String?
  public var keepLast: Int = 7
  public var keepDays: Int = 7
  public var timeout: Duration = .seconds(1800)
  public init() {}
}

public enum SchemaPolicy: String, Sendable, Codable, CaseIterable {
  /// The old code runs on the new schema: leave it.
  case compatible
  /// Run the down command to the recorded revision.
  case down
  /// Bring the restore point back by renaming databases.
  case restore
}

public struct MigrateSettings: Sendable, Equatable {
  public var service: String?
  public var up: [String] = []
  public var revision: [String] = []
  /// May hold `${revision}`.
  public var down: [String]?
  public var rollback: SchemaPolicy = .compatible
  public var timeout: Duration = .seconds(600)
  public var lockTimeout: Duration = .seconds(5)
  public init() {}
}

public struct RecreateSettings: Sendable, Equatable {
  /// Default: the inventory's `services.app`.
  public var services: [String] = []
  public var drainSignal: String = "SIGTERM"
  public var drainTimeout: Duration = .seconds(30)
  public init() {}
}

/// A bound on a JSON value: `healthy`, `true`, `200`, or `{ below: 30 }`, `{ above: 1 }`, `{ at_least: 1 }`, `{ at_most: 9 }`, `{ not: x }`.
public enum JSONBound: Sendable, Equatable {
  case string(String)
  case number(Double)
  case bool(Bool)
  case null
  case below(Double)
  case above(Double)
  case atLeast(Double)
  case atMost(Double)
  case notEqual(String)
}

public struct JSONExpectation: Sendable, Equatable {
  /// Member names from the root; an array element is its index.
  public var path: [String]
  public var bound: JSONBound
  public init(path: [String], bound: JSONBound) {
    self.path = path
    self.bound = bound
  }
}

public struct HealthSettings: Sendable, Equatable {
  public enum Probe: Sendable, Equatable {
    /// Asked inside the container of `service`.
    case http(String)
    /// Asked from the client, by libcurl.
    case url(String)
    /// Run inside the container of `service`; healthy when it exits 0.
    case exec([String])
    /// The container's own health check.
    case container
  }
  public var service: String?
  public var probe: Probe = .container
  public var expectStatus: Int?
  public var expectJSON: [JSONExpectation] = []
  public var within: Duration = .seconds(60)
  public var stable: Duration = .seconds(5)
  /// How many restarts of the container the gate forgives.
  public var restarts: Int = 0
  public init() {}
}

public struct RunSettings: Sendable, Equatable {
  /// Path of the script, relative to the project folder.
  public var script: String = ""
  public var undo: String?
  public var timeout: Duration = .seconds(600)
  public init() {}
}

public struct PruneSettings: Sendable, Equatable {
  public var releases: Int = 5
  public var images: Bool = true
  /// How long saved container logs are kept.
  public var logs: Duration = .seconds(7 * 86400)
  public init() {}
}

// What the commands answer: one Codable document each, printed as it is by `--json` (docs/json-output.md) and as text
// by Views. Members are written in snake_case. Times are UTC, RFC 3339; sizes bytes; durations seconds.

/// How well something runs.
public enum HealthState: String, Sendable, Codable, CaseIterable {
  case healthy
  /// The app answers, but something beside it doesn't (a restarting cache, a full disk).
  case degraded
  case unhealthy
  /// Nothing has been deployed.
  case absent
  case unreachable
}

// MARK: - status

public struct StatusDocument: Sendable, Equatable, Codable {
  public var environment: String
  public var app: String
  /// When this was looked at.
  public var checked: String
  public var hosts: [HostStatus]

  public init(environment: String, app: String, checked: String, hosts: [HostStatus] = []) {
    self.environment = environment
    self.app = app
    self.checked = checked
    self.hosts = hosts
  }
}

public struct HostStatus: Sendable, Equatable, Codable {
  public var host: String
  public var state: HealthState
  /// Since when, where that is known.
  public var since: String?
  /// Why it isn't healthy.
  public var reason: String?
  public var version: String?
  public var release: Int?
  public var schema: Schema?
  public var services: [ServiceStatus] = []
  public var lastDeployment: HistoryEntry?
  public var lock: LockHolder?
  /// A deployment that has not ended.
  public var openDeployment: Int?
  public var disks: [DiskStatus] = []
  /// What the host's proxy shows to visitors, by domain.
  public var certificates: [CertificateStatus] = []

  public struct Schema: Sendable, Equatable, Codable {
    public var revision: String
    public var policy: String?
    public init(revision: String, policy: String? = nil) {
      self.revision = revision
      self.policy = policy
    }
  }

  public init(host: String, state: HealthState) {
    self.host = host
    self.state = state
  }
}

public struct ServiceStatus: Sendable, Equatable, Codable {
  public var service: String
  /// Docker's word: `running`, `restarting`, `exited`, …; `missing` if there is no container.
  public var state: String
  /// The container's own health check: `healthy`, `unhealthy`, `starting`; nil: it has none.
  public var health: String?
  public var restarts: Int?
  public var outOfMemory: Bool?
  public var started: String?
  public var image: String?
  public init(service: String, state: String) {
    self.service = service
    self.state = state
  }
}

public struct DiskStatus: Sendable, Equatable, Codable {
  /// What lies there: `state`, `opt`, `docker`.
  public var holds: String
  public var path: String
  public var available: Int64
  public var size: Int64
  public init(holds: String, path: String, available: Int64, size: Int64) {
    self.holds = holds
    self.path = path
    self.available = available
    self.size = size
  }
}

public struct CertificateStatus: Sendable, Equatable, Codable {
  public var domain: String
  /// `acme`: it renews by itself; `given`.
  public var kind: String
  /// Nil: nothing answers.
  public var begins: String?
  public var expires: String?
  /// What visitors refuse, however long it is in force.
  public enum Fault: String, Sendable, Codable {
    /// The one that the host signs itself, until there is a real one.
    case temporary
    /// It is for other names.
    case other
  }
  public var fault: Fault?
  public init(domain: String, kind: String, begins: String? = nil, expires: String? = nil, fault: Fault? = nil) {
    self.domain = domain
    self.kind = kind
    self.begins = begins
    self.expires = expires
    self.fault = fault
  }
}

// MARK: - history

public struct HistoryDocument: Sendable, Equatable, Codable {
  public var environment: String
  public var app: String
  public var hosts: [Host]

  public struct Host: Sendable, Equatable, Codable {
    public var host: String
    /// The newest first.
    public var deployments: [HistoryEntry]
    public init(host: String, deployments: [HistoryEntry]) {
      self.host = host
      self.deployments = deployments
    }
  }

  public init(environment: String, app: String, hosts: [Host] = []) {
    self.environment = environment
    self.app = app
    self.hosts = hosts
  }
}

public struct HistoryEntry: Sendable, Equatable, Codable {
  public var number: Int
  public var command: String
  public var from: String?
  public var to: String?
  public var outcome: String
  public var healthy: Bool?
  /// Why it was undone, or what `--reason` said.
  public var reason: String?
  public var who: String?
  public var opened: String?
  public var closed: String?
  public var seconds: Double?
  public var downtimeMilliseconds: Int?
  public var restorePoint: String?
  public var skipped: [String] = []

  enum CodingKeys: String, CodingKey {
    case number, command, from, to, outcome, healthy, reason, who, opened, closed, seconds, restorePoint, skipped
    case downtimeMilliseconds = "downtimeMs"
  }

  public init(number: Int, command: String, outcome: String) {
    self.number = number
    self.command = command
    self.outcome = outcome
  }
}

// MARK: - lock

public struct LockDocument: Sendable, Equatable, Codable {
  public var environment: String
  public var app: String
  public var hosts: [Host]

  public struct Host: Sendable, Equatable, Codable {
    public var host: String
    public var locked: Bool
    public var holder: LockHolder?
    /// A deployment that has not ended. With `locked` false: whoever takes the lock next closes it first.
    public var openDeployment: Int?
    /// Age of the last sign of life of the client that holds it.
    public var heartbeatAge: Double?
    public init(host: String, locked: Bool) {
      self.host = host
      self.locked = locked
    }
  }

  public init(environment: String, app: String, hosts: [Host] = []) {
    self.environment = environment
    self.app = app
    self.hosts = hosts
  }
}

// MARK: - backups

public struct BackupsDocument: Sendable, Equatable, Codable {
  public var environment: String
  public var app: String
  public var host: String
  /// The newest first.
  public var backups: [BackupEntry]

  public init(environment: String, app: String, host: String, backups: [BackupEntry] = []) {
    self.environment = environment
    self.app = app
    self.host = host
    self.backups = backups
  }
}

/// A backup with its receipt.
public struct BackupEntry: Sendable, Equatable, Codable {
  public var name: String
  public var created: String?
  public var size: Int64
  public var sha256: String?
  public var database: String?
  /// Schema revision.
  public var revision: String?
  public var version: String?
  /// Deployment that took it.
  public var deployment: Int?
  /// It was read back completely after it was written.
  public var verified: Bool
  /// The release that needs it for its rollback: it isn't pruned.
  public var neededByRelease: Int?
  public init(name: String, size: Int64, verified: Bool) {
    self.name = name
    self.size = size
    self.verified = verified
  }
}

// MARK: - env

public struct EnvDocument: Sendable, Equatable, Codable {
  public var environment: String
  public var app: String
  public var host: String
  public var entries: [Entry]

  public struct Entry: Sendable, Equatable, Codable {
    public enum Difference: String, Sendable, Codable { case same, added, changed, removed }
    public var name: String
    public var secret: Bool
    /// `fixed`, `default`, `composed`, `memory`, `flags`, `environment`, `vault`, `host`, `generated`.
    public var origin: String?
    /// Never of a secret.
    public var value: String?
    /// Against the running release.
    public var difference: Difference?
    public init(name: String, secret: Bool, origin: String? = nil, value: String? = nil, difference: Difference? = nil)
    {
      self.name = name
      self.secret = secret
      self.origin = origin
      self.value = secret ? nil : value
      self.difference = difference
    }
  }

  public init(environment: String, app: String, host: String, entries: [Entry] = []) {
    self.environment = environment
    self.app = app
    self.host = host
    self.entries = entries
  }
}

// MARK: - doctor, health, inventory

public struct DoctorReport: Sendable, Equatable, Codable {
  public var environment: String?
  public var checks: [Check]
  public var isGood: Bool { !checks.contains { $0.state == .failed } }

  public struct Check: Sendable, Equatable, Codable {
    public enum State: String, Sendable, Codable { case passed, warning, failed, skipped }
    public var name: String
    public var host: String?
    public var state: State
    public var message: String
    /// What to do about it.
    public var remedy: String?
    public init(_ name: String, _ state: State, _ message: String, host: String? = nil, remedy: String? = nil) {
      self.name = name
      self.state = state
      self.message = message
      self.host = host
      self.remedy = remedy
    }
  }

  public init(environment: String? = nil, checks: [Check] = []) {
    self.environment = environment
    self.checks = checks
  }
}

public struct HealthDocument: Sendable, Equatable, Codable {
  public var environment: String
  public var app: String
  public var probes: [Probe]
  /// With `--after-boot`: how long after the machine's boot all was well.
  public var secondsAfterBoot: Double?
  /// Nothing asked is nothing known.
  public var isGood: Bool { !probes.isEmpty && probes.allSatisfy(\.healthy) }

  public struct Probe: Sendable, Equatable, Codable {
    public var host: String?
    public var service: String?
    /// What was asked: an address, a command, `container`.
    public var probe: String
    public var healthy: Bool
    /// The answer's status, where there was one.
    public var status: Int?
    public var seconds: Double?
    /// Why it isn't healthy, or the answer in short.
    public var message: String?
    public init(probe: String, healthy: Bool) {
      self.probe = probe
      self.healthy = healthy
    }
  }

  public init(environment: String, app: String, probes: [Probe] = []) {
    self.environment = environment
    self.app = app
    self.probes = probes
  }

  enum CodingKeys: String, CodingKey {
    case environment, app, probes
    case secondsAfterBoot = "seconds_after_boot"
  }
}

public struct InventoryDocument: Sendable, Equatable, Codable {
  public var environment: String
  public var app: String
  public var project: String
  public var isDefault: Bool
  public var compose: String
  public var hosts: [Host]
  public var services: Services
  public var envTemplate: String?
  public var vars: [String: String]

  public struct Host: Sendable, Equatable, Codable {
    public var name: String
    public var address: String
    public var port: Int?
    public var user: String?
    public var roles: [String]
    public init(name: String, address: String, port: Int? = nil, user: String? = nil, roles: [String] = []) {
      self.name = name
      self.address = address
      self.port = port
      self.user = user
      self.roles = roles
    }
  }
  public struct Services: Sendable, Equatable, Codable {
    public var app: [String]
    public var database: String?
    public var cache: String?
    public init(app: [String] = [], database: String? = nil, cache: String? = nil) {
      self.app = app
      self.database = database
      self.cache = cache
    }
  }

  public init(environment: String, app: String, project: String, compose: String) {
    self.environment = environment
    self.app = app
    self.project = project
    self.compose = compose
    isDefault = false
    hosts = []
    services = Services()
    vars = [:]
  }
}

/// Where the time of a command went that is no deployment (`--timings`): one of the documented members (docs/json-output.md).
public struct CommandTimings: Sendable, Equatable, Codable {
  public var host: String
  /// Nil: no connection was made.
  public var connect: ConnectTimings?
  /// After authentication, which brings a channel along: the command on it, then each exchange that was waited for.
  public var roundTrips: Int
  /// In all, with the connection.
  public var seconds: Double

  public init(host: String, connect: ConnectTimings?, flights: Int, seconds: Double) {
    self.host = host
    self.connect = connect
    roundTrips = 1 + flights
    self.seconds = seconds
  }
}

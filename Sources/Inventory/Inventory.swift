/// An environment: its hosts and settings, from inventories/ENV.yml.
public struct Inventory: Sendable, Equatable {
  public var environment: String
  public var app: String
  /// Names directories, units and the Compose project on the host. Default: `app`.
  public var project: String
  public var isDefault: Bool = false
  public var hosts: [HostEntry] = []
  public var ssh = SSHSettings()
  public var compose: String = "compose.yml"
  public var env = EnvSources()
  /// Path of the vault, relative to the inventory.
  public var secrets: String?
  public var services = ServiceRoles()
  /// How the services of the app share the memory that they have together, by name; 1 for those without.
  public var memoryWeights: [String: Int] = [:]
  public var vars: [String: String] = [:]
  public var registry: RegistrySettings?

  public init(environment: String, app: String, project: String? = nil) {
    self.environment = environment
    self.app = app
    self.project = project ?? app
  }
}

public struct HostEntry: Sendable, Equatable {
  public var name: String
  public var address: String
  /// Nil: from ssh's own configuration, else 22.
  public var port: Int?
  /// Nil: from ssh's own configuration.
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

public struct SSHSettings: Sendable, Equatable {
  public var identity: String?
  public var knownHosts: String?
  /// `SHA256:…`: the only host key that is accepted.
  public var hostKey: String?
  /// `[user@]host[:port]`, comma separated.
  public var proxyJump: String?
  public init() {}
}

public enum EnvSource: String, Sendable, CaseIterable, Codable { case flags, environment, vault, host, generated }

public struct EnvSources: Sendable, Equatable {
  /// Paths of the template and of what lies above it, relative to the project folder: later ones override. Empty: the release has no env file.
  public var templates: [String] = []
  public var from: [EnvSource] = EnvSource.allCases
  public init() {}
}

public struct ServiceRoles: Sendable, Equatable {
  public var app: [String] = []
  public var database: String?
  public var cache: String?
  public init() {}
}

/// Log-in to the image registry: the password is a value of the env's sources, by name; it is never written to a disk.
public struct RegistrySettings: Sendable, Equatable {
  public var server: String
  public var username: String
  /// Name of the variable or vault entry that holds the password.
  public var password: String
  public init(server: String, username: String, password: String) {
    self.server = server
    self.username = username
    self.password = password
  }
}

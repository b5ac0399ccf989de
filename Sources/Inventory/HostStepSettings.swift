/// Settings of the steps that prepare a machine (docs/bootstrap.md): those of the playbook `bootstrap`.
public enum HostStepSettings: Sendable, Equatable {
  /// Packages of the distribution, beside those that the other steps need.
  case packages(install: [String])
  /// The account that deploys: the inventory's `user`. Keys nil: those of whoever bootstraps.
  case user(keys: [String]?)
  case directories
  case sshHardening(SSHHardeningSettings)
  /// `80/tcp`, beside the ports where sshd listens.
  case firewall(allow: [String], revert: Duration)
  case docker(DockerSettings)
  case sysctl(values: [String: String])
  /// Bytes; 0: none.
  case swap(size: Int64)
  case time(zone: String)
  case updates
  case logRetention(days: Int, size: Int64)
  case systemdUnit
  case file(FileSettings)
  case reverseProxy(ReverseProxySettings)
  case fail2ban(Fail2banSettings)

  public var kind: StepKindName {
    switch self {
    case .packages: .packages
    case .user: .user
    case .directories: .directories
    case .sshHardening: .sshHardening
    case .firewall: .firewall
    case .docker: .docker
    case .sysctl: .sysctl
    case .swap: .swap
    case .time: .time
    case .updates: .updates
    case .logRetention: .logRetention
    case .systemdUnit: .systemdUnit
    case .file: .file
    case .reverseProxy: .reverseProxy
    case .fail2ban: .fail2ban
    }
  }

  /// It could cut the operator off: armed with a revert on the host, and proven over a new connection.
  public var isRisky: Bool {
    switch self {
    case .user, .sshHardening, .firewall: true
    default: false
    }
  }
}

public struct SSHHardeningSettings: Sendable, Equatable {
  /// Nil: as it is.
  public var port: Int?
  public var rootLogin = false
  /// How long the host waits for the proof before it goes back by itself.
  public var revert: Duration = .seconds(180)
  public init() {}
}

public struct DockerSettings: Sendable, Equatable {
  public enum LogDriver: String, Sendable, CaseIterable {
    case local, journald
    case jsonFile = "json-file"
  }
  public var logDriver: LogDriver = .journald
  public var liveRestore = true
  /// Where containers' networks get their addresses from; empty: Docker's own choice.
  public var addressPool = ""
  /// Where Docker's packages come from (a URL); empty: from the distribution, or from Docker where that has no Compose v2.
  public var repository = ""
  /// The fingerprint of the key that signs it; empty: Docker's.
  public var repositoryKey = ""
  public init() {}
}

public struct FileSettings: Sendable, Equatable {
  /// Of the project, relative to its folder.
  public var source = ""
  /// On the host.
  public var path = ""
  public var owner = "root"
  public var group = "root"
  public var mode = "0644"
  /// Its content is shown in no plan.
  public var isSecret = false
  public init() {}
}

public struct ReverseProxySettings: Sendable, Equatable {
  public enum Certificate: Sendable, Equatable {
    /// Fetched and renewed by ACME (RFC 8555). `authority`: PEM file of the project with the CA of the server itself.
    case acme(server: String, email: String?, authority: String?)
    /// PEM file of the project.
    case given(file: String, key: Key)
  }

  /// Where the private key of a given certificate comes from.
  public enum Key: Sendable, Equatable {
    /// Name of a variable or of an entry of the vault.
    case value(String)
    /// Path in the project.
    case file(String)
  }

  public enum Server: String, Sendable, CaseIterable {
    case nginx, caddy
  }

  public static let letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

  public var server: Server = .nginx
  public var domain = ""
  /// Further names of the same site.
  public var aliases: [String] = []
  /// Where the application listens.
  public var upstream = "127.0.0.1:8000"
  public var certificate: Certificate = .acme(server: letsEncrypt, email: nil, authority: nil)
  /// Requests a second and address; 0: without a limit, as always with Caddy.
  public var rateLimit = 50
  /// How long browsers insist on HTTPS; zero: not at all.
  public var hsts: Duration = .seconds(180 * 86400)
  /// Bytes of a request.
  public var maxBody: Int64 = 16 << 20
  /// How long the application may be silent.
  public var timeout: Duration = .seconds(60)
  /// A page of the project's own.
  public var maintenance: String?
  public init() {}
}

public struct Fail2banSettings: Sendable, Equatable {
  public var retries = 5
  /// In which the attempts count together.
  public var find: Duration = .seconds(600)
  public var ban: Duration = .seconds(3600)
  /// Addresses and networks that are never banned.
  public var ignore: [String] = []
  public init() {}
}

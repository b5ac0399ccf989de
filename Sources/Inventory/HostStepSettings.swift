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

public import Diagnostics

/// A private key to offer.
public enum SSHIdentity: Sendable, Equatable {
  /// A private key file. With a `.pub` file beside it, the private one is opened only if the host wants this key.
  case file(path: String)
  /// The text of a private key, for instance from a CI variable. CRLF line ends, a missing last newline and literal `\n`
  /// are put right. `name` is what messages call it.
  case key(Secret, name: String)
}

/// Everything that `SSHSession.connect` needs to know. Nothing else is read: no ssh_config (see `OpenSSHConfiguration`),
/// no environment but `SSH_AUTH_SOCK` if `agent` is set.
public struct SSHConfiguration: Sendable {
  /// How messages call the host; also the name that is looked up in known_hosts unless `hostKeyAlias` or `address` say else.
  public var host: String
  /// The name or address to connect to.
  public var address: String
  public var port: UInt16
  public var user: String
  public var identities: [SSHIdentity]
  /// Whether the keys of the agent at `SSH_AUTH_SOCK` are offered.
  public var agent: Bool
  /// Another socket than `SSH_AUTH_SOCK`.
  public var agentSocket: String?
  /// Only `identities` are offered; the agent is asked for those alone.
  public var identitiesOnly: Bool
  /// known_hosts files, read in this order; one that doesn't exist counts as empty.
  public var knownHostsFiles: [String]
  /// `SHA256:…`: the one key that is accepted; known_hosts files are then not asked.
  public var pinnedHostKey: String?
  /// The name to look up in known_hosts instead of `address` (ssh_config: HostKeyAlias).
  public var hostKeyAlias: String?
  /// Jump hosts, the nearest first. Their own `jumps` are ignored.
  public var jumps: [SSHConfiguration]
  /// For name look-up, TCP, handshake and authentication together, per hop; the time a person takes for a passphrase not counted.
  public var connectTimeout: Duration
  /// After this much silence of the host it is asked for a sign of life. libssh2 sends at most one in two seconds.
  public var keepaliveInterval: Duration
  /// After this much silence, although asked, the connection counts as lost. At least twice the interval is sensible.
  public var keepaliveSilence: Duration
  /// Asked for the passphrase of the key of this name or path; nil: give up this key.
  public var passphrase: (@Sendable (String) async -> Secret?)?
  /// What sessions share that belong together; nil: each reads and opens for itself.
  public var cache: SSHCache?

  public init(
    host: String, address: String? = nil, port: UInt16 = 22, user: String, identities: [SSHIdentity] = [],
    agent: Bool = true, agentSocket: String? = nil, identitiesOnly: Bool = false, knownHostsFiles: [String] = [],
    pinnedHostKey: String? = nil, hostKeyAlias: String? = nil, jumps: [SSHConfiguration] = [],
    connectTimeout: Duration = .seconds(15), keepaliveInterval: Duration = .seconds(5),
    keepaliveSilence: Duration = .seconds(15), passphrase: (@Sendable (String) async -> Secret?)? = nil,
    cache: SSHCache? = nil
  ) {
    self.host = host
    self.address = address ?? host
    self.port = port
    self.user = user
    self.identities = identities
    self.agent = agent
    self.agentSocket = agentSocket
    self.identitiesOnly = identitiesOnly
    self.knownHostsFiles = knownHostsFiles
    self.pinnedHostKey = pinnedHostKey
    self.hostKeyAlias = hostKeyAlias
    self.jumps = jumps
    self.connectTimeout = connectTimeout
    self.keepaliveInterval = keepaliveInterval
    self.keepaliveSilence = keepaliveSilence
    self.passphrase = passphrase
    self.cache = cache
  }
}

/// How a remote command ended.
public enum SSHExit: Sendable, Equatable {
  case status(Int)
  /// Killed by a signal (`KILL`, `TERM`, without `SIG`). Never a success.
  case signal(name: String, coreDumped: Bool, message: String)
  /// The channel was closed and neither a status nor a signal was sent. Never a success.
  case missing

  public var isSuccess: Bool { self == .status(0) }
}

/// A piece of output as it arrived.
public enum SSHChunk: Sendable, Equatable {
  case stdout([UInt8])
  case stderr([UInt8])

  public var bytes: [UInt8] {
    switch self {
    case .stdout(let bytes), .stderr(let bytes): bytes
    }
  }
}

/// What `SSHSession.run` brings back.
public struct SSHResult: Sendable, Equatable {
  public var stdout: [UInt8]
  public var stderr: [UInt8]
  public var exit: SSHExit
  /// More was written than the caller's limit; the rest was read and dropped.
  public var truncated: Bool

  public var text: String { String(decoding: stdout, as: UTF8.self) }
  public var errorText: String { String(decoding: stderr, as: UTF8.self) }
}

/// A terminal's size and kind, for `SSHSession.shell`.
public struct SSHTerminal: Sendable, Equatable {
  public var type: String
  public var columns: Int
  public var rows: Int

  public init(type: String = "xterm-256color", columns: Int = 80, rows: Int = 24) {
    self.type = type
    self.columns = columns
    self.rows = rows
  }
}

/// Where the time of a session went, and how many exchanges it has cost.
public struct SSHTimings: Sendable, Equatable {
  /// Name look-up and TCP (or the channel through the jump host).
  public var tcp: Duration = .zero
  /// Banner and key exchange.
  public var keyExchange: Duration = .zero
  public var authentication: Duration = .zero
  /// Requests that waited for an answer of the host, the connection's own among them: TCP 1, banner and key exchange 2,
  /// authentication 2 per accepted key (1 per refused one), 1 per channel opened behind the first, 1 per request on it. What the
  /// consumer of a channel asks in its own protocol isn't seen here.
  public var roundTrips: Int = 0
  /// Bytes on the wire, encrypted, with all overhead.
  public var bytesSent: UInt64 = 0
  public var bytesReceived: UInt64 = 0
}

/// What went wrong with a connection, as something that code can act upon: match `code`, show `message`.
public struct SSHError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The kinds of fault. More may be added: a `switch` over them needs a `default`.
  public struct Code: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }
    public var description: String { rawValue }

    /// No address, no route, connection refused.
    public static let unreachable = Code(rawValue: "unreachable")
    /// A deadline has passed. After `connect` nothing is open; after an operation the session is still usable.
    public static let timeout = Code(rawValue: "timeout")
    /// The connection was there and is gone: reset, closed by the host, or silent for longer than `keepaliveSilence`.
    public static let connectionLost = Code(rawValue: "connection-lost")
    /// No known_hosts file names this host (with a key of this type). `hostKey` says which key it showed.
    public static let hostKeyUnknown = Code(rawValue: "host-key-unknown")
    /// Another key is known for this host: somebody listens in, or the host was installed anew.
    public static let hostKeyChanged = Code(rawValue: "host-key-changed")
    /// The key that the host showed is marked `@revoked`.
    public static let hostKeyRevoked = Code(rawValue: "host-key-revoked")
    /// The host refused every key that was offered.
    public static let authenticationFailed = Code(rawValue: "authentication-failed")
    /// The host is reachable, and refuses another channel or request (MaxSessions, no such subsystem, forwarding off).
    public static let channelOpenFailed = Code(rawValue: "channel-open-failed")
    /// The channel was closed, by this side or by the host, before the operation was done.
    public static let channelClosed = Code(rawValue: "channel-closed")
    /// What the host says isn't what the protocol allows, or no algorithm is common to both sides.
    public static let protocolFault = Code(rawValue: "protocol-fault")
    /// A key file that can't be read or isn't a private key that this module knows.
    public static let keyUnreadable = Code(rawValue: "key-unreadable")
    /// The key is encrypted and no passphrase, or a wrong one, was given.
    public static let passphraseNeeded = Code(rawValue: "passphrase-needed")
    /// `upload` or `download`: the remote command failed; `message` holds what it said.
    public static let remoteFailure = Code(rawValue: "remote-failure")
    /// The task that waited was cancelled.
    public static let cancelled = Code(rawValue: "cancelled")
    /// A file of this side (known_hosts) or a value of the configuration can't be used.
    public static let configuration = Code(rawValue: "configuration")
  }

  /// What is known about the key of a host that was refused.
  public struct HostKey: Sendable, Equatable {
    /// `SHA256:` and unpadded base64, as `ssh-keygen -l` prints it: the key that the host has shown.
    public var fingerprint: String
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`, …
    public var keyType: String
    /// `file:line` of the known_hosts entry that disagrees or revokes.
    public var knownAt: String?
    /// The fingerprint that was expected.
    public var expected: String?
    /// The line that would make the key known; to be added only after the fingerprint was compared over another channel.
    public var knownHostsLine: String?
  }

  public var code: Code
  /// What happened, in one line, for a person.
  public var message: String
  /// The host's alias, as it stands in the configuration.
  public var host: String?
  /// More about it: addresses tried, keys offered, lines of known_hosts that were skipped.
  public var detail: String?
  public var hostKey: HostKey?

  public init(
    _ code: Code, _ message: String, host: String? = nil, detail: String? = nil, hostKey: HostKey? = nil
  ) {
    self.code = code
    self.message = message
    self.host = host
    self.detail = detail
    self.hostKey = hostKey
  }

  public var description: String {
    var text = host.map { "\($0): \(message)" } ?? message
    if let detail { text += " (\(detail))" }
    return text
  }
}

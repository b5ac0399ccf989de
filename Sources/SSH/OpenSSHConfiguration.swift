/// What `ssh -G HOST` says about a host: ssh_config(5) as OpenSSH itself resolves it. Running ssh is the caller's business; this
/// reads its output and expands what ssh leaves as it is (`~`, `%h`, … in identity files).
public struct OpenSSHConfiguration: Sendable, Equatable {
  /// One station of ProxyJump. Each may have a configuration of its own: ask `ssh -G` again.
  public struct Jump: Sendable, Equatable {
    public var host: String
    public var user: String?
    public var port: UInt16?
  }

  /// The name that was asked for.
  public var host: String
  public var hostName: String
  public var port: UInt16
  public var user: String
  /// In order; ssh lists its default names whether the files exist or not.
  public var identityFiles: [String]
  public var identitiesOnly: Bool
  /// The nearest first.
  public var jumps: [Jump]
  /// The user's files, then the system's.
  public var knownHostsFiles: [String]
  public var hostKeyAlias: String?
  /// nil: `SSH_AUTH_SOCK`.
  public var agentSocket: String?
  /// `IdentityAgent none`
  public var usesAgent: Bool
  /// A ProxyCommand, which this module doesn't run: say so to the user.
  public var proxyCommand: String?

  /// - Parameters:
  ///   - output: what `ssh -G host` wrote to stdout.
  ///   - home: the user's home directory, for `~` and `%d`.
  ///   - localUser: for `%u`, and the remote name if none is given.
  public init(host: String, output: String, home: String, localUser: String) {
    var values: [String: [String]] = [:]
    for line in output.split(whereSeparator: \.isNewline) {
      let parts = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
      guard parts.count == 2 else { continue }
      values[parts[0].lowercased(), default: []].append(Self.trimmed(parts[1]))
    }
    func first(_ key: String) -> String? { values[key]?.first }
    func given(_ key: String) -> String? { first(key).flatMap { $0 == "none" ? nil : $0 } }

    self.host = host
    hostName = first("hostname") ?? host
    port = first("port").flatMap { UInt16($0) } ?? 22
    user = first("user") ?? localUser
    identitiesOnly = first("identitiesonly") == "yes"
    hostKeyAlias = given("hostkeyalias")
    jumps = given("proxyjump").flatMap(Self.jumps) ?? []
    proxyCommand = jumps.isEmpty ? given("proxycommand") : nil
    let tokens: [Character: String] = [
      "%": "%", "d": home, "h": hostName, "n": host, "k": hostKeyAlias ?? host, "p": String(port), "r": user,
      "u": localUser,
    ]
    func expand(_ path: String) -> String { Self.expand(path, home, tokens) }
    identityFiles = (values["identityfile"] ?? []).filter { $0 != "none" }.map { expand(Self.unquoted($0)) }
    knownHostsFiles = ["userknownhostsfile", "globalknownhostsfile"]
      .flatMap { Self.words(first($0) ?? "") }.filter { $0 != "none" }.map(expand)
    let agent = first("identityagent")
    usesAgent = agent != "none"
    agentSocket = agent == nil || agent == "none" || agent == "SSH_AUTH_SOCK" ? nil : expand(agent!)
  }

  /// What `ssh -G` prints where no configuration file decides anything (OpenSSH 9.2), in the parts that are read here.
  public init(defaultsFor host: String, home: String, localUser: String) {
    let keys = ["rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk"].map { "identityfile ~/.ssh/id_\($0)\n" }.joined()
    let files = """
      userknownhostsfile ~/.ssh/known_hosts ~/.ssh/known_hosts2
      globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
      """
    self.init(host: host, output: keys + files, home: home, localUser: localUser)
  }

  /// A configuration for `SSHSession.connect`. `jumps`: those of this one, resolved by the caller.
  public func configuration(jumps: [SSHConfiguration] = []) -> SSHConfiguration {
    SSHConfiguration(
      host: host, address: hostName, port: port, user: user, identities: identityFiles.map { .file(path: $0) },
      agent: usesAgent, agentSocket: agentSocket, identitiesOnly: identitiesOnly, knownHostsFiles: knownHostsFiles,
      hostKeyAlias: hostKeyAlias, jumps: jumps)
  }

  /// `user@host:port,[2001:db8::1]:22,ssh://host` (ssh_config(5), ProxyJump); nil: it isn't.
  public static func jumps(_ text: String) -> [Jump]? {
    var jumps: [Jump] = []
    for item in text.split(separator: ",", omittingEmptySubsequences: false) {
      var rest = trimmed(item)[...]
      if rest.hasPrefix("ssh://") { rest = rest.dropFirst(6) }
      if rest.hasSuffix("/") { rest = rest.dropLast() }
      var user: String?
      if let at = rest.lastIndex(of: "@") {
        user = String(rest[..<at])
        rest = rest[rest.index(after: at)...]
      }
      var digits: Substring?
      if rest.hasPrefix("["), let end = rest.lastIndex(of: "]") {
        let after = rest[rest.index(after: end)...]
        if after.hasPrefix(":") { digits = after.dropFirst() }
        rest = rest[rest.index(after: rest.startIndex)..<end]
      } else if let colon = rest.lastIndex(of: ":"), rest.firstIndex(of: ":") == colon {
        digits = rest[rest.index(after: colon)...]
        rest = rest[..<colon]
      }
      let port = digits.flatMap { UInt16($0) }
      guard !rest.isEmpty, digits == nil || (port ?? 0) > 0 else { return nil }
      jumps.append(Jump(host: String(rest), user: user, port: port))
    }
    return jumps
  }

  private static func expand(_ path: String, _ home: String, _ tokens: [Character: String]) -> String {
    var text = ""
    var rest = path[...]
    if rest == "~" || rest.hasPrefix("~/") {
      text = home
      rest = rest.dropFirst()
    }
    while let character = rest.popFirst() {
      if character == "%", let token = rest.first, let value = tokens[token] {
        text += value
        rest = rest.dropFirst()
      } else {
        text.append(character)
      }
    }
    return text
  }

  private static func trimmed(_ text: some StringProtocol) -> String {
    let spaces: (Character) -> Bool = { $0 == " " || $0 == "\t" }
    let start = text.drop(while: spaces)
    var end = start[...]
    while let last = end.last, spaces(last) { end = end.dropLast() }
    return String(end)
  }

  private static func unquoted(_ text: String) -> String {
    text.count >= 2 && text.hasPrefix("\"") && text.hasSuffix("\"") ? String(text.dropFirst().dropLast()) : text
  }

  /// Words, of which some may stand in double quotes.
  private static func words(_ text: String) -> [String] {
    var words: [String] = []
    var word: String?
    var quoted = false
    for character in text {
      if character == "\"" {
        quoted.toggle()
        word = word ?? ""
      } else if character == " " || character == "\t", !quoted {
        if let word { words.append(word) }
        word = nil
      } else {
        word = (word ?? "") + String(character)
      }
    }
    if let word { words.append(word) }
    return words
  }
}

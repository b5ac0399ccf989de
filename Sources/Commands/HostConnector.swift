internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory
internal import SSH
internal import Subprocess

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif
#if canImport(FoundationEssentials)
  internal import FoundationEssentials
#else
  internal import Foundation
#endif
#if canImport(System)
  internal import System
#else
  internal import SystemPackage
#endif

/// Makes connections to one host of the inventory: what the inventory says, else what ssh's own configuration says (`ssh -G`).
actor HostConnector {
  let entry: HostEntry
  private let inventory: Inventory
  private let projectRoot: String
  private let context: CommandContext
  private lazy var bundle = HostBundle { SHA256.hex($0) }
  private let cache: SSHCache
  private var configuration: SSHConfiguration?
  private var session: SSHSession?
  private(set) var timings: ConnectTimings?
  /// Bootstrap: the accounts to try, in this order, the first that lets us in; empty: the inventory's alone, and not as root.
  private var accounts: [String]
  private let emit: @Sendable (DeploymentEvent) -> Void

  /// - Parameters:
  ///   - accounts: the conversation is to be root's, by way of one of these.
  ///   - cache: the keys that are open already, where there are several hosts.
  ///   - emit: is told of the first connection; of later ones tells whoever lost the one before.
  init(
    _ entry: HostEntry, inventory: Inventory, projectRoot: String, context: CommandContext, accounts: [String] = [],
    cache: SSHCache = SSHCache(), emit: @escaping @Sendable (DeploymentEvent) -> Void = { _ in }
  ) {
    self.emit = emit
    self.entry = entry
    self.inventory = inventory
    self.projectRoot = projectRoot
    self.context = context
    self.accounts = accounts
    self.cache = cache
  }

  /// An authenticated session; the one that stands is used again while it lives.
  func connect() async throws -> SSHSession {
    if let session, await session.fault == nil { return session }
    let configuration = try await resolved()
    let clock = ContinuousClock()
    let began = clock.now
    let isFirst = timings == nil
    if isFirst { emit(.connecting(host: entry.name, address: entry.address)) }
    do {
      let fresh = try await firstAccount(configuration)
      session = fresh
      let measured = await fresh.timings
      let made = ConnectTimings(
        total: (clock.now - began).seconds, tcp: measured.tcp.seconds, handshake: measured.keyExchange.seconds,
        authentication: measured.authentication.seconds)
      timings = made
      if isFirst { emit(.connected(host: entry.name, timings: made)) }
      return fresh
    } catch {
      throw Self.explain(error, host: entry, user: configuration.user)
    }
  }

  /// Of the accounts, the first that lets us in; it comes first from then on.
  private func firstAccount(_ configuration: SSHConfiguration) async throws(SSHError) -> SSHSession {
    var configuration = configuration
    for (index, account) in accounts.enumerated() {
      configuration.user = account
      do throws(SSHError) {
        let session = try await SSHSession.connect(configuration)
        accounts.insert(accounts.remove(at: index), at: 0)
        return session
      } catch {
        guard error.code == .authenticationFailed, index + 1 < accounts.count else { throw error }
      }
    }
    return try await SSHSession.connect(configuration)
  }

  /// Proves that a new connection gets in as the inventory's user, and may become root.
  func reach() async throws {
    let configuration = try await resolved()
    do {
      let session = try await SSHSession.connect(configuration)
      let result = try await session.run("sudo -n true", deadline: .seconds(30))
      await session.close()
      guard result.exit == .status(0) else {
        throw OrchestrateError(
          .authentication, "\(configuration.user) gets in, but can't become root by sudo -n", host: entry.name,
          cause: String(decoding: result.stderr, as: UTF8.self))
      }
    } catch let error as SSHError {
      throw Self.explain(error, host: entry, user: configuration.user)
    }
  }

  /// The conversation with the host's side of the product, on a channel of its own.
  ///
  /// - Parameter asking: requests of a line each that travel with the command.
  func attach(asking: [String] = []) async throws -> Attachment {
    let session = try await connect()
    let command =
      accounts.isEmpty
      ? bundle.command(project: inventory.project, asking: asking)
      : bundle.command(
        project: HostPaths.bootstrapProject, asking: asking, preparation: accounts[0] == "root" ? .asRoot : .bySudo)
    do {
      let channel = try await session.open(command)
      let attachment = Attachment(
        host: entry.name, channel: SSHByteChannel(channel: channel, host: entry), bundle: bundle, asked: asking)
      await attachment.start()
      return attachment
    } catch {
      self.session = nil
      throw Self.explain(error, host: entry, user: configuration?.user ?? "")
    }
  }

  func close() async {
    await session?.close()
    session = nil
  }

  // MARK: - Configuration

  private func resolved() async throws -> SSHConfiguration {
    if let configuration { return configuration }
    let openSSH = await openSSH(entry.address)
    let jumps = try await stations(of: jumpHosts(openSSH), before: openSSH, depth: 0)
    var made = openSSH.configuration(jumps: jumps)
    if let port = entry.port { made.port = UInt16(port) }
    if let user = entry.user { made.user = user }
    made.pinnedHostKey = inventory.ssh.hostKey
    equip(&made, openSSH: openSSH)
    configuration = made
    return made
  }

  /// The hosts on the way, the nearest first. The nearest one may have a way of its own, as with ssh(1).
  private func stations(
    of jumps: [OpenSSHConfiguration.Jump], before target: OpenSSHConfiguration, depth: Int
  ) async throws -> [SSHConfiguration] {
    if jumps.isEmpty, let command = target.proxyCommand {
      throw OrchestrateError(
        .unreachable,
        "ssh's configuration asks for a ProxyCommand for \(target.host), which isn't supported: \(command)",
        host: entry.name, remedy: "use ProxyJump, or ssh: { proxy_jump: … } in the inventory")
    }
    guard depth < 8 else {
      throw OrchestrateError(
        .unreachable, "ssh's configuration leads in a circle: \(target.host) is reached by way of itself",
        host: entry.name, remedy: "ssh -G \(target.host) | grep proxyjump")
    }
    var stations: [SSHConfiguration] = []
    for (index, jump) in jumps.enumerated() {
      let known = await openSSH(jump.host)
      if index == 0 { stations += try await self.stations(of: known.jumps, before: known, depth: depth + 1) }
      var station = known.configuration()
      if let user = jump.user { station.user = user }
      if let port = jump.port { station.port = port }
      equip(&station, openSSH: known)
      stations.append(station)
    }
    return stations
  }

  /// Keys, agent, known_hosts and passphrases: the inventory's, else ssh's own.
  private func equip(_ configuration: inout SSHConfiguration, openSSH: OpenSSHConfiguration) {
    if let knownHosts = inventory.ssh.knownHosts { configuration.knownHostsFiles = [path(knownHosts)] }
    if let key = context.environment["ORCHESTRATE_SSH_KEY"], !key.isEmpty {
      configuration.identities = [.key(Secret(key), name: "ORCHESTRATE_SSH_KEY")]
      configuration.agent = false
    } else if let identity = inventory.ssh.identity {
      configuration.identities = [.file(path: path(identity))]
    }
    configuration.connectTimeout = .seconds(15)
    if context.isInteractive {
      let ask = context.readSecret
      configuration.passphrase = { name in await ask("Passphrase for \(name): ") }
    }
    configuration.cache = cache
  }

  private func jumpHosts(_ openSSH: OpenSSHConfiguration) throws -> [OpenSSHConfiguration.Jump] {
    guard let text = inventory.ssh.proxyJump else { return openSSH.jumps }
    guard let jumps = OpenSSHConfiguration.jumps(text) else {
      throw OrchestrateError(
        .configuration, "ssh: proxy_jump: `\(text)` is no way to a host", remedy: "[user@]host[:port], more with commas"
      )
    }
    return jumps
  }

  private var home: String { context.environment["HOME"] ?? "/root" }
  private var localUser: String { LocalAccount.current?.name ?? context.environment["USER"] ?? "root" }

  private func path(_ text: String) -> String {
    if text.hasPrefix("~/") { return home + text.dropFirst(1) }
    return text.hasPrefix("/") ? text : projectRoot + "/" + text
  }

  /// Looked up once: a command doesn't last that long.
  private static let filesDecide = OpenSSHFiles(home: LocalAccount.current?.home ?? "/root").mayDecide

  /// `ssh` on the PATH is the system's, which reads those files, and no wrapper that brings others; or there is none.
  private var hasUsualSSH: Bool {
    let folders = (context.environment["PATH"] ?? "/usr/bin:/bin").split(separator: ":")
    let first = folders.first { access("\($0)/ssh", X_OK) == 0 }
    return first.map { ["/usr/bin", "/bin"].contains($0) } ?? true
  }

  /// What ssh itself would use; its defaults where there is no ssh, or its files leave it at them.
  private func openSSH(_ alias: String) async -> OpenSSHConfiguration {
    let defaults = OpenSSHConfiguration(defaultsFor: alias, home: home, localUser: localUser)
    guard Self.filesDecide || !hasUsualSSH else { return defaults }
    var child: [Environment.Key: String] = [:]
    for (key, value) in context.childEnvironment { child[Environment.Key(stringLiteral: key)] = value }
    let result = try? await Subprocess.run(
      .name("ssh"), arguments: ["-G", "--", alias], environment: .custom(child), output: .string(limit: 1 << 20),
      error: .discarded)
    guard let result, result.terminationStatus.isSuccess else { return defaults }
    return OpenSSHConfiguration(host: alias, output: result.standardOutput, home: home, localUser: localUser)
  }

  // MARK: - Errors

  static func explain(_ error: SSHError, host: HostEntry, user: String) -> OrchestrateError {
    let place = "\(host.name) (\(host.address)\(host.port.map { ":\($0)" } ?? ""))"
    var result = OrchestrateError(.unreachable, "\(place): \(error.message)", host: host.name, cause: error.detail)
    result.state = "nothing was changed"
    switch error.code {
    case .hostKeyUnknown:
      result.code = .hostKey
      if let line = error.hostKey?.knownHostsLine {
        result.cause = [error.detail, "the line for known_hosts:", line].compactMap { $0 }.joined(separator: "\n")
      }
      result.remedy = "compare the fingerprint with the host's own, then add the line to known_hosts"
    case .hostKeyChanged, .hostKeyRevoked:
      result.code = .hostKey
      result.remedy =
        "if the host was made anew, remove the old line from known_hosts; if not, somebody may be in between"
    case .authenticationFailed, .keyUnreadable, .passphraseNeeded:
      result.code = .authentication
      result.remedy = "is the key on the host, for the user \(user)? orchestrate doctor tells which keys were offered"
    default:
      result.remedy = "is the host up, and the address right? orchestrate doctor"
    }
    return result
  }
}

/// An exec channel of SSH as the engine's byte channel.
struct SSHByteChannel: ByteChannel {
  let channel: SSHChannel
  let host: HostEntry

  func write(_ bytes: [UInt8]) async throws {
    do throws(SSHError) { try await channel.write(bytes) } catch { throw Self.explain(error, host: host) }
  }

  func read() async throws -> ByteChunk? {
    do throws(SSHError) {
      switch try await channel.read() {
      case .stdout(let bytes): return .output(bytes)
      case .stderr(let bytes): return .error(bytes)
      case nil: return nil
      }
    } catch { throw Self.explain(error, host: host) }
  }

  /// A connection that stood and broke: what is true on the host now, only the caller can say.
  static func explain(_ error: SSHError, host: HostEntry) -> OrchestrateError {
    OrchestrateError(
      .unreachable, "\(host.name) (\(host.address)): \(error.message)", host: host.name, cause: error.detail,
      remedy: "is the host up, and the network? orchestrate doctor")
  }

  func close() async { await channel.close() }
}

extension Duration {
  var seconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}

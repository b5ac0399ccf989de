internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory
internal import SSH
internal import Subprocess

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
  private let bundle: HostBundle
  private var configuration: SSHConfiguration?
  private var session: SSHSession?
  private(set) var timings: ConnectTimings?

  init(_ entry: HostEntry, inventory: Inventory, projectRoot: String, context: CommandContext) {
    self.entry = entry
    self.inventory = inventory
    self.projectRoot = projectRoot
    self.context = context
    bundle = HostBundle { SHA256.hex($0) }
  }

  /// An authenticated session; the one that stands is used again while it lives.
  func connect() async throws -> SSHSession {
    if let session, await session.fault == nil { return session }
    let configuration = try await resolved()
    let clock = ContinuousClock()
    let began = clock.now
    do {
      let fresh = try await SSHSession.connect(configuration)
      session = fresh
      let measured = await fresh.timings
      timings = ConnectTimings(
        total: (clock.now - began).seconds, tcp: measured.tcp.seconds, handshake: measured.keyExchange.seconds,
        authentication: measured.authentication.seconds)
      return fresh
    } catch {
      throw Self.explain(error, host: entry, user: configuration.user)
    }
  }

  /// The conversation with the host's side of the product, on a channel of its own.
  func attach() async throws -> Attachment {
    let session = try await connect()
    do {
      let channel = try await session.open(bundle.command(project: inventory.project))
      let attachment = Attachment(host: entry.name, channel: SSHByteChannel(channel: channel), bundle: bundle)
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

  var roundTrips: Int { get async { await session?.timings.roundTrips ?? 0 } }

  // MARK: - Configuration

  private func resolved() async throws -> SSHConfiguration {
    if let configuration { return configuration }
    let openSSH = await openSSHConfiguration(alias: entry.address)
    let home = context.environment["HOME"] ?? "/root"
    var made = SSHConfiguration(
      host: entry.address, address: openSSH?.hostName ?? entry.address, port: UInt16(entry.port ?? Int(openSSH?.port ?? 22)),
      user: entry.user ?? openSSH?.user ?? context.environment["USER"] ?? "root")
    made.pinnedHostKey = inventory.ssh.hostKey
    made.hostKeyAlias = openSSH?.hostKeyAlias
    if let knownHosts = inventory.ssh.knownHosts {
      made.knownHostsFiles = [path(knownHosts, home: home)]
    } else {
      made.knownHostsFiles = openSSH?.userKnownHostsFiles ?? ["\(home)/.ssh/known_hosts"]
    }
    if let key = context.environment["ORCHESTRATE_SSH_KEY"], !key.isEmpty {
      made.identities = [.key(Secret(key), name: "ORCHESTRATE_SSH_KEY")]
      made.agent = false
    } else if let identity = inventory.ssh.identity {
      made.identities = [.file(path: path(identity, home: home))]
      made.agentSocket = context.environment["SSH_AUTH_SOCK"]
    } else {
      made.identities = (openSSH?.identityFiles ?? []).map { .file(path: $0) }
      made.agentSocket = context.environment["SSH_AUTH_SOCK"]
    }
    made.connectTimeout = .seconds(15)
    if context.isInteractive {
      let ask = context.readSecret
      made.passphrase = { name in await ask("Passphrase for \(name): ") }
    }
    configuration = made
    return made
  }

  private func path(_ text: String, home: String) -> String {
    if text.hasPrefix("~/") { return home + text.dropFirst(1) }
    return text.hasPrefix("/") ? text : projectRoot + "/" + text
  }

  /// What ssh itself would use; nil where there is no ssh.
  private func openSSHConfiguration(alias: String) async -> OpenSSHConfiguration? {
    var child: [Environment.Key: String] = [:]
    for (key, value) in context.childEnvironment { child[Environment.Key(stringLiteral: key)] = value }
    guard
      let result = try? await Subprocess.run(
        .name("ssh"), arguments: ["-G", alias], environment: .custom(child), output: .string(limit: 1 << 20),
        error: .discarded),
      result.terminationStatus.isSuccess
    else { return nil }
    return OpenSSHConfiguration(parsing: result.standardOutput, alias: alias, home: context.environment["HOME"] ?? "/root")
  }

  // MARK: - Errors

  static func explain(_ error: SSHError, host: HostEntry, user: String) -> OrchestrateError {
    let place = "\(host.name) (\(host.address)\(host.port.map { ":\($0)" } ?? ""))"
    var result = OrchestrateError(.unreachable, "\(place): \(error.message)", host: host.name, cause: error.detail)
    result.state = "nothing was changed"
    switch error.code {
    case .hostKeyUnknown:
      result.code = .hostKey
      result.remedy = "compare the fingerprint with the host's own, then add the key: orchestrate doctor shows the line"
    case .hostKeyChanged, .hostKeyRevoked:
      result.code = .hostKey
      result.remedy = "if the host was made anew, remove the old line from known_hosts; if not, somebody may be in between"
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

  func write(_ bytes: [UInt8]) async throws { try await channel.write(bytes) }

  func read() async throws -> ByteChunk? {
    switch try await channel.read() {
    case .stdout(let bytes): .output(bytes)
    case .stderr(let bytes): .error(bytes)
    case nil: nil
    }
  }

  func close() async { await channel.close() }
}

extension Duration {
  var seconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}

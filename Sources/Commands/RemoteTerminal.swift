internal import ArgumentParser
internal import Diagnostics
internal import SSH
internal import Views

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// This process's streams joined to a remote command's: a terminal of the host where a person sits at one here, else plain pipes.
enum RemoteTerminal {
  /// Runs a command (nil: the user's shell) and passes its exit status on as an `ExitCode`.
  ///
  /// - Parameter command: gets whether the remote side has a terminal.
  static func run(on connector: HostConnector, context: CommandContext, command: (_ terminal: Bool) -> String?)
    async throws
  {
    let terminal = context.isInteractive
    let session = try await connector.connect()
    let text = command(terminal)
    let channel: SSHChannel
    if terminal || text == nil {
      let size = terminalSize()
      channel = try await session.shell(
        text,
        terminal: SSHTerminal(
          type: context.environment["TERM"] ?? "xterm-256color", columns: size.columns, rows: size.rows))
    } else {
      channel = try await session.open(text!)
    }
    let status = try await join(channel, raw: terminal, context: context)
    await connector.close()
    throw ExitCode(status)
  }

  /// Runs a command without input and copies what it prints, secrets masked; throws `OrchestrateError` if it fails.
  static func stream(
    _ command: String, on connector: HostConnector, secrets: HostSecrets, context: CommandContext
  ) async throws {
    let session = try await connector.connect()
    let masker = Masker(try await secrets.values(session))
    var output = MaskingStream(masker), errors = MaskingStream(masker)
    let channel = try await session.open(command)
    await channel.sendEOF()
    while let chunk = try await channel.read() {
      switch chunk {
      case .stdout(let bytes): context.output.write(output.feed(bytes), to: .standardOutput)
      case .stderr(let bytes): context.output.write(errors.feed(bytes), to: .standardError)
      }
    }
    context.output.write(output.flush(), to: .standardOutput)
    context.output.write(errors.flush(), to: .standardError)
    let exit = try await channel.exit(deadline: .seconds(10))
    await connector.close()
    guard exit.isSuccess else { throw ExitCode(1) }
  }

  private static func join(_ channel: SSHChannel, raw: Bool, context: CommandContext) async throws -> Int32 {
    var saved = termios()
    let isRaw = raw && tcgetattr(0, &saved) == 0
    if isRaw {
      var mode = saved
      cfmakeraw(&mode)
      tcsetattr(0, TCSAFLUSH, &mode)
    }
    defer { if isRaw { tcsetattr(0, TCSAFLUSH, &saved) } }

    Signals.take(SIGWINCH) {
      let size = terminalSize()
      Task { await channel.resize(columns: size.columns, rows: size.rows) }
    }
    defer { Signals.release(SIGWINCH) }

    let (input, feed) = AsyncStream<[UInt8]>.makeStream()
    startThread {
      var buffer = [UInt8](repeating: 0, count: 32 * 1024)
      while true {
        let count = read(0, &buffer, buffer.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { break }
        feed.yield(Array(buffer[..<count]))
      }
      feed.finish()
    }
    let writer = Task {
      for await bytes in input { try await channel.write(bytes) }
      await channel.sendEOF()
    }
    defer { writer.cancel() }
    while let chunk = try await channel.read() {
      switch chunk {
      case .stdout(let bytes): _ = writeAll(bytes, to: 1)
      case .stderr(let bytes): _ = writeAll(bytes, to: 2)
      }
    }
    switch try await channel.exit(deadline: .seconds(10)) {
    case .status(let status): return Int32(status)
    case .signal(let name, _, let message):
      context.narrate("the remote command was killed by SIG\(name)\(message.isEmpty ? "" : ": \(message)")\n")
      return 255
    case .missing: return 255
    }
  }
}

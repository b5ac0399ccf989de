internal import ArgumentParser
internal import Diagnostics
internal import Inventory
internal import SSH
internal import Views

struct SSHCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ssh",
    abstract: "A shell on the host, or a command on one or all.",
    discussion: """
      The shell's or the command's exit status is passed on; 255 stands for faults of our own. On several hosts each line has the host's name before it,
      and the exit status is 0 if the command ended so on all of them, 255 if one couldn't be asked, else 1. Ctrl-C ends orchestrate, not the commands.

      Examples:
        orchestrate ssh prod
        orchestrate ssh prod bot-1
        orchestrate ssh prod -- docker ps
        orchestrate ssh prod --all-hosts -- uptime
        orchestrate ssh prod --role app --parallel 10 --fail-fast -- df -h /
      """)

  @Argument(help: "The environment.") var environment: String
  @Argument(help: "The host's name in the inventory. Default: the only one.") var hostName: String?
  @Argument(parsing: .postTerminator, help: "A command instead of a shell, behind --.") var command: [String] = []
  @Flag(help: "Run the command on all hosts.") var allHosts = false
  @Option(help: ArgumentHelp("Run the command on all hosts of this role.", valueName: "role")) var role: String?
  @Option(help: ArgumentHelp("So many hosts at a time.", valueName: "count")) var parallel = 64
  @Option(
    help: ArgumentHelp(
      "Give up a host on which the command hasn't ended by then, e.g. 30s. It isn't killed.", valueName: "duration"))
  var timeout: DurationArgument?
  @Flag(help: "Begin on no further host when one has failed.") var failFast = false
  @Option(help: ArgumentHelp("Begin on no further host when more than so many have failed.", valueName: "count"))
  var maxFailures: Int?
  @OptionGroup var global: GlobalOptions

  private var isFleet: Bool { allHosts || role != nil }

  func validate() throws {
    if isFleet {
      if command.isEmpty { throw ValidationError("on several hosts ssh needs a command behind --") }
      if hostName != nil || global.host != nil {
        throw ValidationError("one host, or --all-hosts and --role: not both")
      }
    } else if failFast || maxFailures != nil || timeout != nil {
      throw ValidationError("--fail-fast, --max-failures and --timeout are for --all-hosts and --role")
    }
    if parallel < 1 { throw ValidationError("--parallel \(parallel): at least 1") }
    if let maxFailures, maxFailures < 0 { throw ValidationError("--max-failures \(maxFailures): 0 or more") }
    if failFast, maxFailures != nil { throw ValidationError("--fail-fast is --max-failures 0: not both") }
  }

  func run() async throws {
    var options = global
    options.host = hostName ?? global.host
    let session = ProjectSession(options)
    let loaded = try session.loader.inventory(environment: environment)
    let text = command.isEmpty ? nil : command.joined(separator: " ")
    if let text, isFleet { return try await onFleet(text, session, loaded.inventory, root: loaded.project.root) }
    let host = try session.host(of: loaded.inventory)
    try await RemoteTerminal.run(
      on: HostConnector(host, inventory: loaded.inventory, projectRoot: loaded.project.root, context: session.context),
      context: session.context
    ) { _ in text }
  }

  private func onFleet(_ text: String, _ session: ProjectSession, _ inventory: Inventory, root: String) async throws {
    let hosts = try session.hosts(of: inventory, role: role)
    let report = FleetReport(hosts, output: session.context.output, isJSON: global.format(session.context) == .json)
    let fleet = Fleet(parallel: parallel, maxFailures: failFast ? 0 : maxFailures)
    let cache = SSHCache()
    let clock = ContinuousClock()
    let began = clock.now
    let endings = await fleet.run(hosts) { [timeout] host in
      let begun = clock.now
      let connector = HostConnector(
        host, inventory: inventory, projectRoot: root, context: session.context, cache: cache)
      let ending = await Self.run(text, on: connector, host, report, deadline: timeout?.duration)
      await report.close(host, ending, seconds: (clock.now - begun).seconds)
      return ending
    }
    await report.finish(hosts, endings, seconds: (clock.now - began).seconds)
    if endings.contains(where: { if case .fault = $0 { true } else { false } }) { throw ExitCode(255) }
    if endings.contains(where: { $0 != .exit(.status(0)) }) { throw ExitCode(1) }
  }

  private static func run(
    _ text: String, on connector: HostConnector, _ host: HostEntry, _ report: FleetReport, deadline: Duration?
  ) async -> Fleet.Ending {
    let end = deadline.map { ContinuousClock.now + $0 }
    func rest() -> Duration? { end.map { max(.zero, $0 - .now) } }
    var isBegun = false
    let ending: Fleet.Ending
    do {
      let session = try await connector.connect()
      if rest() == .zero { throw SSHError(.timeout, "not reached in time") }
      let channel = try await session.open(text, deadline: min(.seconds(30), rest() ?? .seconds(30)))
      isBegun = true
      await channel.sendEOF()
      while let chunk = try await channel.read(deadline: rest()) { await report.take(chunk, from: host) }
      ending = .exit(try await channel.exit(deadline: rest()))
    } catch let error as OrchestrateError {
      ending = .fault(error)
    } catch let error as SSHError where error.code == .timeout && deadline != nil {
      ending = .fault(
        OrchestrateError(
          .failed,
          isBegun
            ? "the command hasn't ended in time; it isn't killed" : "not reached in time; the command wasn't begun",
          host: host.name))
    } catch let error as SSHError {
      ending = .fault(SSHByteChannel.explain(error, host: host))
    } catch {
      ending = .fault(OrchestrateError(.internalFault, "\(error)", host: host.name))
    }
    await connector.close()
    return ending
  }
}

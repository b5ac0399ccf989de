internal import ArgumentParser
internal import Diagnostics
internal import Inventory
internal import Views

private func outputFormat(_ name: String) throws -> OutputFormat {
  if let format = OutputFormat(rawValue: name) { return format }
  throw ValidationError("\(name) is no output format; there are human, plain and json")
}

/// Options that every command has.
struct GlobalOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The project folder.", discussion: "Default: the nearest folder upwards that holds inventories/.",
      valueName: "dir"))
  var project: String?
  @Option(
    help: ArgumentHelp(
      "How to write: human, plain or json. Default: human on a terminal, plain elsewhere.", valueName: "format"),
    transform: outputFormat)
  var output: OutputFormat?
  @Flag(help: "The same as --output json.") var json = false
  @Flag(name: .shortAndLong, help: "Tell more: every line that the host prints.") var verbose = false
  @Option(help: ArgumentHelp("Only this host of the inventory.", valueName: "name")) var host: String?
  @Flag(help: "Print where the time went, and the round trips.") var timings = false

  func format(_ context: CommandContext) -> OutputFormat {
    if json { return .json }
    return output
      ?? (context.standardOutputIsTerminal && context.environment["CI", default: ""].isEmpty ? .human : .plain)
  }
}

/// Options of every command that writes to the host.
struct WriteOptions: ParsableArguments {
  @Flag(name: .shortAndLong, help: "Don't ask: plans that can't lose data go ahead.") var yes = false
  @Option(help: ArgumentHelp("Why, for the history and for whoever meets the lock.", valueName: "text")) var reason:
    String?
  @Option(help: ArgumentHelp("Wait so long for the lock, e.g. 10m.", valueName: "duration")) var lockWait:
    DurationArgument?
  @Option(
    help: ArgumentHelp(
      "How long the host waits for a sign of life from here before it finishes or undoes by itself.",
      valueName: "duration"))
  var lease: DurationArgument = DurationArgument(.seconds(60))
  @Flag(help: "Hand the deployment to the host and return; exit status 7 until `attach` tells the outcome.")
  var detach = false

  func validate() throws {
    guard lease.duration >= Self.shortestLease else {
      throw ValidationError("--lease: at least 3s, since the signs of life themselves take time")
    }
  }
  private static let shortestLease = Duration.seconds(3)
}

/// `10s`, `5m`, `1h`.
struct DurationArgument: ExpressibleByArgument {
  var duration: Duration
  init(_ duration: Duration) { self.duration = duration }
  init?(argument: String) {
    guard let duration = Duration(notation: argument) else { return nil }
    self.duration = duration
  }
  var defaultValueDescription: String { "\(duration.components.seconds)s" }
}

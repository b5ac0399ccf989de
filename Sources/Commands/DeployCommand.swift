internal import ArgumentParser
internal import Engine

struct DeployCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "deploy",
    abstract: "Move the environment to a version, as a transaction: it ends there, or stays where it was.",
    discussion: """
      Examples:
        orchestrate deploy prod v1.4.0
        orchestrate deploy prod v1.4.0 --yes --reason "hotfix for the parser"
        orchestrate deploy prod v1.4.0 --skip backup --lock-wait 10m

      Exit status: 0 done, 1 failed and nothing was changed, 3 failed and rolled back, 4 the rollback failed, 5 locked, 6 unreachable, 7 outcome unknown.
      """)

  @Argument(help: "The environment: a name of inventories/.") var environment: String
  @Argument(help: "The version to deploy; the compose file sees it as ${VERSION}.") var version: String
  @Option(help: ArgumentHelp("Leave this step out; recorded in the history. May be repeated.", valueName: "step"))
  var skip: [String] = []
  @Option(
    help: ArgumentHelp(
      "Also bring this service outside services.app up to the compose file. May be repeated.", valueName: "service"))
  var include: [String] = []
  @Option(
    name: .customLong("set"),
    help: ArgumentHelp("A variable of the playbook or a value of the env file.", valueName: "name=value"))
  var assignments: [String] = []
  @Flag(
    inversion: .prefixedNo,
    help: "Follow the watch behind the commit (`watch` in the playbook); else the host watches alone.") var follow =
    true
  @Flag(help: "Carry out a plan, or an undo, that can lose data.") var acceptDataLoss = false
  @OptionGroup var write: WriteOptions
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let set = try parseAssignments(assignments)
    var command = DeploymentCommand(
      global: global, write: write, environment: environment, playbook: "deploy", version: version, set: set, flags: set
    )
    command.follow = follow
    command.options.skip = Set(skip)
    command.options.include = Set(include)
    command.options.acceptDataLoss = acceptDataLoss
    try await command.run(.deploy(version: version))
  }

  func validate() throws {
    _ = try parseAssignments(assignments)
    try validateVersion(version)
  }
}

func parseAssignments(_ assignments: [String]) throws -> [String: String] {
  var set: [String: String] = [:]
  for assignment in assignments {
    guard let equals = assignment.firstIndex(of: "="), equals != assignment.startIndex else {
      throw ValidationError("--set \(assignment): expected name=value")
    }
    set[String(assignment[..<equals])] = String(assignment[assignment.index(after: equals)...])
  }
  return set
}

/// What a registry accepts as a tag: the version is one, in the user's compose file.
func isImageTag(_ text: String) -> Bool {
  guard (1...128).contains(text.utf8.count), let first = text.utf8.first, first != UInt8(ascii: "."),
    first != UInt8(ascii: "-")
  else { return false }
  return text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
}

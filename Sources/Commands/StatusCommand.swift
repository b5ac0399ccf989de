internal import ArgumentParser
internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Views

struct StatusCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "What runs, how well, and why not.",
    discussion: """
      Exit status: 0 whatever the state (`orchestrate health` fails on a bad one), 6 unreachable.

      Examples:
        orchestrate status
        orchestrate status prod --json
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let command = try ReadingCommand(global, environment: environment)
    let (report, masker) = try await command.converse(
      asking: command.reportQuestions + HostSecrets.questions(command.paths)
    ) { attachment in
      async let masker = command.masker(attachment)
      return (try await command.report(attachment), try await masker)
    }
    let document = StatusDocument(
      environment: command.inventory.environment, app: command.inventory.app, checked: Timestamp.now().description,
      hosts: [report.status])
    try command.answer(document, global, masker: masker) { document.text(width: $1, style: $0) }
  }
}

struct HistoryCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "history",
    abstract: "The deployments of an environment, the newest first.",
    discussion: """
      Examples:
        orchestrate history prod
        orchestrate history prod --json
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @Option(name: .shortAndLong, help: ArgumentHelp("How many.", valueName: "count")) var number = 20
  @OptionGroup var global: GlobalOptions

  func validate() throws {
    if number < 1 { throw ValidationError("--number \(number): at least 1") }
  }

  func run() async throws {
    let command = try ReadingCommand(global, environment: environment)
    let question = "get \(command.paths.state)/history.jsonl"
    let file = try await command.converse(asking: [question]) { try await $0.request(question).found }
    let document = HistoryDocument(
      environment: command.inventory.environment, app: command.inventory.app,
      hosts: [.init(host: command.host.name, deployments: Array(HistoryEntry.all(in: file ?? "").prefix(number)))])
    try command.answer(document, global) { document.text(width: $1, style: $0) }
  }
}

struct LockCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lock",
    abstract: "Who holds the lock, since when and why; --abort asks the holder to undo.",
    discussion: """
      A lock is never removed: the kernel frees it with its holder, and whoever takes it next closes what was left open.
      --abort waits 30 s for the end: the running step is never killed, and may take longer. Where the holder is gone, --abort closes what
      it left at once: undone, or finished if it was committed. A watch is ended, and what it watched stays.
      Exit status: 0 it has ended; 7 it hasn't yet, and `attach` follows it; 4 the undo failed; 1 it can't be aborted.

      Examples:
        orchestrate lock prod
        orchestrate lock prod --abort --reason "Grace's laptop is gone"
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @Flag(help: "Ask the running deployment to stop after its step and to undo.") var abort = false
  @Option(help: ArgumentHelp("Why, for the history.", valueName: "text")) var reason: String?
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let command = try ReadingCommand(global, environment: environment)
    let beat = "get \(command.paths.state)/heartbeat"
    let (report, heartbeat, fault) = try await command.converse(asking: command.reportQuestions + [beat]) {
      attachment in
      async let heartbeat = attachment.request(beat)
      let report = try await command.report(attachment)
      if abort, report.facts["locked"] == "1", let watched = report.holder?.watching {
        let ending = LockAbort(number: watched, reason: reason, attachment: attachment, command: command)
        let fault = try await ending.endWatch(of: report.holder?.version)
        return (try await command.report(attachment), try await heartbeat.found, fault)
      }
      guard abort, let number = Int(report.facts["open"]) else {
        return (report, try await heartbeat.found, OrchestrateError?.none)
      }
      let ending = LockAbort(number: number, reason: reason, attachment: attachment, command: command)
      let fault = try await ending.run(isRunning: report.facts["locked"] == "1")
      return (try await command.report(attachment), try await heartbeat.found, fault)
    }
    var host = LockDocument.Host(host: command.host.name, locked: report.facts["locked"] == "1")
    host.holder = report.holder
    host.openDeployment = Int(report.facts["open"])
    if host.openDeployment != nil { host.heartbeatAge = report.facts.age(ofBeat: heartbeat ?? "") }
    let document = LockDocument(environment: command.inventory.environment, app: command.inventory.app, hosts: [host])
    try command.answer(document, global) { document.text(width: $1, style: $0) }
    if let fault { throw fault }
  }
}

struct BackupsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backups",
    abstract: "The backups on the host with their receipts.",
    discussion: """
      Examples:
        orchestrate backups prod
        orchestrate backups prod --json
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let command = try ReadingCommand(global, environment: environment)
    let question = "query backups 0"
    let receipts = try await command.converse(asking: [question]) { try await $0.request(question).text }
    let entries = receipts.split(separator: "\n").compactMap { BackupEntry(receipt: $0) }
    let document = BackupsDocument(
      environment: command.inventory.environment, app: command.inventory.app, host: command.host.name,
      backups: entries.sorted { $0.name > $1.name })
    try command.answer(document, global) { document.text(width: $1, style: $0) }
  }
}

struct InventoryCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inventory",
    abstract: "The environment as its files describe it, without asking any host.",
    discussion: """
      Examples:
        orchestrate inventory
        orchestrate inventory prod --json
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let session = ProjectSession(global)
    let inventory = try session.loader.inventory(environment: environment).inventory
    var document = InventoryDocument(
      environment: inventory.environment, app: inventory.app, project: inventory.project, compose: inventory.compose)
    document.isDefault = inventory.isDefault
    document.hosts = inventory.hosts.map {
      .init(name: $0.name, address: $0.address, port: $0.port, user: $0.user, roles: $0.roles)
    }
    document.services = .init(
      app: inventory.services.app, database: inventory.services.database, cache: inventory.services.cache)
    document.envTemplate = inventory.env.templates.isEmpty ? nil : inventory.env.templates.joined(separator: ", ")
    document.vars = inventory.vars
    let context = session.context
    if global.format(context) == .json {
      context.payload(jsonValue(of: document).text() + "\n")
    } else {
      context.payload(document.text(width: 100, style: context.style))
    }
  }
}

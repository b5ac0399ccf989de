internal import ArgumentParser
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Views

struct DoctorCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract:
      "Check configuration, key, host key, host, Docker, disk, registry and clock, and say what to do about each.",
    discussion: """
      Exit status: 1 if something must be mended before a deploy.

      Examples:
        orchestrate doctor
        orchestrate doctor prod --json
      """)

  @Argument(help: "The environment. Default: the only inventory, or the one with `default: true`.") var environment:
    String?
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let context = CommandContext.current
    var report = DoctorReport(environment: environment)
    do {
      let command = try ReadingCommand(global, environment: environment)
      report.environment = command.inventory.environment
      report.checks.append(.init("inventory", .passed, "inventories/\(command.inventory.environment).yml is well"))
      checkPlaybook(command, &report)
      report.checks += VaultFile(command.inventory, root: command.loaded.project.root, context: context).examined()
      try await checkHost(command, &report)
    } catch let error as ConfigurationError {
      for fault in error.diagnostics {
        report.checks.append(
          .init(
            "configuration", .failed, (fault.location.map { "\($0): " } ?? "") + fault.message, remedy: fault.help))
      }
    }
    if global.format(context) == .json {
      context.payload(jsonValue(of: report).text() + "\n")
    } else {
      context.payload(
        report.text(width: context.standardOutputIsTerminal ? terminalSize().columns : 120, style: context.style))
    }
    if !report.isGood { throw ExitCode(1) }
  }

  private func checkPlaybook(_ command: ReadingCommand, _ report: inout DoctorReport) {
    do {
      let loaded = try command.session.load(
        environment: command.inventory.environment, playbook: "deploy", version: "v0")
      report.checks.append(.init("playbook", .passed, "deploy has \(loaded.playbook.steps.count) steps"))
      _ = try command.session.projectFiles(loaded)
      for warning in loaded.warnings {
        report.checks.append(.init("configuration", .warning, warning.message, remedy: warning.help))
      }
    } catch let error as ConfigurationError {
      for fault in error.diagnostics {
        report.checks.append(
          .init("playbook", .failed, (fault.location.map { "\($0): " } ?? "") + fault.message, remedy: fault.help))
      }
    } catch {
      let known = error as? OrchestrateError
      report.checks.append(.init("playbook", .failed, known?.summary ?? "\(error)", remedy: known?.remedy))
    }
  }

  private func checkHost(_ command: ReadingCommand, _ report: inout DoctorReport) async throws {
    let host = command.host.name
    let facts: HostFacts
    let registry: DoctorReport.Check?
    let certificates: [CertificateStatus]
    do {
      let questions = ["facts", "query certificates 0"]
      (facts, certificates, registry) = try await command.converse(asking: questions) { attachment in
        async let registry = Self.checkRegistry(command, attachment)
        async let facts = attachment.request(questions[0])
        async let certificates = attachment.request(questions[1])
        return (
          HostFacts(parsing: try await facts.text), CertificateStatus.all(in: try await certificates.text),
          try await registry
        )
      }
    } catch let error as OrchestrateError {
      let name = error.code == .hostKey ? "host key" : error.code == .authentication ? "key" : "connection"
      let cause = error.cause.map { "\n\($0)" } ?? ""
      report.checks.append(.init(name, .failed, error.summary + cause, host: host, remedy: error.remedy))
      return
    }
    let seconds = await command.connector.timings.map { ", connected in \(format3($0.total)) s" } ?? ""
    report.checks.append(.init("connection", .passed, "\(facts["user"]) on \(facts["os"])\(seconds)", host: host))
    report.checks.append(contentsOf: Self.judge(facts, host: host, now: Timestamp.now()))
    if let registry, !facts["docker_server"].isEmpty { report.checks.append(registry) }
    let environment = command.inventory.environment
    report.checks += certificates.map { Self.judge($0, environment: environment, host: host, now: Timestamp.now()) }
  }

  /// What visitors are shown, and how long still.
  static func judge(_ certificate: CertificateStatus, environment: String, host: String, now: Timestamp)
    -> DoctorReport.Check
  {
    let domain = certificate.domain, until = certificate.expires ?? ""
    let remedy =
      certificate.kind == "acme"
      ? "its renewal doesn't work: on the host, systemctl start certbot; journalctl -u certbot says why"
      : "put a new one into the project, then: orchestrate bootstrap \(environment)"
    switch certificate.standing(at: now) {
    case .absent:
      return .init(
        "certificate", .failed, "nobody answers for \(domain) on port 443", host: host,
        remedy:
          "on the host, systemctl status nginx; orchestrate bootstrap \(environment) --plan shows what has changed")
    case .refused(let fault):
      let what =
        fault == .temporary
        ? "a temporary one, which nobody trusts: the step reverse-proxy has not come to its end"
        : "that of another name"
      return .init(
        "certificate", .failed, "visitors of \(domain) are shown \(what)", host: host,
        remedy: "orchestrate bootstrap \(environment) --plan shows what has changed; without --plan it is mended")
    case .expired:
      return .init("certificate", .failed, "the one of \(domain) has expired: \(until)", host: host, remedy: remedy)
    case .late(let days):
      return .init(
        "certificate", .warning, "the one of \(domain) ends in \(days) days: \(until)", host: host, remedy: remedy)
    case .valid(let days):
      return .init("certificate", .passed, "the one of \(domain) ends in \(days) days: \(until)", host: host)
    }
  }

  /// Logs in from the host, as a pull does; nil: the inventory names no registry.
  private static func checkRegistry(_ command: ReadingCommand, _ attachment: Attachment) async throws
    -> DoctorReport.Check?
  {
    guard let registry = command.inventory.registry else { return nil }
    // A vault that doesn't open is a check of its own.
    let vault = try? command.session.vaultValues(command.inventory, root: command.loaded.project.root)
    let sources = [command.session.context.environment[registry.password], vault?[registry.password]]
    guard let password = sources.lazy.compactMap({ $0 }).first(where: { !$0.isEmpty }) else {
      return .init(
        "registry", .warning, "\(registry.server) wasn't asked: its password has no value here",
        host: command.host.name, remedy: "set the variable \(registry.password)")
    }
    let asked = Array("\(registry.server)\n\(registry.username)\n\(password)".utf8)
    let reply = try await attachment.request("query registry \(asked.count)", body: asked)
    let text = reply.text.split(whereSeparator: \.isNewline).joined(separator: "\n")
    return reply.tag == "output"
      ? .init("registry", .passed, "\(registry.server): \(text)", host: command.host.name)
      : .init(
        "registry", .failed, text, host: command.host.name,
        remedy: "is the server's name right, and \(registry.password)? the host has to reach it")
  }

  /// What the facts of a host mean for a deploy.
  static func judge(_ facts: HostFacts, host: String, now: Timestamp) -> [DoctorReport.Check] {
    var checks: [DoctorReport.Check] = []
    func add(_ name: String, _ state: DoctorReport.Check.State, _ message: String, _ remedy: String? = nil) {
      checks.append(.init(name, state, message, host: host, remedy: remedy))
    }
    if facts["docker_server"].isEmpty {
      let inGroup = facts["groups"].split(separator: " ").contains("docker")
      add(
        "docker", .failed, facts["docker_error"].isEmpty ? "Docker doesn't answer" : facts["docker_error"],
        facts["docker_client"].isEmpty
          ? "install Docker on the host"
          : inGroup ? "systemctl status docker" : "put \(facts["user"]) into the group docker")
    } else {
      add("docker", .passed, "Engine \(facts["docker_server"])")
    }
    if facts["compose"].isEmpty {
      add("compose", .failed, "docker compose isn't there", "install the docker compose plugin, version 2.20 or newer")
    } else {
      add("compose", .passed, "Compose \(facts["compose"])")
    }
    if facts.hasSudo {
      add("rights", .passed, "sudo works: deployments are recovered at boot and restarted by systemd")
    } else {
      add(
        "rights", .warning, "no sudo: a runner that dies isn't started again, and nothing is recovered at boot",
        "let \(facts["user"]) run sudo without a password")
    }
    for (key, path) in [("state_dir", "/var/lib/orchestrate"), ("opt_dir", "/opt")] where facts[key] != "1" {
      add(
        "directories", .failed, "the project's folder below \(path) isn't writable for \(facts["user"])",
        "make it, or let sudo work")
    }
    for holds in ["opt", "state", "docker"] {
      guard let available = facts.integer("disk.\(holds).available") else { continue }
      let text = "\(facts["disk.\(holds).path"]) has \(available >> 20) MiB free"
      if available < 1 << 30 {
        add("disk", .failed, text, "orchestrate prune, or a bigger disk")
      } else {
        add("disk", .passed, text)
      }
    }
    if let clock = facts.integer("epoch_ms") {
      let skew = abs(clock - now.milliseconds) / 1000
      if skew > 30 {
        add("clock", .warning, "the host's clock is \(skew) s off from this machine's", "timedatectl set-ntp true")
      } else {
        add("clock", .passed, "within \(max(1, skew)) s of this machine's")
      }
    }
    if let open = Int(facts["open"]), facts["locked"] != "1" {
      add("deployment", .warning, "deployment \(open) was left open", "the next deploy or rollback closes it first")
    }
    return checks
  }
}

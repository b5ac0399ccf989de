public import Engine
import Diagnostics

/// A document that a command prints: as text for a person, or as it is with `--json`.
public protocol TextDocument: Encodable, Sendable {
  /// Lines, each with its line feed. `width`: columns of the terminal; where there is none, nothing is cut.
  func text(width: Int, style: Style) -> String
}

extension TextDocument {
  public func text(width: Int = .max) -> String { text(width: width, style: Style(colour: false)) }
}

/// Prints a document on stdout, masked: as text, or as one line of JSON.
public func show(_ document: some TextDocument, _ format: OutputFormat, _ context: ViewContext) {
  switch format {
  case .json:
    context.output.write(
      jsonValue(of: document).masked(by: context.masker).text() + "\n", to: .standardOutput)
  case .human:
    let text = document.text(width: context.terminalSize().columns, style: context.style)
    context.output.write(context.masker.mask(text), to: .standardOutput)
  case .plain: context.output.write(context.masker.mask(document.text()), to: .standardOutput)
  }
}

extension Plan: TextDocument {
  public func text(width: Int, style: Style) -> String { Views.text(of: self, style: style) }
}

extension HealthState {
  var codes: String {
    switch self {
    case .healthy: "32"
    case .degraded: "33"
    case .unhealthy, .unreachable: "1;31"
    case .absent: "2"
    }
  }
}

extension StatusDocument: TextDocument {
  public func text(width: Int, style: Style) -> String {
    var out = "\(style.bold("\(app) in \(environment)"))  \(style.dim(checked))\n"
    for host in hosts { out += "\n" + text(of: host, width, style) }
    return out
  }

  private func text(of status: HostStatus, _ width: Int, _ style: Style) -> String {
    var out = "\(style.bold(status.host)): \(style.paint(status.state.rawValue, status.state.codes))"
    if let since = status.since { out += " since \(since)\(age(since).map { " (\($0))" } ?? "")" }
    if let reason = status.reason { out += ": \(printable(reason))" }
    out += "\n"
    let isWatched = status.lock?.watching != nil
    let lock = isWatched ? nil : status.lock.map { printable($0.sentence) }
    let watch = status.lock?.watching.map { number in
      let left = status.lock?.until.flatMap { until($0) }.map { $0 == "expired" ? "" : " for another \($0)" } ?? ""
      return "\(printable(status.lock?.version ?? "the release"))\(left) (orchestrate attach \(environment))"
    }
    let open = status.openDeployment.map { "#\($0) has not ended (orchestrate attach \(environment))" }
    out += fields(
      [
        ("version", status.version.map { printable($0) + (status.release.map { " (release \($0))" } ?? "") }),
        ("schema", status.schema.map { printable($0.revision) + ($0.policy.map { " (\($0))" } ?? "") }),
        ("last", status.lastDeployment.map(sentence)), ("watching", watch), ("locked", lock), ("open", open),
      ], style: style)
    for disk in status.disks {
      let share = disk.size > 0 ? " (\(Int((Double(disk.available) / Double(disk.size) * 100).rounded()))%)" : ""
      out += "  \(style.dim("disk")) \(disk.path): \(sizeText(disk.available)) of \(sizeText(disk.size)) free\(share)\n"
    }
    for certificate in status.certificates {
      let left = certificate.expires.flatMap { until($0) }
      let refusal =
        switch certificate.fault {
        case .temporary: ", temporary: nobody trusts it"
        case .other: ", for another name"
        case nil: ""
        }
      let text =
        certificate.expires.map { "until \($0)\(left.map { " (\($0))" } ?? "")\(refusal)" }
        ?? "nobody answers on port 443"
      out += "  \(style.dim("certificate")) \(printable(certificate.domain)): \(text)\n"
    }
    let rows = status.services.map { service in
      [
        Cell(service.service),
        Cell(service.state, service.state == "running" ? "32" : "31"),
        Cell(service.health, service.health == "healthy" ? "32" : service.health == "unhealthy" ? "31" : ""),
        Cell(service.restarts.map { $0 == 0 ? "0" : "\($0)\(service.outOfMemory == true ? " (OOM)" : "")" }),
        Cell(service.started.map { age($0) ?? $0 }), Cell(service.image),
      ]
    }
    if !rows.isEmpty {
      out +=
        "\n"
        + table(["SERVICE", "STATE", "HEALTH", "RESTARTS", "UP", "IMAGE"], rows, width: width, style: style, indent: 2)
    }
    return out
  }

  private func sentence(_ entry: HistoryEntry) -> String {
    var out = "#\(entry.number) \(entry.command) \(change(entry)): \(entry.outcome)"
    if let closed = entry.closed { out += ", \(age(closed).map { "\($0) ago" } ?? closed)" }
    if let reason = entry.reason, !reason.isEmpty { out += " (\(printable(reason)))" }
    return out
  }

  /// How long after `checked` that will be.
  private func until(_ time: String) -> String? {
    guard let then = Timestamp(time), let now = Timestamp(checked) else { return nil }
    return then > now ? durationText(then.seconds(since: now).rounded()) : "expired"
  }

  /// How long before `checked` that was.
  private func age(_ time: String) -> String? {
    guard let then = Timestamp(time), let now = Timestamp(checked), then <= now else { return nil }
    return durationText(now.seconds(since: then).rounded())
  }
}

private func change(_ entry: HistoryEntry) -> String {
  [entry.from, entry.to].compactMap { $0 }.filter { !$0.isEmpty }.map(printable).joined(separator: " → ")
}

extension HistoryDocument: TextDocument {
  public func text(width: Int, style: Style) -> String {
    var out = ""
    for host in hosts {
      if hosts.count > 1 { out += "\(out.isEmpty ? "" : "\n")\(style.bold(host.host))\n" }
      if host.deployments.isEmpty { out += "\(app) in \(environment): no deployments on \(host.host) yet\n" }
      let rows = host.deployments.map { entry in
        [
          Cell("#\(entry.number)"), Cell(entry.closed ?? entry.opened), Cell(entry.command), Cell(change(entry)),
          Cell(entry.outcome, codes(entry.outcome)), Cell(entry.seconds.map(durationText)),
          Cell(entry.downtimeMilliseconds.map { "\($0) ms" }), Cell(entry.who), Cell(entry.reason),
        ]
      }
      let header = ["NUMBER", "ENDED", "COMMAND", "VERSION", "OUTCOME", "TOOK", "DOWNTIME", "WHO", "REASON"]
      out += table(header, rows, width: width, style: style)
    }
    return out
  }

  private func codes(_ outcome: String) -> String {
    switch outcome {
    case "committed": "32"
    case "stuck": "1;31"
    default: "33"
    }
  }
}

extension LockDocument: TextDocument {
  public func text(width: Int, style: Style) -> String {
    hosts.map { host in
      var out = "\(style.bold(host.host)): "
      if host.locked {
        out += "\(style.yellow("locked")) by \(printable(host.holder?.sentence ?? "somebody unknown"))\n"
        if host.holder?.watching != nil {
          out += "  a deploy, rollback or restore takes its place at once; what leaves the release alone waits\n"
        }
        if let age = host.heartbeatAge { out += "  last sign of life \(durationText(age)) ago\n" }
      } else {
        out += "\(style.green("free"))\n"
      }
      if let number = host.openDeployment {
        out +=
          host.locked
          ? "  deployment #\(number) is open: orchestrate attach \(environment)\n"
          : "  deployment #\(number) has not ended: whoever takes the lock next closes it first\n"
      }
      return out
    }.joined()
  }
}

extension BackupsDocument: TextDocument {
  public func text(width: Int, style: Style) -> String {
    guard !backups.isEmpty else { return "\(app) in \(environment): no backups on \(host)\n" }
    let rows = backups.map { backup in
      [
        Cell(backup.name), Cell(sizeText(backup.size)), Cell(backup.database), Cell(backup.revision),
        Cell(backup.version),
        Cell(backup.deployment.map { "#\($0)" }), Cell(backup.verified ? "yes" : "NO", backup.verified ? "32" : "1;31"),
        Cell(backup.neededByRelease.map { "release \($0)" }),
      ]
    }
    let header = ["BACKUP", "SIZE", "DATABASE", "SCHEMA", "VERSION", "DEPLOYMENT", "VERIFIED", "NEEDED BY"]
    return table(header, rows, width: width, style: style)
  }
}

extension EnvDocument: TextDocument {
  public func text(width: Int, style: Style) -> String {
    let isDifference = entries.contains { $0.difference != nil && $0.difference != .same }
    let rows = entries.map { entry in
      [
        mark(entry.difference), Cell(entry.name), Cell(entry.origin),
        entry.secret ? Cell(Masker.mask, "2") : Cell(entry.value),
      ]
    }
    guard !rows.isEmpty else { return "\(app) in \(environment): no env file\n" }
    return table([isDifference ? " " : "", "NAME", "FROM", "VALUE"], rows, width: width, style: style)
  }

  private func mark(_ difference: Entry.Difference?) -> Cell {
    switch difference {
    case .added: Cell("+", "32")
    case .removed: Cell("-", "31")
    case .changed: Cell("~", "33")
    case .same, nil: Cell("")
    }
  }
}

extension DoctorReport: TextDocument {
  public func text(width: Int, style: Style) -> String {
    var out = ""
    for check in checks {
      let mark =
        switch check.state {
        case .passed: style.green("✓")
        case .warning: style.yellow("!")
        case .failed: style.red("✗")
        case .skipped: style.dim("-")
        }
      let name = (check.host.map { "\($0): " } ?? "") + check.name
      out += "\(mark) \(style.bold(name)): \(printable(check.message))\n"
      if let remedy = check.remedy, check.state != .passed {
        for line in remedy.split(whereSeparator: \.isNewline) { out += "    \(style.cyan(printable(String(line))))\n" }
      }
    }
    let failed = checks.count { $0.state == .failed }, warnings = checks.count { $0.state == .warning }
    let verdict =
      failed > 0
      ? style.alarm("\(failed) failed") : warnings > 0 ? style.yellow("nothing failed") : style.green("all good")
    let passed = checks.count { $0.state == .passed }
    let counts = "\(passed) passed, \(warnings) \(warnings == 1 ? "warning" : "warnings"), \(failed) failed"
    out += "\n\(counts): \(verdict)\n"
    return out
  }
}

extension HealthDocument: TextDocument {
  public func text(width: Int, style: Style) -> String {
    probes.map { probe in
      let place = [probe.host, probe.service].compactMap { $0 }.map { "\($0): " }.joined()
      var out = "\(probe.healthy ? style.green("✓") : style.red("✗")) \(place)\(printable(probe.probe))"
      let details = [probe.status.map { "status \($0)" }, probe.seconds.map(durationText)].compactMap { $0 }
      if !details.isEmpty { out += " (\(details.joined(separator: ", ")))" }
      out += "\n"
      for line in (probe.message ?? "").split(whereSeparator: \.isNewline) { out += "    \(printable(String(line)))\n" }
      return out
    }.joined() + (secondsAfterBoot.map { "all is well \(durationText($0)) after the boot\n" } ?? "")
  }
}

extension InventoryDocument: TextDocument {
  public func text(width: Int, style: Style) -> String {
    var out = "\(style.bold("\(app) in \(environment)"))\(isDefault ? " (the default)" : "")\n"
    out += fields(
      [
        ("project", project), ("compose", compose), ("env template", envTemplate),
        ("app services", services.app.isEmpty ? nil : services.app.joined(separator: ", ")),
        ("database", services.database), ("cache", services.cache),
      ], style: style)
    for (name, value) in vars.sorted(by: { $0.key < $1.key }) {
      out += "  \(style.dim("var")) \(name) = \(printable(value))\n"
    }
    let rows = hosts.map { host in
      [
        Cell(host.name), Cell(host.address), Cell(host.port.map(String.init)), Cell(host.user),
        Cell(host.roles.joined(separator: ", ")),
      ]
    }
    return out + "\n"
      + table(["HOST", "ADDRESS", "PORT", "USER", "ROLES"], rows, width: width, style: style, indent: 2)
  }
}

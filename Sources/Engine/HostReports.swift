public import Diagnostics

extension HistoryEntry {
  /// A line of history.jsonl (docs/runner.md); nil: it is torn, or of another making.
  public init?(line: some StringProtocol) {
    guard let value = try? JSONValue(parsing: String(line)), let number = value["number"]?.intValue,
      let outcome = value["outcome"]?.stringValue
    else { return nil }
    self.init(number: number, command: value["command"]?.stringValue ?? "", outcome: outcome)
    from = value["from_version"]?.stringValue
    to = value["version"]?.stringValue
    healthy = value["healthy"]?.boolValue
    // The last word about it is that of whoever abandoned it.
    reason =
      value["abandoned"]?["reason"]?.stringValue ?? value["reason"]?.stringValue
      ?? value["cause"]?.stringValue.flatMap { $0.isEmpty ? nil : $0 }
    who = value["who"]?.stringValue
    let openedAt = value["opened"]?.numberValue.map { Int64($0) },
      closedAt = value["closed"]?.numberValue.map { Int64($0) }
    opened = openedAt.map { Timestamp(milliseconds: $0).description }
    closed = closedAt.map { Timestamp(milliseconds: $0).description }
    if let openedAt, let closedAt { seconds = Double(closedAt - openedAt) / 1000 }
    skipped = value["skipped"]?.arrayValue?.compactMap(\.stringValue) ?? []
    for (_, facts) in value["facts"]?.objectValue?.members ?? [] {
      if let gap = facts["gap_ms"]?.intValue { downtimeMilliseconds = gap }
      if let file = facts["backup"]?["file"]?.stringValue { restorePoint = file }
    }
  }

  /// All lines of history.jsonl, the newest first; what can't be read is passed over.
  public static func all(in text: String) -> [HistoryEntry] {
    text.split(separator: "\n").compactMap { HistoryEntry(line: $0) }.sorted { $0.number > $1.number }
  }
}

extension LockHolder {
  /// The holder file: the opener's JSON with the deployment's number.
  public init?(json text: String) {
    guard let value = try? JSONValue(parsing: text), let who = value["who"]?.stringValue else { return nil }
    func member(_ key: String) -> String? { value[key]?.stringValue }
    self.init(
      who: who, from: member("from"), reason: member("reason"), since: member("since"),
      number: value["number"]?.intValue,
      version: member("version"), command: member("command"), watching: value["watching"]?.intValue,
      until: value["until"]?.numberValue.map { Timestamp(milliseconds: Int64($0)).description })
  }
}

extension HostFacts {
  /// Seconds since a beat of the client (file `heartbeat`: boot id, uptime and the deployment); nil: none of this boot.
  public func age(ofBeat text: String) -> Double? {
    let words = text.prefix { $0 != "\n" }.split(whereSeparator: \.isWhitespace)
    guard words.count >= 2, words[0] == self["boot_id"], let beat = Double(words[1]), let now = Double(self["uptime"])
    else { return nil }
    // It is read beside the facts, and may have come after them.
    return (max(0, now - beat) * 100).rounded() / 100
  }
}

extension BackupEntry {
  /// The receipt beside a dump.
  public init?(receipt text: some StringProtocol) {
    guard let value = try? JSONValue(parsing: String(text)),
      let name = value["file"]?.stringValue ?? value["name"]?.stringValue,
      let size = value["bytes"]?.numberValue ?? value["size"]?.numberValue
    else { return nil }
    self.init(name: name, size: Int64(size), verified: value["verified"]?.boolValue ?? false)
    sha256 = value["sha256"]?.stringValue
    database = value["database"]?.stringValue
    revision = value["revision"]?.stringValue
    version = value["version"]?.stringValue
    deployment = value["deployment"]?.intValue
    created = value["created"]?.stringValue
  }
}

extension CertificateStatus {
  /// How a certificate stands at a time.
  public enum Standing: Sendable, Equatable {
    case absent
    /// Visitors are shown the one that the host signed itself, or one that isn't for this name.
    case refused(Fault)
    case valid(days: Int)
    /// Its renewal should have happened by now, or is due.
    case late(days: Int)
    case expired
  }

  /// A line of queries/certificates.query.sh: `DOMAIN KIND BEGINS ENDS SHOWN`.
  public init?(line: some StringProtocol) {
    let words = line.split(separator: " ")
    guard words.count == 5 else { return nil }
    let times = words[2...3].map { Int64($0).map { Timestamp(milliseconds: $0 * 1000).description } }
    self.init(
      domain: String(words[0]), kind: String(words[1]), begins: times[0], expires: times[1],
      fault: Fault(rawValue: String(words[4])))
  }

  public static func all(in text: String) -> [CertificateStatus] {
    text.split(separator: "\n").compactMap { CertificateStatus(line: $0) }.sorted { $0.domain < $1.domain }
  }

  /// Late: less than 21 days are left, or a quarter of its life where that is shorter. certbot renews with 30 days or a third left.
  public func standing(at now: Timestamp) -> Standing {
    guard let expires, let end = Timestamp(expires) else { return .absent }
    if let fault { return .refused(fault) }
    let left = end.seconds(since: now)
    guard left > 0 else { return .expired }
    let days = Int(left / 86400)
    let life = begins.flatMap { Timestamp($0) }.map { end.seconds(since: $0) } ?? .infinity
    return left < min(21 * 86400, life / 4) ? .late(days: days) : .valid(days: days)
  }
}

extension ServiceStatus {
  /// A line of queries/status.query.sh: what Docker says of a container.
  init?(container value: JSONValue) {
    guard let service = value["service"]?.stringValue, let state = value["state"] else { return nil }
    self.init(service: service, state: state["Status"]?.stringValue ?? "unknown")
    health = state["Health"]?["Status"]?.stringValue
    restarts = value["restarts"]?.intValue
    outOfMemory = state["OOMKilled"]?.boolValue
    started = state["StartedAt"]?.stringValue
    image = value["image"]?.stringValue
  }
}

/// What the host said about itself and its containers, judged.
public struct HostReport: Sendable {
  public var host: String
  public var facts: HostFacts
  public var release: Release?
  public var history: [HistoryEntry]
  public var holder: LockHolder?
  /// Output of queries/status.query.sh.
  public var containers: String
  /// Output of queries/health.query.sh: what each gate of the running release answers now.
  public var gates: String
  /// Output of queries/certificates.query.sh, and when it was asked.
  public var certificates = ""
  public var now: Timestamp?
  /// Services of the app, as the inventory names them; the others can only degrade it.
  public var app: [String]

  public init(
    host: String, facts: HostFacts, release: Release?, history: [HistoryEntry], holder: LockHolder?, containers: String,
    gates: String, app: [String]
  ) {
    self.host = host
    self.facts = facts
    self.release = release
    self.history = history
    self.holder = holder
    self.containers = containers
    self.gates = gates
    self.app = app
  }

  public var status: HostStatus {
    var status = HostStatus(host: host, state: .healthy)
    status.version = release?.version
    status.release = release?.number
    status.lastDeployment = history.first
    // Of a watch that died the file is left.
    status.lock = holder?.watching != nil && facts["locked"] != "1" ? nil : holder
    status.openDeployment = Int(facts["open"])
    for holds in ["opt", "state", "docker"] {
      guard let available = facts.integer("disk.\(holds).available"), let size = facts.integer("disk.\(holds).size")
      else { continue }
      status.disks.append(DiskStatus(holds: holds, path: facts["disk.\(holds).path"], available: available, size: size))
    }
    status.certificates = CertificateStatus.all(in: certificates)
    judge(&status)
    judgeCertificates(&status)
    return status
  }

  private func judge(_ status: inout HostStatus) {
    var seen: [String: (ServiceStatus, fault: String?)] = [:]
    let values = containers.split(separator: "\n").compactMap { try? JSONValue(parsing: String($0)) }
    var lastLines: [String: String] = [:]
    for value in values {
      guard let id = value["id"]?.stringValue, let line = value["last_line"]?.stringValue, !line.isEmpty else {
        continue
      }
      lastLines[id] = line
    }
    var relapses: [String] = []
    for value in values {
      guard let service = ServiceStatus(container: value) else { continue }
      let lastLine = value["id"]?.stringValue.flatMap { lastLines[$0] }
      // Of several containers the one that isn't well.
      if seen[service.service]?.fault == nil {
        seen[service.service] = (service, Self.fault(of: service, value, lastLine: lastLine))
      }
      if let relapse = relapse(of: service, lastLine: lastLine) { relapses.append(relapse) }
    }
    guard release != nil else {
      status.state = .absent
      status.services = seen.keys.sorted().map { seen[$0]!.0 }
      if let number = facts.currentRelease {
        status.release = number
        status.state = .unhealthy
        status.reason = "release \(number), which `current` names, isn't there or can't be read (release.json)"
      }
      return
    }
    if facts["docker_server"].isEmpty, !facts["docker_error"].isEmpty {
      status.state = .unhealthy
      status.reason = "Docker on the host can't be used: \(facts["docker_error"])"
      return
    }
    let probes = HealthDocument.Probe.all(in: gates)
    var faults: [(isApp: Bool, text: String, since: String?)] = []
    for name in Set(release!.services).union(seen.keys).sorted() {
      let service = seen[name]?.0 ?? ServiceStatus(service: name, state: "missing")
      status.services.append(service)
      if let fault = seen[name] == nil ? "\(name) has no container" : seen[name]!.fault {
        // One that only hasn't been asked by Docker yet: the gate's answer counts, else it is on its way.
        let isStarting = service.state == "running" && service.health == "starting"
        if isStarting, probes.contains(where: { $0.service == name && $0.healthy }) { continue }
        faults.append((!isStarting && (app.isEmpty || app.contains(name)), fault, service.started))
      }
    }
    if let worst = faults.first(where: \.isApp) ?? faults.first {
      status.state = worst.isApp ? .unhealthy : .degraded
      status.since = worst.since
    } else {
      status.since = status.services.compactMap(\.started).max()
    }
    var reasons = faults.map(\.text)
    if !relapses.isEmpty {
      reasons += relapses
      if status.state == .healthy { status.state = .degraded }
    }
    for probe in probes where !probe.healthy {
      reasons.append("\(probe.service ?? probe.probe): \(probe.message ?? "not healthy")")
      if status.state == .healthy { status.state = .degraded }
    }
    if status.openDeployment != nil, facts["locked"] != "1" {
      reasons.append("deployment \(facts["open"]) was left open; the next deploy or rollback closes it first")
      if status.state == .healthy { status.state = .degraded }
    }
    if let stuck = history.first(where: { $0.outcome == "stuck" }) {
      reasons.append("the undo of deployment \(stuck.number) failed; the next deploy or rollback tries it again first")
      if status.state == .healthy { status.state = .degraded }
    }
    for disk in status.disks where disk.size > 0 && disk.available * 20 < disk.size {
      reasons.append("\(disk.path) has \(disk.available >> 20) MiB left")
      if status.state == .healthy { status.state = .degraded }
    }
    status.reason = reasons.isEmpty ? nil : reasons.joined(separator: "; ")
  }

  /// A container that crashes every few seconds or minutes runs most of the time: it was restarted, more than twice, and a moment ago.
  private func relapse(of service: ServiceStatus, lastLine: String?) -> String? {
    guard service.state == "running", let restarts = service.restarts, restarts > 2,
      let now = facts.integer("epoch_ms"), let started = service.started.flatMap({ Timestamp($0) }),
      now - started.milliseconds < 60_000
    else { return nil }
    let ago = max(0, now - started.milliseconds) / 1000
    return "\(service.service) was restarted \(restarts) times, last \(ago) s ago\(Self.quoted(lastLine))"
  }

  private static func quoted(_ line: String?) -> String { line.map { ": \($0)" } ?? "" }

  /// Visitors who are shut out don't care how well the application is.
  private func judgeCertificates(_ status: inout HostStatus) {
    guard status.state != .absent, let now else { return }
    for certificate in status.certificates {
      let fault: String
      switch certificate.standing(at: now) {
      case .absent: fault = "the proxy doesn't answer for \(certificate.domain)"
      case .refused(.temporary): fault = "visitors of \(certificate.domain) are shown a temporary certificate"
      case .refused(.other): fault = "visitors of \(certificate.domain) are shown another name's certificate"
      case .expired: fault = "the certificate of \(certificate.domain) has expired (\(certificate.expires ?? ""))"
      case .late, .valid: continue
      }
      status.reason = [status.reason, fault].compactMap(\.self).joined(separator: "; ")
      if status.state == .healthy { status.state = .degraded }
    }
  }

  private static func fault(of service: ServiceStatus, _ container: JSONValue, lastLine: String?) -> String? {
    let name = service.service
    if container["state"]?["OOMKilled"]?.boolValue == true, service.state != "running" {
      return "\(name) was killed for lack of memory"
    }
    switch service.state {
    case "running": break
    case "restarting":
      let code = container["state"]?["ExitCode"]?.intValue.map { ", exit status \($0)" } ?? ""
      return "\(name) restarts again and again (\(service.restarts ?? 0) times\(code))\(quoted(lastLine))"
    default:
      let code = container["state"]?["ExitCode"]?.intValue.map { ", exit status \($0)" } ?? ""
      return "\(name) is \(service.state)\(code)"
    }
    guard let health = service.health, health != "healthy" else { return nil }
    let last =
      container["state"]?["Health"]?["Log"]?.arrayValue?.last?["Output"]?.stringValue?
      .split(separator: "\n").first.map { ": \($0)" } ?? ""
    return "\(name) is \(health)\(last)"
  }
}

extension HealthDocument.Probe {
  /// Lines of queries/health.query.sh; what isn't one is passed over.
  public static func all(in text: String) -> [HealthDocument.Probe] {
    text.split(separator: "\n").compactMap { line in
      guard let value = try? JSONValue(parsing: String(line)), let healthy = value["healthy"]?.boolValue else {
        return nil
      }
      var probe = HealthDocument.Probe(probe: value["probe"]?.stringValue ?? "gate", healthy: healthy)
      probe.service = value["service"]?.stringValue
      let reason = value["reason"]?.stringValue ?? "", answer = value["answer"]?.stringValue ?? ""
      probe.message = [reason, answer].filter { !$0.isEmpty }.joined(separator: ": ")
      return probe
    }
  }
}

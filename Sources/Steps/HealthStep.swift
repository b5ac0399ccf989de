public import Engine
public import Inventory

/// The gate: the service must answer well within a time, and go on doing so. From inside its container; a `url` from the client.
public struct HealthStep: StepKind {
  public var settings: HealthSettings

  public init(settings: HealthSettings = HealthSettings()) { self.settings = settings }

  public func plan(_ context: StepContext) -> [Change] {
    guard context.changesSomething else { return [] }
    if case .url(let url) = settings.probe { return [Change(.run, "health of \(url)", detail: ["  " + conditions])] }
    return [Change(.run, "health of \(service(context))", detail: ["  " + conditions])]
  }

  public func payload(_ context: StepContext) -> StepPayload {
    let timeout = settings.within + settings.stable + .seconds(30)
    if case .url = settings.probe { return StepPayload(script: "", side: .client, timeout: timeout) }
    return StepPayload(script: "health", timeout: timeout, parameters: gateParameters(context))
  }

  private func service(_ context: StepContext) -> String {
    settings.service ?? context.inventory.services.app.first ?? ""
  }

  /// A gate's variables (playbooks/host/gate.sh).
  public func gateParameters(_ context: StepContext) -> [(name: String, value: String)] {
    var probe = "container", url = "", command = ""
    switch settings.probe {
    case .http(let address), .url(let address): (probe, url) = ("http", address)
    case .exec(let words): (probe, command) = ("exec", quotedWords(words))
    case .container: break
    }
    return [
      ("SERVICE", service(context)), ("PROBE", probe), ("URL", url), ("COMMAND", command),
      ("STATUS", settings.expectStatus.map(String.init) ?? ""),
      ("EXPECT", settings.expectJSON.map(Self.line).joined(separator: "\n")),
      ("WITHIN_MS", milliseconds(settings.within)),
      ("STABLE_MS", milliseconds(settings.stable)), ("RESTARTS", String(max(0, settings.restarts))),
    ]
  }

  /// `path TAB operator TAB value`, names and values written as json.awk writes them.
  static func line(_ expectation: JSONExpectation) -> String {
    let path = expectation.path.map(flat).joined(separator: "\u{1f}")
    let (name, value) = operation(expectation.bound)
    return "\(path)\t\(name)\t\(value)"
  }

  private static func operation(_ bound: JSONBound) -> (name: String, value: String) {
    switch bound {
    case .string(let text): ("string", flat(text))
    case .number(let number): ("number", plain(number))
    case .bool(let flag): ("bool", flag ? "true" : "false")
    case .null: ("null", "null")
    case .below(let number): ("below", plain(number))
    case .above(let number): ("above", plain(number))
    case .atLeast(let number): ("at_least", plain(number))
    case .atMost(let number): ("at_most", plain(number))
    case .notEqual(let text): ("not", flat(text))
    }
  }

  private static func plain(_ number: Double) -> String { Int64(exactly: number).map(String.init) ?? String(number) }

  private static func flat(_ text: String) -> String {
    var out = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": out += #"\\"#
      case "\n": out += #"\n"#
      case "\t": out += #"\t"#
      case "\r": out += #"\r"#
      case _ where scalar.value < 0x20 || scalar.value == 0x7f:
        let hex = String(scalar.value, radix: 16)
        out += #"\u"# + String(repeating: "0", count: 4 - hex.count) + hex
      default: out.unicodeScalars.append(scalar)
      }
    }
    return out
  }

  /// The gate in words.
  var conditions: String {
    var parts: [String] = []
    switch settings.probe {
    case .http(let url), .url(let url):
      parts.append("\(url) answers \(settings.expectStatus.map(String.init) ?? "2xx")")
    case .exec(let words): parts.append("`\(words.joined(separator: " "))` exits 0")
    case .container: parts.append("its container's own health check passes")
    }
    for expectation in settings.expectJSON {
      let name = expectation.path.joined(separator: "."), (operation, value) = Self.operation(expectation.bound)
      let sign = ["below": "<", "above": ">", "at_least": "≥", "at_most": "≤", "not": "≠"][operation] ?? "="
      parts.append("\(name) \(sign) \(value)")
    }
    parts.append("within \(words(settings.within))")
    if case .url = settings.probe {} else { parts.append("stable for \(words(settings.stable))") }
    if settings.restarts > 0 { parts.append("\(settings.restarts) restarts forgiven") }
    return parts.joined(separator: ", ")
  }
}

import Engine
import Inventory

extension StepContext {
  /// The services that the step puts in the place of the running ones: its own list, else the inventory's `services.app`; and what `--include` names.
  func servicesToRecreate(_ listed: [String]) -> [String] {
    let own = listed.isEmpty ? inventory.services.app : listed
    return own + options.include.sorted().filter { !own.contains($0) }
  }

  /// What the release will run, as far as it is known: after pull; of a rollback from the start.
  var newConfig: ComposeConfig? { target != nil ? targetConfig : effectiveConfig(self)?.config }

  /// Migrations that the probe found pending; nil: unknown.
  var pendingMigrations: [String]? {
    if isGoneBackTo { return [] }
    for facts in reported.values {
      if let pending = facts["pending"]?.arrayValue { return pending.compactMap(\.stringValue) }
    }
    return nil
  }

  /// Whether the deployment would change anything: another version, another configuration, or a schema that isn't there yet. Where nothing
  /// would, steps that only accompany a change (backup, gate, scripts) plan nothing, so that the plan is empty.
  var changesSomething: Bool {
    if target != nil || current?.version != version { return true }
    if pendingMigrations?.isEmpty == false { return true }
    guard let currentConfig, let newConfig else { return true }
    let keeping = [inventory.services.database, inventory.services.cache].compactMap(\.self)
    return servicesToRecreate([]).contains { currentConfig.service($0) != newConfig.service($0) }
      || !stopped(servicesToRecreate([]) + keeping).isEmpty
  }

  /// The project's containers as preflight saw them, one-off ones excepted; nil: nobody has looked.
  var baseline: [JSONValue]? { reported.values.lazy.compactMap { $0["baseline"]?.arrayValue }.first }

  /// Those of the running release's services that should run and of which no container does, with what Docker says of the container, if there is one.
  func stopped(_ services: [String]) -> [(service: String, state: String?)] {
    guard let currentConfig, let baseline else { return [] }
    return services.compactMap { service in
      guard let config = currentConfig.service(service), !isScaledToNothing(config) else { return nil }
      let states = baseline.filter { $0["service"]?.stringValue == service }.map { $0["status"]?.stringValue ?? "" }
      return states.contains("running") ? nil : (service, states.first)
    }
  }
}

/// How many containers the compose file wants of the service.
func replicas(_ service: JSONValue) -> Int {
  service["deploy"]?["replicas"]?.intValue ?? service["scale"]?.intValue ?? 1
}

/// The compose file itself wants no container of the service.
func isScaledToNothing(_ service: JSONValue) -> Bool {
  service["deploy"]?["replicas"]?.intValue == 0 || service["scale"]?.intValue == 0
}

/// `1.5 s`, `60 s`, `10 min`.
func words(_ duration: Duration) -> String {
  let (seconds, attoseconds) = duration.components
  if attoseconds != 0 {
    let tenths = (attoseconds + 50_000_000_000_000_000) / 100_000_000_000_000_000
    return "\(seconds).\(tenths) s"
  }
  return seconds >= 120 && seconds % 60 == 0 ? "\(seconds / 60) min" : "\(seconds) s"
}

/// Whole milliseconds, as a step's parameter.
func milliseconds(_ duration: Duration) -> String {
  let (seconds, attoseconds) = duration.components
  return String(seconds * 1000 + attoseconds / 1_000_000_000_000_000)
}

/// Whole seconds, at least one, rounded up.
func wholeSeconds(_ duration: Duration) -> String {
  let (seconds, attoseconds) = duration.components
  return String(max(1, seconds + (attoseconds > 0 ? 1 : 0)))
}

/// Words of a command or a list, quoted so that the step's script can make them its arguments by `eval "set -- …"`.
func quotedWords(_ words: [String]) -> String { words.map(shellQuoted).joined(separator: " ") }

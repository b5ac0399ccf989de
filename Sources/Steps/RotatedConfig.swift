import Diagnostics
public import Engine
import Inventory

/// What a rotation makes of the running configuration: the new value wherever the old one stands, and nothing else. Where it stands now is known from
/// what runs, what comes there from what the host's Compose made of the release's own compose file with the new env.
public func rotatedConfig(_ context: StepContext) -> RotatedConfig {
  guard let rotation = context.rotation, let running = context.currentConfig, let new = context.config else {
    var result = RotatedConfig(config: ComposeConfig(.object([:])))
    result.problems = ["what runs can't be read (effective.json): deploy the version again first"]
    return result
  }
  var rotator = Rotator(rotation: rotation, new: new.root)
  var result = RotatedConfig(config: running)
  guard case .object(var root) = running.root else { return result }
  let database = context.inventory.services.database, app = appServices(context.inventory, running)
  var services = root["services"]?.objectValue ?? [:]
  var changed: Set<String> = [], kept: [String] = []
  for section in ["secrets", "configs"] where root[section] != nil {
    root[section] = rotator.rotated(root[section]!, at: [section])
  }
  let files = rotator.places
  for (name, service) in services.members {
    rotator.places = []
    rotator.isKept = !app.contains(name)
    let rotated = rotator.rotated(service, at: ["services", name])
    let mounts = files.filter { uses(service, $0) }
    guard rotated != service || !mounts.isEmpty else { continue }
    if name == database {
      kept +=
        rotator.places.map { $0.dropFirst(2).joined(separator: ".") }
        + mounts.map { $0.prefix(2).joined(separator: ".") }
      continue
    }
    changed.insert(name)
    services[name] = rotated
  }
  root["services"] = .object(services)
  result.config = ComposeConfig(.object(root))
  result.services = changed.subtracting(app)
  result.problems = rotator.lost.sorted().map {
    "\($0) has the old value of \(rotation.key), and the release's compose file doesn't tell what would come there: deploy with --include first"
  }
  judge(kept: kept, changed: changed, &result, context)
  return result
}

/// What the database's container goes on with: its first password stands there for ever, and means nothing any more.
private func judge(kept: [String], changed: Set<String>, _ result: inout RotatedConfig, _ context: StepContext) {
  guard let rotation = context.rotation, let database = context.inventory.services.database, !kept.isEmpty else {
    return
  }
  let include = "orchestrate deploy \(context.inventory.environment) \(context.version) --include \(database)"
  if changed.isEmpty, context.roleChanges.isEmpty {
    result.problems.append(
      "only the database \(database) uses \(rotation.key) (\(kept.joined(separator: ", "))), and a rotation never recreates it: "
        + "give the new value by secrets set, then: \(include)")
    return
  }
  if kept.contains("environment.POSTGRES_PASSWORD"), context.roleChanges.isEmpty {
    result.problems.append(
      "POSTGRES_PASSWORD of \(database) is made from \(rotation.key), and no name of the env template has it whole, so that the role can't follow: "
        + "give it a name of its own in the template, and deploy that first")
    return
  }
  let others = kept.filter { place in
    place != "environment.POSTGRES_PASSWORD" && !(place.hasPrefix("secrets.") && !context.roleChanges.isEmpty)
  }
  guard !others.isEmpty else { return }
  result.warnings.append(
    "\(database) isn't recreated and keeps the old value in \(others.joined(separator: ", ")) until: \(include)")
}

/// Whether the service mounts what stands at a place like `secrets`, its name, `file`.
private func uses(_ service: JSONValue, _ place: [String]) -> Bool {
  guard place.count > 1 else { return false }
  return (service[place[0]]?.arrayValue ?? []).contains {
    $0["source"]?.stringValue == place[1] || $0.stringValue == place[1]
  }
}

private struct Rotator {
  /// Old and new value of each variable, the longest old one first.
  let pairs: [(old: String, new: String)]
  let new: JSONValue
  /// It may run as an older compose file has it.
  var isKept = false
  /// Where something was replaced.
  var places: [[String]] = []
  /// Services of which nobody can tell what would come there.
  var lost: Set<String> = []

  init(rotation: Rotation, new: JSONValue) {
    self.new = new
    pairs = rotation.before.map { ($0.value.reveal(), rotation.after[$0.key]?.reveal() ?? "") }
      .sorted { ($0.0.count, $0.0) > ($1.0.count, $1.0) }
  }

  mutating func rotated(_ value: JSONValue, at path: [String]) -> JSONValue {
    switch value {
    case .object(let object):
      var result = object
      for (key, member) in object.members { result[key] = rotated(member, at: path + [key]) }
      return .object(result)
    case .array(let items):
      return .array(items.enumerated().map { rotated($0.element, at: path + [String($0.offset)]) })
    case .string(let text): return leaf(text, at: path)
    default: return value
    }
  }

  private mutating func leaf(_ text: String, at path: [String]) -> JSONValue {
    let plain = unescapeDollars(text)
    guard pairs.contains(where: { holds(plain, $0.old) }) else { return .string(text) }
    if let other = new[path: path]?.stringValue {
      let next = unescapeDollars(other)
      if next != plain, pairs.contains(where: { holds(next, $0.new) }) {
        places.append(path)
        return .string(other)
      }
    }
    // Something else looks like it: an image's name, a path. Short values are found everywhere.
    guard isKept, path.count > 2, Self.interpolated.contains(path[2]) else { return .string(text) }
    var replaced = plain
    for pair in pairs where pair.old.count >= Self.unmistakable {
      replaced = replaced.replacing(pair.old, with: pair.new)
    }
    guard replaced != plain else {
      if new[path: path] == nil { lost.insert("service \(path[1])") }
      return .string(text)
    }
    places.append(path)
    return .string(replaced.replacing("$", with: "$$"))
  }

  private static let unmistakable = 8
  private static let interpolated: Set<String> = ["environment", "command", "entrypoint", "healthcheck"]

  /// An empty or short value counts only where it is all there is.
  private func holds(_ text: String, _ value: String) -> Bool {
    value.count < 4 ? text == value : text.contains(value)
  }
}

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
  for place in files { giveOwnName(to: place, running, &root, &services, context) }
  root["services"] = .object(services)
  result.config = ComposeConfig(.object(root))
  result.services = changed.subtracting(app)
  result.problems = rotator.lost.sorted().map {
    "\($0) has the old value of \(rotation.key), and the release's compose file doesn't tell what would come there: deploy with --include first"
  }
  judge(kept: kept, changed: changed, &result, context)
  return result
}

/// What a rollback makes of the older release's configuration: the present values where those stand that a rotation has replaced since. The older release's
/// compose file isn't read again, so that it is told by the values themselves.
public func carriedConfig(_ context: StepContext) -> RotatedConfig {
  var result = RotatedConfig(config: context.targetConfig ?? ComposeConfig(.object([:])))
  guard let carried = context.carriedOver, case .object(var root) = result.config.root else { return result }
  let older = result.config
  var rotator = Rotator(
    rotation: carried, new: .null, present: context.currentConfig, besides: context.inventory.services.database)
  rotator.isKept = true
  for section in ["secrets", "configs"] where root[section] != nil {
    root[section] = rotator.rotated(root[section]!, at: [section])
  }
  let staying = keptServices(context), files = rotator.places
  var services = root["services"]?.objectValue ?? [:]
  for (name, service) in services.members where !staying.contains(name) {
    services[name] = rotator.rotated(service, at: ["services", name])
  }
  for place in files { giveOwnName(to: place, older, &root, &services, context) }
  root["services"] = .object(services)
  result.config = ComposeConfig(.object(root))
  result.warnings = rotator.lost.sorted().map {
    "\($0) may go back with an older value of \(carried.changed.sorted().joined(separator: ", ")), which can't be told from other text"
  }
  return result
}

/// A file that has a name of its own beside one that the database keeps (`EffectiveConfig`) gets the compose file's name again: where it is kept further on,
/// it is given one again, the same that a deploy would give it.
/// - Parameters:
///   - place: like `secrets`, its name, `file`.
///   - before: where it has that name.
private func giveOwnName(
  to place: [String], _ before: ComposeConfig, _ root: inout JSONObject, _ services: inout JSONObject,
  _ context: StepContext
) {
  guard place.count == 3, var entries = root[place[0]]?.objectValue, let entry = before.root[place[0]]?[place[1]] else {
    return
  }
  let alias = place[1], key = ownName(of: alias)
  guard let key, entries[key] != nil, alias == aliasName(of: key, entry, context) else { return }
  entries[key] = entries[alias]
  entries[alias] = nil
  root[place[0]] = .object(entries)
  for (name, service) in services.members where uses(service, place) {
    services[name] = renaming(service, section: place[0], from: alias, to: key)
  }
}

/// Of a name that may be one of ours; nil: it isn't.
private func ownName(of alias: String) -> String? {
  let key = String(alias.dropLast(9))
  return alias.dropFirst(key.count).first == "-" && alias.suffix(8).allSatisfy(\.isHexDigit) ? key : nil
}

/// What the database's container goes on with: its first password stands there for ever, and means nothing any more.
private func judge(kept: [String], changed: Set<String>, _ result: inout RotatedConfig, _ context: StepContext) {
  guard let rotation = context.rotation else { return }
  if changed.isEmpty, let change = context.roleChanges.first { judgeUnused(change, &result, context) }
  guard let database = context.inventory.services.database, !kept.isEmpty else { return }
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

/// A role's password that no service would get: whoever logs in with it has it from elsewhere, or is meant to have it and doesn't.
private func judgeUnused(_ change: RoleChange, _ result: inout RotatedConfig, _ context: StepContext) {
  // The database's container has an older one since the first rotation: what runs doesn't tell.
  let own = context.config.map { databaseRoles($0, context.inventory, context.env ?? []) } ?? [:]
  if own[change.name] != nil {
    result.warnings.append(
      "no service but the database's own has \(change.name), and none is recreated: whatever else logs in as \(change.role) needs the new password"
    )
  } else {
    result.problems.append(
      "\(change.name) is the password of the database role \(change.role), and no service that runs has it: the role would change, and nobody would know. "
        + "Give it to the service that logs in, in the compose file, and deploy that first "
        + "(--include SERVICE for one outside services.app); or take @role out of the template, deploy, and change the role by hand"
    )
  }
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
  /// Variables by name, and paths of values in files: random, so that they stand for nothing else wherever they stand.
  let before: [String: String], after: [String: String], files: [(old: String, new: String)]
  let new: JSONValue
  /// It may run as an older compose file has it.
  var isKept = false
  /// Where something was replaced.
  var places: [[String]] = []
  /// Services of which nobody can tell what would come there.
  var lost: Set<String> = []
  /// Old values that stand in what runs with the new ones: words that mean something else as well.
  private let ordinary: Set<String>

  /// - Parameters:
  ///   - present: what runs with the new values already, if anything does.
  ///   - database: the service that keeps its first value for ever.
  init(rotation: Rotation, new: JSONValue, present: ComposeConfig? = nil, besides database: String? = nil) {
    self.new = new
    let before = rotation.before.mapValues { $0.reveal() }, after = rotation.after.mapValues { $0.reveal() }
    (self.before, self.after) = (before, after)
    files = rotation.values.filter { $0.path != nil }.compactMap { value in
      let name = value.variable.name
      guard let old = before[name], let new = after[name] else { return nil }
      return (old, new)
    }
    pairs = rotation.before.map { ($0.value.reveal(), rotation.after[$0.key]?.reveal() ?? "") }
      .sorted { ($0.0.count, $0.0) > ($1.0.count, $1.0) }
    var text = ""
    for (name, service) in present?.root["services"]?.objectValue?.members ?? [] where name != database {
      guard var members = service.objectValue else { continue }
      for key in members.keys where !Self.interpolated.contains(key) { members[key] = nil }
      text += unescapeDollars(JSONValue.object(members).text())
    }
    ordinary = Set(pairs.map(\.old).filter { !$0.isEmpty && text.contains($0) })
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
    if let other = composed(path)?.stringValue {
      let next = unescapeDollars(other)
      // Made from something else, as Compose shows.
      guard next != plain else { return .string(text) }
      if pairs.contains(where: { holds(next, $0.new) }) {
        places.append(path)
        return .string(other)
      }
    }
    // A secret that was given another name beside one that the database keeps: no compose file knows it.
    let moved = files.reduce(plain) { $0.replacing($1.old, with: $1.new) }
    if moved != plain { return replaced(by: moved, at: path) }
    // Something else looks like it: an image's name, a path. Short values are found everywhere.
    guard isKept, path.count > 2, Self.interpolated.contains(path[2]) else {
      if isKept, new == .null, path.count > 2, path[2] != "image" { tellLost(plain, path) }
      return .string(text)
    }
    // As `env_file` has it.
    if path[2] == "environment", let name = path.last, before[name] == plain, let value = after[name] {
      return replaced(by: value, at: path)
    }
    var next = plain
    for pair in pairs where isUnmistakable(pair.old) { next = next.replacing(pair.old, with: pair.new) }
    guard next != plain else {
      if composed(path) == nil { lost.insert(owner(path)) }
      return .string(text)
    }
    return replaced(by: next, at: path)
  }

  /// What the release's own compose file says there; a file with a name of ours stands under its own.
  private func composed(_ path: [String]) -> JSONValue? {
    if let value = new[path: path] { return value }
    guard path.count > 2, path[0] != "services", let key = ownName(of: path[1]) else { return nil }
    return new[path: [path[0], key] + path.dropFirst(2)]
  }

  private func isUnmistakable(_ old: String) -> Bool { old.count >= Self.unmistakable && !ordinary.contains(old) }

  private mutating func tellLost(_ plain: String, _ path: [String]) {
    if pairs.contains(where: { isUnmistakable($0.old) && plain.contains($0.old) }) { lost.insert(owner(path)) }
  }

  private func owner(_ path: [String]) -> String {
    path[0] == "services" ? "service \(path[1])" : "\(path[0].dropLast()) \(path[1])"
  }

  /// - Parameter text: as it is meant; Compose reads it again.
  private mutating func replaced(by text: String, at path: [String]) -> JSONValue {
    places.append(path)
    return .string(text.replacing("$", with: "$$"))
  }

  private static let unmistakable = 8
  private static let interpolated: Set<String> = [
    "environment", "command", "entrypoint", "healthcheck", "labels", "annotations", "logging", "extra_hosts", "content",
  ]

  /// An empty or short value counts only where it is all there is.
  private func holds(_ text: String, _ value: String) -> Bool {
    value.count < 4 ? text == value : text.contains(value)
  }
}

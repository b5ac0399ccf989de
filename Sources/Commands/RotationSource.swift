internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Synchronization

/// Where the values lie that containers get in files: names that tell nothing of the value, and stay while it stays.
struct SecretPlaces {
  private let folder: String

  init(_ inventory: Inventory) { folder = HostPaths(project: inventory.project).secrets }

  /// - Parameter present: the variables of the running release's env file.
  func placed(_ value: ResolvedValue, present: [String: String], current: Release?) -> ResolvedValue {
    guard value.isFile else { return value }
    var value = value
    let old = present[value.name + EnvFile.pathSuffix]
    let isUnchanged = current?.env[value.name] == SHA256.hex(Array(value.value.utf8))
    value.path = old.flatMap { isUnchanged && holds($0, value.name) ? $0 : nil } ?? new(value.name)
    return value
  }

  /// Whether that is the path of a value in a file.
  func holds(_ path: String, _ name: String) -> Bool { path.hasPrefix("\(folder)/\(name).") }

  /// A name of an env file with its value, wherever that is.
  struct Entry {
    var name: String
    var value: String
    /// Of the file that holds it.
    var path: String?
  }

  /// - Parameter variables: of an env file, with the values that are in files.
  func entries(_ variables: [(name: String, value: String)]) -> [Entry] {
    let values = Dictionary(variables, uniquingKeysWith: { $1 })
    var entries: [Entry] = []
    for (variable, text) in variables {
      // Its own line, which another file had: it comes with its path.
      if let path = values[variable + EnvFile.pathSuffix], holds(path, variable) { continue }
      let base = variable.hasSuffix(EnvFile.pathSuffix) ? String(variable.dropLast(EnvFile.pathSuffix.count)) : ""
      if let value = values[base], holds(text, base) {
        entries.append(Entry(name: base, value: value, path: text))
      } else {
        entries.append(Entry(name: variable, value: text))
      }
    }
    return entries
  }

  /// Never a hash of the value: the path stands in every container's configuration.
  func new(_ name: String) -> String {
    do { return "\(folder)/\(name).\(Hex.encode(try SecureRandom.bytes(8)))" } catch {
      preconditionFailure("no random numbers: \(error.message)")
    }
  }
}

/// The new value of `secrets rotate`: made once, however often it is asked for.
final class RotationSource: Sendable {
  /// From stdin; nil: one is made.
  private let given: Secret?
  private let state = Mutex<(value: Secret?, isInVault: Bool)>((nil, false))

  init(given: Secret?) { self.given = given }

  /// What the vault has to be given after the commit; nil: the name isn't the vault's.
  var forVault: Secret? { state.withLock { $0.isInVault ? $0.value : nil } }

  /// - Parameters:
  ///   - present: the running release's env file, with the values that are in files.
  ///   - sources: what else has values.
  func rotation(
    of key: String, _ loaded: LoadedProject, secrets: HostSecrets, present: [(name: String, value: String)],
    sources: [EnvSource: [String: String]], current: Release
  ) throws -> Rotation {
    let inventory = loaded.inventory
    guard let template = loaded.template else { throw fault("the inventory names no env template", inventory, nil) }
    try check(key, template, inventory)
    let host = Dictionary(present, uniquingKeysWith: { $1 })
    var all = sources
    all[.host] = host
    let source = inventory.env.from.first { all[$0]?[key]?.isEmpty == false }
    let isEntry = template.names.contains(key)
    guard let old = isEntry ? host[key] : source.flatMap({ all[$0]?[key] }) else {
      throw fault(
        "the running release (\(current.version)) has no \(key)", inventory,
        "deploy it first: orchestrate env \(inventory.environment) --diff shows what the next deploy brings")
    }
    let replaced = current.replaced?[key] ?? []
    let isBehind = { (value: String) in replaced.contains(SHA256.hex(Array(value.utf8))) }
    // Somebody has set it in the vault already: that is the one that is wanted.
    let inVault = all[.vault]?[key].flatMap { source == .vault && $0 != old && !isBehind($0) ? $0 : nil }
    let isSecret = secrets.isSecret(key) || template.entries.contains { $0.name == key && $0.isFile }
    let value = try newValue(
      of: key, old: old, inVault: inVault, source, all, template, inventory, isSecret: isSecret)
    var request = EnvRequest(
      from: inventory.env.from, values: sources, builtins: ["VERSION": current.version],
      environment: inventory.environment, generate: { SecureRandom.word($0) })
    request.values[.flags] = [:]
    let made = try template.values(changing: key, from: old, to: value, present: host, request: request)
    state.withLock { $0.isInVault = source == .vault }
    var rotation = try rotation(of: key, made, value, present, all, secrets, template, inventory)
    if value == inVault { rotation.note = "\(key) gets the value that the vault has already" }
    return rotation
  }

  /// The running release's values with the new ones in their places.
  private func rotation(
    of key: String, _ made: [ResolvedValue], _ value: String, _ present: [(name: String, value: String)],
    _ sources: [EnvSource: [String: String]], _ secrets: HostSecrets, _ template: EnvTemplate, _ inventory: Inventory
  ) throws -> Rotation {
    let places = SecretPlaces(inventory)
    let new = Dictionary(made.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
    var rotation = Rotation(key: key, values: [], before: [:], after: [:], roles: template.roles)
    for entry in places.entries(present) {
      let name = entry.name, isFile = entry.path != nil
      let next = new[name]?.value ?? entry.value
      var resolved = ResolvedValue(
        name: name, value: next, isSecret: isFile || secrets.isSecret(name) || new[name]?.isSecret == true,
        origin: .source(.host), type: next.contains("\n") ? .pem : .string, isFile: isFile, path: entry.path)
      if next != entry.value {
        if isFile { resolved.path = places.new(name) }
        rotation.before[resolved.variable.name] = Secret(entry.path ?? entry.value)
        rotation.after[resolved.variable.name] = Secret(resolved.variable.value)
        resolved.origin = new[name]?.origin ?? resolved.origin
      }
      rotation.values.append(resolved)
    }
    guard !rotation.after.isEmpty else {
      throw fault("\(key) has this value already, or nothing on the host is made from it", inventory, nil)
    }
    if sources[.generated]?[key] != nil { rotation.kept = [key: Secret(value)] }
    return rotation
  }

  /// Whether a rotation can change it at all.
  private func check(_ key: String, _ template: EnvTemplate, _ inventory: Inventory) throws {
    let environment = inventory.environment
    guard !template.sourceNames.contains(key) else { return }
    if inventory.registry?.password == key {
      throw fault(
        "\(key) is the registry's password, which no container has", inventory,
        "change it at the registry, then: orchestrate secrets set \(environment) \(key)")
    }
    guard let entry = template.entries.first(where: { $0.name == key }) else {
      throw fault(
        "the env template has no \(key)", inventory,
        nearestName(to: key, among: template.sourceNames).map { "did you mean \($0)?" }
          ?? "it has \(template.sourceNames.joined(separator: ", "))")
    }
    let references = entry.references.filter { $0 != key && !EnvTemplate.reserved.contains($0) }
    throw references.isEmpty
      ? fault("\(key) is fixed in the env template (\(entry.location))", inventory, "change it there, and deploy")
      : fault(
        "\(key) is made from \(references.joined(separator: ", "))", inventory,
        "orchestrate secrets rotate \(environment) \(references[0])")
  }

  private func newValue(
    of key: String, old: String, inVault: String?, _ source: EnvSource?, _ sources: [EnvSource: [String: String]],
    _ template: EnvTemplate, _ inventory: Inventory, isSecret: Bool
  ) throws -> String {
    if let value = state.withLock({ $0.value }) { return value.reveal() }
    let value: String
    if source == .environment, let variable = sources[.environment]?[key] {
      // It would come back with the next deploy.
      guard given == nil || given?.reveal() == variable, variable != old else {
        throw fault(
          "\(key) comes from the environment variable of that name, which stands above what a rotation could keep",
          inventory, "set the variable to the new value (in CI: its secret), then the same command again")
      }
      value = variable
    } else if let given {
      value = given.reveal()
    } else if let inVault {
      value = inVault
    } else if let made = try template.newValue(of: key, generate: { SecureRandom.word($0) }) {
      value = made
    } else {
      try checkRandom(key, old, template, inventory, isSecret: isSecret)
      value = SecureRandom.word(max(old.count, Self.shortest))
    }
    guard value != old else {
      // The way out for a vault that couldn't be written after a rotation.
      throw fault(
        "\(key) has this value already", inventory,
        source == .vault
          ? "should the vault have another one, set it there alone: orchestrate secrets set \(inventory.environment) \(key)"
          : nil)
    }
    let remembers = inventory.env.from.contains(.host) || source == .vault || sources[.generated]?[key] != nil
    guard remembers else {
      throw fault(
        "nothing would keep the new value of \(key): `env.from` names neither the vault nor the host", inventory,
        "add host to env.from in the inventory")
    }
    state.withLock { $0.value = Secret(value) }
    return value
  }

  private static let shortest = 16

  /// What somebody else has issued, or what has a form, can't be made up.
  private func checkRandom(
    _ key: String, _ old: String, _ template: EnvTemplate, _ inventory: Inventory, isSecret: Bool
  ) throws {
    let type = template.entries.first { $0.name == key }?.type ?? .string
    let isWord = old.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "+/=_-.~".contains($0)) }
    guard !isSecret || type != .string || !isWord || old.isEmpty else { return }
    throw fault(
      "the value of \(key) isn't a random word that another could stand for", inventory,
      "give the new one: orchestrate secrets rotate \(inventory.environment) \(key) --stdin")
  }

  private func fault(_ text: String, _ inventory: Inventory, _ remedy: String?) -> OrchestrateError {
    OrchestrateError(.usage, text, state: "nothing was changed", remedy: remedy)
  }
}

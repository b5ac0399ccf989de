import ConfigSource

/// What the compose file says of a service's memory, as it is written there. Planned values have to leave room for it, and they are needed before
/// Compose can read the file.
struct ComposeService: Sendable, Equatable {
  /// `mem_limit`, or `deploy.resources.limits.memory`.
  var limit: String?
  /// `deploy.replicas`, or `scale`.
  var replicas: String?

  /// Bytes for one of its containers; nil: no limit, or one that only Compose can tell.
  func limit(_ values: [String: String]) -> Int64? {
    limit.flatMap { Self.filled($0, values) }.flatMap { Self.bytes($0) }
  }

  /// Whether no value can change it.
  var isLiteral: Bool { limit.map { !$0.contains("$") && Self.bytes($0) != nil } ?? false }

  func containers(_ values: [String: String]) -> Int {
    max(0, min(10_000, replicas.flatMap { Self.filled($0, values) }.flatMap { Int($0) } ?? 1))
  }

  /// `${NAME}`, `${NAME:-256m}` and their like with their values; nil: more than that.
  static func filled(_ text: String, _ values: [String: String]) -> String? {
    guard text.contains("$") else { return text }
    guard text.hasPrefix("$") else { return nil }
    var inner = text.dropFirst()
    if inner.hasPrefix("{") {
      guard inner.hasSuffix("}") else { return nil }
      inner = inner.dropFirst().dropLast()
    }
    let name = String(inner.prefix { $0 == "_" || ($0.isASCII && ($0.isLetter || $0.isNumber)) })
    guard Names.isVariable(name) else { return nil }
    let rest = inner.dropFirst(name.count)
    if rest.hasPrefix(":+") || rest.hasPrefix("+") { return nil }
    if let value = values[name], !value.isEmpty { return value }
    let word: Substring? =
      rest.hasPrefix(":-") ? rest.dropFirst(2) : rest.hasPrefix("-") ? rest.dropFirst() : nil
    return word.flatMap { $0.contains("$") ? nil : String($0) }
  }

  /// As Compose reads a size: `256m`, `1.5g`, `512MiB`, `1073741824`. Nil: no size, or none at all (0).
  static func bytes(_ text: String) -> Int64? {
    let digits = text.prefix { ("0"..."9").contains($0) || $0 == "." }
    var unit = text.dropFirst(digits.count).lowercased()
    if unit.hasPrefix(" ") { unit.removeFirst() }
    if unit.hasSuffix("b") { unit.removeLast() }
    if unit.hasSuffix("i") { unit.removeLast() }
    let powers = ["": 0, "k": 10, "m": 20, "g": 30, "t": 40]
    guard let number = Double(String(digits)), let power = powers[unit] else { return nil }
    let size = (number * Double(Int64(1) << power)).rounded()
    guard size > 0 else { return nil }
    return Int64(exactly: size) ?? .max
  }

  /// Those that a deployment may bring up, by name: none under a profile. What can't be read is Compose's to tell.
  static func all(in source: SourceText) -> [String: ComposeService] {
    guard let root = YAMLParser.parse(source, diagnostics: DiagnosticCollector()),
      case .mapping(let services) = root["services"]?.content
    else { return [:] }
    var found: [String: ComposeService] = [:]
    for entry in services where entry.value["profiles"] == nil {
      let deploy = entry.value["deploy"]
      found[entry.key] = ComposeService(
        limit: (deploy?["resources"]?["limits"]?["memory"] ?? entry.value["mem_limit"])?.word,
        replicas: (deploy?["replicas"] ?? entry.value["scale"])?.word)
    }
    return found
  }
}

extension YAMLNode {
  fileprivate subscript(key: String) -> YAMLNode? {
    guard case .mapping(let entries) = content else { return nil }
    return entries.first { $0.key == key }?.value
  }

  fileprivate var word: String? {
    guard case .scalar(let scalar) = content, !scalar.isNull else { return nil }
    return scalar.text
  }
}

extension LoadedProject {
  /// The machine's memory, shared out among the inventory's services beside what the compose file promises to others.
  ///
  /// - Parameter values: of the env file, which Compose fills in; nil: they aren't known yet, and nothing is taken off for the others.
  public func memoryPlan(_ machine: MachineSize, values: [String: String]?) throws(MemoryShortage) -> MemoryPlan {
    var roles = inventory.services
    let standing = roles.app + [roles.database, roles.cache].compactMap(\.self)
    guard let values else { return try MemoryPlan(machine, services: roles, weights: inventory.memoryWeights) }
    // Whose limit was written by hand, and for whom nothing is planned, is one of the others.
    let used = Set((template?.entries ?? []).flatMap { EnvPart.memoryNames(in: $0.parts) }.map { $0.name })
    func isFixed(_ service: String, _ names: [String]) -> Bool {
      used.isDisjoint(with: names + [service]) && composeServices[service]?.limit(values) != nil
    }
    if let database = roles.database, isFixed(database, MemoryPlan.databaseNames) { roles.database = nil }
    if let cache = roles.cache, isFixed(cache, MemoryPlan.cacheNames) { roles.cache = nil }
    roles.app.removeAll { isFixed($0, ["app"]) }
    // `app` is meant for those that have no limit of their own in the compose file.
    let planned = roles.app.filter { used.contains($0) || composeServices[$0]?.isLiteral != true }
    if !planned.isEmpty { roles.app = planned }
    let own = Set(roles.app + [roles.database, roles.cache].compactMap(\.self))
    var oneOff: Set<String> = [], containers: [String: Int] = [:]
    var others: Int64 = 0
    for case .migrate(let settings) in playbook.steps.map(\.settings) {
      oneOff.formUnion([settings.service].compactMap(\.self))
    }
    for case .recreate(let settings) in playbook.steps.map(\.settings) { oneOff.subtract(settings.services) }
    for (name, service) in composeServices where !oneOff.contains(name) || standing.contains(name) {
      let count = service.containers(values)
      if own.contains(name) {
        containers[name] = count
      } else if let limit = service.limit(values) {
        let (product, isTooMuch) = limit.multipliedReportingOverflow(by: Int64(count))
        let (sum, isStillTooMuch) = others.addingReportingOverflow(product)
        others = isTooMuch || isStillTooMuch ? .max : sum
      }
    }
    return try MemoryPlan(
      machine, services: roles, weights: inventory.memoryWeights, containers: containers, others: others)
  }
}

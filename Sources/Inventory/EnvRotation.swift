import ConfigSource
import Diagnostics

extension EnvTemplate {
  /// Roles of the database by the names that are their passwords (`@role`).
  public var roles: [String: String] {
    var roles: [String: String] = [:]
    for entry in entries { if let role = entry.role { roles[entry.name] = role } }
    return roles
  }

  /// The names whose values are made from that name's, in the template's order; it itself among them, if the template has it.
  public func names(madeFrom name: String) -> [String] {
    var found: Set<String> = [name]
    var count = 0
    while found.count > count {
      count = found.count
      for entry in entries where !entry.references.allSatisfy({ !found.contains($0) }) { found.insert(entry.name) }
    }
    return names.filter(found.contains)
  }

  /// A new value of a name that is generated.
  public func newValue(of name: String, generate: @escaping @Sendable (Int) -> String) throws -> String? {
    guard let entry = entries.first(where: { $0.name == name }), entry.isGenerated else { return nil }
    let request = EnvRequest(from: [.generated], environment: "", generate: generate)
    return try EnvTemplate(entries: [entry]).resolve(request).values.first?.value
  }

  /// What becomes of the names that are made from `name` when its value is another. Everything else is what it is.
  /// - Parameters:
  ///   - present: the values of the running release, by name.
  ///   - request: its sources have what the env file doesn't hold itself.
  ///
  /// Throws `ConfigurationError` if a value doesn't fit its type.
  public func values(
    changing name: String, from old: String, to value: String, present: [String: String], request: EnvRequest
  ) throws -> [ResolvedValue] {
    let names = names(madeFrom: name)
    let reduced = EnvTemplate(entries: entries.filter { names.contains($0.name) })
    var request = request
    var host = present
    host[name] = value
    // What is made anew isn't found among what was; a value of its own is.
    for other in names where other != name && present[other]?.contains(old) == true { host[other] = nil }
    request.values[.host] = host
    request.from = [.host] + request.from.filter { $0 != .host }
    request.databaseVolumeExists = true
    return try reduced.resolve(request).values
  }
}

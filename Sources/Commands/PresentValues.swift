internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory

/// The values of a release that is gone back to, where a rotation has replaced some since: those keep their present values, and what was made from them
/// gets these in it.
struct PresentValues {
  let secrets: HostSecrets
  let places: SecretPlaces

  init(_ secrets: HostSecrets) {
    self.secrets = secrets
    places = SecretPlaces(secrets.inventory)
  }

  /// - Parameters:
  ///   - older: the env file of the release that is gone back to, with the values that are in files.
  ///   - present: the running release's.
  func carried(
    over current: Release, to version: String, older: [(name: String, value: String)],
    present: [(name: String, value: String)]
  ) -> Rotation {
    var result = Rotation(key: "", values: [], before: [:], after: [:])
    let now = Dictionary(places.entries(present).map { ($0.name, $0) }, uniquingKeysWith: { $1 })
    let entries = places.entries(older)
    let replaced = entries.filter { entry in
      !entry.value.isEmpty && now[entry.name]?.value != entry.value
        && current.replaced?[entry.name]?.contains(SHA256.hex(Array(entry.value.utf8))) == true
    }
    let gone = replaced.filter { now[$0.name] == nil }.map(\.name)
    if !gone.isEmpty {
      result.note =
        "\(gone.joined(separator: ", ")): replaced by a rotation since \(version) ran, and the running release has no other value: the older one comes back"
    }
    let rotated = Dictionary(replaced.compactMap { entry in now[entry.name].map { (entry.name, $0.value) } }) { $1 }
    // What is made from another rotated value is made anew: the older release may make something else of it than the running one does.
    let roots = replaced.filter { entry in
      rotated[entry.name] != nil && !replaced.contains { isMade(entry.value, from: $0.value) }
    }
    let pairs = roots.filter { $0.value.count >= Self.unmistakable }
      .map { (old: $0.value, new: rotated[$0.name] ?? $0.value) }
      .sorted { ($0.old.count, $0.old) > ($1.old.count, $1.old) }
    for entry in entries {
      var value = entry.value
      if !roots.contains(where: { $0.name == entry.name }) {
        for pair in pairs { value = value.replacing(pair.old, with: pair.new) }
      }
      if value == entry.value { value = rotated[entry.name] ?? value }
      append(entry, value, now[entry.name], &result)
    }
    return result
  }

  private func append(
    _ entry: SecretPlaces.Entry, _ value: String, _ now: SecretPlaces.Entry?, _ result: inout Rotation
  ) {
    var resolved = ResolvedValue(
      name: entry.name, value: value, isSecret: entry.path != nil || secrets.isSecret(entry.name),
      origin: .source(.host), type: value.contains("\n") ? .pem : .string, isFile: entry.path != nil, path: entry.path)
    if value != entry.value {
      resolved.isSecret = true
      if entry.path != nil { resolved.path = (now?.value == value ? now?.path : nil) ?? places.new(entry.name) }
      result.before[resolved.variable.name] = Secret(entry.path ?? entry.value)
      result.after[resolved.variable.name] = Secret(resolved.variable.value)
    }
    result.values.append(resolved)
  }

  /// Shorter text stands in others by chance.
  private static let unmistakable = 8

  private func isMade(_ text: String, from other: String) -> Bool {
    other.count >= Self.unmistakable && other.count < text.count && text.contains(other)
  }
}

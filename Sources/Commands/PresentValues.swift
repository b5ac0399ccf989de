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
    over current: Release, to target: Release, older: [(name: String, value: String)],
    present: [(name: String, value: String)]
  ) -> Rotation {
    var result = Rotation(key: "", values: [], before: [:], after: [:])
    let now = Dictionary(places.entries(present).map { ($0.name, $0) }, uniquingKeysWith: { $1 })
    // A role's password may have another name by now.
    func standing(_ name: String) -> SecretPlaces.Entry? {
      if let entry = now[name] { return entry }
      guard let role = target.roles?[name] else { return nil }
      return (current.roles ?? [:]).filter { $0.value == role }.keys.sorted().lazy.compactMap { now[$0] }.first
    }
    let entries = places.entries(older)
    let replaced = entries.filter { entry in
      !entry.value.isEmpty && standing(entry.name)?.value != entry.value
        && current.replaced?[entry.name]?.contains(SHA256.hex(Array(entry.value.utf8))) == true
    }
    let gone = replaced.filter { standing($0.name) == nil }
    let rotated = Dictionary(replaced.compactMap { entry in standing(entry.name).map { (entry.name, $0.value) } }) {
      $1
    }
    // What is made from another rotated value is made anew: the older release may make something else of it than the running one does.
    let roots = replaced.filter { entry in
      rotated[entry.name] != nil && !replaced.contains { isMade(entry.value, from: $0.value) }
    }
    let unchanged = entries.filter { now[$0.name]?.value == $0.value }
    let remade = Remade(
      pairs: roots.map { (old: $0.value, new: rotated[$0.name] ?? $0.value) }, unchanged: unchanged.map(\.value))
    var unknown: [String] = []
    for entry in entries {
      var value = entry.value
      if roots.contains(where: { $0.name == entry.name }) {
        value = rotated[entry.name] ?? value
      } else if now[entry.name]?.value != value, !gone.contains(where: { isMade(entry.value, from: $0.value) }) {
        value = remade.value(of: value, as: now[entry.name]?.value) ?? rotated[entry.name] ?? value
        let isGone = gone.contains { $0.name == entry.name }
        if value == entry.value, !isGone, current.replaced?[entry.name] != nil { unknown.append(entry.name) }
      }
      append(entry, value, now[entry.name], &result)
    }
    result.note = note(gone.map(\.name), unknown, target.version)
    return result
  }

  private func note(_ gone: [String], _ unknown: [String], _ version: String) -> String? {
    var parts: [String] = []
    if !gone.isEmpty {
      parts.append(
        "\(gone.joined(separator: ", ")): replaced by a rotation since \(version) ran, and the running release has no other value: the older one comes back"
      )
    }
    if !unknown.isEmpty {
      parts.append(
        "\(unknown.joined(separator: ", ")): rotated once, and \(version) has a value that isn't known: it comes back as it was"
      )
    }
    return parts.isEmpty ? nil : parts.joined(separator: "; ")
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

  private func isMade(_ text: String, from other: String) -> Bool {
    other.count >= Remade.unmistakable && other.count < text.count && text.contains(other)
  }
}

/// Text that is made from values which have been replaced.
private struct Remade {
  /// The longest old one first.
  let pairs: [(old: String, new: String)]
  /// What stands in both releases alike: a word that is found there, like a user's name, doesn't tell where else it is the value.
  let unchanged: [String]

  /// Shorter text stands in others by chance.
  static let unmistakable = 8

  init(pairs: [(old: String, new: String)], unchanged: [String]) {
    self.pairs = pairs.filter { $0.old.count >= Self.unmistakable }
      .sorted { ($0.old.count, $0.old) > ($1.old.count, $1.old) }
    self.unchanged = unchanged
  }

  /// - Parameter present: what the running release has by that name.
  /// - Returns: nil: nothing is made anew.
  func value(of older: String, as present: String?) -> String? {
    if let present {
      // Made in the same way in both: whatever else looks like the value.
      let back = pairs.sorted { $0.new.count > $1.new.count }
        .reduce(present) { $1.new.isEmpty ? $0 : $0.replacing($1.new, with: $1.old) }
      if back == older { return present }
    }
    let made = pairs.reduce(older) { text, pair in
      unchanged.contains { $0.contains(pair.old) } ? text : text.replacing(pair.old, with: pair.new)
    }
    return made == older ? nil : made
  }
}

public import Engine
import Inventory

/// What masks secrets in the differences of two configurations.
public struct DifferenceMask: Sendable {
  /// Values that must not be seen.
  var values: [String]
  /// Hashes (SHA-256) of values that must not be seen and aren't known themselves: those of the running release.
  var hashes: Set<String>
  var sha256: @Sendable ([UInt8]) -> String

  /// The secrets of the new env, the running release's by their hashes, and whatever the running configuration has
  /// under a secret's name.
  public init(_ context: StepContext) {
    sha256 = context.sha256
    let secrets = (context.env ?? context.carriedOver?.values ?? []).filter(\.isSecret)
    values = secrets.map(\.value)
    let names = Set(secrets.map(\.name))
    hashes = Set((context.current?.env ?? [:]).filter { names.contains($0.key) || isSecretName($0.key) }.values)
    for config in [context.currentConfig, context.config] {
      for service in config?.serviceNames ?? [] {
        for (name, value) in config?.service(service)?["environment"]?.objectValue?.members ?? [] {
          if names.contains(name) || isSecretName(name), let text = value.stringValue {
            values.append(unescapeDollars(text))
          }
        }
      }
    }
    values = Array(Set(values.filter { $0.count >= 4 })).sorted { $0.count > $1.count }
  }

  /// `********` if the text holds a secret, or a URL with a password; else the text.
  func masked(_ text: String) -> String {
    let plain = unescapeDollars(text)
    if values.contains(where: { plain.contains($0) }) || holdsUserInfo(plain) { return "********" }
    let words = plain.split(whereSeparator: { $0.isWhitespace || "=,;\"'".contains($0) })
    if words.contains(where: { hashes.contains(sha256(Array($0.utf8))) }) { return "********" }
    return plain
  }

  private func holdsUserInfo(_ text: String) -> Bool {
    for word in text.split(whereSeparator: \.isWhitespace) {
      guard let scheme = word.firstRange(of: "://") else { continue }
      let authority = word[scheme.upperBound...].prefix { $0 != "/" && $0 != "?" }
      if let at = authority.lastIndex(of: "@"), authority[..<at].contains(":") { return true }
    }
    return false
  }
}

/// The names that are secret without a mark (docs/inventory.md).
func isSecretName(_ name: String) -> Bool {
  let upper = name.uppercased()
  return ["TOKEN", "PASSWORD", "SECRET", "KEY"].contains { upper.hasSuffix($0) }
}

/// What differs between the services of two effective configurations, as changes to services: images by reference and
/// digest, environment
/// by name only, everything else with its values before and after. A service that is the same in both gives nothing.
public func diff(
  old: ComposeConfig?, new: ComposeConfig, oldImages: [String: Release.Image] = [:],
  newImages: [String: Release.Image] = [:],
  mask: DifferenceMask
) -> [Change] {
  let names = Set(old?.serviceNames ?? []).union(new.serviceNames).sorted()
  return names.compactMap { name in
    switch (old?.service(name), new.service(name)) {
    case (nil, let service?):
      let image = newImages[name].map(describe) ?? service["image"]?.stringValue ?? "?"
      return Change(.create, "service \(name)", detail: ["+ image: \(image)"])
    case (.some, nil): return Change(.delete, "service \(name)", detail: ["- service \(name)"])
    case (let before?, let after?):
      let lines = serviceDifference(before, after, images: (oldImages[name], newImages[name]), mask: mask)
      return lines.isEmpty ? nil : Change(.recreate, "service \(name)", detail: lines)
    case (nil, nil): return nil
    }
  }
}

private func serviceDifference(
  _ before: JSONValue, _ after: JSONValue, images: (old: Release.Image?, new: Release.Image?), mask: DifferenceMask
) -> [String] {
  var lines: [String] = []
  let old = before.objectValue ?? [:], new = after.objectValue ?? [:]
  for key in Set(old.keys).union(new.keys).sorted() where old[key] != new[key] {
    // Not in Compose's config hash: a change there recreates nothing.
    if key == "depends_on" { continue }
    switch key {
    case "image":
      let from = images.old.map(describe) ?? old[key]?.stringValue ?? "?"
      let to = images.new.map(describe) ?? new[key]?.stringValue ?? "?"
      lines.append("~ image: \(from) → \(to)")
    case "environment": lines += environmentDifference(old[key], new[key])
    default:
      let from = flattened(old[key], at: key), to = flattened(new[key], at: key)
      for path in Set(from.keys).union(to.keys).sorted() where from[path] != to[path] {
        switch (from[path].map(mask.masked), to[path].map(mask.masked)) {
        case (nil, let value?): lines.append("+ \(path): \(value)")
        case (let value?, nil): lines.append("- \(path): \(value)")
        case (let from?, let to?):
          let hidden = from == "********" || to == "********"
          lines.append(hidden ? "~ \(path): (not shown)" : "~ \(path): \(from) → \(to)")
        case (nil, nil): break
        }
      }
    }
  }
  return lines
}

private func environmentDifference(_ old: JSONValue?, _ new: JSONValue?) -> [String] {
  let old = old?.objectValue ?? [:], new = new?.objectValue ?? [:]
  return Set(old.keys).union(new.keys).sorted().compactMap { name in
    if old[name] == new[name] { return nil }
    return old[name] == nil
      ? "+ environment \(name)" : new[name] == nil ? "- environment \(name)" : "~ environment \(name)"
  }
}

/// Leaves by their dotted path. Lists of plain values (commands, tests) are one line, as people write them.
private func flattened(_ value: JSONValue?, at path: String) -> [String: String] {
  switch value {
  case nil, .null: return [:]
  case .object(let object):
    var leaves: [String: String] = [:]
    for (key, member) in object.members { leaves.merge(flattened(member, at: "\(path).\(key)")) { first, _ in first } }
    return leaves
  case .array(let items):
    if items.allSatisfy({ $0.objectValue == nil && $0.arrayValue == nil }) {
      return [path: items.map { $0.stringValue ?? $0.text() }.joined(separator: " ")]
    }
    var leaves: [String: String] = [:]
    for (index, item) in items.enumerated() {
      let name = item["target"]?.stringValue ?? item["target"]?.text() ?? item["source"]?.stringValue ?? String(index)
      leaves.merge(flattened(item, at: "\(path)[\(name)]")) { first, _ in first }
    }
    return leaves
  case .some(let leaf): return [path: leaf.stringValue ?? leaf.text()]
  }
}

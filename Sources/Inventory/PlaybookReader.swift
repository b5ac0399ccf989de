import ConfigSource
import Diagnostics

/// Nodes to a `Playbook`. Reports every fault to its collector.
struct PlaybookReader {
  let name: String
  let interpolation: Interpolation
  let diagnostics: DiagnosticCollector
  /// Nil: all steps are read, and their order is judged. Else what steps of other kinds say is nobody's concern.
  var kinds: Set<StepKindName>?
  /// Nil: roles and paths aren't checked.
  var inventory: Inventory?
  var root = "/"
  var files: FileSource?

  func read(_ node: YAMLNode) -> Playbook? {
    guard let top = MappingReader(interpolated(node), PlaybookSchema.playbook, path: "", diagnostics: diagnostics)
    else {
      return nil
    }
    var playbook = Playbook(name: name, watch: kinds == nil ? top.duration("watch") : nil, steps: [])
    guard let nodes = top.sequence("steps", of: "steps", allowEmpty: false) else { return nil }
    let drafts = nodes.compactMap(step)
    playbook.steps = named(drafts)
    guard kinds == nil else { return playbook }
    PlaybookRules(
      playbook: playbook, isComplete: drafts.count == nodes.count, watchPlace: top.place("watch"),
      stepsPlace: top.place("steps"), diagnostics: diagnostics
    ).check()
    return playbook
  }

  /// `${name}` filled in; `${revision}` stays in migrate's `down`.
  private func interpolated(_ node: YAMLNode) -> YAMLNode {
    func entries(_ node: YAMLNode, _ change: (YAMLEntry) -> YAMLNode) -> YAMLNode {
      guard case .mapping(let list) = node.content else { return interpolation.apply(to: node) }
      return YAMLNode(
        .mapping(list.map { YAMLEntry(key: $0.key, keyLocation: $0.keyLocation, value: change($0)) }), at: node.location
      )
    }
    return entries(node) { top in
      guard top.key == "steps", case .sequence(let steps) = top.value.content else {
        return kinds == nil ? interpolation.apply(to: top.value) : top.value
      }
      let changed = steps.map { step in
        entries(step) { kind in
          if let known = StepKindName(rawValue: kind.key), !reads(known) { return kind.value }
          guard kind.key == "migrate" else { return interpolation.apply(to: kind.value) }
          return entries(kind.value) { interpolation.apply(to: $0.value, keep: $0.key == "down" ? "revision" : nil) }
        }
      }
      return YAMLNode(.sequence(changed), at: top.value.location)
    }
  }

  private func reads(_ kind: StepKindName) -> Bool { kinds?.contains(kind) ?? true }

  // MARK: Steps

  private struct Draft {
    var name: String?
    var role: String?
    var settings: StepSettings
    var location: SourceLocation
    var namePlace: SourceLocation
  }

  private func step(_ node: YAMLNode) -> Draft? {
    switch node.content {
    case .scalar(let scalar) where !scalar.isNull:
      guard let kind = kind(scalar.text, at: node.location) else { return nil }
      return draft(kind, YAMLNode(.scalar(YAMLScalar("", isPlain: true)), at: node.location), at: node.location)
    case .mapping(let entries):
      guard let first = entries.first else { break }
      if entries.count > 1 {
        let known = entries.first { StepKindName(rawValue: $0.key) != nil }
        for other in entries where other.keyLocation != (known ?? first).keyLocation {
          let isKind = StepKindName(rawValue: other.key) != nil
          diagnostics.error(
            at: other.keyLocation, "a step is one key; `\(other.key)` is a second one",
            help: isKind
              ? "begin a step of its own: - \(other.key):"
              : "indent it below `\((known ?? first).key)`, or put it into its { }")
        }
        return known.flatMap { entry in
          StepKindName(rawValue: entry.key).flatMap { draft($0, entry.value, at: entry.keyLocation) }
        }
      }
      guard let kind = kind(first.key, at: first.keyLocation) else { return nil }
      return draft(kind, first.value, at: first.keyLocation)
    default: break
    }
    diagnostics.error(at: node.location, "expected a step, found \(node.description)", help: "like - commit: {}")
    return nil
  }

  private func kind(_ text: String, at location: SourceLocation) -> StepKindName? {
    if let kind = StepKindName(rawValue: text) { return kind }
    let isBootstrap = self.name == PlaybookRules.bootstrap
    let names = StepKindName.allCases.filter { $0.preparesHost == isBootstrap }.map(\.rawValue)
    diagnostics.error(
      at: location, "unknown step `\(text.prefix(40))`",
      help: nearestName(to: text, among: names).map { "did you mean `\($0)`?" }
        ?? "the steps are \(names.joined(separator: ", "))")
    return nil
  }

  private func draft(_ kind: StepKindName, _ node: YAMLNode, at location: SourceLocation) -> Draft? {
    let table = PlaybookSchema.keys(of: kind), extra = PlaybookSchema.common.names
    let diagnostics = reads(kind) ? diagnostics : DiagnosticCollector()
    var reader = MappingReader(node, table, path: kind.rawValue, extra: extra, diagnostics: diagnostics)
    if reader == nil {
      // The step counts all the same, so that nobody is told that it's missing.
      let nothing = YAMLNode(.mapping([]), at: node.location)
      reader = MappingReader(nothing, table, path: kind.rawValue, extra: extra, diagnostics: DiagnosticCollector())
    }
    guard let reader else { return nil }
    let decoder = StepDecoder(reader: reader, playbook: name, at: location, root: root, files: files)
    return Draft(
      name: stepName(reader), role: role(reader, of: kind, at: location), settings: decoder.settings(of: kind),
      location: location,
      namePlace: reader.has("name") ? reader.place("name") : location)
  }

  private func stepName(_ reader: MappingReader) -> String? {
    guard let name = reader.string("name", "a name") else { return nil }
    if Names.isPlain(name) { return name }
    reader.error("name", "`\(name)` isn't a name for a step: a-z, 0-9, - and _, at most 40 characters")
    return nil
  }

  private func role(_ reader: MappingReader, of kind: StepKindName, at location: SourceLocation) -> String? {
    let known = Set((inventory?.hosts ?? []).flatMap(\.roles))
    guard let role = reader.string("role", "a role") else {
      guard kind == .reverseProxy, !reader.has("role") else { return nil }
      if inventory != nil, !known.isEmpty, !known.contains("web") {
        diagnostics.error(
          at: location, "`reverse-proxy` is for hosts with the role `web`, and the inventory has none",
          help: "add it to a host: roles: [app, web]")
      }
      return "web"
    }
    if inventory != nil, !known.isEmpty, !known.contains(role) {
      reader.error(
        "role", "no host of the inventory has the role `\(role)`",
        help: nearestName(to: role, among: known).map { "did you mean `\($0)`?" }
          ?? "the roles are \(known.sorted().joined(separator: ", "))")
    }
    if kind == .reverseProxy,
      let host = inventory?.hosts.first(where: { $0.roles.contains(role) && !$0.roles.contains("web") })
    {
      reader.error(
        "role", "\(host.name) hasn't the role `web`: `firewall` would leave its ports 80 and 443 shut",
        help: "add it to the host: roles: [\((host.roles + ["web"]).joined(separator: ", "))]")
    }
    return role
  }

  /// Names are unique: given ones by the user's care, the others are the kind's, with a number from the second on.
  private func named(_ drafts: [Draft]) -> [StepSpec] {
    var taken: [String: SourceLocation] = [:]
    for draft in drafts {
      guard let name = draft.name else { continue }
      if let first = taken[name] {
        diagnostics.error(
          at: draft.namePlace, "the name `\(name)` is taken by the step on line \(first.line)",
          help: "names of steps are unique")
      } else {
        taken[name] = draft.namePlace
      }
    }
    return drafts.map { draft in
      var name = draft.name
      if name == nil {
        let kind = draft.settings.kind.rawValue
        var candidate = kind, number = 2
        while taken[candidate] != nil {
          candidate = "\(kind)-\(number)"
          number += 1
        }
        taken[candidate] = draft.location
        name = candidate
      }
      return StepSpec(name: name!, role: draft.role, settings: draft.settings, location: draft.location)
    }
  }
}

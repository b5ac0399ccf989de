import ConfigSource
import Diagnostics

/// Works a template out against its sources. docs/inventory.md, "Where a value comes from".
struct EnvResolver {
  let template: EnvTemplate
  let request: EnvRequest
  private let byName: [String: EnvTemplate.Entry]
  private let diagnostics = DiagnosticCollector()
  /// Nil: it has a fault, which was reported.
  private var done: [String: ResolvedValue?] = [:]
  private var made: Set<String> = []
  /// One machine is too small once, however many names want to be planned.
  private var hasToldShortage = false

  init(template: EnvTemplate, request: EnvRequest) {
    self.template = template
    self.request = request
    byName = Dictionary(template.entries.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
  }

  mutating func resolve() throws -> EnvResolution {
    let values = template.entries.compactMap { value(of: $0) }
    try diagnostics.throwIfErrors()
    return EnvResolution(
      values: values, generated: values.map(\.name).filter(made.contains), warnings: diagnostics.warnings)
  }

  /// Text with what is known about it.
  private struct Piece {
    var text: String
    var isSecret = false
    var origin: EnvOrigin
  }

  private mutating func value(of entry: EnvTemplate.Entry) -> ResolvedValue? {
    if let known = done[entry.name] { return known }
    // Circles are refused when the template is read; this keeps one from looping all the same.
    done[entry.name] = .some(nil)
    let piece = entry.isGenerated ? generated(entry) : evaluate(entry.parts, of: entry)
    guard let piece else { return nil }
    let isSecret = piece.isSecret || entry.isMarkedSecret || entry.isFile || Secrecy.isSecret(name: entry.name)
    guard check(piece, entry, isSecret: isSecret) else { return nil }
    let value = ResolvedValue(
      name: entry.name, value: piece.text, isSecret: isSecret, origin: piece.origin, type: entry.type,
      isFile: entry.isFile)
    done[entry.name] = value
    return value
  }

  private func check(_ piece: Piece, _ entry: EnvTemplate.Entry, isSecret: Bool) -> Bool {
    let from = if case .source(let source) = piece.origin { " (from \(Self.words(source)))" } else { "" }
    if let expected = entry.type.fault(in: piece.text) {
      let found = isSecret ? "something else; its value isn't shown" : "`\(piece.text.prefix(60))`"
      diagnostics.error(at: entry.valueLocation, "\(entry.name)\(from): expected \(expected), found \(found)")
      return false
    }
    let isMultiline = entry.type == .pem || entry.isFile
    if let bad = piece.text.unicodeScalars.first(where: { !EnvFile.isAllowed($0, multiline: isMultiline) }) {
      let what = bad == "\n" || bad == "\r" ? "a line break" : "a control character"
      diagnostics.error(
        at: entry.valueLocation, "\(entry.name)\(from): the value holds \(what)",
        help: bad == "\n" ? "only @type pem and @file may have several lines" : nil)
      return false
    }
    return true
  }

  // MARK: Generated values

  private mutating func generated(_ entry: EnvTemplate.Entry) -> Piece? {
    let onHost = [EnvSource.host, .generated].compactMap { request.values[$0]?[entry.name] }.first { !$0.isEmpty }
    let isDatabase =
      entry.isKept || ["DB_PASSWORD", "POSTGRES_PASSWORD"].contains { entry.name.uppercased().hasSuffix($0) }
    if let (source, text) = lookUp(entry.name) {
      if isDatabase, request.databaseVolumeExists, source != .host, source != .generated, let onHost, onHost != text {
        diagnostics.warning(
          at: entry.location, "\(entry.name) from \(Self.words(source)) isn't the one that the host has",
          help:
            "the database's volume remembers the old one; to change both: orchestrate secrets rotate \(request.environment) \(entry.name)"
        )
      }
      return Piece(text: text, isSecret: true, origin: .source(source))
    }
    if isDatabase, request.databaseVolumeExists {
      diagnostics.error(
        at: entry.valueLocation,
        "\(entry.name) has no value, and the database's volume, which remembers one, exists: a new one would lock the app out",
        help: "give the present one: \(places(entry.name, isSecret: true))")
      return nil
    }
    guard request.from.contains(.generated) else {
      diagnostics.error(
        at: entry.valueLocation, "\(entry.name) has no value, and `env.from` doesn't name the source `generated`",
        help: "add generated to env.from, or give it: \(places(entry.name, isSecret: true))")
      return nil
    }
    guard var piece = evaluate(entry.parts, of: entry) else { return nil }
    made.insert(entry.name)
    piece.isSecret = true
    piece.origin = .source(.generated)
    return piece
  }

  // MARK: Parts

  private mutating func evaluate(_ parts: [EnvPart], of entry: EnvTemplate.Entry) -> Piece? {
    var pieces: [Piece] = [], isWhole = true
    for part in parts {
      // All parts are looked at, so that all faults are found.
      if let piece = evaluate(part, of: entry) { pieces.append(piece) } else { isWhole = false }
    }
    guard isWhole else { return nil }
    if pieces.count == 1, parts.count == 1 { return pieces[0] }
    let isFixed = pieces.allSatisfy { $0.origin == .fixed }
    return Piece(
      text: pieces.map(\.text).joined(), isSecret: pieces.contains { $0.isSecret }, origin: isFixed ? .fixed : .composed
    )
  }

  private mutating func evaluate(_ part: EnvPart, of entry: EnvTemplate.Entry) -> Piece? {
    switch part {
    case .literal(let text): return Piece(text: text, origin: .fixed)
    case .generate(let length, _):
      return Piece(text: request.generate(length), isSecret: true, origin: .source(.generated))
    case .memory(let name, let location): return memory(name, at: location)
    case .reference(let name, let fallback, let location):
      return reference(name, fallback, at: location, of: entry)
    }
  }

  private mutating func memory(_ name: String, at location: SourceLocation) -> Piece? {
    switch request.memory {
    case .success(let plan):
      if let value = plan.value(of: name) { return Piece(text: value, origin: .memory) }
      diagnostics.error(at: location, "`${memory:\(name)}`: there is nothing of that name")
    case .failure(let shortage):
      if !hasToldShortage {
        diagnostics.error(
          at: location, "`${memory:\(name)}`: \(shortage)",
          help: "a larger machine, fewer services, or values of your own instead of planned ones (docs/memory.md)")
      }
      hasToldShortage = true
    case nil:
      diagnostics.error(at: location, "`${memory:\(name)}` has no value: the host doesn't tell how much memory it has")
    }
    return nil
  }

  private mutating func reference(
    _ name: String, _ fallback: EnvPart.Fallback, at location: SourceLocation, of entry: EnvTemplate.Entry
  ) -> Piece? {
    var emptyCounts = false
    switch fallback {
    case .value(_, let counts), .required(_, let counts): emptyCounts = counts
    case .none: break
    }
    if name != entry.name, let other = byName[name] {
      guard let value = value(of: other) else { return nil }
      if !value.value.isEmpty || emptyCounts || fallback == .none {
        return Piece(text: value.value, isSecret: value.isSecret, origin: .composed)
      }
    } else if let text = request.builtins[name], !text.isEmpty {
      return Piece(text: text, origin: .composed)
    } else {
      var hasDefault = false
      if case .value = fallback { hasDefault = true }
      if let (source, text) = lookUp(name, emptyCounts: emptyCounts, hasDefault: hasDefault) {
        return Piece(text: text, isSecret: source == .vault || Secrecy.isSecret(name: name), origin: .source(source))
      }
    }
    switch fallback {
    case .value(let parts, _):
      guard var piece = evaluate(parts, of: entry) else { return nil }
      piece.origin = .fallback
      return piece
    case .required(let message, _): missing(name, message, at: location, of: entry)
    case .none: missing(name, nil, at: location, of: entry)
    }
    return nil
  }

  private func missing(_ name: String, _ message: String?, at location: SourceLocation, of entry: EnvTemplate.Entry) {
    let isSecret = Secrecy.isSecret(name: name) || (name == entry.name && entry.isMarkedSecret)
    let why = message.flatMap { $0.isEmpty ? nil : ": \($0)" } ?? ""
    if EnvTemplate.reserved.contains(name) {
      diagnostics.error(at: location, "\(name) has no value: this command has no version")
      return
    }
    var help = "set it: \(places(name, isSecret: isSecret))"
    if name != entry.name, let nearest = nearestName(to: name, among: byName.keys.filter { $0 != entry.name }) {
      help = "did you mean `${\(nearest)}`? Else \(help)"
    }
    diagnostics.error(at: location, "\(name) has no value\(why)", help: help)
  }

  // MARK: Sources

  private func lookUp(_ name: String, emptyCounts: Bool = false, hasDefault: Bool = false) -> (
    source: EnvSource, text: String
  )? {
    for source in request.from {
      // What an old default left on the host doesn't hold back a new one.
      if source == .host, hasDefault, request.defaultedOnHost.contains(name) { continue }
      // An empty variable is what CI makes of a secret that nobody defined.
      guard let text = request.values[source]?[name], emptyCounts || !text.isEmpty else { continue }
      return (source, text)
    }
    return nil
  }

  private static func words(_ source: EnvSource) -> String {
    switch source {
    case .flags: "a flag"
    case .environment: "the environment"
    case .vault: "the vault"
    case .host: "the host's present env file"
    case .generated: "the host's generated values"
    }
  }

  /// Where a person could set it. Secrets don't belong into a command line, which everybody on the machine can read.
  private func places(_ name: String, isSecret: Bool) -> String {
    var places: [String] = []
    if request.from.contains(.environment) { places.append("the environment variable \(name)") }
    if request.from.contains(.vault) { places.append("`orchestrate secrets set \(request.environment) \(name)`") }
    if request.from.contains(.flags), !isSecret { places.append("--set \(name)=…") }
    return places.isEmpty ? "name a source under env.from in the inventory" : places.joined(separator: ", or ")
  }
}

import ConfigSource
public import Diagnostics

/// env.template: the names that a release's env file holds, and where each value comes from. docs/inventory.md, "The
/// env template".
public struct EnvTemplate: Sendable, Equatable {
  public struct Entry: Sendable, Equatable {
    public var name: String
    /// The comment above it (or behind it), without annotations.
    public var documentation: String
    public var type: EnvType
    /// Marked `@secret`.
    public var isMarkedSecret: Bool
    /// Marked `@keep`: never generated anew while the database's volume exists.
    public var isKept: Bool
    /// Marked `@file`: containers get the value in a file, and the env file its path, as `NAME_FILE`.
    public var isFile = false
    /// `@role`: the database role whose password the value is.
    public var role: String?
    public var location: SourceLocation
    var parts: [EnvPart]
    var valueLocation: SourceLocation

    /// The names that its value is made from, those in defaults included.
    public var references: [String] { EnvPart.references(in: parts).map(\.name) }

    /// Made on the host if no source has it, and then kept.
    public var isGenerated: Bool { EnvPart.generates(parts) }

    /// The entry takes the place of one in a file before it. What a value is, a secret above all, another value for it doesn't change: annotations
    /// are kept, unless it has its own.
    func overriding(_ other: Entry) -> Entry {
      var entry = self
      if documentation.isEmpty { entry.documentation = other.documentation }
      if type == .string { entry.type = other.type }
      entry.isMarkedSecret = isMarkedSecret || other.isMarkedSecret
      entry.isKept = isKept || other.isKept
      entry.isFile = isFile || other.isFile
      entry.role = role ?? other.role
      return entry
    }
  }

  public internal(set) var entries: [Entry]

  /// Names that the deployment itself sets.
  public static let reserved = ["VERSION"]

  public var names: [String] { entries.map(\.name) }

  /// Values follow the machine's memory (`${memory:NAME}`).
  public var plansMemory: Bool { entries.contains { !EnvPart.memoryNames(in: $0.parts).isEmpty } }

  /// Names that are looked up in the sources.
  public var sourceNames: [String] {
    let own = Set(names)
    var seen: Set<String> = []
    return entries.flatMap { entry in
      (entry.isGenerated ? [entry.name] : [])
        + EnvPart.references(in: entry.parts).map(\.name).filter { $0 == entry.name || !own.contains($0) }
    }.filter { !Self.reserved.contains($0) && seen.insert($0).inserted }
  }

  /// Parses a template by itself. Throws `ConfigurationError` with all its faults.
  public init(file: String, bytes: [UInt8]) throws { try self.init(files: [(file, bytes)]) }

  /// Parses a template with what lies above it: later files override names of earlier ones and may add others. Throws `ConfigurationError` with the
  /// faults of all of them.
  public init(files: [(name: String, bytes: [UInt8])]) throws {
    let diagnostics = DiagnosticCollector()
    let sources = files.compactMap { SourceText(file: $0.name, bytes: $0.bytes, diagnostics: diagnostics) }
    let template = Self.parse(sources, diagnostics: diagnostics)
    try diagnostics.throwIfErrors()
    self = template
  }

  init(entries: [Entry]) { self.entries = entries }

  static func parse(_ sources: [SourceText], diagnostics: DiagnosticCollector) -> EnvTemplate {
    var template = EnvTemplate(entries: [])
    for source in sources { template.lay(entries(of: source, diagnostics: diagnostics)) }
    template.checkLiterals(diagnostics)
    template.checkCycles(diagnostics)
    template.checkFiles(diagnostics)
    return template
  }

  private mutating func lay(_ above: [Entry]) {
    for entry in above {
      if let index = entries.firstIndex(where: { $0.name == entry.name }) {
        entries[index] = entry.overriding(entries[index])
      } else {
        entries.append(entry)
      }
    }
  }

  private static func entries(of source: SourceText, diagnostics: DiagnosticCollector) -> [Entry] {
    diagnostics.announce(file: source.file)
    var parser = DotenvParser(source, knowsGenerate: true, diagnostics: diagnostics)
    parser.parse()
    for comment in parser.detached {
      var ignored = EnvAnnotations()
      ignored.read(comment, nil)
      if ignored.isAny {
        diagnostics.error(
          at: comment.location, "this annotation belongs to no name", help: "write it directly above a NAME=value line")
      }
    }
    var entries: [Entry] = []
    var first: [String: Int] = [:]
    for found in parser.entries {
      if let line = first[found.name] {
        diagnostics.error(at: found.location, "\(found.name) is defined twice", help: "the first is on line \(line)")
        continue
      }
      first[found.name] = found.location.line
      if reserved.contains(found.name) {
        diagnostics.error(
          at: found.location, "\(found.name) is set by the deployment",
          help: "refer to it as ${\(found.name)}, or choose another name")
        continue
      }
      var annotations = EnvAnnotations()
      for comment in found.comments { annotations.read(comment, diagnostics) }
      if let comment = found.trailingComment { annotations.read(comment, diagnostics) }
      entries.append(
        Entry(
          name: found.name, documentation: annotations.text.joined(separator: "\n"), type: annotations.type ?? .string,
          isMarkedSecret: annotations.isSecret, isKept: annotations.isKept, isFile: annotations.isFile,
          role: annotations.role, location: found.location, parts: found.parts, valueLocation: found.valueLocation))
    }
    return entries
  }

  /// The env file names the path of a value in a file as `NAME_FILE`.
  private func checkFiles(_ diagnostics: DiagnosticCollector) {
    for entry in entries where entry.isFile {
      guard let other = entries.first(where: { $0.name == entry.name + EnvFile.pathSuffix }) else { continue }
      diagnostics.error(
        at: other.location, "\(other.name) is the path of \(entry.name), which is marked @file: the deployment sets it",
        help: "remove the line, or the @file above \(entry.name)")
    }
  }

  /// Every `${memory:NAME}` has to name something that the inventory's services have.
  func checkMemory(_ inventory: Inventory, _ diagnostics: DiagnosticCollector) {
    let known = MemoryPlan.names(inventory.services, weights: inventory.memoryWeights)
    for (name, location) in entries.flatMap({ EnvPart.memoryNames(in: $0.parts) }) where !known.contains(name) {
      if let reason = MemoryPlan.reason(against: name, inventory.services) {
        diagnostics.error(at: location, "`${memory:\(name)}` \(reason.why)", help: reason.help)
      } else {
        diagnostics.error(
          at: location, "`${memory:\(name.prefix(40))}`: there is nothing of that name",
          help: nearestName(to: name, among: known).map { "did you mean `${memory:\($0)}`?" }
            ?? "there is \(known.joined(separator: ", "))")
      }
    }
  }

  /// What is written in the template has to fit the types that it names.
  private func checkLiterals(_ diagnostics: DiagnosticCollector) {
    for entry in entries {
      let parts: [EnvPart]
      var what = "value"
      switch entry.parts.first {
      case .reference(_, .value(let inner, _), _) where entry.parts.count == 1:
        parts = inner
        what = "default"
      default: parts = entry.parts
      }
      guard parts.allSatisfy({ if case .literal = $0 { true } else { false } }) else { continue }
      let text = parts.map { if case .literal(let text) = $0 { text } else { "" } }.joined()
      if what == "default", text.isEmpty { continue }
      guard let expected = entry.type.fault(in: text) else { continue }
      let isSecret = entry.isMarkedSecret || Secrecy.isSecret(name: entry.name)
      let shown = isSecret ? "" : " `\(text.prefix(60))`"
      diagnostics.error(
        at: entry.valueLocation, "\(entry.name): the \(what)\(shown) doesn't fit its type: expected \(expected)")
    }
  }

  private func checkCycles(_ diagnostics: DiagnosticCollector) {
    let byName = Dictionary(entries.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    var done: Set<String> = [], reported: Set<String> = []
    func visit(_ name: String, _ trail: [String]) {
      if let start = trail.firstIndex(of: name) {
        let cycle = trail[start...]
        guard reported.isDisjoint(with: cycle), let entry = byName[name] else { return }
        reported.formUnion(cycle)
        diagnostics.error(
          at: entry.valueLocation,
          "these names refer to each other in a circle: \((cycle + [name]).joined(separator: " → "))",
          help: "give one of them a value of its own")
        return
      }
      guard !done.contains(name), let entry = byName[name] else { return }
      for (next, _) in EnvPart.references(in: entry.parts) where next != name { visit(next, trail + [name]) }
      done.insert(name)
    }
    for entry in entries { visit(entry.name, []) }
  }
}

/// `@type`, `@secret`, `@keep`, `@file` and `@role` in the comments of a name.
struct EnvAnnotations {
  var text: [String] = []
  var type: EnvType?
  var isSecret = false
  var isKept = false
  var isFile = false
  var role: String?
  var isAny: Bool { type != nil || isSecret || isKept || isFile || role != nil }

  static let known = ["type", "secret", "keep", "file", "role"]

  /// - Parameter diagnostics: nil: faults are nobody's concern.
  mutating func read(_ comment: DotenvComment, _ diagnostics: DiagnosticCollector?) {
    let scalars = Array(comment.text.unicodeScalars)
    var kept = String.UnicodeScalarView()
    var index = 0
    func isLetter(_ scalar: Unicode.Scalar) -> Bool {
      ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || scalar == "_"
    }
    func place(_ index: Int) -> SourceLocation {
      SourceLocation(
        file: comment.location.file, line: comment.location.line, column: comment.location.column + 1 + index)
    }
    while index < scalars.count {
      let beginsWord = index == 0 || scalars[index - 1] == " " || scalars[index - 1] == "\t"
      guard scalars[index] == "@", beginsWord else {
        kept.append(scalars[index])
        index += 1
        continue
      }
      let start = index
      var end = index + 1
      while end < scalars.count, isLetter(scalars[end]) { end += 1 }
      var word = String.UnicodeScalarView()
      word.append(contentsOf: scalars[(start + 1)..<end])
      switch String(word) {
      case "secret": isSecret = true
      case "keep": isKept = true
      case "file": isFile = true
      case "role":
        if role != nil { diagnostics?.error(at: place(start), "a second @role for the same name") }
        while end < scalars.count, scalars[end] == " " || scalars[end] == "\t" { end += 1 }
        var name = String.UnicodeScalarView()
        while end < scalars.count, scalars[end] != " ", scalars[end] != "\t" {
          name.append(scalars[end])
          end += 1
        }
        role = String(name)
        // PostgreSQL cuts longer names (NAMEDATALEN - 1).
        if name.isEmpty || name.first == "@" || String(name).utf8.count > 63 {
          diagnostics?.error(
            at: place(start), name.isEmpty ? "@role without a role" : "`\(String(name))` isn't the name of a role",
            help: "like @role market, the database role whose password this is")
        }
      case "type":
        if type != nil { diagnostics?.error(at: place(start), "a second @type for the same name") }
        let (found, next) = EnvType.parse(scalars, from: end, place: place, diagnostics)
        type = found ?? type ?? .string
        end = next
      case let other:
        // `@BotFather` is a word; `@secrt` is a slip.
        if let first = other.first, let nearest = nearestName(to: other, among: Self.known), nearest.first == first {
          diagnostics?.error(at: place(start), "unknown annotation `@\(other)`", help: "did you mean `@\(nearest)`?")
        }
        kept.append(contentsOf: scalars[start..<end])
      }
      index = end
    }
    let line = String(kept).split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
    if !line.isEmpty { text.append(line) }
  }
}

import ConfigSource
import Crypto
import Diagnostics

/// Which values are encrypted. A file has one of these rules; without one SOPS means `unencryptedSuffix("_unencrypted")`.
enum EncryptionRule: Sendable {
  case unencryptedSuffix(String)
  case encryptedSuffix(String)
  /// Patterns that can be compiled.
  case unencryptedRegex(String)
  case encryptedRegex(String)

  func encrypts(_ keys: [String]) -> Bool {
    switch self {
    case .unencryptedSuffix(let suffix): !keys.contains { $0.hasSuffix(suffix) }
    case .encryptedSuffix(let suffix): keys.contains { $0.hasSuffix(suffix) }
    case .unencryptedRegex(let pattern): !Self.matches(pattern, keys)
    case .encryptedRegex(let pattern): Self.matches(pattern, keys)
    }
  }

  /// Our matcher backtracks, SOPS' doesn't: patterns that could keep it busy are refused.
  static func isTame(_ pattern: String) -> Bool {
    var repetitions = 0, previous: Character = " ", isEscaped = false, isInClass = false
    for character in pattern {
      defer { previous = character }
      if isEscaped {
        isEscaped = false
        continue
      }
      switch character {
      case "\\": isEscaped = true
      case "[": isInClass = true
      case "]": isInClass = false
      case "*", "+", "{", "?":
        // `(?i)` and its like aren't repetitions.
        if isInClass || (character == "?" && previous == "(") { continue }
        repetitions += 1
        if previous == ")" || repetitions > 4 { return false }
      default: break
      }
    }
    return true
  }

  private static func matches(_ pattern: String, _ keys: [String]) -> Bool {
    guard let regex = try? Regex(pattern) else { return false }
    return keys.contains { (try? regex.firstMatch(in: $0)) != nil }
  }
}

/// The `sops:` block of a file.
struct SOPSMetadata: Sendable {
  struct AgeKey: Sendable {
    var recipient: String
    var wrapped: String
    var location: SourceLocation
    /// The item with its dash.
    var range: Range<Int>
    var wrappedRange: Range<Int>
    var column: Int
  }

  /// The whole block, key included.
  var entry: Outline.Entry
  var age: Outline.Entry?
  var keys: [AgeKey] = []
  /// Other kinds of keys that the data key is wrapped for (`pgp`, `kms` …).
  var others: [String] = []
  var lastModified: (text: String, range: Range<Int>)
  var mac: (text: String, range: Range<Int>, location: SourceLocation)
  var rule = EncryptionRule.unencryptedSuffix("_unencrypted")
  var macOnlyEncrypted = false

  static let key = "sops"
  private static let services = ["kms", "gcp_kms", "hckms", "azure_kv", "hc_vault", "pgp"]

  init(_ outline: Outline) throws(VaultError) {
    let file = outline.source.file
    guard let entry = outline.entries.first(where: { $0.key == Self.key }) else {
      throw VaultError(
        .notAVault, at: SourceLocation(file: file, line: 1, column: 1), "this is no SOPS file: it has no `sops:` block",
        help: "is it encrypted at all? `orchestrate secrets edit` makes a vault")
    }
    guard case .mapping(let members) = entry.value.content, !(outline.root?.isFlow ?? true), !entry.value.isFlow else {
      throw VaultError(.notAVault, at: entry.location, "`sops:` has to be keys and values, in block form")
    }
    self.entry = entry
    func member(_ name: String) -> Outline.Entry? { members.first { $0.key == name } }
    func text(_ name: String) throws(VaultError) -> (text: String, entry: Outline.Entry)? {
      guard let found = member(name) else { return nil }
      guard case .scalar(let scalar) = found.value.content else {
        throw VaultError(.notAVault, at: found.location, "`sops.\(name)` has to be a text")
      }
      return scalar.text.isEmpty ? nil : (scalar.text, found)
    }
    for name in ["key_groups", "shamir_threshold"] where member(name).map({ !Self.isVoid($0.value) }) ?? false {
      throw VaultError(
        .unsupported, at: member(name)!.location, "the vault splits its key among groups, which isn't supported",
        help: "use sops itself for this file")
    }
    for name in ["encrypted_comment_regex", "unencrypted_comment_regex"] {
      guard let (_, found) = try text(name) else { continue }
      throw VaultError(
        .unsupported, at: found.location, "`sops.\(name)` isn't supported", help: "use sops itself for this file")
    }
    age = member("age")
    keys = try Self.ageKeys(age)
    others = Self.services.filter { name in member(name).map { !Self.isVoid($0.value) } ?? false }
    guard let modified = try text("lastmodified"), modified.text.wholeMatch(of: Self.time) != nil else {
      throw VaultError(
        .notAVault, at: member("lastmodified")?.location ?? entry.location,
        "`sops.lastmodified` is missing or isn't a time", help: Self.restore)
    }
    lastModified = (modified.text, modified.entry.value.range)
    guard let mac = try text("mac") else {
      throw VaultError(.mac, at: entry.location, "`sops.mac` is missing", help: Self.restore)
    }
    self.mac = (mac.text, mac.entry.value.range, mac.entry.location)
    // The last line that SOPS writes: without it the end is missing.
    guard try text("version")?.text.wholeMatch(of: /[0-9]+\.[0-9]+\.[0-9]+.*/) != nil else {
      throw VaultError(
        .notAVault, at: member("version")?.location ?? entry.location,
        "`sops.version` is missing or isn't a version: is the file cut off?", help: Self.restore)
    }
    macOnlyEncrypted = try text("mac_only_encrypted")?.text == "true"
    try readRule(text)
  }

  static let restore = "restore the file from Git"
  private static var time: Regex<Substring> {
    /[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:Z|[-+][0-9]{2}:[0-9]{2})/
  }

  private static func isVoid(_ node: Outline.Node) -> Bool {
    switch node.content {
    case .scalar(let scalar): scalar.isNull || scalar.text.isEmpty || scalar.text == "0"
    case .sequence(let items): items.isEmpty
    case .mapping(let entries): entries.isEmpty
    }
  }

  private static func ageKeys(_ entry: Outline.Entry?) throws(VaultError) -> [AgeKey] {
    guard let entry, !isVoid(entry.value) else { return [] }
    guard case .sequence(let items) = entry.value.content, !entry.value.isFlow else {
      throw VaultError(.notAVault, at: entry.location, "`sops.age` has to be a list, in block form")
    }
    var keys: [AgeKey] = []
    for item in items {
      guard case .mapping(let members) = item.value.content,
        let recipient = members.first(where: { $0.key == "recipient" }),
        case .scalar(let name) = recipient.value.content, let wrapped = members.first(where: { $0.key == "enc" }),
        case .scalar(let text) = wrapped.value.content
      else {
        throw VaultError(
          .notAVault, at: item.value.location, "an entry of `sops.age` needs `recipient` and `enc`", help: restore)
      }
      keys.append(
        AgeKey(
          recipient: name.text, wrapped: text.text, location: recipient.location,
          range: item.dash..<item.value.range.upperBound, wrappedRange: wrapped.value.range,
          column: entry.value.column))
    }
    return keys
  }

  private mutating func readRule(_ text: (String) throws(VaultError) -> (text: String, entry: Outline.Entry)?)
    throws(VaultError)
  {
    var found: [String] = []
    for name in ["unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex"] {
      guard let (value, entry) = try text(name) else { continue }
      found.append(name)
      guard found.count == 1 else {
        throw VaultError(.notAVault, at: entry.location, "`sops.\(found[0])` and `sops.\(name)` exclude each other")
      }
      switch name {
      case "unencrypted_suffix": rule = .unencryptedSuffix(value)
      case "encrypted_suffix": rule = .encryptedSuffix(value)
      default:
        guard value.utf8.count <= 1000, (try? Regex(value)) != nil else {
          throw VaultError(.notAVault, at: entry.location, "`sops.\(name)` isn't a regular expression")
        }
        guard EncryptionRule.isTame(value) else {
          throw VaultError(
            .unsupported, at: entry.location, "`sops.\(name)` repeats too much to be matched in a bounded time",
            help: "write it without repeated groups, with at most four of * + ? { }")
        }
        rule = name == "encrypted_regex" ? .encryptedRegex(value) : .unencryptedRegex(value)
      }
    }
  }

  // MARK: The data key

  /// The data key, by the first of the identities that one of the recipients belongs to.
  func dataKey(_ identities: [Identity]) throws(VaultError) -> [UInt8] {
    var damaged: [Diagnostic] = []
    for key in keys {
      let bytes: [UInt8]
      do {
        bytes = try AgeFile.decrypt(AgeArmor.decode(key.wrapped), with: identities)
      } catch {
        let isOurs = identities.contains { identity in (try? Recipient(key.recipient)) == identity.recipient }
        if error.code != .noIdentity || isOurs {
          damaged.append(
            Diagnostic(
              at: key.location, "the data key for \(key.recipient) doesn't open: \(error.message)", help: Self.restore))
        }
        continue
      }
      guard bytes.count == AES256GCM.keyCount else {
        damaged.append(
          Diagnostic(at: key.location, "the data key for \(key.recipient) has a wrong length", help: Self.restore))
        continue
      }
      return bytes
    }
    guard damaged.isEmpty else { throw VaultError(.dataKey, damaged) }
    let names = keys.map(\.recipient) + others.map { "(\($0))" }
    let mine = identities.map { "\($0.recipient)" }
    throw VaultError(
      .noIdentity, at: entry.location,
      "no key here opens the vault: it is encrypted for \(names.isEmpty ? "nobody" : names.joined(separator: ", "))",
      help: mine.isEmpty
        ? nil : "the keys here are \(mine.joined(separator: ", ")); whoever can open it adds one of them as recipient")
  }

  // MARK: Writing

  /// The block of a new vault; times and MAC are filled in when it is sealed.
  static func template(_ recipients: [Recipient], dataKey: [UInt8]) throws(SecureRandom.Unavailable) -> String {
    var text = "\(key):\n    age:\n"
    for recipient in recipients { text += try item(recipient, dataKey: dataKey, column: 8) + "\n" }
    return text + "    lastmodified: \"1970-01-01T00:00:00Z\"\n    mac: none\n    unencrypted_suffix: _unencrypted\n"
      // The version of SOPS whose files these are like.
      + "    version: 3.9.4\n"
  }

  /// An entry of the list `age`, without a line break at its end.
  static func item(_ recipient: Recipient, dataKey: [UInt8], column: Int) throws(SecureRandom.Unavailable) -> String {
    let space = String(repeating: " ", count: column)
    return """
      \(space)- recipient: \(YAMLText.scalar("\(recipient)", column: column, isFlow: true))
      \(space)  enc: \(try wrapped(recipient, dataKey: dataKey, column: column + 2))
      """
  }

  /// The data key for one recipient, as a block scalar.
  static func wrapped(_ recipient: Recipient, dataKey: [UInt8], column: Int) throws(SecureRandom.Unavailable) -> String
  {
    let space = String(repeating: " ", count: column + 2)
    let armor = AgeArmor.encode(try AgeFile.encrypt(dataKey, for: [recipient]))
    return "|" + armor.split(separator: "\n").map { "\n" + space + $0 }.joined()
  }
}

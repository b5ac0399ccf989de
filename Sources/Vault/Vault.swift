import ConfigSource
import Crypto
public import Diagnostics

/// An open vault: a SOPS file (YAML) with its data key.
///
/// A value. Changes are made in the text itself, so that whatever isn't changed (ciphertexts, order, comments, spacing) stays
/// byte for byte; `seal(at:)` then gives the text with a new MAC. Reads and writes no files.
///
/// Formats: SOPS 3 (getsops/sops) with recipients of age; docs/secrets.md says what of SOPS isn't supported.
public struct Vault: Sendable {
  /// A value and where it stands.
  public struct Entry: Sendable, Equatable {
    /// Keys, and positions in lists.
    public var path: [String]
    public var name: String { path.joined(separator: ".") }
    /// Nil: the key is there without a value.
    public var value: VaultValue?
    public var isEncrypted: Bool
  }

  struct OpenLeaf: Sendable {
    var leaf: Outline.Leaf
    var value: VaultValue?
    var isEncrypted: Bool
  }

  struct OpenComment: Sendable {
    var range: Range<Int>
    /// Behind the `#`, decrypted.
    var text: String
    /// What it is bound to; nil: it stands unencrypted in the file.
    var additional: String?
  }

  /// As messages name it.
  public let file: String
  var outline: Outline
  var metadata: SOPSMetadata
  var dataKey: [UInt8]
  var leaves: [OpenLeaf] = []
  var comments: [OpenComment] = []

  /// The file's text now; not sealed after a change.
  public var text: String { outline.source.text }
  /// Whether something was changed since the vault was opened or sealed.
  public internal(set) var isChanged = false

  // MARK: Opening

  /// Opens a file with the first of the identities that fits, and checks all of it.
  ///
  /// Throws `VaultError`: every other file than one that was written whole is refused.
  public static func open(_ bytes: [UInt8], file: String, identities: [Identity]) throws(VaultError) -> Vault {
    let outline = try outline(bytes, file: file)
    let metadata = try SOPSMetadata(outline)
    var vault = Vault(
      file: file, outline: outline, metadata: metadata, dataKey: try metadata.dataKey(identities))
    try vault.decrypt()
    try vault.checkMAC()
    return vault
  }

  /// An empty vault for these recipients. Precondition: there is one. It is to be sealed before it is written.
  public static func create(file: String, recipients: [Recipient]) throws(VaultError) -> Vault {
    let dataKey = try random { () throws(SecureRandom.Unavailable) in try SecureRandom.bytes(AES256GCM.keyCount) }
    let text = try random { () throws(SecureRandom.Unavailable) in
      try SOPSMetadata.template(recipients, dataKey: dataKey)
    }
    let outline = try outline(Array(text.utf8), file: file)
    var vault = Vault(file: file, outline: outline, metadata: try SOPSMetadata(outline), dataKey: dataKey)
    vault.isChanged = true
    return vault
  }

  private init(file: String, outline: Outline, metadata: SOPSMetadata, dataKey: [UInt8]) {
    self.file = file
    self.outline = outline
    self.metadata = metadata
    self.dataKey = dataKey
  }

  static func outline(_ bytes: [UInt8], file: String) throws(VaultError) -> Outline {
    let collector = DiagnosticCollector()
    guard let source = SourceText(file: file, bytes: bytes, diagnostics: collector) else {
      throw VaultError(.syntax, collector.diagnostics)
    }
    let lines = source.text.split(separator: "\n", omittingEmptySubsequences: false)
    if let line = lines.firstIndex(where: { $0.hasPrefix("<<<<<<< ") || $0.hasPrefix(">>>>>>> ") }) {
      throw VaultError(
        .syntax, at: SourceLocation(file: file, line: line + 1, column: 1), "the marks of a merge stand in the file",
        help: "take one side, and make the other's changes again: git checkout --ours FILE")
    }
    return try Outline(source)
  }

  static func random<Value>(_ make: () throws(SecureRandom.Unavailable) -> Value) throws(VaultError) -> Value {
    do { return try make() } catch { throw VaultError(.refused, at: nil, error.message) }
  }

  /// Decrypts all values, and names all that don't open.
  private mutating func decrypt() throws(VaultError) {
    var faults: [Diagnostic] = []
    leaves = []
    for leaf in outline.leaves(without: SOPSMetadata.key) {
      let isEncrypted = metadata.rule.encrypts(leaf.keys)
      do {
        leaves.append(
          OpenLeaf(leaf: leaf, value: try value(of: leaf, isEncrypted: isEncrypted), isEncrypted: isEncrypted))
      } catch {
        faults.append(
          Diagnostic(
            at: leaf.location, "`\(leaf.path.joined(separator: "."))`: \(error.why)", help: SOPSMetadata.restore))
      }
    }
    guard faults.isEmpty else { throw VaultError(.tampered, faults) }
    comments = outline.comments(excluding: metadataLines).map { open($0) }
  }

  /// The lines of the `sops:` block.
  var metadataLines: Range<Int> {
    outline.lines(metadata.entry.keyRange.lowerBound..<metadata.entry.value.range.upperBound)
  }

  /// A comment that doesn't open stands as it is: comments aren't under the MAC, and older files have them unencrypted.
  private func open(_ comment: Outline.Comment) -> OpenComment {
    let text = String(outline.text(comment.range).dropFirst())
    if let ciphertext = Ciphertext(text), ciphertext.type == "comment" {
      for additional in comment.candidates.map(additionalData) {
        if let plaintext = ciphertext.open(key: dataKey, additional: additional),
          let opened = String(validating: plaintext, as: UTF8.self), !opened.contains(where: \.isNewline)
        {
          return OpenComment(range: comment.range, text: opened, additional: additional)
        }
      }
    }
    return OpenComment(range: comment.range, text: text, additional: nil)
  }

  private func value(of leaf: Outline.Leaf, isEncrypted: Bool) throws(VaultValue.Unreadable) -> VaultValue? {
    guard isEncrypted else { return try VaultValue.asSOPSReads(leaf.scalar) }
    if leaf.scalar.isNull { return nil }
    // SOPS leaves the empty text as it is.
    if leaf.scalar.text.isEmpty { return VaultValue("") }
    guard let ciphertext = Ciphertext(leaf.scalar.text) else {
      throw VaultValue.Unreadable(
        why: leaf.scalar.text.hasPrefix("ENC[")
          ? "its ciphertext is damaged or cut off" : "it isn't encrypted, though it should be")
    }
    guard let plaintext = ciphertext.open(key: dataKey, additional: additionalData(leaf.keys)) else {
      throw VaultValue.Unreadable(why: "its ciphertext was changed, or belongs to another key or file")
    }
    guard let kind = VaultValue.Kind(rawValue: ciphertext.type),
      let value = VaultValue(kind: kind, plaintext: plaintext)
    else { throw VaultValue.Unreadable(why: "it isn't of the type that its ciphertext names") }
    return value
  }

  // MARK: The MAC

  /// SHA-512 over all values in their order, or over the encrypted ones only.
  private func code() -> String {
    var hash = SHA512()
    if metadata.macOnlyEncrypted { hash.update(SHA256.hash(Array("sops".utf8))) }
    for leaf in leaves where leaf.isEncrypted || !metadata.macOnlyEncrypted {
      if let value = leaf.value { hash.update(value.bytes) }
    }
    return Hex.encode(hash.finalize()).uppercased()
  }

  private func checkMAC() throws(VaultError) {
    guard let ciphertext = Ciphertext(metadata.mac.text), ciphertext.type == "str",
      let stored = ciphertext.open(key: dataKey, additional: metadata.lastModified.text)
    else {
      throw VaultError(
        .mac, at: metadata.mac.location, "`sops.mac` or `sops.lastmodified` was changed", help: SOPSMetadata.restore)
    }
    guard constantTimeEquals(stored, Array(code().utf8)) else {
      throw VaultError(
        .mac, at: metadata.mac.location,
        "the values aren't those that were written together: the MAC doesn't fit",
        help: "one was removed, moved or put back by hand or by a merge; \(SOPSMetadata.restore)")
    }
  }

  /// The whole text with time and MAC of now. To be written as it is.
  public mutating func seal(at now: Timestamp) throws(VaultError) -> String {
    let time = now.description, code = Array(code().utf8)
    let mac = try Self.random { () throws(SecureRandom.Unavailable) in
      try Ciphertext(code, type: "str", key: dataKey, additional: time)
    }
    try reload(
      outline.applying([
        .init(range: metadata.lastModified.range, text: "\"\(time)\""),
        .init(range: metadata.mac.range, text: mac.text),
      ]))
    // What is written has been read once, as everybody else will.
    try checkMAC()
    isChanged = false
    return text
  }

  /// Reads the changed text anew. The values must be the expected ones.
  mutating func reload(_ changed: String, expecting expected: [Entry]? = nil) throws(VaultError) {
    let expected = expected ?? entries
    var copy = self
    copy.outline = try Self.outline(Array(changed.utf8), file: file)
    copy.metadata = try SOPSMetadata(copy.outline)
    try copy.decrypt()
    guard copy.entries == expected, copy.unopenedComments <= unopenedComments else {
      throw VaultError(
        .syntax, at: nil, "the change would alter other values of \(file), so it isn't made",
        help: "edit it as a whole: orchestrate secrets edit")
    }
    self = copy
    isChanged = true
  }

  /// Ciphertexts of comments that were moved away from where they belong, or damaged.
  private var unopenedComments: Int {
    comments.count { $0.additional == nil && Ciphertext($0.text)?.type == "comment" }
  }

  // MARK: Looking

  /// All values in the file's order.
  public var entries: [Entry] {
    leaves.map { Entry(path: $0.leaf.path, value: $0.value, isEncrypted: $0.isEncrypted) }
  }

  /// The path that a name means: the top-level key of that name if there is one, else keys and positions between dots.
  public func path(_ name: String) -> [String] {
    if outline.entries.contains(where: { $0.key == name }) { return [name] }
    return name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
  }

  /// The value at a path. Throws `noSuchKey`, or `wrongKind` for a mapping or a list.
  public func value(at path: [String]) throws(VaultError) -> VaultValue? {
    if let leaf = leaves.first(where: { $0.leaf.path == path }) { return leaf.value }
    throw missing(path)
  }

  func missing(_ path: [String]) -> VaultError {
    let name = path.joined(separator: ".")
    if let below = leaves.first(where: { $0.leaf.path.starts(with: path) }) {
      let inner = below.leaf.path.joined(separator: ".")
      return VaultError(
        .wrongKind, at: nil, "`\(name)` isn't a single value but a group of them", help: "name one of them: \(inner)")
    }
    let nearest = nearestName(to: name, among: entries.map(\.name))
    return VaultError(
      .noSuchKey, at: nil, "the vault \(file) has no key `\(name)`", help: nearest.map { "did you mean `\($0)`?" })
  }

  /// Whom the vault is encrypted for, as its file says.
  public var recipients: [String] { metadata.keys.map(\.recipient) }
  /// Other kinds of keys, which only sops itself can write (`pgp`, `kms` …).
  public var otherKeys: [String] { metadata.others }
  public var lastModified: String { metadata.lastModified.text }
}

/// What a vault's file says to those who can't open it. Nothing of it is checked.
public struct VaultIndex: Sendable, Equatable {
  public struct Entry: Sendable, Equatable {
    public var path: [String]
    public var name: String { path.joined(separator: ".") }
    /// SOPS' type; nil for a value that isn't encrypted.
    public var kind: VaultValue.Kind?
  }
  public var entries: [Entry]
  public var recipients: [String]
  public var otherKeys: [String]
  public var lastModified: String

  public init(_ bytes: [UInt8], file: String) throws(VaultError) {
    let outline = try Vault.outline(bytes, file: file)
    let metadata = try SOPSMetadata(outline)
    entries = outline.leaves(without: SOPSMetadata.key).map { leaf in
      Entry(
        path: leaf.path, kind: Ciphertext(leaf.scalar.text).flatMap { VaultValue.Kind(rawValue: $0.type) })
    }
    recipients = metadata.keys.map(\.recipient)
    otherKeys = metadata.others
    lastModified = metadata.lastModified.text
  }
}

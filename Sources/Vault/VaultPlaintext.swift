import ConfigSource
import Crypto
import Diagnostics

// The vault as a person edits it: the same text with the values and comments in the clear, without the `sops:` block.

extension Vault {
  /// Throws `refused` for values that can't be shown as text.
  public func plaintext() throws(VaultError) -> String {
    var changes = [Outline.Change(range: metadataLines, text: "")]
    for open in leaves where open.isEncrypted {
      guard let value = open.value, !value.isEmpty else { continue }
      guard let text = value.text?.reveal() else {
        throw VaultError(
          .refused, at: open.leaf.location,
          "`\(open.leaf.path.joined(separator: "."))` holds bytes that are no text, so the vault can't be edited as one",
          help: "unset it, or use sops itself")
      }
      let written =
        switch value.kind {
        case .int, .bool: text
        // Else it would come back as an integer.
        case .float: text.contains(".") ? text : text + ".0"
        case .str, .bytes, .time: YAMLText.scalar(text, column: open.leaf.column, isFlow: open.leaf.isFlow)
        }
      changes.append(.init(range: open.leaf.range, text: written))
    }
    for comment in comments where comment.additional != nil {
      changes.append(.init(range: comment.range, text: "#" + comment.text))
    }
    let text = outline.applying(changes)
    try check(shown: text)
    return text
  }

  /// Whatever the reader of the edited text would take for something else isn't shown for editing at all.
  private func check(shown text: String) throws(VaultError) {
    let shown = try Self.outline(Array(text.utf8), file: file).leaves()
    for (index, open) in leaves.enumerated() where open.isEncrypted {
      var isSame = false
      if shown.indices.contains(index), shown[index].path == open.leaf.path,
        case .success(let value) = Result(catching: { () throws(VaultValue.Unreadable) in
          try VaultValue.written(shown[index].scalar)
        })
      {
        isSame = value.map { Stash.key($0, open.leaf.keys) } == open.value.map { Stash.key($0, open.leaf.keys) }
      }
      guard isSame else {
        throw VaultError(
          .refused, at: open.leaf.location,
          "`\(open.leaf.path.joined(separator: "."))` holds text that can't be edited as YAML",
          help: "set it by itself: orchestrate secrets set")
      }
    }
  }

  /// Takes an edited text over. What has the same value under the same key keeps its ciphertext.
  ///
  /// - Parameter file: what messages call the edited text.
  ///
  /// Throws `syntax` with all faults and their places in the edited text; none quotes a value. Nothing is changed then.
  public mutating func replace(plaintext: String, file: String) throws(VaultError) {
    let edited = try Self.outline(Array(plaintext.utf8), file: file)
    var faults = edited.entries.filter { $0.key == SOPSMetadata.key }.map {
      Diagnostic(
        at: $0.location, "`sops` is where SOPS keeps its own data", help: "choose another name")
    }
    var stash = Stash(self)
    var changes: [Outline.Change] = []
    var expected: [Entry] = []
    if edited.root?.isFlow ?? false {
      guard let root = edited.root, edited.entries.isEmpty else {
        throw VaultError(
          .syntax, at: edited.root?.location, "write the keys of the vault without braces, each on a line of its own")
      }
      changes.append(.init(range: root.range, text: ""))
    }
    for leaf in edited.leaves() {
      let isEncrypted = metadata.rule.encrypts(leaf.keys)
      do {
        var value = try VaultValue.written(leaf.scalar)
        if !isEncrypted { value = try VaultValue.asSOPSReads(leaf.scalar) }
        expected.append(Entry(path: leaf.path, value: value, isEncrypted: isEncrypted))
        guard isEncrypted, let value, !value.isEmpty else { continue }
        let kept = stash.take(value, keys: leaf.keys)
        // What can't be written in another way keeps its type.
        if let kept { expected[expected.count - 1].value = kept.value }
        let text = if let kept { kept.text } else { try ciphertext(value, keys: leaf.keys) }
        changes.append(.init(range: leaf.range, text: leaf.isFlow ? "\"\(text)\"" : text))
      } catch let error as VaultValue.Unreadable {
        faults.append(
          Diagnostic(
            at: leaf.location, "`\(leaf.path.joined(separator: "."))`: \(error.why)",
            help: "put it into quotes, so that it is text"))
      } catch let error as VaultError {
        faults += error.diagnostics
      } catch {
        faults.append(Diagnostic(at: leaf.location, "\(error)"))
      }
    }
    for comment in edited.comments() {
      if let change = try stash.change(comment, in: edited, self) { changes.append(change) }
    }
    if let place = edited.strayHash {
      faults.append(
        Diagnostic(
          at: place, "a comment's `#` needs a blank before it",
          help: "else readers differ, and it would stay unencrypted"))
    }
    faults += keyFaults(edited)
    guard faults.isEmpty else { throw VaultError(.syntax, faults) }
    var body = edited.applying(changes)
    if !body.isEmpty, !body.hasSuffix("\n") { body += "\n" }
    let changed = body + outline.text(metadataLines)
    guard changed != text else { return }
    try reload(changed, expecting: expected)
  }

  /// Keys that SOPS would take for numbers or booleans, which it refuses.
  private func keyFaults(_ edited: Outline) -> [Diagnostic] {
    var faults: [Diagnostic] = []
    func walk(_ node: Outline.Node) {
      switch node.content {
      case .scalar: break
      case .sequence(let items): for item in items { walk(item.value) }
      case .mapping(let members):
        for member in members {
          let isQuoted = ["\"", "'"].contains(edited.scalars[member.keyRange.lowerBound])
          let typed = try? YAMLScalar(member.key, isPlain: !isQuoted).typed()
          if typed != .text(member.key) {
            faults.append(
              Diagnostic(
                at: member.location, "the key `\(member.key)` would be no text to many YAML readers",
                help: "put it into quotes"))
          }
          walk(member.value)
        }
      }
    }
    if let root = edited.root { walk(root) }
    return faults
  }
}

/// The ciphertexts at hand, by what they stand for.
private struct Stash {
  struct Key: Hashable {
    var additional: String
    var kind: String
    var bytes: [UInt8]
  }
  private var values: [Key: [(text: String, value: VaultValue)]] = [:]
  private var comments: [Key: [String]] = [:]
  private var plainComments: Set<String> = []

  init(_ vault: Vault) {
    for open in vault.leaves.reversed() where open.isEncrypted {
      guard let value = open.value, !value.isEmpty else { continue }
      values[Self.key(value, open.leaf.keys), default: []].append((open.leaf.scalar.text, value))
    }
    for comment in vault.comments.reversed() {
      guard let additional = comment.additional else {
        plainComments.insert(comment.text)
        continue
      }
      let key = Key(additional: additional, kind: "comment", bytes: Array(comment.text.utf8))
      comments[key, default: []].append(vault.outline.text(comment.range))
    }
  }

  /// What is shown in the same way has the same key.
  static func key(_ value: VaultValue, _ keys: [String]) -> Key {
    let kind: VaultValue.Kind = [.bytes, .time].contains(value.kind) ? .str : value.kind
    return Key(additional: additionalData(keys), kind: kind.rawValue, bytes: value.bytes)
  }

  /// The ciphertext of the same value under the same key; each is handed out in order, the last one again.
  mutating func take(_ value: VaultValue, keys: [String]) -> (text: String, value: VaultValue)? {
    let key = Self.key(value, keys)
    guard let found = values[key], let last = found.last else { return nil }
    if found.count > 1 { values[key]!.removeLast() }
    return last
  }

  /// What is to be done with a comment; nil: it stands as it is.
  mutating func change(_ comment: Outline.Comment, in edited: Outline, _ vault: Vault) throws(VaultError) -> Outline
    .Change?
  {
    let text = String(edited.text(comment.range).dropFirst())
    guard !text.isEmpty, !plainComments.contains(text), let keys = comment.candidates.first,
      vault.metadata.rule.encrypts(keys)
    else { return nil }
    for candidate in comment.candidates {
      let key = Key(additional: additionalData(candidate), kind: "comment", bytes: Array(text.utf8))
      guard let found = comments[key], let last = found.last else { continue }
      if found.count > 1 { comments[key]!.removeLast() }
      return .init(range: comment.range, text: last)
    }
    return .init(range: comment.range, text: try vault.sealed(comment: text, additionalData(keys)))
  }
}

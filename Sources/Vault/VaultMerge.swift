// A merge by values, since lines can't: whoever changes a vault changes its MAC.

extension Vault {
  /// Makes the changes that led from `base` to `theirs` in this vault, too.
  ///
  /// - Returns: the names that both changed, each in another way; this vault keeps its own values for them.
  ///
  /// Throws where recipients were removed that this vault can't do without (`recipient`), a new data key can't be made, or the two have other
  /// rules, or keys other than age's (`refused`): neither can be merged by value.
  public mutating func merge(base: Vault?, theirs: Vault) throws(VaultError) -> [String] {
    guard unmergeable == theirs.unmergeable else {
      throw VaultError(
        .refused, at: theirs.metadata.entry.location,
        "the two versions have other keys than age's, or rules about what is encrypted, and not the same ones",
        help: "take over one side's `sops:` block by hand with sops itself, then merge again")
    }
    let before = Self.byPath(base?.entries ?? []), after = Self.byPath(theirs.entries)
    var conflicts: [String] = []
    for entry in theirs.entries where before[entry.path] != .some(entry.value) {
      let ours = Self.byPath(entries)[entry.path]
      if ours == .some(entry.value) { continue }
      guard ours == before[entry.path], let value = entry.value, (try? set(value, at: entry.path)) != nil else {
        conflicts.append(entry.name)
        continue
      }
    }
    // Backwards, so that positions in lists stay what they are.
    for entry in (base?.entries ?? []).reversed() where after[entry.path] == nil {
      guard let ours = Self.byPath(entries)[entry.path] else { continue }
      guard ours == entry.value, (try? unset(entry.path)) != nil else {
        conflicts.append(entry.name)
        continue
      }
    }
    try mergeRecipients(base: base, theirs: theirs)
    // They made a new data key, since somebody shouldn't have the old one any more: neither should we.
    if let base, theirs.dataKey != base.dataKey, dataKey == base.dataKey { try rekey() }
    if !theirs.commentTexts.subtracting(base?.commentTexts ?? []).isSubset(of: commentTexts) {
      conflicts.append("comments (theirs aren't taken over)")
    }
    return conflicts
  }

  /// What stands at each path; an inner nil: the key without a value.
  private static func byPath(_ entries: [Entry]) -> [[String]: VaultValue?] {
    Dictionary(entries.map { ($0.path, $0.value) }, uniquingKeysWith: { first, _ in first })
  }

  private var commentTexts: Set<String> { Set(comments.map(\.text)) }

  /// What is the file's, and no value's.
  private var unmergeable: [String] {
    metadata.others + recipients.filter { (try? Recipient($0)) == nil }.sorted()
      + ["\(metadata.rule) \(metadata.macOnlyEncrypted)"]
  }

  private mutating func mergeRecipients(base: Vault?, theirs: Vault) throws(VaultError) {
    func recipients(_ vault: Vault?) -> [Recipient] { (vault?.recipients ?? []).compactMap { try? Recipient($0) } }
    let before = recipients(base), after = recipients(theirs)
    for recipient in after where !before.contains(recipient) { _ = try add(recipient) }
    for recipient in before where !after.contains(recipient) && recipients(self).contains(recipient) {
      try remove(recipient)
    }
  }
}

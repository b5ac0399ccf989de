// A merge by values, since lines can't: whoever changes a vault changes its MAC.

extension Vault {
  /// Makes the changes that led from `base` to `theirs` in this vault, too.
  ///
  /// - Returns: the names that both changed, each in another way; this vault keeps its own values for them.
  ///
  /// Throws where recipients were removed that this vault can't do without (`recipient`), or a new data key can't be made.
  public mutating func merge(base: Vault?, theirs: Vault) throws(VaultError) -> [String] {
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
    return conflicts
  }

  /// What stands at each path; an inner nil: the key without a value.
  private static func byPath(_ entries: [Entry]) -> [[String]: VaultValue?] {
    Dictionary(entries.map { ($0.path, $0.value) }, uniquingKeysWith: { first, _ in first })
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

import Crypto
import Diagnostics

// Changes of single values and of the recipients, made in the encrypted text.

extension Vault {
  /// Puts a value at a path; what is between is made. The same value changes nothing.
  ///
  /// Throws `wrongKind` where a group stands, or a value where a group is needed; `refused` for names that can't be keys.
  public mutating func set(_ value: VaultValue, at path: [String]) throws(VaultError) {
    try check(path)
    if let index = leaves.firstIndex(where: { $0.leaf.path == path }) {
      guard leaves[index].value != value else { return }
      var expected = entries
      expected[index].value = value
      let leaf = leaves[index]
      let text = try written(
        value, keys: leaf.leaf.keys, column: leaf.leaf.column, isFlow: leaf.leaf.isFlow,
        isEncrypted: leaf.isEncrypted)
      try reload(
        outline.applying([.init(range: leaf.leaf.range, text: leaf.leaf.range.isEmpty ? " " + text : text)]),
        expecting: expected)
      return
    }
    guard !leaves.contains(where: { $0.leaf.path.starts(with: path) }) else { throw missing(path) }
    try insert(value, at: path)
  }

  /// Removes a value or a group with all that is in it. Throws `noSuchKey`.
  public mutating func unset(_ path: [String]) throws(VaultError) {
    try check(path)
    guard let parent = node(Array(path.dropLast())), let last = path.last else { throw missing(path) }
    var expected = entries.filter { !$0.path.starts(with: path) }
    let change: Outline.Change
    switch parent.content {
    case .mapping(let members):
      guard let index = members.firstIndex(where: { $0.key == last }) else { throw missing(path) }
      let ranges = members.map { $0.keyRange.lowerBound..<$0.value.range.upperBound }
      change = try removal(of: index, in: ranges, parent, path, emptied: "{}")
    case .sequence(let items):
      guard let index = Int(last), items.indices.contains(index), String(index) == last else { throw missing(path) }
      let ranges = items.map { $0.dash..<max($0.dash, $0.value.range.upperBound) }
      change = try removal(of: index, in: ranges, parent, path, emptied: "[]")
      // The later ones move up.
      let depth = path.count - 1
      for position in expected.indices {
        let own = expected[position].path
        if own.count > depth, own.starts(with: path.dropLast()), let number = Int(own[depth]), number > index {
          expected[position].path[depth] = String(number - 1)
        }
      }
    case .scalar: throw missing(path)
    }
    try reload(outline.applying([change]), expecting: expected)
  }

  private func check(_ path: [String]) throws(VaultError) {
    let name = path.joined(separator: ".")
    guard !path.isEmpty, path.allSatisfy({ !$0.isEmpty && $0.utf8.count <= 200 && $0 != "<<" }),
      name.unicodeScalars.allSatisfy({ $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) })
    else {
      throw VaultError(.refused, at: nil, "`\(name)` can't be a key", help: "like DB_PASSWORD, or database.password")
    }
    guard path[0] != SOPSMetadata.key else {
      throw VaultError(.refused, at: nil, "`sops` is where SOPS keeps its own data", help: "choose another name")
    }
  }

  private func node(_ path: [String]) -> Outline.Node? {
    var current = outline.root
    for part in path {
      switch current?.content {
      case .mapping(let members): current = members.first { $0.key == part }?.value
      case .sequence(let items): current = Int(part).flatMap { items.indices.contains($0) ? items[$0].value : nil }
      default: return nil
      }
    }
    return current
  }

  /// The path without positions in lists.
  private func keys(_ path: [String]) -> [String] {
    path.indices.filter { index in
      if case .sequence? = node(Array(path.prefix(index)))?.content { false } else { true }
    }.map { path[$0] }
  }

  private func written(
    _ value: VaultValue, keys: [String], column: Int, isFlow: Bool, isEncrypted: Bool
  ) throws(VaultError) -> String {
    guard isEncrypted else {
      guard value.kind == .str, let text = value.text?.reveal() else {
        throw VaultError(.refused, at: nil, "`\(keys.joined(separator: "."))` isn't encrypted and takes text only")
      }
      return YAMLText.scalar(text, column: column, isFlow: isFlow)
    }
    if value.isEmpty { return "\"\"" }
    let text = try ciphertext(value, keys: keys)
    // Its commas would end it between brackets.
    return isFlow ? "\"\(text)\"" : text
  }

  func ciphertext(_ value: VaultValue, keys: [String]) throws(VaultError) -> String {
    try Self.random { () throws(SecureRandom.Unavailable) in
      try Ciphertext(value.bytes, type: value.kind.rawValue, key: dataKey, additional: additionalData(keys)).text
    }
  }

  // MARK: Insertion

  private mutating func insert(_ value: VaultValue, at path: [String]) throws(VaultError) {
    var depth = path.count - 1
    while depth > 0, node(Array(path.prefix(depth))) == nil { depth -= 1 }
    guard let parent = node(Array(path.prefix(depth))) else { throw missing(path) }
    let rest = Array(path.dropFirst(depth)), keys = keys(Array(path.prefix(depth)))
    // A position in a list that isn't there: as a key it would be something else.
    guard !rest.contains(where: { $0.allSatisfy(\.isNumber) }) else {
      throw VaultError(
        .wrongKind, at: parent.location, "`\(path.joined(separator: "."))` would be part of a list that isn't there",
        help: "make lists in the editor: orchestrate secrets edit")
    }
    let name = path.prefix(depth).joined(separator: ".")
    guard case .mapping(let members) = parent.content else {
      // An empty group is written as nothing, too.
      guard parent.isEmptyNull else {
        throw VaultError(
          .wrongKind, at: parent.location, "`\(name)` isn't a group of keys",
          help: "unset it first, or edit the vault: orchestrate secrets edit")
      }
      let block = try lines(value, rest, below: keys, column: parent.column + 4)
      return try insert("\n" + block.dropLast(), at: parent.range.lowerBound, value, path, filling: depth)
    }
    if parent.isFlow {
      let text = YAMLText.key(rest[0]) + ": " + (try flow(value, Array(rest.dropFirst()), below: keys + [rest[0]]))
      guard let last = members.last else { return try insert(text, at: parent.range.lowerBound + 1, value, path) }
      return try insert(", " + text, at: last.value.range.upperBound, value, path)
    }
    let column = max(parent.column, 0)
    let block = try lines(value, rest, below: keys, column: column)
    if let last = members.last(where: { depth > 0 || $0.key != SOPSMetadata.key }) {
      var end = outline.lineEnd(last.value.range.upperBound)
      // Comments of what is nested in the last value stay with it: they are bound to where they stand.
      for comment in comments where comment.range.lowerBound > end {
        guard outline.column(comment.range.lowerBound) > column,
          outline.text(end..<comment.range.lowerBound).allSatisfy(\.isWhitespace)
        else { break }
        end = comment.range.upperBound
      }
      return try insert("\n" + block.dropLast(), at: end, value, path)
    }
    try insert(block, at: outline.lineStart(metadata.entry.keyRange.lowerBound), value, path)
  }

  private func lines(_ value: VaultValue, _ path: [String], below keys: [String], column: Int) throws(VaultError)
    -> String
  {
    var text = "", column = column
    for part in path.dropLast() {
      text += String(repeating: " ", count: column) + YAMLText.key(part) + ":\n"
      column += 4
    }
    let all = keys + path
    let written = try written(
      value, keys: all, column: column, isFlow: false, isEncrypted: metadata.rule.encrypts(all))
    return text + String(repeating: " ", count: column) + YAMLText.key(path[path.count - 1]) + ": " + written + "\n"
  }

  private func flow(_ value: VaultValue, _ path: [String], below keys: [String]) throws(VaultError) -> String {
    let all = keys + path
    var text = try written(value, keys: all, column: 0, isFlow: true, isEncrypted: metadata.rule.encrypts(all))
    for part in path.reversed() { text = "{" + YAMLText.key(part) + ": " + text + "}" }
    return text
  }

  /// - Parameter filling: so much of the path is a group that was written as nothing.
  private mutating func insert(
    _ text: some StringProtocol, at offset: Int, _ value: VaultValue, _ path: [String], filling: Int? = nil
  ) throws(VaultError) {
    let changed = outline.applying([.init(range: offset..<offset, text: String(text))])
    // Where it stands among the others decides the reading; that the others are the same is what counts.
    let fresh = try Outline(Self.outline(Array(changed.utf8), file: file).source).leaves(without: SOPSMetadata.key)
    guard let position = fresh.firstIndex(where: { $0.path == path }) else {
      throw VaultError(
        .syntax, at: nil, "`\(path.joined(separator: "."))` can't be added to this file as it is written")
    }
    var expected = entries.filter { entry in filling.map { entry.path != Array(path.prefix($0)) } ?? true }
    let isEncrypted = metadata.rule.encrypts(fresh[position].keys)
    expected.insert(Entry(path: path, value: value, isEncrypted: isEncrypted), at: min(position, expected.count))
    try reload(changed, expecting: expected)
  }

  // MARK: Removal

  private func removal(
    of index: Int, in ranges: [Range<Int>], _ parent: Outline.Node, _ path: [String], emptied: String
  ) throws(VaultError) -> Outline.Change {
    let own = ranges[index]
    guard !parent.isFlow else {
      if ranges.count == 1 { return .init(range: parent.range, text: emptied) }
      // With the comma that parts it from a neighbour.
      return index > 0
        ? .init(range: ranges[index - 1].upperBound..<own.upperBound, text: "")
        : .init(range: own.lowerBound..<ranges[1].lowerBound, text: "")
    }
    if ranges.count == 1 {
      if path.count == 1 { return .init(range: outline.lines(own), text: "") }
      // `parent: {}`, or `- {}`.
      let before = outline.scalars[..<parent.range.lowerBound].lastIndex { !" \t\n".unicodeScalars.contains($0) }
      let start = before.map { $0 + 1 } ?? parent.range.lowerBound
      return .init(range: start..<parent.range.upperBound, text: " " + emptied)
    }
    let line = outline.lineStart(own.lowerBound)
    if outline.scalars[line..<own.lowerBound].allSatisfy({ $0 == " " }) {
      return .init(range: outline.lines(own), text: "")
    }
    // The first in a list's item, on the line of the dash: the next one takes its place.
    guard index + 1 < ranges.count else {
      throw VaultError(
        .syntax, at: parent.location, "`\(path.joined(separator: "."))` can't be removed from this line alone",
        help: "edit the vault: orchestrate secrets edit")
    }
    return .init(range: own.lowerBound..<ranges[index + 1].lowerBound, text: "")
  }

  // MARK: Recipients

  /// Wraps the data key for one more. False: it is a recipient already.
  public mutating func add(_ recipient: Recipient) throws(VaultError) -> Bool {
    guard !metadata.keys.contains(where: { (try? Recipient($0.recipient)) == recipient }) else { return false }
    let column = metadata.keys.last?.column ?? (metadata.age?.value.column ?? 4) + 4
    let item = try Self.random { () throws(SecureRandom.Unavailable) in
      try SOPSMetadata.item(recipient, dataKey: dataKey, column: column)
    }
    let change: Outline.Change
    if let last = metadata.keys.last {
      let end = outline.lineEnd(last.range.upperBound)
      change = .init(range: end..<end, text: "\n" + item)
    } else if let age = metadata.age {
      change = .init(range: age.colon..<age.value.range.upperBound, text: "\n" + item)
    } else {
      let start = outline.lineStart(metadata.lastModified.range.lowerBound)
      change = .init(range: start..<start, text: "    age:\n" + item + "\n")
    }
    try reload(outline.applying([change]))
    return true
  }

  /// Takes a recipient off the list, and gives the vault a new data key, which the recipient doesn't have. Values that the
  /// recipient has seen stay known to it, in the file's history too.
  public mutating func remove(_ recipient: Recipient) throws(VaultError) {
    let found = metadata.keys.indices.filter { (try? Recipient(metadata.keys[$0].recipient)) == recipient }
    guard !found.isEmpty else {
      throw VaultError(
        .recipient, at: metadata.entry.location, "\(recipient) isn't a recipient of \(file)",
        help: "its recipients: \(recipients.joined(separator: ", "))")
    }
    guard metadata.keys.count > found.count else {
      throw VaultError(
        .recipient, at: metadata.keys[0].location, "\(recipient) is the only recipient: nobody could open the vault",
        help: "add another one first")
    }
    try checkRewrappable(without: found)
    var copy = self
    let lines = found.map { Outline.Change(range: outline.lines(metadata.keys[$0].range), text: "") }
    try copy.reload(outline.applying(lines))
    try copy.rekey()
    self = copy
  }

  /// Throws `refused` for a name whose value the file's own rule leaves in the clear, though it doesn't say so itself: the rule isn't protected by
  /// the file's MAC, and whoever can push could have written it.
  public func checkEncrypts(_ path: [String]) throws(VaultError) {
    guard !metadata.rule.encrypts(path), !path.contains(where: { $0.hasSuffix("_unencrypted") }) else { return }
    throw VaultError(
      .refused, at: metadata.entry.location,
      "the rule in \(file)'s `sops:` block leaves `\(path.joined(separator: "."))` in the clear",
      help: "is the rule meant so? then write it with: orchestrate secrets edit")
  }

  /// A new data key for all recipients: each value is encrypted anew.
  public mutating func rekey() throws(VaultError) {
    try checkRewrappable(without: [])
    let old = dataKey
    dataKey = try Self.random { () throws(SecureRandom.Unavailable) in
      try SecureRandom.bytes(AES256GCM.keyCount)
    }
    do {
      var changes: [Outline.Change] = []
      for leaf in leaves where leaf.isEncrypted {
        guard let value = leaf.value, !value.isEmpty else { continue }
        let text = try ciphertext(value, keys: leaf.leaf.keys)
        changes.append(.init(range: leaf.leaf.range, text: leaf.leaf.isFlow ? "\"\(text)\"" : text))
      }
      for comment in comments {
        guard let additional = comment.additional else { continue }
        changes.append(.init(range: comment.range, text: try sealed(comment: comment.text, additional)))
      }
      for key in metadata.keys {
        guard let recipient = try? Recipient(key.recipient) else { continue }
        let wrapped = try Self.random { () throws(SecureRandom.Unavailable) in
          try SOPSMetadata.wrapped(recipient, dataKey: dataKey, column: key.column + 2)
        }
        changes.append(.init(range: key.wrappedRange, text: wrapped))
      }
      try reload(outline.applying(changes))
    } catch {
      dataKey = old
      throw error
    }
  }

  func sealed(comment: String, _ additional: String) throws(VaultError) -> String {
    try Self.random { () throws(SecureRandom.Unavailable) in
      "#" + (try Ciphertext(Array(comment.utf8), type: "comment", key: dataKey, additional: additional).text)
    }
  }

  /// A new data key has to be wrapped for everybody, which is possible for recipients of age only.
  private func checkRewrappable(without removed: [Int]) throws(VaultError) {
    guard metadata.others.isEmpty else {
      throw VaultError(
        .unsupported, at: metadata.entry.location,
        "the vault is also encrypted for keys of \(metadata.others.joined(separator: ", ")), for which only sops can wrap a new data key",
        help: "use sops for this: sops rotate")
    }
    for (index, key) in metadata.keys.enumerated() where !removed.contains(index) {
      do { _ = try Recipient(key.recipient) } catch {
        throw VaultError(.recipient, at: key.location, "\(key.recipient): \(error.message)", help: "remove it first")
      }
    }
  }
}

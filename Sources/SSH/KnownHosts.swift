import COpenSSL

/// What known_hosts files say about a host's key. The format is sshd(8)'s, "SSH_KNOWN_HOSTS FILE FORMAT": hashed names, patterns,
/// negation, `[host]:port`, `@revoked`. Strict: unreadable lines are skipped with a note, and nothing is ever added.
///
/// Written anew because libssh2's own reader loses every line after a bad one, accepts revoked keys, and doesn't know patterns.
public struct KnownHosts: Sendable {
  public enum Verdict: Sendable, Equatable {
    /// This very key stands at `file:line`.
    case known(at: String)
    /// No entry for this host has a key of this type. `otherTypes`: what is known for it instead.
    case unknown(otherTypes: [String])
    /// `file:line` has another key of the same type, with this fingerprint.
    case changed(at: String, expected: String)
    /// `file:line` revokes this key.
    case revoked(at: String)
  }

  struct Entry: Sendable {
    enum Names: Sendable {
      case hashed(salt: [UInt8], hash: [UInt8])
      case patterns([String])
    }
    var names: Names
    var revoked: Bool
    var keyType: String
    var key: [UInt8]
    var location: String
  }

  private var entries: [Entry] = []
  /// Lines that were skipped, and why: `known_hosts:3: not base64`.
  public private(set) var notes: [String] = []

  public init() {}

  /// Adds the entries of one file's text.
  public mutating func add(_ text: [UInt8], file: String) {
    // Bytes, not characters: "\r\n" is one Character, and a line may hold anything.
    for (index, line) in text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      let words = line.split(whereSeparator: { $0 == 32 || $0 == 9 || $0 == 13 })
      guard let first = words.first, first.first != UInt8(ascii: "#") else { continue }
      let location = "\(file):\(index + 1)"
      switch Self.entry(words, location) {
      case .success(let entry): entries.append(entry)
      case .failure(let note): notes.append("\(location): \(note.text)")
      }
    }
  }

  private struct Note: Error { var text: String }

  private static func entry(_ words: [ArraySlice<UInt8>], _ location: String) -> Result<Entry, Note> {
    var words = words[...]
    var revoked = false
    if words[0].first == UInt8(ascii: "@") {
      let marker = String(decoding: words.removeFirst(), as: UTF8.self)
      if marker == "@cert-authority" { return .failure(Note(text: "certificate authorities aren't supported")) }
      guard marker == "@revoked" else { return .failure(Note(text: "unknown marker \(marker)")) }
      revoked = true
    }
    guard words.count >= 3 else { return .failure(Note(text: "not a known_hosts entry")) }
    let fields = Array(words)
    let keyType = String(decoding: fields[1], as: UTF8.self)
    guard let key = Base64.decode(fields[2]) else { return .failure(Note(text: "the key isn't base64")) }
    var reader = SSHReader(key)
    guard let inner = reader.string(), inner.elementsEqual(keyType.utf8) else {
      return .failure(Note(text: "the key isn't of type \(keyType)"))
    }
    let names: Entry.Names
    if fields[0].first == UInt8(ascii: "|") {
      let parts = fields[0].split(separator: UInt8(ascii: "|"))
      guard parts.count == 3, parts[0].elementsEqual("1".utf8), let salt = Base64.decode(parts[1]),
        let hash = Base64.decode(parts[2]), hash.count == 20
      else { return .failure(Note(text: "a hashed name that can't be read")) }
      names = .hashed(salt: salt, hash: hash)
    } else {
      names = .patterns(
        fields[0].split(separator: UInt8(ascii: ",")).map { String(decoding: $0, as: UTF8.self).lowercased() })
    }
    return .success(Entry(names: names, revoked: revoked, keyType: keyType, key: key, location: location))
  }

  /// Judges the key that a host has shown.
  ///
  /// - Parameters:
  ///   - host: name or address as it was connected to.
  ///   - alias: looked up instead, without the port (HostKeyAlias).
  public func verdict(host: String, port: UInt16, alias: String? = nil, key: [UInt8]) -> Verdict {
    let names = Self.lookupNames(host: host, port: port, alias: alias)
    let verdict = judge(names[0], key)
    // As ssh does: a host on another port is known, too, by the key of its plain name. It isn't *changed* by that.
    if case .unknown = verdict, names.count > 1, case let plain = judge(names[1], key) {
      switch plain {
      case .known, .revoked: return plain
      case .unknown, .changed: break
      }
    }
    return verdict
  }

  private func judge(_ name: String, _ key: [UInt8]) -> Verdict {
    var reader = SSHReader(key)
    let keyType = String(decoding: reader.string() ?? [], as: UTF8.self)
    var known: String?
    var changed: Entry?
    var others: [String] = []
    for entry in entries where Self.matches(entry.names, name) {
      if entry.revoked {
        if entry.key == key { return .revoked(at: entry.location) }
      } else if entry.key == key {
        known = known ?? entry.location
      } else if entry.keyType == keyType {
        changed = changed ?? entry
      } else if !others.contains(entry.keyType) {
        others.append(entry.keyType)
      }
    }
    if let known { return .known(at: known) }
    if let changed { return .changed(at: changed.location, expected: fingerprint(of: changed.key)) }
    return .unknown(otherTypes: others)
  }

  /// The types of the keys that are known for a host, in the files' order: the handshake must ask for these, or a host with
  /// several keys shows one that looks unknown.
  public func keyTypes(host: String, port: UInt16, alias: String? = nil) -> [String] {
    for name in Self.lookupNames(host: host, port: port, alias: alias) {
      var types: [String] = []
      for entry in entries where !entry.revoked && Self.matches(entry.names, name) && !types.contains(entry.keyType) {
        types.append(entry.keyType)
      }
      if !types.isEmpty { return types }
    }
    return []
  }

  private static func lookupNames(host: String, port: UInt16, alias: String?) -> [String] {
    if let alias { return [alias.lowercased()] }
    let host = host.lowercased()
    return port == 22 ? [host] : ["[\(host)]:\(port)", host]
  }

  private static func matches(_ names: Entry.Names, _ name: String) -> Bool {
    switch names {
    case .hashed(let salt, let hash): return hmacSHA1(key: salt, Array(name.utf8)) == hash
    case .patterns(let patterns):
      var matched = false
      for pattern in patterns {
        if pattern.hasPrefix("!") {
          if matchesPattern(Array(pattern.utf8.dropFirst())[...], Array(name.utf8)[...]) { return false }
        } else if matchesPattern(Array(pattern.utf8)[...], Array(name.utf8)[...]) {
          matched = true
        }
      }
      return matched
    }
  }

  /// `*` is any number of characters, `?` one (ssh_config(5), PATTERNS).
  private static func matchesPattern(_ pattern: ArraySlice<UInt8>, _ text: ArraySlice<UInt8>) -> Bool {
    var pattern = pattern
    var text = text
    var retry: (pattern: ArraySlice<UInt8>, text: ArraySlice<UInt8>)?
    while true {
      if pattern.first == UInt8(ascii: "*") {
        pattern = pattern.dropFirst()
        retry = (pattern, text)
      } else if let character = text.first, let wanted = pattern.first,
        wanted == UInt8(ascii: "?") || wanted == character
      {
        pattern = pattern.dropFirst()
        text = text.dropFirst()
      } else if text.isEmpty, pattern.isEmpty {
        return true
      } else if let last = retry, !last.text.isEmpty {
        retry = (last.pattern, last.text.dropFirst())
        pattern = last.pattern
        text = last.text.dropFirst()
      } else {
        return false
      }
    }
  }

  /// The line that would make a key known.
  static func line(host: String, port: UInt16, alias: String?, key: [UInt8]) -> String {
    var reader = SSHReader(key)
    let keyType = String(decoding: reader.string() ?? [], as: UTF8.self)
    return "\(lookupNames(host: host, port: port, alias: alias)[0]) \(keyType) \(Base64.encode(key))"
  }
}

/// `SHA256:` and unpadded base64 of the key's blob, as `ssh-keygen -l` prints it.
func fingerprint(of key: [UInt8]) -> String { "SHA256:" + Base64.encode(sha256(key), padded: false) }

func sha256(_ bytes: [UInt8]) -> [UInt8] {
  [UInt8](unsafeUninitializedCapacity: 32) { buffer, count in
    _ = SHA256(bytes, bytes.count, buffer.baseAddress)
    count = 32
  }
}

private func hmacSHA1(key: [UInt8], _ bytes: [UInt8]) -> [UInt8] {
  [UInt8](unsafeUninitializedCapacity: 20) { buffer, count in
    var length: UInt32 = 20
    _ = HMAC(EVP_sha1(), key, Int32(key.count), bytes, bytes.count, buffer.baseAddress, &length)
    count = Int(length)
  }
}

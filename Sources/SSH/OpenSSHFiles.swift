#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Whether ssh's own configuration files have anything to say about a connection. To ask `ssh -G` costs a process per host: where the user has
/// none, and the system's are as a distribution ships them, its answer is known.
public struct OpenSSHFiles: Sendable {
  public var user: String
  public var system: String

  /// - Parameters:
  ///   - home: the account's, from the password database: ssh(1) doesn't look at `HOME`.
  ///   - system: relative names in it are looked up beside it.
  public init(home: String, system: String = "/etc/ssh/ssh_config") {
    user = home + "/.ssh/config"
    self.system = system
  }

  /// Keywords that decide nothing about where and how to connect, nor as whom (ssh_config(5)).
  private static let indifferent: Set<String> = [
    "host", "sendenv", "hashknownhosts", "gssapiauthentication", "gssapidelegatecredentials", "passwordauthentication",
    "kbdinteractiveauthentication", "forwardagent", "forwardx11", "forwardx11trusted", "visualhostkey", "loglevel",
    "permitlocalcommand", "escapechar", "addkeystoagent", "batchmode", "controlmaster", "controlpath", "controlpersist",
  ]

  /// False: `ssh -G` would print its defaults for every host. Reads the files anew each time; blocks for as long.
  public var mayDecide: Bool {
    if case .failure(let fault) = readFile(user), fault.number == ENOENT { return decides(system, depth: 0) }
    return true
  }

  private func decides(_ path: String, depth: Int) -> Bool {
    let text: [UInt8]
    switch readFile(path) {
    case .success(let bytes): text = bytes
    // Also where it is missing: the distribution may have put it elsewhere.
    case .failure: return true
    }
    guard depth < 16 else { return true }
    let folder = system.lastIndex(of: "/").map { String(system[...$0]) } ?? ""
    for line in text.split(whereSeparator: { $0 == 10 || $0 == 13 }) {
      let words = String(decoding: line, as: UTF8.self).split { $0 == " " || $0 == "\t" || $0 == "=" }
      guard let keyword = words.first?.lowercased(), !keyword.hasPrefix("#") else { continue }
      if Self.indifferent.contains(keyword) { continue }
      guard keyword == "include",
        words.dropFirst().allSatisfy({ $0.allSatisfy { !"\"'~$%\\".contains($0) } })
      else { return true }
      for pattern in words.dropFirst() {
        let full = pattern.hasPrefix("/") ? String(pattern) : folder + pattern
        if Self.files(full).contains(where: { decides($0, depth: depth + 1) }) { return true }
      }
    }
    return false
  }

  private static func files(_ pattern: String) -> [String] {
    var found = glob_t()
    defer { globfree(&found) }
    guard glob(pattern, 0, nil, &found) == 0 else { return [] }
    return (0..<Int(found.gl_pathc)).compactMap { found.gl_pathv[$0].map { String(cString: $0) } }
  }
}

/// The rules for names and paths, each in one place.
enum Names {
  /// What Compose accepts as a project name, and systemd, the file system and the names of images too.
  static func isProject(_ name: String) -> Bool {
    matches(name, first: "abcdefghijklmnopqrstuvwxyz0123456789", rest: "abcdefghijklmnopqrstuvwxyz0123456789-")
      && name.utf8.count <= 63 && !name.hasSuffix("-") && !reserved.contains(name)
  }

  /// What lies beside the projects in /var/lib/orchestrate.
  static let reserved: Set<String> = ["bundle", "lock", "holder"]

  /// Steps name directories (`NN-<name>`), roles and environments name files and flags.
  static func isPlain(_ name: String) -> Bool {
    matches(name, first: "abcdefghijklmnopqrstuvwxyz0123456789", rest: "abcdefghijklmnopqrstuvwxyz0123456789-_")
      && name.utf8.count <= 40
  }

  /// What Compose accepts as a service's name.
  static func isService(_ name: String) -> Bool {
    let letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return matches(name, first: letters, rest: letters + "._-")
  }

  /// A variable's name: POSIX, XBD 8.1, lower case allowed.
  static func isVariable(_ name: String) -> Bool {
    let letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
    return matches(name, first: letters, rest: letters + "0123456789")
  }

  /// A host name (RFC 1123), an IPv4 or an IPv6 address.
  static func isAddress(_ address: String) -> Bool {
    if address.contains(":") { return isIPv6(String(address.prefix { $0 != "%" })) }
    let labels = address.split(separator: ".", omittingEmptySubsequences: false)
    let letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    guard address.utf8.count <= 253,
      labels.allSatisfy({
        matches(String($0), first: letters + "_", rest: letters + "-_") && $0.utf8.count <= 63 && !$0.hasSuffix("-")
      })
    else { return false }
    // All numbers: then it has to be an IPv4 address.
    guard labels.allSatisfy({ $0.allSatisfy { ("0"..."9").contains($0) } }) else { return true }
    return isIPv4(address)
  }

  /// Four numbers without leading zeros.
  static func isIPv4(_ address: String) -> Bool {
    let labels = address.split(separator: ".", omittingEmptySubsequences: false)
    return labels.count == 4
      && labels.allSatisfy { label in
        label.allSatisfy { ("0"..."9").contains($0) } && (label.count == 1 || !label.hasPrefix("0"))
          && Int(label).map { (0...255).contains($0) } ?? false
      }
  }

  /// RFC 4291, section 2.2, without a zone: eight groups of hexadecimal digits, `::` once for some that are zero, the last two also as IPv4.
  static func isIPv6(_ address: String) -> Bool {
    var groups = address.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard groups.count >= 3 else { return false }
    // `::` at the beginning or the end is an empty group more.
    if groups[0].isEmpty {
      guard groups[1].isEmpty else { return false }
      groups.removeFirst()
    }
    if groups[groups.count - 1].isEmpty, groups.count > 1 {
      guard groups[groups.count - 2].isEmpty else { return false }
      groups.removeLast()
    }
    var count = 0, gaps = 0
    for (index, group) in groups.enumerated() {
      if group.isEmpty {
        gaps += 1
      } else if group.contains(".") {
        guard index == groups.count - 1, isIPv4(group) else { return false }
        count += 2
      } else {
        guard group.count <= 4, group.allSatisfy({ $0.isASCII && $0.isHexDigit }) else { return false }
        count += 1
      }
    }
    return gaps == 0 ? count == 8 : gaps == 1 && count <= 7
  }

  /// A domain with at least two labels (RFC 1123), in small letters: what a certificate may be for.
  static func isDomain(_ name: String) -> Bool {
    name == name.lowercased() && name.contains(".") && !name.contains("_") && !name.hasSuffix(".") && isAddress(name)
      && name.split(separator: ".").last!.contains { $0.isLetter }
  }

  private static func matches(_ name: String, first: String, rest: String) -> Bool {
    guard let initial = name.first, first.contains(initial) else { return false }
    return name.dropFirst().allSatisfy { rest.contains($0) }
  }

  /// The nearest name that follows the rule for projects: `Market_Bot` → `market-bot`.
  static func projectName(from name: String) -> String? {
    let mapped = name.lowercased().map { ("a"..."z").contains($0) || ("0"..."9").contains($0) ? $0 : "-" as Character }
    var trimmed = String(mapped.drop { $0 == "-" })
    while trimmed.hasSuffix("-") { trimmed.removeLast() }
    return isProject(trimmed) ? trimmed : nil
  }
}

/// Paths as strings with `/`.
enum Paths {
  static func join(_ folder: String, _ path: String) -> String {
    path.hasPrefix("/") ? normalized(path) : normalized(folder + "/" + path)
  }

  /// Without `.`, `..`, double and trailing slashes.
  static func normalized(_ path: String) -> String {
    var parts: [Substring] = []
    for part in path.split(separator: "/") where part != "." {
      if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    return "/" + parts.joined(separator: "/")
  }

  static func parent(_ path: String) -> String? {
    guard path != "/", let slash = path.lastIndex(of: "/") else { return nil }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// Why a path that has to lie in the project's folder doesn't; nil if it does.
  static func fault(inProject path: String) -> String? {
    if path.hasPrefix("/") { return "the path is absolute; expected one relative to the project folder" }
    if path.hasPrefix("~") { return "the path lies in a home folder; expected one relative to the project folder" }
    var depth = 0
    for part in path.split(separator: "/") where part != "." {
      depth += part == ".." ? -1 : 1
      if depth < 0 { return "the path leads out of the project folder; expected one inside" }
    }
    return depth == 0 ? "the path is the project folder itself; expected one inside" : nil
  }
}

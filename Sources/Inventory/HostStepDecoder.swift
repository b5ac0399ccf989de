import ConfigSource
import Diagnostics

/// The settings of the steps that prepare a machine.
extension StepDecoder {
  func hostSettings(of kind: StepKindName) -> HostStepSettings {
    switch kind {
    case .packages: .packages(install: packages())
    case .user: .user(keys: keys())
    case .directories: .directories
    case .sshHardening: .sshHardening(sshHardening())
    case .firewall: .firewall(allow: ports("allow"), revert: revert())
    case .docker: .docker(docker())
    case .sysctl: .sysctl(values: kernelValues())
    case .swap: .swap(size: reader.size("size") ?? 0)
    case .time: .time(zone: zone())
    case .updates: .updates
    case .logRetention:
      .logRetention(days: reader.integer("days", in: 7...3650) ?? 14, size: reader.size("size") ?? 1 << 30)
    case .systemdUnit: .systemdUnit
    case .file: .file(file())
    case .reverseProxy: .reverseProxy(reverseProxy())
    case .fail2ban: .fail2ban(fail2ban())
    default: preconditionFailure("\(kind) prepares no machine")
    }
  }

  private func packages() -> [String] {
    (reader.strings("install", of: "names of packages", allowEmpty: true) ?? []).compactMap { name, location in
      // Debian Policy, 5.6.7; with an architecture.
      let isName =
        name.utf8.count >= 2 && name.first.map { $0.isLetter || $0.isNumber } == true
        && name.allSatisfy { $0.isASCII && ($0.isLowercase || $0.isNumber || "+-.:".contains($0)) }
      if !isName { reader.diagnostics.error(at: location, "`\(name)` isn't the name of a Debian package") }
      return isName ? name : nil
    }
  }

  private func keys() -> [String]? {
    guard reader.has("keys") else { return nil }
    return (reader.strings("keys", of: "public keys") ?? []).compactMap { key, location in
      let words = key.split(separator: " ")
      let types = ["ssh-ed25519", "ecdsa-sha2-", "ssh-rsa", "sk-ssh-", "sk-ecdsa-"]
      guard words.contains(where: { word in types.contains { word.hasPrefix($0) } }), !key.contains("PRIVATE KEY"),
        !key.contains("\n")
      else {
        reader.diagnostics.error(
          at: location, "this isn't a public key", help: "a line as in ~/.ssh/id_ed25519.pub: ssh-ed25519 AAAA… name")
        return nil
      }
      return key
    }
  }

  private func sshHardening() -> SSHHardeningSettings {
    var settings = SSHHardeningSettings()
    settings.port = reader.integer("port", in: 1...65535)
    settings.rootLogin = reader.bool("root_login") ?? settings.rootLogin
    settings.revert = revert()
    return settings
  }

  private func revert() -> Duration { reader.duration("revert", in: .seconds(10) ... .seconds(3600)) ?? .seconds(180) }

  private func ports(_ key: String) -> [String] {
    (reader.strings(key, of: "ports like 80/tcp", allowEmpty: true) ?? []).compactMap { text, location in
      let parts = text.split(separator: "/", omittingEmptySubsequences: false)
      guard parts.count == 2, let port = Int(parts[0]), (1...65535).contains(port), ["tcp", "udp"].contains(parts[1])
      else {
        reader.diagnostics.error(at: location, "`\(text)` isn't a port", help: "like 80/tcp or 51820/udp")
        return nil
      }
      return "\(port)/\(parts[1])"
    }
  }

  private func docker() -> DockerSettings {
    var settings = DockerSettings()
    settings.logDriver = reader.enumeration("log_driver") ?? settings.logDriver
    settings.liveRestore = reader.bool("live_restore") ?? settings.liveRestore
    if let pool = reader.string("address_pool", "a network like 10.201.0.0/16") {
      let parts = pool.split(separator: "/")
      let octets = parts.first?.split(separator: ".").compactMap { UInt8($0) } ?? []
      if parts.count == 2, octets.count == 4, let bits = Int(parts[1]), (8...24).contains(bits) {
        settings.addressPool = pool
      } else {
        reader.error("address_pool", "`\(pool)` isn't an IPv4 network of 8 to 24 bits", help: "like 10.201.0.0/16")
      }
    }
    if let url = reader.string("repository", "a URL") {
      let rest = ["https://", "http://"].first(where: url.hasPrefix).map { url.dropFirst($0.count) } ?? ""
      if rest.isEmpty || !url.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || ":/.-_~+%".contains($0)) }) {
        reader.error(
          "repository", "`\(url)` isn't the URL of a package repository",
          help: "like https://download.docker.com/linux/debian")
      }
      settings.repository = url.hasSuffix("/") ? String(url.dropLast()) : url
    }
    if let key = reader.string("repository_key", "a fingerprint") {
      let digits = key.uppercased().filter { $0 != " " }
      if digits.count != 40 || !digits.allSatisfy({ $0.isASCII && $0.isHexDigit }) {
        reader.error(
          "repository_key", "`\(key)` isn't the fingerprint of a key", help: "40 hexadecimal digits, as gpg shows them")
      }
      settings.repositoryKey = digits
    }
    return settings
  }

  private func kernelValues() -> [String: String] {
    var values: [String: String] = [:]
    for entry in reader.stringMap("values") ?? [] {
      let isName =
        entry.name.contains(".")
        && entry.name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-/".contains($0)) }
      if !isName {
        reader.diagnostics.error(
          at: entry.location, "`\(entry.name)` isn't the name of a kernel parameter", help: "like net.core.somaxconn")
      } else if entry.value.contains("\n") {
        reader.diagnostics.error(at: entry.location, "the value of \(entry.name) has more than one line")
      } else {
        values[entry.name] = entry.value
      }
    }
    return values
  }

  private func zone() -> String {
    guard let zone = reader.string("zone", "a time zone") else { return "Etc/UTC" }
    guard zone.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "/_+-".contains($0)) }), !zone.hasPrefix("/"),
      !zone.hasPrefix("-")
    else {
      reader.error("zone", "`\(zone)` isn't a time zone", help: "like Etc/UTC or Europe/Berlin")
      return "Etc/UTC"
    }
    return zone
  }

  private func file() -> FileSettings {
    var settings = FileSettings()
    settings.source = script("source") ?? ""
    if let path = reader.string("path", "an absolute path") {
      if !path.hasPrefix("/") || path.hasSuffix("/") || path.contains("/../") || path.contains("\n")
        || path.hasSuffix("/..")
      {
        reader.error(
          "path", "`\(path)` isn't the absolute path of a file on the host", help: "like /etc/logrotate.d/bot")
      }
      settings.path = path
    }
    for (key, place) in [("owner", \FileSettings.owner), ("group", \FileSettings.group)] {
      guard let name = reader.string(key, "a name") else { continue }
      if !name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }) || name.hasPrefix("-") {
        reader.error(key, "`\(name)` isn't the name of an account")
      }
      settings[keyPath: place] = name
    }
    if let mode = reader.string("mode", "permissions like \"0644\"") {
      if (3...4).contains(mode.count), mode.allSatisfy({ ("0"..."7").contains($0) }) {
        settings.mode = String(repeating: "0", count: 4 - mode.count) + mode
      } else {
        reader.error("mode", "`\(mode)` isn't a file's permissions", help: "like mode: \"0644\", in quotes")
      }
    }
    settings.isSecret = reader.bool("secret") ?? settings.isSecret
    return settings
  }
}

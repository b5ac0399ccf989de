import ConfigSource
import Diagnostics

/// The settings of the steps that stand before the application: reverse-proxy and fail2ban.
extension StepDecoder {
  func reverseProxy() -> ReverseProxySettings {
    var settings = ReverseProxySettings()
    if let domain = reader.string("domain", "a domain") {
      if !Names.isDomain(domain) { reader.error("domain", Self.domainFault(domain), help: "like bot.example.com") }
      settings.domain = domain
    }
    for (name, location) in reader.strings("aliases", of: "domains", allowEmpty: true) ?? [] {
      if !Names.isDomain(name) {
        reader.diagnostics.error(at: location, Self.domainFault(name), help: "like www.example.com")
      } else if name == settings.domain || settings.aliases.contains(name) {
        reader.diagnostics.error(at: location, "\(name) stands there twice")
      } else {
        settings.aliases.append(name)
      }
    }
    if let upstream = reader.string("upstream", "an address with a port") {
      if Self.isUpstream(upstream) {
        settings.upstream = upstream
      } else {
        // A name that nobody knows at boot would keep nginx from starting.
        reader.error(
          "upstream", "`\(upstream.prefix(80))` isn't an IP address with a port", help: "like 127.0.0.1:8000")
      }
    }
    settings.certificate = certificate()
    settings.server = reader.enumeration("server") ?? settings.server
    if settings.server == .caddy { settings.rateLimit = 0 }
    settings.rateLimit = reader.integer("rate_limit", in: 0...100_000) ?? settings.rateLimit
    if settings.server == .caddy, settings.rateLimit > 0 {
      reader.error("rate_limit", "the distribution's Caddy knows no rate limit", help: "remove it, or server: nginx")
    }
    settings.hsts = reader.duration("hsts", in: .zero ... .seconds(3650 * 86400)) ?? settings.hsts
    settings.maxBody = reader.size("max_body") ?? settings.maxBody
    settings.timeout = reader.duration("timeout", in: .seconds(1) ... .seconds(86400)) ?? settings.timeout
    settings.maintenance = script("maintenance")
    return settings
  }

  private static func domainFault(_ name: String) -> String {
    let lowered = name.lowercased()
    if lowered != name, Names.isDomain(lowered) { return "`\(name.prefix(80))`: write a domain in small letters" }
    if name.hasPrefix("*.") {
      return "`\(name.prefix(80))`: certificates for all names need DNS, which isn't supported"
    }
    return "`\(name.prefix(80))` isn't a domain"
  }

  /// An IPv4 address, an IPv6 address in brackets, or `localhost`; with a port.
  static func isUpstream(_ text: String) -> Bool {
    guard let colon = text.lastIndex(of: ":"), let port = number(text[text.index(after: colon)...]),
      (1...65535).contains(port)
    else { return false }
    let host = String(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") { return Names.isIPv6(String(host.dropFirst().dropLast())) }
    return host == "localhost" || Names.isIPv4(host)
  }

  /// Decimal digits alone; nil: something else, or too many.
  private static func number(_ text: Substring) -> Int? {
    text.allSatisfy { ("0"..."9").contains($0) } ? Int(text) : nil
  }

  private func certificate() -> ReverseProxySettings.Certificate {
    let email = email(), authority = certificates("acme_ca")
    let server = acmeServer() ?? ReverseProxySettings.letsEncrypt
    let acme = ReverseProxySettings.Certificate.acme(server: server, email: email, authority: authority)
    guard let node = reader.node("certificate") else { return acme }
    guard case .mapping = node.content else {
      if reader.string("certificate", "acme or a mapping") != "acme" {
        reader.error(
          "certificate", "expected acme or a mapping", help: "like certificate: { file: files/tls.pem, key: TLS_KEY }")
      }
      return acme
    }
    for key in ["email", "acme_server", "acme_ca"] where reader.has(key) {
      reader.error(key, "it has no meaning beside a given certificate", help: "remove one of both")
    }
    guard
      let given = MappingReader(
        node, PlaybookSchema.givenCertificate, path: reader.keyPath("certificate"), diagnostics: reader.diagnostics)
    else { return acme }
    let inner = StepDecoder(reader: given, playbook: playbook, at: location, root: root, files: files)
    let file = inner.certificates("file") ?? ""
    switch (given.string("key", "the name of a value"), inner.script("key_file")) {
    case (let name?, nil):
      if !Names.isVariable(name) {
        given.error(
          "key", "`\(name.prefix(20))` isn't the name of a variable or of an entry of the vault", help: "like TLS_KEY")
      }
      return .given(file: file, key: .value(name))
    case (nil, let path?): return .given(file: file, key: .file(path))
    case (_?, _?): given.error("key_file", "there is a `key` already", help: "write one of both")
    case (nil, nil):
      if !given.has("key"), !given.has("key_file") {
        given.diagnostics.error(
          at: given.location, "`\(given.path)`: the private key is missing",
          help: "key: TLS_KEY, the name of an entry of the vault"
        )
      }
    }
    return acme
  }

  /// A file of certificates: on the host everybody may read it, and a plan shows its lines.
  private func certificates(_ key: String) -> String? {
    guard let path = script(key) else { return nil }
    if let bytes = try? files?.read(Paths.join(root, path)),
      String(decoding: bytes, as: UTF8.self).contains("PRIVATE KEY-----")
    {
      reader.error(
        key, "\(path) holds a private key, and everybody on the host may read this file there",
        help: "leave the certificates alone in it, and give the key by itself: key: TLS_KEY, an entry of the vault")
    }
    return path
  }

  private func acmeServer() -> String? {
    guard let url = reader.string("acme_server", "a URL") else { return nil }
    let rest = url.dropFirst("https://".count)
    let allowed = url.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-._~:/[]?=&%+".contains($0)) }
    guard url.hasPrefix("https://"), allowed, !rest.isEmpty, !rest.hasPrefix("/") else {
      reader.error(
        "acme_server", "`\(url.prefix(80))` isn't a URL that begins with https://",
        help: "the URL of the server's directory")
      return nil
    }
    return url
  }

  private func email() -> String? {
    guard let address = reader.string("email", "an address") else { return nil }
    let parts = address.split(separator: "@", omittingEmptySubsequences: false)
    guard parts.count == 2, Names.isDomain(String(parts[1]).lowercased()), !parts[0].isEmpty, !address.hasPrefix("-"),
      parts[0].allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "._%+-".contains($0)) })
    else {
      reader.error("email", "`\(address.prefix(80))` isn't an e-mail address")
      return nil
    }
    return address
  }

  func fail2ban() -> Fail2banSettings {
    var settings = Fail2banSettings()
    settings.retries = reader.integer("retries", in: 1...1000) ?? settings.retries
    settings.find = reader.duration("within", in: .seconds(1) ... .seconds(365 * 86400)) ?? settings.find
    settings.ban = reader.duration("ban", in: .seconds(1) ... .seconds(365 * 86400)) ?? settings.ban
    for (text, location) in reader.strings("ignore", of: "addresses", allowEmpty: true) ?? [] {
      let parts = text.split(separator: "/", omittingEmptySubsequences: false)
      let address = String(parts[0]), isSix = address.contains(":")
      let isAddress = isSix ? Names.isIPv6(address) : Names.isIPv4(address)
      let bits = parts.count == 2 ? Self.number(parts[1]) : 0
      if parts.count > 2 || !isAddress || !(bits.map { (0...(isSix ? 128 : 32)).contains($0) } ?? false) {
        reader.diagnostics.error(
          at: location, "`\(text.prefix(60))` isn't an address or a network", help: "like 198.51.100.7 or 2001:db8::/32"
        )
      } else {
        settings.ignore.append(text)
      }
    }
    return settings
  }
}

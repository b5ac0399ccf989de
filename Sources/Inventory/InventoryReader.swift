public import ConfigSource
import Diagnostics

/// The keys of inventories/ENV.yml; docs/inventory.md is tested against them.
public enum InventorySchema {
  public static let inventory = KeyTable(
    "Inventory",
    [
      .init("app", "name", required: true),
      .init("project", "name", default: "app"),
      .init("default", "true or false", default: "false"),
      .init("hosts", "mapping of names to hosts", required: true),
      .init("ssh", "mapping", default: "{}"),
      .init("compose", "path", default: "compose.yml"),
      .init("env", "mapping", default: "{}"),
      .init("secrets", "path"),
      .init("services", "mapping", required: true),
      .init("memory", "mapping of services to weights", default: "{}"),
      .init("vars", "mapping of names to texts", default: "{}"),
      .init("registry", "mapping"),
    ])
  public static let host = KeyTable(
    "hosts",
    [
      .init("address", "address or host name", required: true),
      .init("port", "whole number from 1 to 65535"),
      .init("user", "name"),
      .init("roles", "list of names"),
    ])
  public static let ssh = KeyTable(
    "ssh",
    [
      .init("identity", "path"), .init("known_hosts", "path"), .init("host_key", "fingerprint"),
      .init("proxy_jump", "[user@]host[:port], …"),
    ])
  public static let env = KeyTable(
    "env",
    [
      .init("template", "path or list of paths"),
      .init("from", "list of sources", default: "[flags, environment, vault, host, generated]"),
    ])
  public static let services = KeyTable(
    "services",
    [.init("app", "list of services", required: true), .init("database", "service"), .init("cache", "service")])
  public static let registry = KeyTable(
    "registry",
    [
      .init("server", "host[:port]", required: true), .init("username", "text", required: true),
      .init("password", "name of a value", required: true),
    ])

  public static let all = [inventory, host, ssh, env, services, registry]
  /// What a host does if the only host names no roles.
  static let allRoles = ["app", "db", "web"]
}

/// Nodes to an `Inventory`. Reports every fault to its collector.
struct InventoryReader {
  let environment: String
  let root: String
  let files: FileSource
  let diagnostics: DiagnosticCollector
  /// False: `vars` has faults, so that a name may be missing that the user did define.
  private(set) var varsAreComplete = true

  init(environment: String, root: String, files: FileSource, diagnostics: DiagnosticCollector) {
    self.environment = environment
    self.root = root
    self.files = files
    self.diagnostics = diagnostics
  }

  /// Nil only if there is nothing that could be read.
  mutating func read(_ node: YAMLNode) -> Inventory? {
    guard let top = MappingReader(node, InventorySchema.inventory, path: "", diagnostics: diagnostics) else {
      return nil
    }
    let app = projectName("app", top) ?? environment
    var inventory = Inventory(environment: environment, app: app, project: projectName("project", top))
    inventory.isDefault = top.bool("default") ?? false
    inventory.hosts = hosts(top)
    inventory.ssh = ssh(top)
    inventory.compose = path("compose", top) ?? inventory.compose
    inventory.env = env(top)
    inventory.secrets = top.string("secrets", "a path")
    inventory.services = services(top)
    inventory.memoryWeights = memoryWeights(top, inventory.services)
    let before = diagnostics.count
    inventory.vars = vars(top)
    varsAreComplete = diagnostics.count == before
    inventory.registry = registry(top)
    checkCompose(inventory.compose, top)
    return inventory
  }

  private func projectName(_ key: String, _ top: MappingReader) -> String? {
    guard let name = top.string(key, "a name") else { return nil }
    guard !Names.isProject(name) else { return name }
    guard !Names.reserved.contains(name) else {
      top.error(key, "`\(name)` is a name of the tool's own on the host", help: "write \(name)-app")
      return nil
    }
    top.error(
      key,
      "`\(name)` isn't a name that Compose and Docker accept: a-z, 0-9 and -, a letter or digit at both ends, at most 63",
      help: Names.projectName(from: name).map { "write \($0)" } ?? "like market-bot")
    return nil
  }

  // MARK: Hosts

  private func hosts(_ top: MappingReader) -> [HostEntry] {
    guard let entries = top.mapping("hosts", of: "names to hosts") else { return [] }
    if entries.isEmpty { top.error("hosts", "at least one host is needed") }
    var hosts: [HostEntry] = []
    var addresses: [String: String] = [:]
    for entry in entries {
      let path = "hosts.\(entry.key)"
      if !Names.isAddress(entry.key) || entry.key.contains(":") {
        diagnostics.error(
          at: entry.keyLocation, "`\(entry.key)` isn't a name for a host: letters, digits, - and . only")
      }
      guard let reader = MappingReader(entry.value, InventorySchema.host, path: path, diagnostics: diagnostics) else {
        continue
      }
      var host = HostEntry(name: entry.key, address: address(reader) ?? "")
      host.port = reader.integer("port", in: 1...65535)
      host.user = user(reader)
      host.roles = roles(reader, isOnly: entries.count == 1)
      if !host.address.isEmpty {
        let key = "\(host.address.lowercased()):\(host.port ?? 22)"
        if let other = addresses[key] {
          reader.error("address", "\(host.address) is the address of `\(other)` already")
        } else {
          addresses[key] = entry.key
        }
      }
      hosts.append(host)
    }
    if !hosts.isEmpty, !hosts.contains(where: { $0.roles.contains("app") || $0.roles.isEmpty }) {
      top.error(
        "hosts", "no host has the role app, so that nothing would run the app's services", help: "roles: [app, db]")
    }
    return hosts
  }

  private func address(_ reader: MappingReader) -> String? {
    guard let address = reader.string("address", "an address or a host name") else { return nil }
    if Names.isAddress(address) { return address }
    var help: String?
    if address.contains("://") {
      help = "the host alone, without a scheme"
    } else if let at = address.firstIndex(of: "@") {
      help = "write user: \(address[..<at]) and address: \(address[address.index(after: at)...])"
    } else if address.hasPrefix("[") {
      help = "an IPv6 address stands in quotes, without brackets"
    } else if let colon = address.lastIndex(of: ":"), Names.isAddress(String(address[..<colon])) {
      help = "write address: \(address[..<colon]) and port: \(address[address.index(after: colon)...])"
    }
    reader.error(
      "address", "`\(address)` is neither an IP address nor a host name",
      help: help ?? "like 203.0.113.10 or bot.example.com")
    return nil
  }

  private func user(_ reader: MappingReader) -> String? {
    guard let user = reader.string("user", "a name") else { return nil }
    let isName =
      !user.hasPrefix("-") && user.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
    if !isName { reader.error("user", "`\(user)` isn't the name of a user") }
    return isName ? user : nil
  }

  private func roles(_ reader: MappingReader, isOnly: Bool) -> [String] {
    guard reader.has("roles") else {
      if isOnly { return InventorySchema.allRoles }
      diagnostics.error(
        at: reader.location, "`\(reader.keyPath("roles"))` is missing",
        help: "of several hosts, each names its roles: [app, db]")
      return []
    }
    var roles: [String] = []
    for (role, location) in reader.strings("roles", of: "names") ?? [] {
      if !Names.isPlain(role) {
        diagnostics.error(
          at: location, "`\(role)` isn't a name for a role: a-z, 0-9, - and _",
          help: Names.isPlain(role.lowercased()) ? "write \(role.lowercased())" : nil)
      } else if roles.contains(role) {
        diagnostics.error(at: location, "the role \(role) stands twice in the list")
      } else {
        roles.append(role)
      }
    }
    return roles
  }

  // MARK: The other parts

  private func ssh(_ top: MappingReader) -> SSHSettings {
    var settings = SSHSettings()
    guard let reader = child("ssh", InventorySchema.ssh, top) else { return settings }
    settings.identity = reader.string("identity", "a path")
    settings.knownHosts = reader.string("known_hosts", "a path")
    settings.hostKey = reader.string("host_key", "a fingerprint")
    if let key = settings.hostKey {
      // 32 bytes in base64, without padding.
      let digest = key.dropFirst("SHA256:".count)
      let isBase64 = digest.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "+" || $0 == "/") }
      if !key.hasPrefix("SHA256:") || digest.count != 43 || !isBase64 {
        reader.error(
          "host_key", "expected SHA256: and 43 characters of base64, as `ssh-keygen -l` prints it",
          help: key.hasPrefix("ssh-") || key.hasPrefix("ecdsa-") ? "that is a key; its fingerprint goes here" : nil)
      }
    }
    settings.proxyJump = reader.string("proxy_jump", "[user@]host[:port]")
    if let jump = settings.proxyJump, jump.hasPrefix("-") || jump.contains(" ") {
      reader.error("proxy_jump", "expected [user@]host[:port], several with commas between them")
    }
    return settings
  }

  private func env(_ top: MappingReader) -> EnvSources {
    var sources = EnvSources()
    guard let reader = child("env", InventorySchema.env, top) else { return sources }
    sources.templates = templates(reader)
    sources.from = reader.enumerations("from", EnvSource.self) ?? sources.from
    return sources
  }

  private func templates(_ reader: MappingReader) -> [String] {
    guard case .sequence? = reader.node("template")?.content else {
      guard let template = path("template", reader) else { return [] }
      checkFile(template, at: reader.place("template"), reader.keyPath("template"))
      return [template]
    }
    var templates: [String] = []
    for (index, (path, location)) in (reader.strings("template", of: "paths") ?? []).enumerated() {
      let key = "\(reader.keyPath("template"))[\(index)]"
      if let fault = Paths.fault(inProject: path) {
        diagnostics.error(at: location, "`\(key)`: \(fault)")
      } else if templates.contains(path) {
        diagnostics.error(at: location, "`\(key)`: \(path) stands twice in the list")
      } else {
        templates.append(path)
        checkFile(path, at: location, key)
      }
    }
    return templates
  }

  private func services(_ top: MappingReader) -> ServiceRoles {
    var roles = ServiceRoles()
    guard let reader = child("services", InventorySchema.services, top) else { return roles }
    for (name, location) in reader.strings("app", of: "services") ?? [] {
      if !Names.isService(name) {
        diagnostics.error(at: location, "`\(name)` isn't the name of a Compose service")
      } else if roles.app.contains(name) {
        diagnostics.error(at: location, "the service \(name) stands twice in the list")
      } else {
        roles.app.append(name)
      }
    }
    roles.database = service("database", reader)
    roles.cache = service("cache", reader)
    for (key, name) in [("database", roles.database), ("cache", roles.cache)] {
      if let name, roles.app.contains(name) {
        reader.error(
          key, "the service \(name) is one of services.app already",
          help: "a deploy replaces those, and keeps the database and the cache")
      }
    }
    if let database = roles.database, database == roles.cache {
      reader.error("cache", "the service \(database) is the database already")
    }
    return roles
  }

  private func memoryWeights(_ top: MappingReader, _ services: ServiceRoles) -> [String: Int] {
    var weights: [String: Int] = [:]
    for entry in top.mapping("memory", of: "services to weights") ?? [] {
      if !services.app.isEmpty, !services.app.contains(entry.key) {
        let isOther = [services.database, services.cache].contains(entry.key)
        diagnostics.error(
          at: entry.keyLocation,
          "`memory.\(entry.key.prefix(40))`: the weights are those of services.app"
            + (isOther ? "; the database and the cache have shares of their own" : ""),
          help: isOther ? nil : nearestName(to: entry.key, among: services.app).map { "did you mean `\($0)`?" })
        continue
      }
      guard case .scalar(let scalar) = entry.value.content, !scalar.isFaulty, scalar.isPlain,
        let weight = Int(scalar.text), (1...100).contains(weight), String(weight) == scalar.text
      else {
        diagnostics.error(
          at: entry.value.location,
          "`memory.\(entry.key)`: expected a whole number from 1 to 100, found \(entry.value.description)")
        continue
      }
      weights[entry.key] = weight
    }
    return weights
  }

  private func service(_ key: String, _ reader: MappingReader) -> String? {
    guard let name = reader.string(key, "a service") else { return nil }
    if !Names.isService(name) { reader.error(key, "`\(name)` isn't the name of a Compose service") }
    return name
  }

  private func vars(_ top: MappingReader) -> [String: String] {
    var vars: [String: String] = [:]
    for (name, value, location) in top.stringMap("vars") ?? [] {
      if !Names.isVariable(name) {
        diagnostics.error(
          at: location, "`vars.\(name)`: a name has letters, digits and _, and no digit at its beginning")
      } else if Interpolation.reserved.contains(name) {
        diagnostics.error(at: location, "`vars.\(name)`: \(name) is set by orchestrate", help: "choose another name")
      }
      vars[name] = value
    }
    return vars
  }

  private func registry(_ top: MappingReader) -> RegistrySettings? {
    guard top.has("registry"), let reader = child("registry", InventorySchema.registry, top) else { return nil }
    guard let server = reader.string("server", "a host, with its port if it isn't 443"),
      let username = reader.string("username"), let password = reader.string("password", "the name of a value")
    else { return nil }
    if server.contains("://") || server.contains("/") {
      reader.error("server", "expected host[:port], without a scheme or path")
    }
    // Whatever stands here by mistake may be the password itself: it isn't repeated.
    if !Names.isVariable(password) {
      reader.error(
        "password", "expected the name of a variable or vault entry, like REGISTRY_PASSWORD",
        help: "the password itself belongs into the environment or the vault, never into this file")
    }
    return RegistrySettings(server: server, username: username, password: password)
  }

  // MARK: Paths

  private func child(_ key: String, _ table: KeyTable, _ top: MappingReader) -> MappingReader? {
    top.node(key).flatMap { MappingReader($0, table, path: top.keyPath(key), diagnostics: diagnostics) }
  }

  /// A path that has to lie in the project.
  private func path(_ key: String, _ reader: MappingReader) -> String? {
    guard let path = reader.string(key, "a path") else { return nil }
    if let fault = Paths.fault(inProject: path) {
      reader.error(key, fault)
      return nil
    }
    return path
  }

  private func checkFile(_ path: String, at location: SourceLocation, _ key: String) {
    switch files.kind(Paths.join(root, path)) {
    case .file: break
    case .folder: diagnostics.error(at: location, "`\(key)`: \(path) is a folder, expected a file")
    case nil:
      diagnostics.error(
        at: location, "`\(key)`: there is no file \(path) in the project folder", help: nearestFile(to: path))
    }
  }

  private func checkCompose(_ path: String, _ top: MappingReader) {
    if top.has("compose") {
      checkFile(path, at: top.place("compose"), top.keyPath("compose"))
    } else if files.kind(Paths.join(root, path)) != .file {
      let names = ((try? files.list(root)) ?? []).filter {
        ($0.hasPrefix("compose.") || $0.hasPrefix("docker-compose.")) && ($0.hasSuffix(".yml") || $0.hasSuffix(".yaml"))
      }
      diagnostics.error(
        at: top.location, "`compose` is missing, and there is no compose.yml in the project folder",
        help: names.first.map { "write compose: \($0)" } ?? "`orchestrate init` writes one")
    }
  }

  private func nearestFile(to path: String) -> String? {
    let folder = Paths.parent(Paths.join(root, path)) ?? root
    let names = ((try? files.list(folder)) ?? [])
    let name = path.split(separator: "/").last.map(String.init) ?? path
    return nearestName(to: name, among: names).map { "did you mean `\($0)`?" }
  }
}

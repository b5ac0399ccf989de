internal import Diagnostics
internal import Engine
internal import Inventory
internal import Vault

/// The vault of an environment on this machine's disk.
struct VaultFile: Sendable {
  let context: CommandContext
  let environment: String
  let root: String
  /// Relative to the project's root, as messages name it.
  let name: String
  /// The inventory names it: it should be there.
  let isNamed: Bool

  private var path: String { name.hasPrefix("/") ? name : root + "/" + name }

  init(_ inventory: Inventory, root: String, context: CommandContext) {
    self.context = context
    self.root = root
    environment = inventory.environment
    isNamed = inventory.secrets != nil
    let relative = inventory.secrets ?? "\(inventory.environment).secrets.yml"
    if relative.hasPrefix("/") {
      name = relative
    } else {
      // The inventory may name one beside the folder: ../prod.secrets.yml.
      var parts = ["inventories"]
      for part in relative.split(separator: "/") where part != "." {
        if part == "..", let last = parts.last, last != ".." { parts.removeLast() } else { parts.append(String(part)) }
      }
      name = parts.joined(separator: "/")
    }
  }

  /// For the commands that name an environment.
  init(_ global: GlobalOptions, environment: String, context: CommandContext) throws {
    let loaded = try ProjectSession(global, context: context).loader.inventory(environment: environment)
    self.init(loaded.inventory, root: loaded.project.root, context: context)
  }

  /// Nil: there is none.
  func read() throws -> [UInt8]? {
    switch FileSource.disk.kind(path) {
    case nil: return nil
    case .file?:
      if let bytes = try? FileSource.disk.read(path) { return bytes }
      fallthrough
    case .folder?:
      throw ConfigurationError([
        Diagnostic(
          at: SourceLocation(file: name, line: 1, column: 1), "the vault can't be read",
          help: "are you allowed to read it? ls -l \(name)")
      ])
    }
  }

  /// Throws as `read` does, and if there is none.
  func existing() throws -> [UInt8] {
    if let bytes = try read() { return bytes }
    throw OrchestrateError(
      .configuration, "\(environment) has no vault: there is no file \(name)",
      remedy: "orchestrate secrets edit \(environment)   (makes one)")
  }

  func index() throws -> VaultIndex {
    let bytes = try existing()
    return try explained { () throws(VaultError) in try VaultIndex(bytes, file: name) }
  }

  func open(_ bytes: [UInt8]) throws -> Vault {
    let found = try identities()
    do {
      return try Vault.open(bytes, file: name, identities: found.identities)
    } catch {
      guard error.code == .noIdentity else { throw explain(error) }
      throw OrchestrateError(
        .configuration, error.diagnostics[0].message,
        cause: (found.used.map { "looked at \($0)" } + found.passedOver.map { "looked for \($0)" })
          .joined(separator: "\n"),
        state: "nothing was read or written",
        remedy: found.identities.first.map { mine in
          "whoever can open it lets you in: orchestrate secrets recipients add \(environment) \"\(mine.recipient)\""
        } ?? "put your key there, or make one: orchestrate secrets keygen")
    }
  }

  /// A vault for whoever makes it.
  func create() throws -> Vault {
    guard let identity = try identities().identities.first else {
      throw OrchestrateError(
        .configuration, "there is no key to make a vault for", state: "nothing was written",
        remedy: "orchestrate secrets keygen")
    }
    return try explained { () throws(VaultError) in
      try Vault.create(file: name, recipients: [identity.recipient])
    }
  }

  private func identities() throws -> IdentitySources.Found {
    try explained { () throws(VaultError) in try context.identitySources.load() }
  }

  /// Opens (or makes) the vault, changes it, and writes it if it was changed. Others who do the same wait for their turn.
  ///
  /// - Returns: whether something was written.
  func change(creating: Bool = false, _ body: (inout Vault) throws(VaultError) -> Void) throws -> Bool {
    try locked {
      let before = creating ? try read() : try existing()
      var vault = try before.map { try open($0) } ?? create()
      try explained { () throws(VaultError) in try body(&vault) }
      guard vault.isChanged else { return false }
      try write(&vault, replacing: before)
      return true
    }
  }

  /// Seals and writes, unless the file isn't the one any more that was read.
  func save(_ vault: inout Vault, replacing before: [UInt8]?) throws {
    try locked { try write(&vault, replacing: before) }
  }

  /// Throws if `save` would find no way to write; somebody may still take it away meanwhile.
  func checkWritable() throws {
    guard !PrivateFile.canReplace(path) else { return }
    throw OrchestrateError(
      .failed, "\(name) can't be written", state: "nothing was changed", remedy: "ls -ld \(name) and its folder")
  }

  // MARK: Errors

  func explained<Value>(_ body: () throws(VaultError) -> Value) throws -> Value {
    do { return try body() } catch { throw explain(error) }
  }

  func explain(_ error: VaultError) -> any Error {
    let first = error.diagnostics[0]
    switch error.code {
    case .noSuchKey:
      return OrchestrateError(
        .failed, first.message, remedy: first.help ?? "orchestrate secrets list \(environment)")
    case .wrongKind, .refused:
      return OrchestrateError(.usage, first.message, state: "nothing was written", remedy: first.help)
    case .recipient:
      return OrchestrateError(.failed, first.message, state: "nothing was written", remedy: first.help)
    default: return ConfigurationError(error.diagnostics, root: root, isConfidential: true)
    }
  }

  // MARK: Writing

  private func locked<Value>(_ body: () throws -> Value) throws -> Value {
    try PrivateFile.locked(path, body)
  }

  private func write(_ vault: inout Vault, replacing before: [UInt8]?) throws {
    let text = try explained { () throws(VaultError) in try vault.seal(at: Timestamp.now()) }
    guard try read() == before else {
      throw OrchestrateError(
        .failed, "\(name) was changed by somebody else meanwhile", state: "nothing was written",
        remedy: "the same command again")
    }
    do {
      try PrivateFile.replace(path, with: Array(text.utf8), mode: 0o644)
    } catch let error as PrivateFile.Fault {
      throw OrchestrateError(.failed, "\(name) can't be written", cause: error.reason, state: "it is as it was")
    }
  }
}

extension VaultFile {
  /// What `doctor` says of it: nothing where there is none and none is named.
  func examined() -> [DoctorReport.Check] {
    do {
      guard let bytes = try read() else {
        return isNamed
          ? [
            .init(
              "vault", .failed, "the inventory names a vault that isn't there: \(name)",
              remedy: "orchestrate secrets edit \(environment)")
          ] : []
      }
      let vault = try open(bytes)
      return [
        .init(
          "vault", .passed,
          "\(name) opens; values: \(vault.entries.count), recipients: \(vault.recipients.count)")
      ]
    } catch let error as ConfigurationError {
      return error.diagnostics.map { fault in
        .init(
          "vault", .failed, (fault.location.map { "\($0): " } ?? "") + fault.message, remedy: fault.help)
      }
    } catch {
      let known = error as? OrchestrateError
      return [.init("vault", .failed, known?.summary ?? "\(error)", remedy: known?.remedy)]
    }
  }
}

extension CommandContext {
  /// Where this person's keys are looked for.
  var identitySources: IdentitySources {
    IdentitySources(environment: environment) { path in
      FileSource.disk.kind(path) == nil ? nil : try FileSource.disk.read(path)
    }
  }
}

extension ProjectSession {
  /// The values of the names that the playbook's steps ask for: of variables, else of the vault.
  func values(for loaded: LoadedProject) throws -> [String: Secret] {
    let wanted = loaded.playbook.steps.compactMap { step -> String? in
      guard case .host(.reverseProxy(let settings)) = step.settings,
        case .given(_, .value(let name)) = settings.certificate
      else { return nil }
      return name
    }
    var values: [String: Secret] = [:]
    for name in wanted { values[name] = context.environment[name].flatMap { $0.isEmpty ? nil : Secret($0) } }
    let missing = wanted.filter { values[$0] == nil }
    if missing.isEmpty { return values }
    let vault = try vaultValues(loaded.inventory, root: loaded.project.root, isWanted: true)
    for name in missing {
      guard let value = vault[name], !value.isEmpty else {
        throw ConfigurationError([
          Diagnostic(
            at: nil, "the key of the certificate has no value: \(name)",
            help:
              "orchestrate secrets set \(loaded.inventory.environment) \(name) < key.pem, or set the variable \(name)")
        ])
      }
      values[name] = Secret(value)
    }
    return values
  }

  /// What the environment's vault has for env file, registry or whoever wants it: its top-level values by name. Empty where none is used.
  func vaultValues(_ inventory: Inventory, root: String, isWanted: Bool = false) throws -> [String: String] {
    guard
      isWanted || inventory.env.from.contains(.vault) && (!inventory.env.templates.isEmpty || inventory.registry != nil)
    else {
      return [:]
    }
    let file = VaultFile(inventory, root: root, context: context)
    guard let bytes = try file.read() else {
      guard file.isNamed else { return [:] }
      throw ConfigurationError(
        [
          Diagnostic(
            at: nil, "the inventory of \(inventory.environment) names a vault that isn't there: \(file.name)",
            help: "orchestrate secrets edit \(inventory.environment) makes it; or remove `secrets:` from the inventory")
        ], root: root)
    }
    var values: [String: String] = [:]
    for entry in try file.open(bytes).entries where entry.path.count == 1 {
      values[entry.path[0]] = entry.value?.text?.reveal()
    }
    return values
  }

  /// The top-level names in the vault, for masking: needs no key, and a vault that can't be read has none.
  func vaultNames(_ inventory: Inventory) -> Set<String> {
    guard let root = try? loader.project().root,
      let index = try? VaultFile(inventory, root: root, context: context).index()
    else { return [] }
    return Set(index.entries.compactMap { $0.path.first })
  }
}

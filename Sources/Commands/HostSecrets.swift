internal import Diagnostics
internal import Engine
internal import Inventory
internal import SSH

/// What `logs` and `attach` must not show: the secret values of the env files on the host, whoever set them, and of
/// this machine's environment. (`deploy` knows its values from resolving them.)
struct HostSecrets: Sendable {
  let session: ProjectSession
  let inventory: Inventory
  /// Names that the template marks `@secret`, and all of its names.
  private var marked: Set<String>
  private let names: Set<String>
  /// Names in the vault, which are readable without a key.
  private let fromVault: Set<String>

  init(_ session: ProjectSession, inventory: Inventory) {
    self.session = session
    self.inventory = inventory
    // The template alone: what is secret must not depend on the playbook, nor on a fault in another line.
    let entries = session.loader.template(of: inventory)?.entries ?? []
    marked = Set(entries.filter(\.isMarkedSecret).map(\.name))
    names = Set(entries.map(\.name))
    fromVault = session.vaultNames(inventory)
    // What is made from a secret holds it: `WEBHOOK=https://x/${TOKEN}/`. Until nothing more is found, as those may be referred to in their turn.
    var before = -1
    while marked.count > before {
      before = marked.count
      marked.formUnion(entries.filter { $0.references.contains(where: isSecret) }.map(\.name))
    }
  }

  /// - Parameter files: texts of env files; everything in `generated` is secret.
  func values(files: [String], generated: String? = nil) -> [Secret] {
    var found: [Secret] = []
    for (text, all) in files.map({ ($0, false) }) + [generated].compactMap({ $0 }).map({ ($0, true) }) {
      let values = (try? EnvFile.read(Array(text.utf8), file: "the host's env file")) ?? []
      for (name, value) in values where all || isSecret(name) || isInFile(name, values) { found.append(Secret(value)) }
    }
    for (name, value) in session.context.environment
    where CommandContext.secretVariables.contains(name) || names.contains(name) && isSecret(name) {
      found.append(Secret(value))
    }
    return found.filter { !$0.reveal().isEmpty }
  }

  /// What `values` asks, for the command line.
  static func questions(_ paths: HostPaths) -> [String] {
    ["get \(paths.current)/.env", "get \(paths.current)/.secrets", "get \(paths.state)/generated.env"]
  }

  /// Asked over a conversation, in one flight; of a deployment also the release that it makes.
  func values(_ attachment: Attachment, deployment: Int?) async throws -> [Secret] {
    let paths = HostPaths(project: inventory.project)
    let questions = Self.questions(paths)
    async let current = attachment.request(questions[0])
    async let inFiles = attachment.request(questions[1])
    async let generated = attachment.request(questions[2])
    var files: [String] = []
    // What is in files is secret, whatever its name: as what was generated.
    var secrets = [try await inFiles.found, try await generated.found]
    if let deployment {
      async let env = attachment.request("get \(paths.release(deployment))/.env")
      async let more = attachment.request("get \(paths.release(deployment))/.secrets")
      if let text = try await env.found { files.append(text) }
      secrets.append(try await more.found)
    }
    if let text = try await current.found { files.append(text) }
    return values(files: files, generated: secrets.compactMap(\.self).joined(separator: "\n"))
  }

  /// The same over a session without a conversation.
  func values(_ connection: SSHSession) async throws -> [Secret] {
    let paths = HostPaths(project: inventory.project)
    async let current = read("\(paths.current)/.env", connection)
    async let inFiles = read("\(paths.current)/.secrets", connection)
    async let generated = read("\(paths.state)/generated.env", connection)
    return values(files: [try await current], generated: try await inFiles + "\n" + generated)
  }

  /// A file that is absent is empty.
  private func read(_ path: String, _ connection: SSHSession) async throws -> String {
    let result = try await connection.run("cat -- \(shellQuoted(path)) 2>/dev/null || :", deadline: .seconds(30))
    return String(decoding: result.stdout, as: UTF8.self)
  }

  /// The same text names the file that containers get it in.
  private func isInFile(_ name: String, _ values: [(name: String, value: String)]) -> Bool {
    values.contains { $0.name == name + EnvFile.pathSuffix }
  }

  func isSecret(_ name: String) -> Bool {
    marked.contains(name) || fromVault.contains(name) || Secrecy.isSecret(name: name)
  }
}

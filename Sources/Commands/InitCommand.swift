internal import ArgumentParser
internal import Diagnostics
internal import Playbooks

#if canImport(FoundationEssentials)
  internal import FoundationEssentials
#else
  internal import Foundation
#endif

struct InitCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "init",
    abstract: "Write a commented inventory, compose file, env template and CI workflow; never overwrites.",
    discussion: """
      Examples:
        orchestrate init --app market-bot
        orchestrate init --digitalocean --key ~/.ssh/id_ed25519.pub
      """)

  @Option(help: ArgumentHelp("The app's name. Default: the folder's.", valueName: "name")) var app: String?
  @Flag(
    name: .customLong("digitalocean"),
    help: "Also write cloud-init.yml, the user data for a new droplet: the deploying user with your key.")
  var digitalOcean = false
  @Option(
    help: ArgumentHelp(
      "The public key for it. Default: the first of ~/.ssh/id_{ed25519,ecdsa,rsa}.pub.", valueName: "file"))
  var key: String?
  @OptionGroup var global: GlobalOptions

  func validate() throws {
    if key != nil, !digitalOcean { throw ValidationError("--key: only with --digitalocean") }
    if let app, !Self.isName(app) {
      throw ValidationError("--app \(app): lowercase letters, digits and dashes, a letter or digit first")
    }
  }

  static func isName(_ text: String) -> Bool {
    guard let first = text.unicodeScalars.first, first != "-" else { return false }
    return text.unicodeScalars.allSatisfy { ("a"..."z").contains($0) || ("0"..."9").contains($0) || $0 == "-" }
  }

  func run() async throws {
    let context = CommandContext.current
    let folder =
      global.project.map { $0.hasPrefix("/") ? $0 : context.workingDirectory + "/" + $0 } ?? context.workingDirectory
    let name = app ?? folder.split(separator: "/").last.map { $0.lowercased() } ?? ""
    guard Self.isName(name) else {
      throw OrchestrateError(
        .usage, "the folder's name can't be an app's name: \(name)", remedy: "name the app: orchestrate init --app NAME"
      )
    }
    let files = Playbooks.project + (digitalOcean ? [Playbooks.cloudInit] : [])
    let key = digitalOcean ? try publicKey(context) : ""
    for file in files {
      let path = folder + "/" + file.path
      guard !FileManager.default.fileExists(atPath: path) else {
        context.payload("kept     \(file.path)\n")
        continue
      }
      let text = String(decoding: file.bytes, as: UTF8.self).replacing("@APP@", with: name).replacing(
        "@KEY@", with: key)
      do {
        let parent = String(path[..<path.lastIndex(of: "/")!])
        try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: path), options: .withoutOverwriting)
      } catch {
        throw OrchestrateError(.failed, "\(file.path) can't be written", cause: "\(error)")
      }
      context.payload("written  \(file.path)\n")
    }
    if digitalOcean {
      context.payload("Next: docs/digitalocean.md: doctl compute droplet create … --user-data-file cloud-init.yml\n")
    }
    context.payload("Next: put the host's address into inventories/prod.yml, then: orchestrate doctor prod\n")
  }

  /// The line of a public key, for a text in double quotes. Throws `OrchestrateError`.
  private func publicKey(_ context: CommandContext) throws -> String {
    let home = context.environment["HOME"] ?? ""
    let usual = ["ed25519", "ecdsa", "rsa"].map { "\(home)/.ssh/id_\($0).pub" }
    let candidates = key.map { [$0.hasPrefix("~/") ? home + $0.dropFirst() : $0] } ?? usual
    for path in candidates {
      let full = path.hasPrefix("/") ? path : context.workingDirectory + "/" + path
      guard let data = FileManager.default.contents(atPath: full) else { continue }
      let line = String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline).first.map(String.init) ?? ""
      let words = line.split(separator: " ")
      guard words.count >= 2, words[0].hasPrefix("ssh-") || words[0].hasPrefix("ecdsa-") || words[0].hasPrefix("sk-"),
        !line.contains("\""), !line.contains("\\")
      else {
        throw OrchestrateError(
          .usage, "\(path) is no public key", state: "nothing was written",
          remedy: "name the file that ends in .pub: orchestrate init --digitalocean --key FILE")
      }
      return line
    }
    throw OrchestrateError(
      .usage, "there is no public key: \(candidates.joined(separator: ", "))", state: "nothing was written",
      remedy: "make one: ssh-keygen -t ed25519, or name it: orchestrate init --digitalocean --key FILE")
  }
}

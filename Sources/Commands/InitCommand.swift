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
      """)

  @Option(help: ArgumentHelp("The app's name. Default: the folder's.", valueName: "name")) var app: String?
  @OptionGroup var global: GlobalOptions

  func validate() throws {
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
    for file in Playbooks.project {
      let path = folder + "/" + file.path
      guard !FileManager.default.fileExists(atPath: path) else {
        context.payload("kept     \(file.path)\n")
        continue
      }
      let text = String(decoding: file.bytes, as: UTF8.self).replacing("@APP@", with: name)
      do {
        let parent = String(path[..<path.lastIndex(of: "/")!])
        try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: path), options: .withoutOverwriting)
      } catch {
        throw OrchestrateError(.failed, "\(file.path) can't be written", cause: "\(error)")
      }
      context.payload("written  \(file.path)\n")
    }
    context.payload("Next: put the host's address into inventories/prod.yml, then: orchestrate doctor prod\n")
  }
}

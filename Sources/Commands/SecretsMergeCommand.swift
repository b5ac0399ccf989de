internal import ArgumentParser
internal import Diagnostics
internal import Inventory
internal import Vault

struct SecretsMergeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "merge",
    abstract: "Merge two versions of a vault by value: a merge driver for Git.",
    discussion: """
      Two branches that change a vault always change the same lines, its MAC. Git calls this instead once you tell it to:
        echo '*.secrets.yml merge=orchestrate' >> .gitattributes
        git config merge.orchestrate.driver 'orchestrate secrets merge %O %A %B'

      What both changed in different ways is named, ours is kept, and the exit status is 1: a conflict.

      Examples:
        orchestrate secrets merge base.yml ours.yml theirs.yml
      """)

  @Argument(help: "The version that both come from; an empty file: there is none.") var base: String
  @Argument(help: "Our version, which becomes the merged one.") var ours: String
  @Argument(help: "Their version.") var theirs: String
  @OptionGroup var global: GlobalOptions

  func run() async throws {
    let context = CommandContext.current
    do {
      let identities = try context.identitySources.load().identities
      let before = try read(base, context)
      let old =
        before.allSatisfy({ $0 == 0x0a })
        ? nil : try Vault.open(before, file: base, identities: identities)
      var vault = try Vault.open(try read(ours, context), file: ours, identities: identities)
      let other = try Vault.open(try read(theirs, context), file: theirs, identities: identities)
      let conflicts = try vault.merge(base: old, theirs: other)
      if vault.isChanged {
        let text = try vault.seal(at: Timestamp.now())
        try PrivateFile.replace(path(ours, context), with: Array(text.utf8), mode: 0o644)
      }
      guard conflicts.isEmpty else {
        throw OrchestrateError(
          .failed, "both sides changed \(conflicts.joined(separator: ", ")) in the vault",
          state: "our values are kept, everything else is merged",
          remedy: "set the ones that you want with `orchestrate secrets set`, then: git add")
      }
    } catch let error as VaultError {
      throw ConfigurationError(error.diagnostics, root: context.workingDirectory, isConfidential: true)
    } catch let error as PrivateFile.Fault {
      throw OrchestrateError(.failed, "\(ours) can't be written", cause: error.reason, state: "it is as it was")
    }
  }

  private func path(_ name: String, _ context: CommandContext) -> String {
    name.hasPrefix("/") ? name : context.workingDirectory + "/" + name
  }

  private func read(_ name: String, _ context: CommandContext) throws -> [UInt8] {
    do { return try FileSource.disk.read(path(name, context)) } catch {
      throw OrchestrateError(.usage, "\(name) can't be read", state: "nothing was written")
    }
  }
}

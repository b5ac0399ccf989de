import ArgumentParser
import Diagnostics
import Engine
import Foundation
import Inventory
import Testing

@testable import Commands

@Suite struct HostSecretsTests {
  private func project(playbook: String? = nil, _ body: (String) async throws -> Void) async throws {
    let template = """
      LOG_LEVEL=INFO
      # @secret
      DSN=${DSN:?x}
      API_TOKEN=${API_TOKEN:?x}
      HOOK=https://x/${API_TOKEN}/
      PLACE=${HOOK}#a
      """
    let files = playbook.map { ["playbooks/deploy.yml": $0] } ?? [:]
    try await withProject(envTemplate: template, files: files) { root in try await body(root.path) }
  }

  /// The vault's token may be in the env file as part of another value only.
  @Test func whatIsMadeFromASecretIsSecret() async throws {
    try await project { root in
      var options = try GlobalOptions.parse([])
      options.project = root
      let session = ProjectSession(options, context: .process)
      let inventory = try session.loader.inventory(environment: "prod").inventory
      let file = "LOG_LEVEL=INFO-level\nHOOK=https://x/hunter2/\nPLACE=https://x/hunter2/#a\n"
      let shown = HostSecrets(session, inventory: inventory).values(files: [file]).map { $0.reveal() }
      #expect(shown.contains("https://x/hunter2/") && shown.contains("https://x/hunter2/#a"))
      #expect(!shown.contains("INFO-level"))
    }
  }

  private static let named = """
    steps:
      - release
      - env
      - pull
      - recreate: { services: [bot], drain: { timeout: "${drain}" } }
      - health: { url: "https://${domain}/", expect: { json: { version: "${version}" } } }
      - commit
    """

  /// A playbook that uses the version and a `--set` name is gone back to with the values of then.
  @Test func aReleaseBringsItsValuesAlong() async throws {
    try await project(playbook: Self.named) { root in
      var options = try GlobalOptions.parse([])
      options.project = root
      let session = ProjectSession(options, context: .process)
      let inventory = try session.loader.inventory(environment: "prod").inventory
      let loaded = try session.load(
        environment: "prod", playbook: "deploy", version: "v1", set: ["drain": "9s", "domain": "bot.example.com"])
      var release = Release(number: 3, version: "v1", previous: 2, created: "", playbook: loaded.playbookText)
      release.variables = loaded.variables
      release = try Release(json: String(decoding: try release.json(), as: UTF8.self), host: "bot-1")
      let playbook = try session.playbook(of: release, inventory: inventory, only: [.recreate, .health])
      #expect(playbook.steps.map(\.settings) == loaded.playbook.steps.map(\.settings))
      // As an older version of the tool left it: no values were recorded.
      release.variables = nil
      let error = #expect(throws: OrchestrateError.self) {
        try session.playbook(of: release, inventory: inventory, only: [.recreate])
      }
      #expect(error?.code == .configuration && error?.cause?.contains("nobody defines `${drain}`") == true)
      #expect(try session.playbook(of: release, inventory: inventory, only: [.backup]).steps.count == 6)
    }
  }

  @Test(arguments: [nil, named, "steps: {"]) func whatMarkRuleOrGeneratorCallSecret(playbook: String?) async throws {
    try await project(playbook: playbook) { root in
      var context = CommandContext.process
      context.environment = [
        "API_TOKEN": "from-here", "LOG_LEVEL": "shown", "ORCHESTRATE_SSH_KEY": "the-key", "HOME_KEY": "no",
      ]
      var options = try GlobalOptions.parse([])
      options.project = root
      let session = ProjectSession(options, context: context)
      let secrets = HostSecrets(session, inventory: try session.loader.inventory(environment: "prod").inventory)
      let found = secrets.values(
        files: ["LOG_LEVEL=DEBUG\nDSN='marked value'\nAPI_TOKEN=by-rule\nEMPTY_TOKEN=\n", "API_TOKEN=older\n"],
        generated: "DB_PASS=made\n")
      #expect(Set(found.map { $0.reveal() }) == ["marked value", "by-rule", "older", "made", "from-here", "the-key"])
    }
  }

  /// Before anybody is asked over the network.
  @Test(arguments: ["nosuch", "env", "commit"]) func planChecksWhatItSkips(name: String) async throws {
    try await project { root in
      let command = try PlanCommand.parse(["prod", "v1", "--skip", name, "--project", root])
      let error = await #expect(throws: OrchestrateError.self) { try await command.run() }
      #expect(error?.code == .usage && error?.summary.contains("--skip \(name)") == true)
    }
  }
}

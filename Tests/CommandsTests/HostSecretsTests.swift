import ArgumentParser
import Diagnostics
import Foundation
import Inventory
import Testing

@testable import Commands

@Suite struct HostSecretsTests {
  private func project(_ body: (String) throws -> Void) throws {
    let root = FileManager.default.temporaryDirectory.appending(path: "orchestrate-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: root.appending(path: "inventories"), withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: root) }
    func write(_ name: String, _ text: String) throws {
      try text.write(to: root.appending(path: name), atomically: true, encoding: .utf8)
    }
    try write(
      "inventories/prod.yml",
      """
      app: bot
      hosts:
        bot-1: { address: 127.0.0.1, user: deploy, roles: [app] }
      compose: compose.yml
      env: { template: env.template }
      services: { app: [bot] }
      """)
    try write("compose.yml", "services: { bot: { image: bot } }\n")
    try write("env.template", "LOG_LEVEL=INFO\n# @secret\nDSN=${DSN:?x}\nAPI_TOKEN=${API_TOKEN:?x}\n")
    try body(root.path)
  }

  @Test func whatMarkRuleOrGeneratorCallSecret() throws {
    try project { root in
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
}

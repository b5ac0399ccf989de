import Engine
import Inventory
import Playbooks
import Testing

@testable import Commands

@Suite struct InitTemplatesTests {
  /// What `init` writes must be what `deploy` reads, without a fault or a warning.
  @Test func theProjectThatInitWritesLoads() throws {
    var files: [String: String] = [:]
    for file in Playbooks.project {
      files["/app/" + file.path] = String(decoding: file.bytes, as: UTF8.self).replacing("@APP@", with: "my-app")
    }
    let loader = ProjectLoader(files: .memory(files), startDirectory: "/app")
    let loaded = try loader.load(
      environment: nil, playbook: "deploy", builtin: ProjectSession.builtin, version: "v1.0.0")
    #expect(loaded.inventory.app == "my-app")
    #expect(loaded.warnings.isEmpty)
    #expect(loaded.template?.entries.map(\.name) == ["LOG_LEVEL", "DB_PASSWORD", "DATABASE_URL"])
  }

  @Test(arguments: ["v1.4.0", "1", "a_b-c.d"]) func tags(version: String) { #expect(isImageTag(version)) }
  @Test(arguments: ["", "-v1", ".v1", "a b", "v1;rm", "ü", String(repeating: "a", count: 129)])
  func noTags(version: String) { #expect(!isImageTag(version)) }

  @Test func remoteCommandsQuoteWhatUsersType() {
    let text = RemoteCommands.exec(
      project: "bot", service: "db", command: ["sh", "-c", "echo 'a b'; $HOME"], terminal: false)
    #expect(text.hasSuffix(#"'bot' 'db' 'sh' '-c' 'echo '\''a b'\''; $HOME'"#))
  }
}

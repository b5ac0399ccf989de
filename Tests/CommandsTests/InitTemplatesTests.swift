import Engine
import Inventory
import Playbooks
import Steps
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
    #expect(
      loaded.template?.entries.map(\.name) == [
        "LOG_LEVEL", "DB_PASSWORD", "DATABASE_URL", "APP_MEMORY", "DB_MEMORY", "DB_SHARED_BUFFERS",
        "DB_EFFECTIVE_CACHE_SIZE", "DB_WORK_MEM", "DB_MAINTENANCE_WORK_MEM", "DB_MAX_CONNECTIONS",
      ])
  }

  /// What users copy deploys: every service of the compose file is managed by something.
  @Test(arguments: ["init", "examples/market-bot", "examples/http-service"])
  func everyServiceIsManaged(name: String) throws {
    var loader = ProjectLoader(startDirectory: "/app")
    if name == "init" {
      var files: [String: String] = [:]
      for file in Playbooks.project {
        files["/app/" + file.path] = String(decoding: file.bytes, as: UTF8.self).replacing("@APP@", with: "my-app")
      }
      loader.files = .memory(files)
    } else {
      loader.startDirectory =
        #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/") + "/"
        + name
    }
    let loaded = try loader.load(
      environment: nil, playbook: "deploy", builtin: ProjectSession.builtin, version: "v1.0.0")
    let text = String(
      decoding: try loader.files.read(loaded.project.root + "/" + loaded.inventory.compose), as: UTF8.self)
    var services = JSONObject(), isInside = false
    for line in text.split(separator: "\n") {
      if !line.hasPrefix(" ") { isInside = line == "services:" }
      if isInside, line.hasPrefix("  "), !line.hasPrefix("   "), line.hasSuffix(":") {
        services[line.dropFirst(2).dropLast().description] = .object(["image": .string("x:1")])
      }
    }
    #expect(services.keys.count >= 2)
    var context = StepContext(
      inventory: loaded.inventory, version: "v1.0.0", number: 1, facts: HostFacts(), sha256: { _ in "" })
    context.config = ComposeConfig(.object(["services": .object(services)]))
    let findings = StepCatalog.standard(loaded.playbook).inspect(context)
    #expect(findings.problems == [] && findings.warnings == [])
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

import ArgumentParser
import Diagnostics
import Engine
import Foundation
import Inventory
import Testing

@testable import Commands

@Suite struct RotationSourceTests {
  private static let template = """
    LEVEL=INFO
    DB_PASSWORD=${generate:32}
    URL=pg://x:${DB_PASSWORD}@db/x
    TOKEN=${TOKEN:?x}
    # @file
    API_KEY=${API_KEY:?x}
    # @type port
    PORT=${PORT:?x}
    MODE=${MODE:-fast}
    HOOK=https://h/${OUTSIDE:?x}

    """
  private static let host = """
    LEVEL=INFO
    DB_PASSWORD=old-password
    URL=pg://x:old-password@db/x
    TOKEN=123:abc
    API_KEY_FILE=/opt/bot/secrets/API_KEY.0011223344556677
    PORT=80
    MODE=fast
    HOOK=https://h/outside-old

    API_KEY=api-key-old

    """

  private struct Found {
    var rotation: Rotation
    var forVault: Secret?
    subscript(name: String) -> String? { rotation.values.first { $0.variable.name == name }?.variable.value }
  }

  private func rotate(
    _ key: String, given: String? = nil, vault: [String: String] = [:], environment: [String: String] = [:],
    generated: String? = nil, inventory: String = "", replaced: [String: [String]]? = nil
  ) async throws -> Found {
    var found: Found?
    try await withProject(inventory: inventory, envTemplate: Self.template) { root in
      var context = CommandContext.process
      context.environment = environment
      context.workingDirectory = root.path
      var options = try GlobalOptions.parse([])
      options.project = root.path
      let session = ProjectSession(options, context: context)
      let loaded = try session.load(environment: "prod", playbook: "rotate")
      let source = RotationSource(given: given.map { Secret($0) })
      var client = LiveDeploymentClient(
        connector: HostConnector(
          loaded.inventory.hosts[0], inventory: loaded.inventory, projectRoot: root.path, context: context),
        session: session, loaded: loaded, version: "", vault: vault)
      client.rotation = source
      var current = Release(number: 3, version: "v1", previous: 2, created: "", playbook: "")
      current.replaced = replaced
      let first = try client.rotation(of: key, host: Self.host, generated: generated, current: current)
      let second = try client.rotation(of: key, host: Self.host, generated: generated, current: current)
      #expect(
        first.values.first { $0.name == key }?.value == second.values.first { $0.name == key }?.value, "made once")
      found = Found(rotation: first, forVault: source.forVault)
    }
    return try #require(found)
  }

  private func fault(_ body: () async throws -> Void) async -> String {
    do {
      try await body()
      return ""
    } catch let error as OrchestrateError {
      return "\(error.summary) [\(error.remedy ?? "")]"
    } catch let error as ConfigurationError {
      return error.diagnostics.map { $0.message }.joined(separator: "\n")
    } catch {
      return "\(error)"
    }
  }

  @Test func aGeneratedPasswordAndWhatIsMadeFromIt() async throws {
    let found = try await rotate("DB_PASSWORD", generated: "DB_PASSWORD=old-password\nOTHER=1\n")
    let password = try #require(found["DB_PASSWORD"])
    #expect(password.count == 32 && password != "old-password")
    #expect(found["URL"] == "pg://x:\(password)@db/x")
    #expect(found.rotation.after.keys.sorted() == ["DB_PASSWORD", "URL"])
    #expect(found.rotation.before["URL"] == Secret("pg://x:old-password@db/x"))
    #expect(found.rotation.kept == ["DB_PASSWORD": Secret(password)] && found.forVault == nil)
    #expect(
      found.rotation.values.map(\.variable.name) == [
        "LEVEL", "DB_PASSWORD", "URL", "TOKEN", "API_KEY_FILE", "PORT", "MODE", "HOOK",
      ])
    #expect(found.rotation.values.filter(\.isSecret).map(\.name) == ["DB_PASSWORD", "URL", "TOKEN", "API_KEY"])
    #expect(found["API_KEY_FILE"] == "/opt/bot/secrets/API_KEY.0011223344556677")
  }

  /// As long as the old one, and set in the vault afterwards.
  @Test func aNameOfTheVault() async throws {
    let found = try await rotate("API_KEY", vault: ["API_KEY": "api-key-old"])
    let value = try #require(found.rotation.values.first { $0.name == "API_KEY" })
    #expect(value.value.count == 16 && found.forVault == Secret(value.value))
    let path = try #require(value.path)
    #expect(path.hasPrefix("/opt/bot/secrets/API_KEY.") && path != "/opt/bot/secrets/API_KEY.0011223344556677")
    #expect(found.rotation.after == ["API_KEY_FILE": Secret(path)] && found.rotation.changed == ["API_KEY"])
  }

  /// Somebody has set it, and the deploy was refused: it is the one that is wanted, unless it is an older one of ours.
  @Test func aValueThatTheVaultHasAlready() async throws {
    let vault = ["DB_PASSWORD": "chosen-by-hand"]
    let found = try await rotate("DB_PASSWORD", vault: vault)
    #expect(found["DB_PASSWORD"] == "chosen-by-hand" && found.rotation.note != nil)
    let behind = try await rotate("DB_PASSWORD", vault: vault, replaced: ["DB_PASSWORD": [Self.hash, "another"]])
    #expect(behind["DB_PASSWORD"]?.count == 32 && behind.rotation.note == nil && behind.forVault != nil)
  }

  /// SHA-256 of `chosen-by-hand`.
  private static let hash = "89645e8934d9da14e702c0469d089a68e1ef1ae721e03ddeb320188e1339440e"

  @Test func aGivenValue() async throws {
    let found = try await rotate("TOKEN", given: "456:def", vault: ["TOKEN": "123:abc"])
    #expect(found["TOKEN"] == "456:def" && found.forVault == Secret("456:def"))
  }

  /// In the vault, and in the env file only within another value.
  @Test func aNameThatTheEnvFileDoesNotHave() async throws {
    let found = try await rotate("OUTSIDE", given: "outside-new", vault: ["OUTSIDE": "outside-old"])
    #expect(found["HOOK"] == "https://h/outside-new" && found.rotation.changed == ["HOOK"])
    #expect(found.forVault == Secret("outside-new"))
  }

  /// CI's secret was changed already: that is the new value.
  @Test func aVariableOfTheEnvironment() async throws {
    #expect(try await rotate("TOKEN", environment: ["TOKEN": "789:x"])["TOKEN"] == "789:x")
  }

  @Test(
    arguments: [
      ("LEVEL", nil, "fixed in the env template (env.template:1:1)"),
      ("URL", nil, "made from DB_PASSWORD [orchestrate secrets rotate prod DB_PASSWORD]"),
      ("DB_PASWORD", nil, "did you mean DB_PASSWORD?"),
      ("TOKEN", nil, "give the new one: orchestrate secrets rotate prod TOKEN --stdin"),
      ("TOKEN", "123:abc", "has this value already"), ("TOKEN", "123:abc", "[]"), ("PORT", "http", "expected a port"),
      ("PORT", nil, "--stdin"),
      ("MODE", nil, "--stdin"),
      ("OUTSIDE", "x", "has no OUTSIDE"), ("REGISTRY_PASSWORD", nil, "the registry's password"),
    ] as [(String, String?, String)])
  func whatCannotBeRotated(key: String, given: String?, message: String) async throws {
    let text = await fault {
      _ = try await rotate(
        key, given: given, inventory: "registry: { server: r.example.com, username: a, password: REGISTRY_PASSWORD }")
    }
    #expect(text.contains(message), "\(text)")
    #expect(!text.contains("old-password") && !text.contains("123:abc"))
  }

  /// Where the vault couldn't be written after a rotation, the same value once more isn't the way out: it says which is.
  @Test func theHostHasItAndTheVaultDoesNot() async throws {
    let text = await fault { _ = try await rotate("TOKEN", given: "123:abc", vault: ["TOKEN": "older"]) }
    #expect(text.contains("has this value already") && text.contains("orchestrate secrets set prod TOKEN"), "\(text)")
  }

  @Test func theEnvironmentStandsAboveWhatARotationCouldKeep() async throws {
    for given in [nil, "other"] {
      let text = await fault { _ = try await rotate("TOKEN", given: given, environment: ["TOKEN": "123:abc"]) }
      #expect(text.contains("comes from the environment variable"), "\(text)")
    }
  }

  /// An unchanged value keeps its file; a changed one gets another, whose name says nothing of it.
  @Test func placesOfValuesInFiles() async throws {
    let places = SecretPlaces(Inventory(environment: "prod", app: "bot"))
    let value = ResolvedValue(name: "K", value: "", isSecret: true, origin: .fixed, isFile: true)
    var current = Release(number: 1, version: "v1", previous: 0, created: "", playbook: "")
    current.env["K"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    let old = "/opt/bot/secrets/K.00"
    #expect(places.placed(value, present: ["K_FILE": old], current: current).path == old)
    var other = value
    other.value = "x"
    let new = try #require(places.placed(other, present: ["K_FILE": old], current: current).path)
    #expect(new.hasPrefix("/opt/bot/secrets/K.") && new.count == "/opt/bot/secrets/K.".count + 16 && new != old)
    #expect(places.placed(value, present: ["K_FILE": "/etc/passwd"], current: current).path != "/etc/passwd")
    #expect(places.placed(other, present: [:], current: nil).path != new)
  }

  @Test func valuesInFilesAreHidden() async throws {
    try await withProject(envTemplate: Self.template) { root in
      var options = try GlobalOptions.parse([])
      options.project = root.path
      let session = ProjectSession(options, context: .process)
      let inventory = try session.loader.inventory(environment: "prod").inventory
      let file = "PLAIN_FILE=/opt/bot/secrets/PLAIN.1\n\nPLAIN=hunter2\n"
      #expect(HostSecrets(session, inventory: inventory).values(files: [file]).map { $0.reveal() } == ["hunter2"])
    }
  }
}

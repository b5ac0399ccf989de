import Diagnostics
import Inventory
import Testing

/// The projects in examples/ are what users copy: each has to load without an error or a warning.
@Suite struct ExampleProjectsTests {
  static let examples =
    #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3)
    .joined(separator: "/") + "/examples"

  @Test func theMarketBotLoads() throws {
    let loaded = try ProjectLoader(startDirectory: Self.examples + "/market-bot")
      .load(environment: nil, playbook: "deploy", builtin: [:], version: "v1.0.0")
    #expect(loaded.warnings.isEmpty)
    #expect(loaded.inventory.services.app == ["bot"])
    #expect(
      loaded.playbook.steps.map(\.kind) == [
        .preflight, .release, .env, .pull, .backup, .migrate, .recreate, .health, .commit, .prune,
      ])
    #expect(
      loaded.template?.names == [
        "REGISTRY", "LOG_LEVEL", "TELEGRAM_API", "TELEGRAM_TOKEN", "DB_PASSWORD", "REDIS_PASSWORD", "DATABASE_URL",
        "REDIS_URL",
      ])
  }

  @Test func theHTTPServiceLoads() throws {
    let loaded = try ProjectLoader(startDirectory: Self.examples + "/http-service")
      .load(environment: "staging", playbook: "deploy", builtin: [:], version: "v1.0.0")
    #expect(loaded.warnings.isEmpty)
    #expect(loaded.inventory.services.cache == nil)
    #expect(loaded.playbook.steps.filter { $0.kind == .run }.map(\.name) == ["maintenance", "maintenance-end"])
  }
}

import Diagnostics
import Engine
import Inventory
import Testing

@Suite struct StepSelectionTests {
  private func restoring() throws -> [StepSpec] {
    var migrate = MigrateSettings()
    migrate.rollback = .restore
    var steps = try Fixtures.steps("preflight release env pull backup recreate health commit prune")
    steps.insert(StepSpec(name: "schema", settings: .migrate(migrate)), at: 5)
    return steps
  }

  private func fault(_ steps: [StepSpec], skip: Set<String> = [], roles: [String] = []) -> OrchestrateError? {
    var inventory = Inventory(environment: "prod", app: "bot")
    inventory.hosts = [HostEntry(name: "web-1", address: "203.0.113.10", roles: roles)]
    do {
      try StepSelection(inventory, host: "web-1", skip: skip).check(steps)
      return nil
    } catch {
      return error as? OrchestrateError
    }
  }

  @Test(
    arguments: [
      (["prune"], nil), (["backup", "schema"], nil), (["bakcup"], "did you mean backup?"), (["env"], "compose file"),
      (["pull"], "images"), (["preflight"], "can't be skipped"), (["release"], "can't be skipped"),
      (["commit"], "can't be skipped"), (["backup"], "leave the backup in, or skip schema, too"),
    ] as [([String], String?)])
  func whatSkipCanMean(names: [String], expected: String?) throws {
    let fault = fault(try restoring(), skip: Set(names))
    #expect((fault == nil) == (expected == nil) && (fault == nil || fault?.code == .usage))
    guard let expected else { return }
    let text = "\(fault?.summary ?? "") \(fault?.remedy ?? "")"
    #expect(text.contains(expected), "\(text)")
  }

  @Test(
    arguments: [("backup", "restore point"), ("commit", "commit"), ("env", "env"), ("health", "no health gate")])
  func aHostCannotDoWithoutTheseSteps(name: String, expected: String) throws {
    var steps = try restoring()
    let index = try #require(steps.firstIndex { $0.name == name })
    steps[index].role = "db"
    steps[index].location = SourceLocation(file: "playbooks/deploy.yml", line: 7, column: 5)
    let found = fault(steps, roles: ["app"])
    #expect(found?.code == .configuration)
    #expect(found?.summary.hasPrefix("playbooks/deploy.yml:7:5: ") == true && found?.summary.contains(expected) == true)
    #expect(fault(steps, roles: ["app", "db"]) == nil && fault(steps) == nil)
  }

  @Test func aPlaybookWithoutAStepForTheHostIsRefused() {
    let steps = [StepSpec(name: "backup", role: "db", settings: .backup(BackupSettings()))]
    #expect(fault(steps, roles: ["app"])?.code == .usage)
    #expect(fault(steps, roles: ["db"]) == nil)
  }
}

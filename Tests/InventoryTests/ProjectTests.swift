import ConfigSource
import Diagnostics
import Foundation
import Inventory
import Testing

private let minimal = """
  app: bot
  hosts: { h: { address: h.example.com } }
  services: { app: [bot] }

  """

private func project(_ inventories: [String: String]) -> ProjectLoader {
  var files = ["/p/compose.yml": "\n"]
  for (name, text) in inventories { files["/p/inventories/\(name)"] = text }
  return ProjectLoader(files: .memory(files), startDirectory: "/p/src/deep/")
}

private func faults(_ body: () throws -> Void) -> [String] {
  do {
    try body()
    return []
  } catch let error as ConfigurationError {
    return error.diagnostics.map(render)
  } catch {
    return ["\(error)"]
  }
}

@Suite struct ProjectTests {
  @Test func isFoundAboveTheStart() throws {
    let project = try project([
      "prod.yml": minimal, "prod.secrets.yml": "x", "staging.yml": minimal, "notes.txt": "", ".hidden.yml": "",
    ]).project()
    #expect(project == Project(root: "/p", environments: ["prod", "staging"], playbooks: []))
  }

  @Test func thereIsNone() {
    let loader = ProjectLoader(files: .memory(["/elsewhere/x": ""]), startDirectory: "/p/src")
    #expect(faults { _ = try loader.project() }.first?.contains("orchestrate init") == true)
  }

  @Test func isFoundOnTheDisk() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "orchestrate-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }
    try FileManager.default.createDirectory(
      at: folder.appending(path: "inventories"), withIntermediateDirectories: true)
    try FileManager.default.createDirectory(at: folder.appending(path: "src"), withIntermediateDirectories: true)
    try Data(minimal.utf8).write(to: folder.appending(path: "inventories/prod.yml"))
    try Data().write(to: folder.appending(path: "compose.yml"))
    let loader = ProjectLoader(startDirectory: folder.appending(path: "src").path)
    let inventory = try loader.inventory(environment: nil).inventory
    #expect(inventory.environment == "prod")
    #expect(inventory.hosts[0].roles == ["app", "db", "web"])
  }

  @Test func theOnlyEnvironmentIsTheDefault() throws {
    #expect(try project(["stage.yml": minimal]).inventory(environment: nil).inventory.environment == "stage")
  }

  @Test func theMarkedEnvironmentIsTheDefault() throws {
    let loader = project(["a.yml": minimal, "b.yml": minimal + "default: true\n"])
    #expect(try loader.inventory(environment: nil).inventory.environment == "b")
    #expect(try loader.inventory(environment: "a").inventory.environment == "a")
  }

  @Test(
    arguments: [
      (["a.yml": minimal, "b.yml": minimal], nil, "which environment? There are a, b"),
      (
        ["a.yml": minimal + "default: true\n", "b.yml": minimal + "default: true\n"], nil,
        "b.yml:4:1: error: `a` and `b` are both the default"
      ),
      (["prod.yml": minimal], "prdo", "did you mean prod? There is prod"),
      (["prod.yml": minimal], "../prod", "there is no environment"),
      (["prod.yaml": minimal], "prod", "has to be called prod.yml"), (["x.txt": ""], nil, "holds no environment"),
      (["prod.yml": minimal, "prod.secrets.yml": ""], "prod.secrets", "there is no environment `prod.secrets`"),
    ] as [([String: String], String?, String)])
  func unclearEnvironments(inventories: [String: String], name: String?, message: String) {
    let found = faults { _ = try project(inventories).inventory(environment: name) }
    #expect(found.joined(separator: "\n").contains(message), "\(found)")
  }

  @Test func unknownPlaybooks() {
    let found = faults { _ = try Sample().load(playbook: "rolback", builtin: ["rollback": "steps: []"]) }
    #expect(
      found == [
        "error: there is no playbook `rolback`: no file playbooks/rolback.yml, and none is built in [did you mean rollback?]"
      ])
  }

  @Test func theProjectsPlaybookStandsAboveTheBuiltIn() throws {
    let builtin = ["deploy": "steps: [release, health, commit]", "rollback": "steps: [release, health, commit]"]
    #expect(try Sample().load(builtin: builtin).playbook.steps.count == 12)
    let rollback = try Sample().load(playbook: "rollback", builtin: builtin)
    #expect(rollback.playbook.steps.map(\.kind) == [.release, .health, .commit])
    #expect(rollback.playbook.steps[0].location?.file == "<built-in rollback.yml>")
    #expect(rollback.playbookText == builtin["rollback"])
  }

  /// The examples are good, from the disk, with their templates.
  @Test(arguments: [("http-service", "web"), ("market-bot", "bot")]) func examples(name: String, service: String) throws
  {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let loader = ProjectLoader(startDirectory: root.appending(path: "examples/\(name)/scripts").path)
    let loaded = try loader.load(environment: nil, playbook: "deploy", builtin: [:], version: "v1.0.0")
    #expect(loaded.warnings.isEmpty)
    #expect(loaded.inventory.services.app == [service])
    let env = try #require(loaded.template).resolve(
      EnvRequest(
        from: loaded.inventory.env.from, values: [.environment: ["TELEGRAM_TOKEN": "t"]], environment: "prod",
        generate: { String(repeating: "x", count: $0) }))
    #expect(env.generated.contains("DB_PASSWORD"))
    let open = env.values.filter { $0.name.hasSuffix("_URL") && !$0.isSecret }
    #expect(open.isEmpty)
  }

  /// The playbooks that come with the product are good.
  @Test(arguments: ["deploy", "rollback"]) func builtInPlaybooks(name: String) throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let text = try String(contentsOf: root.appending(path: "playbooks/builtin/\(name).yml"), encoding: .utf8)
    var sample = Sample()
    sample.files["/p/playbooks/deploy.yml"] = nil
    #expect(try sample.load(playbook: name, builtin: [name: text]).playbook.steps.contains { $0.kind == .commit })
  }
}

@Suite struct InterpolationTests {
  private func script(_ text: String, version: String? = "v1", set: [String: String] = [:]) throws -> StepSettings {
    var sample = Sample()
    sample.files["/p/playbooks/check.yml"] = "steps:\n  - health: { exec: [\(text)] }\n"
    return try sample.load(playbook: "check", version: version, set: set).playbook.steps[0].settings
  }

  @Test(arguments: [
    ("\"${domain}/x\"", "bot.example.com/x"), ("\"$$${domain}\"", "$bot.example.com"), ("\"$$HOME\"", "$HOME"),
    ("\"$HOME 5$\"", "$HOME 5$"),
    ("\"${version}-${environment}-${app}-${project}\"", "v1-prod-market-bot-market-bot"),
    ("\"$${domain}\"", "${domain}"),
    ("\"${extra}\"", "more"),
  ])
  func fillsIn(text: String, value: String) throws {
    var expected = HealthSettings()
    expected.probe = .exec([value])
    #expect(try script(text, set: ["extra": "more"]) == .health(expected))
  }

  @Test func setStandsAboveVars() throws {
    var expected = HealthSettings()
    expected.probe = .exec(["other"])
    #expect(try script("\"${domain}\"", set: ["domain": "other"]) == .health(expected))
  }

  @Test func valuesAreNotFilledInTwice() throws {
    var expected = HealthSettings()
    expected.probe = .exec(["${app}"])
    #expect(try script("\"${extra}\"", set: ["extra": "${app}"]) == .health(expected))
  }

  @Test func numbersAndDurationsMayComeFromNames() throws {
    var sample = Sample()
    sample.files["/p/playbooks/check.yml"] =
      "steps:\n  - health: { exec: [x], within: \"${t}\", restarts: \"${n}\" }\n  - run:\n      script: scripts/warm-up.sh\n      timeout: ${t}\n"
    let steps = try sample.load(playbook: "check", set: ["t": "90s", "n": "3"]).playbook.steps
    guard case .health(let health) = steps[0].settings, case .run(let run) = steps[1].settings else {
      Issue.record("\(steps)")
      return
    }
    #expect(health.within == .seconds(90) && health.restarts == 3 && run.timeout == .seconds(90))
  }

  @Test func noVersionInThisCommand() {
    #expect(
      faults { _ = try script("\"${version}\"", version: nil) }.first?.contains("this command has no version") == true)
  }

  @Test(arguments: [("version", "it is set by orchestrate"), ("1x", "isn't a name")])
  func setOfWrongNames(name: String, message: String) {
    #expect(faults { _ = try script("x", set: [name: "v"]) }.first?.contains(message) == true)
  }

  private static let named = """
    watch: ${watch}
    steps:
      - release
      - backup: { database: market }
      - run: { script: "scripts/${tag}.sh", timeout: "${t}" }
      - health: { url: "https://${domain}/${version}/${API_TOKEN}/${dsn}" }
      - commit
      - prune: { releases: "${n}" }
    """

  /// What a release has to remember so that its playbook can be read again, but no secret.
  @Test func whatThePlaybookUsedIsKnown() throws {
    var sample = Sample()
    sample.files["/p/playbooks/deploy.yml"] = Self.named
    sample.files["/p/env.template"] = "# @secret\ndsn=${dsn:-x}\n"
    sample.files["/p/scripts/v.sh"] = ""
    let set = ["watch": "2m", "tag": "v", "t": "5s", "n": "3", "API_TOKEN": "s", "dsn": "s", "unused": "x"]
    let loaded = try sample.load(set: set)
    #expect(loaded.variables == ["watch": "2m", "tag": "v", "t": "5s", "n": "3", "domain": "bot.example.com"])
  }

  /// A command without a version, and without the `--set` of the deploy.
  @Test func stepsThatACommandDoesNotUseNeedNoValues() throws {
    var sample = Sample()
    sample.files["/p/playbooks/deploy.yml"] = Self.named
    let loaded = try sample.loader.load(
      environment: "prod", playbook: "deploy", builtin: [:], version: nil, only: [.backup])
    #expect(loaded.playbook.steps.map(\.name) == ["release", "backup", "run", "health", "commit", "prune"])
    guard case .backup(let backup) = loaded.playbook.steps[1].settings else {
      Issue.record("\(loaded.playbook.steps)")
      return
    }
    #expect(backup.database == "market")
    let faults = faults {
      _ = try sample.loader.load(environment: "prod", playbook: "deploy", builtin: [:], version: nil, only: [.health])
    }
    #expect(faults.contains { $0.contains("playbooks/deploy.yml:6:") && $0.contains("this command has no version") })
  }

  @Test func aReleasesPlaybookIsReadWithItsOwnValues() throws {
    let sample = Sample()
    let inventory = try sample.loader.inventory(environment: "prod").inventory
    func url(_ variables: [String: String]) throws -> StepSettings {
      try sample.loader.playbook(
        text: Self.named, name: "release 3", version: "v1.0.0", variables: variables, inventory: inventory,
        only: [.health]
      ).steps[3].settings
    }
    var expected = HealthSettings()
    expected.probe = .url("https://old.example.com/v1.0.0/t/d")
    #expect(try url(["domain": "old.example.com", "API_TOKEN": "t", "dsn": "d"]) == .health(expected))
    // What wasn't recorded is today's.
    expected.probe = .url("https://bot.example.com/v1.0.0/t/d")
    #expect(try url(["API_TOKEN": "t", "dsn": "d"]) == .health(expected))
    let faults = faults { _ = try url([:]) }
    #expect(faults.count == 2 && faults.allSatisfy { $0.contains("nobody defines") }, "\(faults)")
  }

  @Test func theTemplateIsReadAlone() throws {
    var sample = Sample()
    sample.files["/p/playbooks/deploy.yml"] = "steps: {"
    sample.files["/p/env.template"] = "# @secret\nDSN=${DSN:?x}\nBROKEN LINE\n"
    let inventory = try sample.loader.inventory(environment: "prod").inventory
    #expect(sample.loader.template(of: inventory)?.entries.first?.isMarkedSecret == true)
  }

  @Test func setOfANameThatNobodyUsesIsWarnedAbout() throws {
    let warnings = try Sample().load(set: ["wrokers": "4"]).warnings
    #expect(
      warnings.map(render) == [
        "warning: --set wrokers: neither the playbook deploy nor the env template has `${wrokers}`"
      ])
  }
}

@Suite struct JSONExpectationTests {
  @Test func boundsAndPaths() throws {
    var sample = Sample()
    sample.files["/p/playbooks/check.yml"] = """
      steps:
        - health:
            http: http://localhost/
            expect:
              json:
                ok: true
                gone: null
                text: "5"
                below: 7
                list: [1, { name: x }]
                range: { at_least: 1, at_most: 2.5, above: 0, not: "1" }
                version: "${version}"
                a.b: { c: no-words }
      """
    let steps = try sample.load(playbook: "check", version: "1.10").playbook.steps
    guard case .health(let health) = steps[0].settings else { return }
    #expect(
      health.expectJSON == [
        JSONExpectation(path: ["ok"], bound: .bool(true)), JSONExpectation(path: ["gone"], bound: .null),
        JSONExpectation(path: ["text"], bound: .string("5")), JSONExpectation(path: ["below"], bound: .number(7)),
        JSONExpectation(path: ["list", "0"], bound: .number(1)),
        JSONExpectation(path: ["list", "1", "name"], bound: .string("x")),
        JSONExpectation(path: ["range"], bound: .atLeast(1)), JSONExpectation(path: ["range"], bound: .atMost(2.5)),
        JSONExpectation(path: ["range"], bound: .above(0)), JSONExpectation(path: ["range"], bound: .notEqual("1")),
        JSONExpectation(path: ["version"], bound: .string("1.10")),
        JSONExpectation(path: ["a.b", "c"], bound: .string("no-words")),
      ])
  }
}

/// Broken files of any kind end in diagnostics, never in a trap.
@Suite struct MutationTests {
  @Test(arguments: ["/p/inventories/prod.yml", "/p/playbooks/deploy.yml", "/p/env.template"])
  func neverATrap(path: String) {
    var sample = Sample().files
    sample["/p/env.template"] =
      "# @type url\nA=${A:-https://x}  # c\n# @secret @keep\nB=${generate:32}\nC=\"x ${B} \\n\"\nD='it\\'s'\n# @type regex([a-z]+)\nE=${E:?why}\n"
    var bytes = sample.mapValues { Array($0.utf8) }
    let good = bytes[path]!
    var generator = SplitMix(state: 42)
    let interesting = Array("{}[]:,-#&*!|>'\"%@`$\\\t\n ~<?=0a\u{0}\u{7f}".utf8) + [0xFF, 0xC3, 0xE2]
    for round in 0..<700 {
      var changed = good
      for _ in 0...Int.random(in: 0...3, using: &generator) where !changed.isEmpty {
        let start = Int.random(in: 0..<changed.count, using: &generator)
        let end = min(changed.count, start + Int.random(in: 1...12, using: &generator))
        switch Int.random(in: 0...3, using: &generator) {
        case 0: changed.removeSubrange(start..<end)
        case 1:
          changed.insert(contentsOf: changed[start..<end], at: Int.random(in: 0...changed.count, using: &generator))
        case 2: changed[start] = interesting.randomElement(using: &generator)!
        default: changed.insert(interesting.randomElement(using: &generator)!, at: start)
        }
      }
      bytes[path] = changed
      let loader = ProjectLoader(files: .memory(bytes), startDirectory: "/p")
      do {
        let loaded = try loader.load(environment: "prod", playbook: "deploy", builtin: [:], version: "v1")
        _ = try loaded.template?.resolve(
          EnvRequest(
            values: [.environment: ["E": "abc"]], environment: "prod", generate: { String(repeating: "x", count: $0) }))
      } catch let error as ConfigurationError {
        #expect(!error.diagnostics.isEmpty, "round \(round)")
        for diagnostic in error.diagnostics {
          #expect((diagnostic.location?.line ?? 1) >= 1 && (diagnostic.location?.column ?? 1) >= 1, "round \(round)")
          #expect(!diagnostic.message.contains("\n"), "round \(round): \(diagnostic.message)")
        }
      } catch {
        Issue.record("round \(round): \(error)")
      }
    }
  }
}

/// docs/inventory.md and docs/playbooks.md hold a row for each key that the readers know, and no other.
@Suite struct DocumentationTests {
  private static func page(_ name: String) throws -> String {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    return try String(contentsOf: root.appending(path: "docs/\(name)"), encoding: .utf8)
  }

  @Test(arguments: [("inventory.md", InventorySchema.all), ("playbooks.md", PlaybookSchema.all)])
  func everyKeyIsDocumented(page: String, tables: [KeyTable]) throws {
    let sections = try Self.page(page).components(separatedBy: "\n#")
    for table in tables {
      let section = sections.first { section in
        section.split(separator: "\n").first?.drop(while: { $0 == "#" || $0 == " " }) == table.title[...]
      }
      guard let section else {
        Issue.record("docs/\(page) has no section \(table.title)")
        continue
      }
      let rows = section.split(separator: "\n").filter { $0.hasPrefix("| `") }
      for key in table.keys {
        #expect(
          rows.contains { $0.hasPrefix(table.documentationRow(key)) },
          "docs/\(page), \(table.title): expected a row that begins with \(table.documentationRow(key))")
      }
      #expect(rows.count == table.keys.count, "docs/\(page), \(table.title): rows for keys that don't exist")
    }
  }

  @Test func everyTypeAndAnnotationIsDocumented() throws {
    let text = try Self.page("inventory.md")
    for name in EnvType.names { #expect(text.contains("`\(name)"), "\(name)") }
    for annotation in ["@type", "@secret", "@keep"] { #expect(text.contains("`\(annotation)"), "\(annotation)") }
    for source in EnvSource.allCases { #expect(text.contains("`\(source.rawValue)`")) }
  }
}

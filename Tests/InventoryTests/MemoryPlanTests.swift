import Diagnostics
import Foundation
import Testing

@testable import Inventory

private func roles(_ app: [String] = ["bot"], database: String? = "postgres", cache: String? = "redis") -> ServiceRoles
{
  var roles = ServiceRoles()
  roles.app = app
  roles.database = database
  roles.cache = cache
  return roles
}

private func plan(
  _ mebibytes: Int, cpus: Int = 1, _ services: ServiceRoles = roles(), weights: [String: Int] = [:]
) throws -> MemoryPlan {
  try MemoryPlan(MachineSize(memory: Int64(mebibytes) << 20, cpus: cpus), services: services, weights: weights)
}

private func number(_ text: String?) -> Int { Int((text ?? "").prefix { $0.isNumber }) ?? -1 }

@Suite struct MemoryPlanTests {
  /// The table of docs/memory.md is what the code does.
  @Test func theDocumentedTable() throws {
    let page = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appending(path: "docs/memory.md")
    let lines = try String(contentsOf: page, encoding: .utf8).split(separator: "\n")
    func cells(_ line: Substring) -> [String] {
      line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
    }
    let head = cells(try #require(lines.first { $0.hasPrefix("| machine, CPUs |") }))
    var sizes: [Int] = []
    for line in lines where line.contains(/^\| [0-9]+ MiB,/) {
      let row = cells(line), machine = row[0].split(separator: " MiB, ")
      sizes.append(Int(machine[0])!)
      let plan = try plan(Int(machine[0])!, cpus: Int(machine[1])!)
      #expect(head.dropFirst().map { plan.value(of: $0) ?? "?" } == Array(row.dropFirst()), "\(row[0])")
    }
    #expect(sizes == [512, 1024, 2048, 4096, 8192])
  }

  /// On whatever machine: within 80 %, 192 MiB left over, and PostgreSQL's settings within the database's limit.
  @Test func thePromisesHold() throws {
    for cpus in [1, 2, 4, 16, 64] {
      for size in stride(from: 384, through: 65536, by: 31) {
        let plan = try plan(size, cpus: cpus)
        let sum = plan.limits.values.reduce(0, +)
        #expect(sum * 100 <= size * 80 && sum <= size - 192)
        let limit = number(plan.value(of: "database"))
        let connections = number(plan.value(of: "max_connections"))
        let buffers = number(plan.value(of: "shared_buffers")), work = number(plan.value(of: "work_mem"))
        let maintenance = number(plan.value(of: "maintenance_work_mem"))
        #expect(buffers + 3 * maintenance + connections * (2 + work) <= limit, "\(size) MiB, \(cpus) CPUs")
        #expect(buffers >= 24 && work >= 1 && maintenance >= 6 && connections >= 16)
        #expect(number(plan.value(of: "maxmemory")) * 2 + 8 <= number(plan.value(of: "cache")))
        #expect(number(plan.value(of: "maxmemory")) >= 12 && number(plan.value(of: "bot")) >= 64)
      }
    }
  }

  @Test func moreMemoryIsNeverLess() throws {
    var last = [String: Int]()
    for size in stride(from: 384, through: 16384, by: 16) {
      let limits = try plan(size).limits
      for (service, limit) in limits { #expect(limit >= last[service] ?? 0) }
      last = limits
    }
  }

  /// What a new kernel takes for itself changes nothing.
  @Test func aLittleLessIsTheSame() throws { #expect(try plan(960 + 29) == plan(960)) }

  @Test func tooLittleSaysHowMuch() throws {
    #expect(try plan(384).limits == ["postgres": 96, "redis": 32, "bot": 64])
    do {
      _ = try plan(383)
      Issue.record("383 MiB are too little")
    } catch let shortage as MemoryShortage {
      #expect(
        shortage.description
          == "383 MiB of memory are too little: with postgres 96, bot 64, redis 32 and what the system and Docker take, at least 384 MiB are needed"
      )
    }
    // What the message asks for is enough.
    let many = roles((1...20).map { "bot\($0)" })
    do {
      _ = try plan(1024, many)
      Issue.record("20 services don't fit into 1 GiB")
    } catch let shortage as MemoryShortage {
      #expect(shortage.needed == 1760)
      #expect(try plan(shortage.needed, many).limits.count == 22)
      #expect(throws: MemoryShortage.self) { try plan(shortage.needed - 32, many) }
    }
  }

  @Test func rolesThatAreNotThereLeaveTheirShare() throws {
    #expect(try plan(1024, roles(database: nil, cache: nil)).limits == ["bot": 816])
    #expect(try plan(1024, roles(cache: nil)).limits == ["postgres": 348, "bot": 468])
    #expect(try plan(1024, roles(cache: nil)).value(of: "maxmemory") == nil)
    #expect(try plan(1024, roles(database: nil)).value(of: "shared_buffers") == nil)
  }

  @Test func weights() throws {
    let two = roles(["bot", "worker"])
    let even = try plan(2048, two)
    #expect(even.limits["bot"] == 408 && even.limits["worker"] == 408)
    #expect(even.value(of: "app") == "408m" && even.value(of: "worker") == "408m")
    let uneven = try plan(2048, two, weights: ["bot": 3])
    #expect(uneven.limits["bot"] == 612 && uneven.limits["worker"] == 204)
    #expect(uneven.value(of: "app") == nil && uneven.value(of: "bot") == "612m")
    // The least holds for the lightest too.
    #expect(try plan(640, two, weights: ["bot": 100]).limits["worker"] == 64)
  }

  /// Planned values never refuse themselves: with replicas, and beside services that have limits of their own.
  @Test func replicasAndOtherServicesAreLeftRoomFor() throws {
    let two = roles(["bot", "worker"])
    for (size, others, replicas) in [(1024, 256, 1), (2048, 300, 3), (2048, 0, 4), (4096, 1500, 2)] {
      let machine = MachineSize(memory: Int64(size) << 20, cpus: 1)
      let plan = try MemoryPlan(
        machine, services: two, containers: ["worker": replicas], others: (Int64(others) << 20) + 1)
      let sum = plan.limits.reduce(0) { $0 + $1.value * ($1.key == "worker" ? replicas : 1) } + others + 1
      #expect(sum * 100 <= size * 80 && sum <= size - 192, "\(size) MiB, \(others), \(replicas)")
      #expect(sum * 100 >= size * 70, "what is left isn't wasted")
      #expect(plan.limits.values.allSatisfy { $0 >= 32 } && plan.limits["worker"]! >= 64)
    }
    #expect(throws: MemoryShortage.self) {
      try MemoryPlan(MachineSize(memory: 1 << 30, cpus: 1), services: two, containers: ["worker": 10])
    }
    #expect(throws: MemoryShortage.self) {
      try MemoryPlan(MachineSize(memory: 1 << 30, cpus: 1), services: two, others: .max)
    }
    do {
      _ = try MemoryPlan(MachineSize(memory: 1 << 30, cpus: 1), services: roles(), others: 700 << 20)
      Issue.record("700 of 1024 MiB leave too little")
    } catch {
      #expect(error.needed == 1120 && "\(error)".contains("redis 32, the limits of other services 700 and"))
    }
  }

  @Test func rolesStandAboveServices() throws {
    let plan = try plan(1024, roles(["cache", "database"], database: "db", cache: nil))
    #expect(plan.value(of: "cache") == "\(plan.limits["cache"]!)m")
    #expect(plan.value(of: "database") == plan.value(of: "db"))
    #expect(plan.value(of: "nothing") == nil)
  }
}

/// What the compose file promises, read before Compose does.
@Suite struct ComposeLimitsTests {
  @Test(
    arguments: [
      ("256m", 256 << 20), ("1.5g", 1536 << 20), ("512MiB", 512 << 20), ("64 mb", 64 << 20), ("1048576", 1 << 20),
      ("2k", 2048), ("7b", 7), ("0", nil), ("much", nil), ("5x", nil), ("", nil), ("99999999999t", .max),
    ] as [(String, Int64?)])
  func sizes(text: String, bytes: Int64?) { #expect(ComposeService.bytes(text) == bytes) }

  @Test(
    arguments: [
      ("1g", "1g"), ("${A}", "a"), ("$A", "a"), ("${A:?why}", "a"), ("${B:-2g}", "2g"), ("${B-2g}", "2g"),
      ("${A:+2g}", nil), ("${A+2g}", nil), ("${B}", nil), ("${B:-${A}}", nil), ("x${A}", nil), ("${}", nil),
      ("${", nil), ("$", nil), ("${A", nil),
    ] as [(String, String?)])
  func variables(text: String, value: String?) { #expect(ComposeService.filled(text, ["A": "a"]) == value) }

  private let compose = """
    x-small: &small { mem_limit: 100m }
    services:
      bot: { image: a, mem_limit: "${BOT}", deploy: { replicas: 2 } }
      postgres: { image: a, mem_limit: "${DB}" }
      redis: { image: a }
      exporter: { image: a, deploy: { resources: { limits: { memory: "${EXPORTER:-64m}" } }, replicas: 2 } }
      tools: { image: a, mem_limit: 5g, profiles: [tools] }
      off: { image: a, mem_limit: 5g, scale: 0 }
      <<: *small

    """

  private func loaded(_ compose: String) throws -> LoadedProject {
    var sample = Sample()
    sample.files["/p/compose.prod.yml"] = compose
    sample.files["/p/env.template"] = "BOT=${memory:app}\nDB=${memory:database}\nEXPORTER=100m\n"
    return try sample.load()
  }

  @Test func othersAreTakenOff() throws {
    let loaded = try loaded(compose), machine = MachineSize(memory: 1 << 30, cpus: 1)
    let expected = { (others: Int64, replicas: Int) in
      try MemoryPlan(machine, services: loaded.inventory.services, containers: ["bot": replicas], others: others << 20)
    }
    #expect(try loaded.memoryPlan(machine, values: nil) == expected(0, 1))
    #expect(try loaded.memoryPlan(machine, values: [:]) == expected(128, 2))
    #expect(try loaded.memoryPlan(machine, values: ["EXPORTER": "100m"]) == expected(200, 2))
  }

  /// A database for which nothing is planned has its limit by hand: it leaves its part to those for whom something is.
  @Test func aLimitByHandIsOneOfTheOthers() throws {
    var sample = Sample()
    sample.files["/p/compose.prod.yml"] =
      "services:\n  bot: { mem_limit: \"${BOT}\" }\n  postgres: { mem_limit: 512m }\n  redis: { mem_limit: 64m }\n"
    sample.files["/p/env.template"] = "BOT=${memory:app}\nR=${memory:maxmemory}\n"
    let machine = MachineSize(memory: 1 << 30, cpus: 1), loaded = try sample.load()
    let found = try loaded.memoryPlan(machine, values: [:])
    #expect(found.limits == ["bot": 244, "redis": 60])
    // Also of the service that a migration runs in.
    sample.files["/p/env.template"] = "D=${memory:shared_buffers}\n"
    sample.files["/p/compose.prod.yml"] = "services:\n  bot: { mem_limit: 319m }\n  redis: { mem_limit: 100m }\n"
    #expect(try sample.load().memoryPlan(machine, values: [:]).limits == ["postgres": 400])
    sample.files["/p/env.template"]! += "R=${memory:cache}\nB=${memory:bot}\n"
    #expect(try sample.load().memoryPlan(machine, values: [:]).limits.keys.sorted() == ["bot", "postgres", "redis"])
  }

  /// `app` is for those of the app that have no limit of their own.
  @Test func oneOfTheAppsWithALimitByHand() throws {
    var sample = Sample()
    sample.files["/p/inventories/prod.yml"]?.replace("app: [bot]", with: "app: [bot, worker]")
    sample.files["/p/compose.prod.yml"] = "services:\n  bot: { mem_limit: \"${BOT}\" }\n  worker: { mem_limit: 512m }\n"
    sample.files["/p/env.template"] = "BOT=${memory:app}\nDB=${memory:database}\nR=${memory:cache}\n"
    let machine = MachineSize(memory: 2 << 30, cpus: 1), loaded = try sample.load()
    #expect(loaded.inventory.services.app == ["bot", "worker"])
    #expect(try loaded.memoryPlan(machine, values: [:]).limits.keys.sorted() == ["bot", "postgres", "redis"])
    sample.files["/p/env.template"]! += "W=${memory:worker}\n"
    #expect(try sample.load().memoryPlan(machine, values: [:]).limits.count == 4)
  }

  /// Compose says what is wrong with its file.
  @Test func aFileThatCannotBeReadIsComposesToTell() throws {
    let machine = MachineSize(memory: 1 << 30, cpus: 1)
    for text in ["services: [", "", "- a\n", "services: 5\n", "services:\n  bot: none\n"] {
      let loaded = try loaded(text)
      #expect(try loaded.memoryPlan(machine, values: [:]) == loaded.memoryPlan(machine, values: nil), "\(text)")
    }
  }

  /// The container of a migration is gone before the others start.
  @Test func aMigrationsServiceIsLeftOut() throws {
    var sample = Sample()
    sample.files["/p/compose.prod.yml"] = "services:\n  bot: {}\n  migrator: { mem_limit: 2g }\n"
    sample.files["/p/env.template"] = "BOT=${memory:app}\n"
    sample.files["/p/playbooks/deploy.yml"] = Sample.playbook.replacing(
      "migrate: { service: bot", with: "migrate: { service: migrator")
    let loaded = try sample.load(), machine = MachineSize(memory: 1 << 30, cpus: 1)
    #expect(try loaded.memoryPlan(machine, values: [:]) == loaded.memoryPlan(machine, values: nil))
  }
}

@Suite struct PlannedValueTests {
  private func resolve(
    _ text: String, _ values: [EnvSource: [String: String]] = [:], memory: Int? = 1024, defaulted: Set<String> = []
  ) throws -> [String] {
    var request = EnvRequest(
      values: values, defaultedOnHost: defaulted, environment: "prod", generate: { String(repeating: "g", count: $0) })
    request.memory = memory.map { size in
      Result { () throws(MemoryShortage) in
        try MemoryPlan(MachineSize(memory: Int64(size) << 20, cpus: 1), services: roles())
      }
    }
    let template = try EnvTemplate(file: "env.template", bytes: Array(text.utf8))
    return try template.resolve(request).values.map { "\($0)" }
  }

  private func faults(_ text: String, memory: Int?) -> [String] {
    do { return try resolve(text, memory: memory) } catch let error as ConfigurationError {
      return error.diagnostics.map(render)
    } catch { return ["\(error)"] }
  }

  @Test func valuesAndWhereTheyComeFrom() throws {
    let text =
      "A=${memory:app}\nB=-c shared_buffers=${memory:shared_buffers}\n# @type int\nC=${memory:max_connections}\nD=\"${memory:bot}\"\n"
    #expect(
      try resolve(text) == [
        "A=408m (memory)", "B=-c shared_buffers=76MB (composed)", "C=25 (memory)", "D=408m (memory)",
      ])
    let template = try EnvTemplate(file: "env.template", bytes: Array(text.utf8))
    #expect(template.plansMemory && template.sourceNames.isEmpty)
    #expect(try !EnvTemplate(file: "env.template", bytes: Array("A=${memory}\nB=${memory:-x}\n".utf8)).plansMemory)
  }

  /// A source stands above the plan, and what an earlier plan left on the host doesn't.
  @Test func anOverrideByName() throws {
    let text = "BOT_MEMORY=${BOT_MEMORY:-${memory:app}}"
    let host: [EnvSource: [String: String]] = [.host: ["BOT_MEMORY": "200m"]]
    #expect(try resolve(text) == ["BOT_MEMORY=408m (default)"])
    #expect(try resolve(text, host, defaulted: ["BOT_MEMORY"]) == ["BOT_MEMORY=408m (default)"])
    #expect(try resolve(text, [.environment: ["BOT_MEMORY": "300m"]]) == ["BOT_MEMORY=300m (environment)"])
    // Then nothing has to be planned, on however small a machine.
    #expect(try resolve(text, [.flags: ["BOT_MEMORY": "30m"]], memory: 64) == ["BOT_MEMORY=30m (flags)"])
    // Planned without a way around: no source counts.
    #expect(try resolve("M=${memory:app}", [.flags: ["M": "1m"], .host: ["M": "2m"]]) == ["M=408m (memory)"])
  }

  /// Once, however many names want to be planned.
  @Test func aShortageIsToldInItsPlace() {
    let found = faults("L=x\nA=${memory:app}\nB=${memory:database}\n", memory: 300)
    #expect(found.count == 1)
    #expect(
      found.first?.hasPrefix("env.template:2:3: error: `${memory:app}`: 300 MiB of memory are too little: ") == true)
    #expect(faults("A=${memory:app}", memory: nil).first?.contains("doesn't tell how much memory") == true)
  }
}

/// What a machine has to share out.
public struct MachineSize: Sendable, Equatable {
  /// Bytes: the smaller of MemTotal and the root control group's limit.
  public var memory: Int64
  /// As many as may be busy at once, at least 1.
  public var cpus: Int

  public init(memory: Int64, cpus: Int) {
    self.memory = memory
    self.cpus = max(1, cpus)
  }
}

/// The machine has less memory than its services need at least. Its description is for the user.
public struct MemoryShortage: Error, Equatable, CustomStringConvertible {
  /// MiB that the machine has, that it would need, that each service needs at least (all its containers), and that the compose file promises to others.
  public var machine: Int
  public var needed: Int
  public var minima: [String: Int]
  public var others = 0

  public var description: String {
    var parts = minima.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\($0.key) \($0.value)" }
    if others > 0 { parts.append("the limits of other services \(others)") }
    return
      "\(machine) MiB of memory are too little: with \(parts.joined(separator: ", ")) and what the system and Docker "
      + "take, at least \(needed) MiB are needed"
  }
}

/// How a machine's memory is shared out among the services, and the settings of PostgreSQL and Redis that fit their shares.
/// docs/memory.md has the rules and their reasons. A value without I/O: the same machine gives the same plan.
public struct MemoryPlan: Sendable, Equatable {
  /// What containers may be promised of a machine, in percent, unless the user says otherwise.
  public static let allowedPercent = 80
  /// What the system and Docker take at least, in MiB.
  static let reserve = 192
  /// Below these a service isn't worth starting, in MiB.
  static let databaseMinimum = 96
  static let cacheMinimum = 32
  static let appMinimum = 64
  /// Shares of what the containers get; the services of the app have theirs together.
  static let databaseWeight = 3.0
  static let cacheWeight = 1.0
  static let appWeight = 4.0

  /// Limits in MiB, by service.
  public private(set) var limits: [String: Int]
  private let services: ServiceRoles
  private let weights: [String: Int]
  private let cpus: Int

  /// - Parameters:
  ///   - weights: how the services of the app share what they have together, by name; 1 for those without.
  ///   - containers: of how many a service has its share, by name; 1 for those without.
  ///   - others: bytes that services without a share are promised.
  public init(
    _ machine: MachineSize, services: ServiceRoles, weights: [String: Int] = [:], containers: [String: Int] = [:],
    others: Int64 = 0
  ) throws(MemoryShortage) {
    self.services = services
    self.weights = weights
    cpus = machine.cpus
    // A new kernel takes a little more or less for itself: that shouldn't change a setting.
    let total = Int(machine.memory >> 20) / 32 * 32
    let promised = Int(others >> 20) + (others & 0xF_FFFF == 0 ? 0 : 1)
    let budget = min(total * Self.allowedPercent / 100, total - Self.reserve) - promised

    var parties: [(service: String, weight: Double, minimum: Int)] = []
    if let database = services.database { parties.append((database, Self.databaseWeight, Self.databaseMinimum)) }
    if let cache = services.cache { parties.append((cache, Self.cacheWeight, Self.cacheMinimum)) }
    let all = services.app.reduce(0) { $0 + (weights[$1] ?? 1) }
    for service in services.app {
      parties.append((service, Self.appWeight * Double(weights[service] ?? 1) / Double(all), Self.appMinimum))
    }
    func count(_ service: String) -> Int { max(1, containers[service] ?? 1) }
    for index in parties.indices { parties[index].minimum *= count(parties[index].service) }
    let minima = parties.reduce(0) { $0 + $1.minimum }
    guard minima <= budget else {
      let percent = Self.allowedPercent
      // Rounded up to what counts (above).
      let least = minima + promised
      let needed = (max(least + Self.reserve, (least * 100 + percent - 1) / percent) + 31) / 32 * 32
      throw MemoryShortage(
        machine: Int(machine.memory >> 20), needed: needed,
        minima: Dictionary(parties.map { ($0.service, $0.minimum) }, uniquingKeysWith: { first, _ in first }),
        others: promised)
    }

    limits = [:]
    var left = budget, open = parties
    // Who would get less than the least gets that, and the others share what is left.
    while true {
      let weight = open.reduce(0) { $0 + $1.weight }
      let short = open.filter { Double(left) * $0.weight / weight < Double($0.minimum) }
      guard !short.isEmpty else {
        for party in open {
          limits[party.service] = Int(Double(left) * party.weight / weight) / count(party.service) / 4 * 4
        }
        break
      }
      for party in short {
        limits[party.service] = party.minimum / count(party.service)
        left -= party.minimum
      }
      open.removeAll { limits[$0.service] != nil }
    }
  }

  // MARK: PostgreSQL

  /// A quarter of the database's limit, as PostgreSQL's manual recommends of a machine's memory.
  private static func sharedBuffers(_ limit: Int) -> Int { limit / 4 }
  /// Up to three autovacuum workers use this much each, beside a migration's CREATE INDEX.
  private static func maintenanceWorkMem(_ limit: Int) -> Int { min(512, limit / 16) }
  private static func maxConnections(_ limit: Int, cpus: Int) -> Int {
    max(16, min(limit / 12, 25 + 25 * cpus, 200))
  }
  /// What is left when every connection is open (2 MiB each) and the autovacuum workers are at work.
  private static func workMem(_ limit: Int, cpus: Int) -> Int {
    let connections = maxConnections(limit, cpus: cpus)
    let rest = limit - sharedBuffers(limit) - 3 * maintenanceWorkMem(limit) - 2 * connections
    return max(1, min(64, rest / connections))
  }

  // MARK: Redis

  /// While a snapshot is written, each page that changes is there twice; the program itself takes 8 MiB.
  private static func maxMemory(_ limit: Int) -> Int { (limit - 8) / 2 }

  // MARK: Names

  static let databaseNames = [
    "database", "shared_buffers", "effective_cache_size", "work_mem", "maintenance_work_mem", "max_connections",
  ]
  static let cacheNames = ["cache", "maxmemory"]

  /// Whether all services of the app get the same, so that `app` means one thing.
  private static func isEven(_ services: ServiceRoles, _ weights: [String: Int]) -> Bool {
    Set(services.app.map { weights[$0] ?? 1 }).count <= 1
  }

  /// What `${memory:NAME}` may name, the settings before the services.
  static func names(_ services: ServiceRoles, weights: [String: Int]) -> [String] {
    (services.database == nil ? [] : databaseNames) + (services.cache == nil ? [] : cacheNames)
      + (isEven(services, weights) ? ["app"] : []) + services.app
      + [services.database, services.cache].compactMap(\.self)
  }

  /// Why a name means nothing here that means something elsewhere; nil: nobody knows it.
  static func reason(against name: String, _ services: ServiceRoles) -> (why: String, help: String)? {
    if databaseNames.contains(name) {
      return ("is the database's, and the inventory's services name none", "add database: to services")
    }
    if cacheNames.contains(name) {
      return ("is the cache's, and the inventory's services name none", "add cache: to services")
    }
    guard name == "app" else { return nil }
    let own = services.app.map { "${memory:\($0)}" }.joined(separator: ", ")
    return ("means one value, and the inventory's `memory` gives the services different ones", "write \(own)")
  }

  /// The value for the env file, in the unit that its reader wants: limits as Compose does (`256m`), PostgreSQL's and
  /// Redis' settings as they do (`64MB`, `40mb`). Nil: no such name here.
  public func value(of name: String) -> String? {
    func limit(_ service: String?) -> String? { service.flatMap { limits[$0] }.map { "\($0)m" } }
    if let database = services.database.flatMap({ limits[$0] }) {
      switch name {
      case "database": return limit(services.database)
      case "shared_buffers": return "\(Self.sharedBuffers(database))MB"
      case "effective_cache_size": return "\(database * 3 / 4)MB"
      case "work_mem": return "\(Self.workMem(database, cpus: cpus))MB"
      case "maintenance_work_mem": return "\(Self.maintenanceWorkMem(database))MB"
      case "max_connections": return String(Self.maxConnections(database, cpus: cpus))
      default: break
      }
    }
    if let cache = services.cache.flatMap({ limits[$0] }) {
      switch name {
      case "cache": return limit(services.cache)
      case "maxmemory": return "\(Self.maxMemory(cache))mb"
      default: break
      }
    }
    if name == "app", Self.isEven(services, weights) { return limit(services.app.first) }
    return limit(name)
  }
}

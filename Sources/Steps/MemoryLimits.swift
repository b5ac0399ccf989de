import Engine
import Inventory

/// Bytes that Compose lets one container of the service have; nil: no limit.
func memoryLimit(_ service: JSONValue) -> Int64? {
  // Compose prints sizes as texts; where both are set, it wants them to be equal.
  for value in [service["deploy"]?["resources"]?["limits"]?["memory"], service["mem_limit"]] {
    if let value, let bytes = Int64(value.stringValue ?? value.text()), bytes > 0 { return bytes }
  }
  return nil
}

/// What the containers of the release will be promised, those that stay as they run by what they run with, and what others on the
/// machine are, as preflight saw them. One-off containers of migrations don't count, nor services that no step brings up and that have no container.
/// Nil: the configuration or the machine isn't known.
func memoryCommitment(_ context: StepContext, allowed: Int) -> MemoryCommitment? {
  guard let machine = context.facts.machine, let config = context.target == nil ? context.config : context.newConfig
  else { return nil }
  let kept = context.target == nil ? Set(keptServices(context)) : []
  let standing = standingServices(context, config)
  let services = Set(config.serviceNames).union(kept).subtracting(oneOffServices(context)).sorted().compactMap {
    name -> MemoryCommitment.Service? in
    guard standing.contains(name) || context.stays(name) else { return nil }
    let running = kept.contains(name) ? context.currentConfig?.service(name) : nil
    guard let service = running ?? config.service(name), !isScaledToNothing(service) else { return nil }
    return MemoryCommitment.Service(service: name, limit: memoryLimit(service), containers: replicas(service))
  }
  let others = context.reported.values.lazy.compactMap { $0["others_memory"]?.numberValue }.first ?? 0
  return MemoryCommitment(
    machine: machine.memory, allowed: allowed, services: services, others: Int64(exactly: others.rounded()) ?? .max)
}

/// Services that the deployment brings up, or that stand as its database or cache.
private func standingServices(_ context: StepContext, _ config: ComposeConfig) -> Set<String> {
  var standing = Set(appServices(context.inventory, config)).union(context.options.include)
  standing.formUnion([context.inventory.services.database, context.inventory.services.cache].compactMap(\.self))
  for case .recreate(let settings) in context.steps.map(\.settings) { standing.formUnion(settings.services) }
  return standing
}

/// Services that only run for a migration.
private func oneOffServices(_ context: StepContext) -> Set<String> {
  var migrating: Set<String> = [], standing = Set(context.inventory.services.app).union(context.options.include)
  standing.formUnion([context.inventory.services.database, context.inventory.services.cache].compactMap(\.self))
  for step in context.steps {
    switch step.settings {
    case .migrate(let settings): migrating.formUnion([settings.service].compactMap(\.self))
    case .recreate(let settings): standing.formUnion(settings.services)
    default: break
    }
  }
  return migrating.subtracting(standing)
}

/// A service that goes on with another limit than the compose file gives it now.
struct KeptLimit: Equatable {
  var service: String
  var running: Int64?
  var written: Int64?

  var isLower: Bool { (written ?? .max) < (running ?? .max) }

  var sentence: String {
    func words(_ limit: Int64?) -> String { limit.map { "\($0 >> 20) MiB of memory" } ?? "no limit for its memory" }
    return
      "service \(service) goes on with \(words(running)), the compose file has \(words(written)): that waits for a "
      + "deploy with --include \(service)"
  }
}

func keptLimits(_ context: StepContext) -> [KeptLimit] {
  keptServices(context).compactMap { name in
    guard let running = context.currentConfig?.service(name), let written = context.config?.service(name) else {
      return nil
    }
    let limit = KeptLimit(service: name, running: memoryLimit(running), written: memoryLimit(written))
    return limit.running == limit.written ? nil : limit
  }
}

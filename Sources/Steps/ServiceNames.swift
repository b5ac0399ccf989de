internal import Diagnostics
import Engine
import Inventory

extension StepSpec {
  /// The services that the step names itself, with the key that names them.
  fileprivate var namedServices: [(key: String, service: String)] {
    switch settings {
    case .backup(let settings): settings.service.map { [("backup.service", $0)] } ?? []
    case .migrate(let settings): settings.service.map { [("migrate.service", $0)] } ?? []
    case .health(let settings): settings.service.map { [("health.service", $0)] } ?? []
    case .recreate(let settings): settings.services.map { ("recreate.services", $0) }
    default: []
    }
  }
}

/// `; did you mean bot?`
func nearestService(to name: String, _ config: ComposeConfig) -> String {
  nearestName(to: name, among: config.serviceNames).map { "; did you mean \($0)?" } ?? ""
}

/// Services that steps or `--include` name and that aren't there: in the compose file; for a playbook on the running release, in that.
func absentServices(_ steps: [StepSpec], _ context: StepContext) -> [String] {
  guard let config = context.config ?? context.currentConfig else { return [] }
  let holder =
    context.config != nil
    ? "\(context.inventory.compose) doesn't hold (or only under a profile)" : "the running release doesn't have"
  var problems: [String] = []
  for step in steps where !context.options.skip.contains(step.name) {
    for (key, service) in step.namedServices where config.service(service) == nil {
      let place = step.location.map { "\($0): " } ?? ""
      problems.append(
        "\(place)`\(key)` of the step \(step.name) names the service \(service), which \(holder)\(nearestService(to: service, config))"
      )
    }
  }
  // A service that has left the compose file leaves the release by this.
  for service in context.options.include.sorted()
  where config.service(service) == nil && context.currentConfig?.service(service) == nil {
    problems.append(
      "--include \(service) names a service that \(holder)\(nearestService(to: service, config))")
  }
  return problems
}

/// What a deployment would silently leave as it is: services that nobody creates or replaces.
func unmanagedServices(_ steps: [StepSpec], _ context: StepContext) -> (problems: [String], warnings: [String]) {
  guard let config = context.config, context.target == nil else { return ([], []) }
  let services = context.inventory.services, app = Set(services.app)
  var managed = app.union(context.options.include).union([services.database, services.cache].compactMap(\.self))
  var recreated: Set<String> = context.options.include
  var recreates = false
  for step in steps {
    switch step.settings {
    case .recreate(let settings):
      recreates = true
      recreated.formUnion(settings.services.isEmpty ? services.app : settings.services)
    // Its containers are one-off ones.
    case .migrate(let settings): managed.formUnion([settings.service].compactMap(\.self))
    default: break
    }
  }
  managed.formUnion(recreated)
  var problems: [String] = [], warnings: [String] = []
  for name in config.serviceNames.sorted() where !managed.contains(name) && !context.stays(name) {
    if let service = config.service(name), isScaledToNothing(service) { continue }
    problems.append(
      "service \(name) is in \(context.inventory.compose), but no deploy would start it: list it under services.app of the inventory "
        + "(replaced by each deploy), as its database or cache, or under `services` of a recreate step; or start it once with --include \(name); "
        + "what isn't meant to run gets a `profiles:`")
  }
  if recreates {
    for name in services.app where !recreated.contains(name) && config.service(name) != nil {
      warnings.append(
        "service \(name) is one of services.app, but no recreate step names it: it stays as it is")
    }
  }
  for name in context.options.include.sorted()
  where config.service(name) == nil && context.currentConfig?.service(name) != nil {
    warnings.append(
      "service \(name) leaves the release; no step removes its container: on the host, docker rm --force, once the deployment has ended"
    )
  }
  return (problems, warnings)
}

/// Another project's compose file under this one's name: the services that run would be left to themselves.
func foreignProject(_ context: StepContext) -> String? {
  guard let config = context.config, let current = context.current, let running = context.currentConfig,
    context.target == nil, !running.serviceNames.isEmpty, !config.serviceNames.isEmpty,
    Set(running.serviceNames).isDisjoint(with: config.serviceNames)
  else { return nil }
  let project = context.inventory.project
  return
    "the project \(project) on this host runs \(running.serviceNames.sorted().joined(separator: ", ")) (\(current.version)), and "
    + "\(context.inventory.compose) holds none of them: is it another repository's? Give this environment a `project:` of its own in its inventory"
}

extension StepContext {
  /// It belongs to the running release and has a container: somebody started it with `--include`, and it goes on as it is.
  func stays(_ service: String) -> Bool {
    guard currentConfig?.service(service) != nil else { return false }
    return baseline?.contains { $0["service"]?.stringValue == service } ?? true
  }
}

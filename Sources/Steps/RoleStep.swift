import Diagnostics
public import Engine
public import Inventory

/// Internal: gives database roles the passwords that the new release has, right before its containers start; undone, those that they had.
public struct RoleStep: StepKind {
  public init() {}

  public func plan(_ context: StepContext) -> [Change] {
    context.roleChanges.map { change in
      var detail = ["~ password: \(change.name)"]
      if let version = change.backTo {
        detail += [
          "  \(change.name) was changed since \(version) ran: going back gives the role the older password again.",
          "  Afterwards, a new one: orchestrate secrets rotate \(context.inventory.environment) \(change.name)",
        ]
      }
      return Change(.update, "database role \(change.role)", detail: detail)
    }
  }

  public func payload(_ context: StepContext) -> StepPayload {
    StepPayload(
      script: "role", timeout: .seconds(60), changes: true, hasUndo: true, parameters: roleParameters(context),
      files: [
        StepPayload.File(
          "roles",
          bytes: Array(context.roleChanges.map { "\($0.verifier.reveal()) \($0.role)\n" }.joined().utf8))
      ], secrets: ["roles", "verifiers"])
  }
}

/// Internal: whether the roles are there and may be changed, before the plan. Changes nothing.
public struct RoleProbeStep: StepKind {
  public init() {}

  public func plan(_ context: StepContext) -> [Change] { [] }

  public func payload(_ context: StepContext) -> StepPayload {
    StepPayload(
      script: "role-probe", timeout: .seconds(60), parameters: roleParameters(context),
      files: [
        StepPayload.File("roles", bytes: Array(context.roleChanges.map { "- \($0.role)\n" }.joined().utf8))
      ])
  }
}

private func roleParameters(_ context: StepContext) -> [(name: String, value: String)] {
  [("DB_SERVICE", context.inventory.services.database ?? "")]
}

/// Which values are passwords of database roles: the one that the database's image makes its first role with (POSTGRES_PASSWORD, or the file that
/// POSTGRES_PASSWORD_FILE names). By name, with the role.
public func databaseRoles(_ config: ComposeConfig, _ inventory: Inventory, _ values: [ResolvedValue]) -> [String:
  String]
{
  guard let name = inventory.services.database, let service = config.service(name),
    let environment = service["environment"]
  else { return [:] }
  func text(_ key: String) -> String? {
    environment[key]?.stringValue.map(unescapeDollars).flatMap { $0.isEmpty ? nil : $0 }
  }
  let role = text("POSTGRES_USER") ?? "postgres"
  if let password = text("POSTGRES_PASSWORD") {
    return values.first { $0.value == password }.map { [$0.name: role] } ?? [:]
  }
  guard let target = text("POSTGRES_PASSWORD_FILE") else { return [:] }
  for secret in service["secrets"]?.arrayValue ?? [] {
    guard let source = secret["source"]?.stringValue else { continue }
    let place = secret["target"]?.stringValue ?? source
    guard place == target || "/run/secrets/\(place)" == target,
      let path = config.root["secrets"]?[source]?["file"]?.stringValue.map(unescapeDollars)
    else { continue }
    return values.first { $0.path == path }.map { [$0.name: role] } ?? [:]
  }
  return [:]
}

/// Values of database roles that a deployment would change without changing the role: the app would be locked out. And what a rotation has replaced,
/// from a source that hasn't heard of it.
func staleValues(_ context: StepContext) -> [String] {
  guard let config = context.config, let env = context.env, let current = context.current, context.rotation == nil,
    context.target == nil
  else { return [] }
  let environment = context.inventory.environment
  var problems: [String] = []
  var told: Set<String> = []
  let replaced = env.filter { value in
    let hash = context.sha256(Array(value.value.utf8))
    return current.replaced?[value.name]?.contains(hash) == true && current.env[value.name] != hash
  }
  for value in replaced where value.origin != .composed {
    told.insert(value.name)
    problems.append(
      "\(value.name) (\(value.origin)) is the value that `secrets rotate` has replaced: is that source older than the host? "
        + "For the vault: git pull, or set the present one there: orchestrate secrets set \(environment) \(value.name); "
        + "or a new one: orchestrate secrets rotate \(environment) \(value.name)")
  }
  // What was rotated has no line of its own in the env file, only what is made from it.
  if problems.isEmpty, !replaced.isEmpty {
    told.formUnion(replaced.map(\.name))
    problems.append(
      "\(replaced.map(\.name).joined(separator: ", ")) would be made from a value that `secrets rotate` has replaced: "
        + "is the vault older than the host? git pull, or set the present value there (orchestrate env \(environment) --diff)"
    )
  }
  let roles = (current.roles ?? [:]).merging(databaseRoles(config, context.inventory, env)) { $1 }
    .merging(context.templateRoles) { $1 }
  var before = roleHashes(of: current, context)
  // A role that is annotated only now had its password by that name before.
  for (name, role) in roles.sorted(by: { $0.key < $1.key }) where before[role] == nil {
    before[role] = current.env[name]
  }
  for value in env where !told.contains(value.name) {
    guard let role = roles[value.name], let old = before[role], old != context.sha256(Array(value.value.utf8)) else {
      continue
    }
    problems.append(
      "\(value.name) (\(value.origin)) is the password of the database role \(role), and another one than \(current.version) runs with; "
        + "a deployment leaves the role as it is, so that the app would be locked out: "
        + "orchestrate secrets rotate \(environment) \(value.name) changes both")
  }
  return problems
}

/// SHA-256 of the password by role, as the running release has it.
private func roleHashes(of release: Release, _ context: StepContext) -> [String: String] {
  var roles = release.roles
  if roles == nil, let config = context.currentConfig, let database = context.inventory.services.database {
    // Of an older version of the tool: the name whose value has the hash of what the database was made with.
    let environment = config.service(database)?["environment"]
    let password = environment?["POSTGRES_PASSWORD"]?.stringValue.map(unescapeDollars)
    let hash = password.map { context.sha256(Array($0.utf8)) }
    let role = environment?["POSTGRES_USER"]?.stringValue ?? "postgres"
    roles = release.env.keys.sorted().first { release.env[$0] == hash }.map { [$0: role] }
  }
  var hashes: [String: String] = [:]
  for (name, role) in roles ?? [:] { hashes[role] = release.env[name] }
  return hashes
}

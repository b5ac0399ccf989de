internal import Diagnostics
public import Inventory

/// Which steps run on a host: without those that `--skip` names, and those of a role that the host doesn't have.
public struct StepSelection: Sendable {
  public var skip: Set<String>
  public var host: String
  /// Empty: every role.
  public var roles: [String]

  /// - Parameter host: its name in the inventory.
  public init(_ inventory: Inventory, host: String, skip: Set<String> = []) {
    self.skip = skip
    self.host = host
    roles = inventory.hosts.first { $0.name == host }?.roles ?? []
  }

  /// The reason of a step that `--skip` names.
  static let skipped = "--skip"

  /// Why the step is left out; nil: it runs.
  public func reason(_ spec: StepSpec) -> String? {
    foreignRole(spec).map { "\(host) doesn't have the role \($0)" } ?? (skip.contains(spec.name) ? Self.skipped : nil)
  }

  private func foreignRole(_ spec: StepSpec) -> String? {
    spec.role.flatMap { roles.isEmpty || roles.contains($0) ? nil : $0 }
  }

  /// Throws `OrchestrateError` if the steps can't be left out that would be, or `--skip` names none.
  ///
  /// - Parameter unneeded: names of steps that don't run anyway: `--skip` may name them.
  public func check(_ steps: [StepSpec], unneeded: [String] = []) throws {
    try checkNames(steps, unneeded: unneeded)
    try checkRoles(steps)
    try checkRestorePoint(steps)
  }

  private func checkNames(_ steps: [StepSpec], unneeded: [String]) throws {
    let names = steps.map(\.name)
    for name in skip.sorted() {
      guard let step = steps.first(where: { $0.name == name }) else {
        if unneeded.contains(name) { continue }
        throw OrchestrateError(
          .usage, "--skip \(name): there is no such step", state: "nothing was changed",
          remedy: nearestName(to: name, among: names).map { "did you mean \($0)?" }
            ?? "the steps are \(names.joined(separator: ", "))")
      }
      let why: String
      switch step.kind {
      case .preflight, .release, .commit: why = ""
      case .env: why = ": without it nobody knows what the compose file says"
      case .pull: why = ": without it nobody knows which images the release would run"
      default: continue
      }
      throw OrchestrateError(
        .usage, "--skip \(name): this step can't be skipped\(why)", state: "nothing was changed")
    }
  }

  private func checkRoles(_ steps: [StepSpec]) throws {
    guard !steps.isEmpty else { return }
    if steps.allSatisfy({ foreignRole($0) != nil }) {
      throw OrchestrateError(
        .usage, "none of the steps is for \(host): \(reason(steps[0]) ?? "")", state: "nothing was changed",
        remedy: "choose another host with --host, or give \(host) the role in the inventory")
    }
    guard steps.contains(where: { $0.kind == .commit }) else { return }
    for step in steps where Self.everywhere.contains(step.kind) {
      guard let role = foreignRole(step) else { continue }
      throw fault(
        step, "\(host) doesn't have the role \(role), and a deployment can't do without its step \(step.name)")
    }
    let gates = steps.filter { $0.kind == .health }
    if let gate = gates.first, gates.allSatisfy({ foreignRole($0) != nil }) {
      throw fault(gate, "on \(host), which doesn't have the role \(gate.role ?? ""), no health gate would be left")
    }
  }

  /// Every host of a deployment needs them.
  private static let everywhere: Set<StepKindName> = [.preflight, .release, .env, .pull, .commit]

  /// The policy `restore` undoes a migration by the restore point alone.
  private func checkRestorePoint(_ steps: [StepSpec]) throws {
    for (index, step) in steps.enumerated() where reason(step) == nil {
      guard case .migrate(let settings) = step.settings, settings.rollback == .restore else { continue }
      let backups = steps[..<index].filter { $0.kind == .backup }
      guard let backup = backups.first, backups.allSatisfy({ reason($0) != nil }) else { continue }
      let text =
        "the migration's policy is `restore`: without the restore point of the step \(backup.name) a migration that fails half-way couldn't be undone"
      guard reason(backup) == Self.skipped else { throw fault(backup, "\(reason(backup) ?? ""), and \(text)") }
      throw OrchestrateError(
        .usage, "--skip \(backup.name): \(text)", state: "nothing was changed",
        remedy: "leave the backup in, or skip \(step.name), too")
    }
  }

  private func fault(_ step: StepSpec, _ text: String) -> OrchestrateError {
    OrchestrateError(
      .configuration, (step.location.map { "\($0): " } ?? "") + text, state: "nothing was changed",
      remedy: "remove `role` from the step, or give \(host) the role in the inventory")
  }
}

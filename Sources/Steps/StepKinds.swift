public import Engine
public import Inventory

/// The kind of step that a playbook's entry asks for. One file per kind; scripts:
/// playbooks/steps/<kind>.{apply,undo}.sh.
public func stepKind(for spec: StepSpec) -> any StepKind {
  switch spec.settings {
  case .preflight(let settings): PreflightStep(settings: settings)
  case .release(let settings): ReleaseStep(settings: settings)
  case .env: EnvStep()
  case .pull(let settings): PullStep(settings: settings)
  case .commit: CommitStep()
  case .prune(let settings): PruneStep(settings: settings)
  case .backup(let settings): BackupStep(settings: settings)
  case .migrate(let settings): MigrateStep(settings: settings)
  case .recreate(let settings): RecreateStep(settings: settings)
  case .health(let settings): HealthStep(settings: settings)
  case .run(let settings): RunStep(settings: settings)
  case .host(let settings): HostStep(name: spec.name, settings: settings)
  }
}

public import Engine
public import Inventory

extension StepCatalog {
  /// The product's own step kinds, for a playbook.
  public static func standard(_ playbook: Playbook) -> StepCatalog {
    StepCatalog(
      kind: { stepKind(for: $0) },
      seal: SealStep(playbook: playbook),
      drain: { spec in
        guard case .migrate(let settings) = spec.settings else { return nil }
        for case .recreate(let recreate) in playbook.steps.map(\.settings) {
          return DrainStep(for: settings, recreate: recreate)
        }
        return DrainStep(for: settings)
      },
      probe: { spec in
        guard case .migrate(let settings) = spec.settings else { return nil }
        return MigrateProbeStep(settings: settings)
      },
      schemaProbe: { spec in
        guard case .migrate(let settings) = spec.settings else { return nil }
        return SchemaProbeStep(settings: settings)
      },
      inspect: { context in
        for case .preflight(let settings) in playbook.steps.map(\.settings) {
          return PreflightStep(settings: settings).preflightProblems(context)
        }
        return ([], [])
      },
      misread: { verifyEnv($0, $1) })
  }
}

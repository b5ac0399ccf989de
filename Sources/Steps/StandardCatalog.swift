public import Engine
public import Inventory

extension StepCatalog {
  /// The product's own step kinds, for a playbook.
  public static func standard(_ playbook: Playbook) -> StepCatalog {
    StepCatalog(
      kind: { stepKind(for: $0) },
      seal: SealStep(playbook: playbook),
      drain: { drainStep(for: $0) },
      probe: { probeStep(for: $0) },
      inspect: { context in
        for case .preflight(let settings) in playbook.steps.map(\.settings) {
          return PreflightStep(settings: settings).preflightProblems(context)
        }
        return ([], [])
      },
      misread: { verifyEnv($0, $1) })
  }
}

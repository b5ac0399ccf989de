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
      role: RoleStep(), roleProbe: RoleProbeStep(), roles: { databaseRoles($0, $1, $2) },
      rotated: { rotatedConfig($0) }, carriedOver: { carriedConfig($0) },
      sealed: { SealStep(playbook: playbook).sealed($0) },
      inspect: { context in
        var findings: (problems: [String], warnings: [String]) = ([], [])
        for case .preflight(let settings) in playbook.steps.map(\.settings) {
          findings = PreflightStep(settings: settings).preflightProblems(context)
          break
        }
        // What a rotation runs has been deployed as it is.
        guard context.config != nil, context.rotation == nil else { return findings }
        let unmanaged = unmanagedServices(playbook.steps, context)
        findings.problems += [foreignProject(context)].compactMap(\.self)
        findings.problems += absentServices(playbook.steps, context) + unmanaged.problems
        findings.problems += stoppedDatabases(playbook.steps, context)
        findings.problems += staleValues(context)
        findings.problems += [strangeSchema(playbook.steps, context)].compactMap(\.self)
        findings.warnings += unmanaged.warnings
        return findings
      },
      unknownServices: { absentServices($0, $1) },
      memory: { context in
        var allowed = MemoryPlan.allowedPercent
        for case .preflight(let settings) in playbook.steps.map(\.settings) { allowed = settings.memoryCommit }
        return memoryCommitment(context, allowed: allowed)
      },
      misread: { verifyEnv($0, $1) })
  }
}

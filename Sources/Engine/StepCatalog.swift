public import Inventory

/// The step kinds as the engine needs them; the module Steps provides them, so that the engine knows no kind's insides.
public struct StepCatalog: Sendable {
  public var kind: @Sendable (StepSpec) -> any StepKind
  /// Internal, first after the plan: writes the release's effective configuration.
  public var seal: any StepKind
  /// Internal, before the backup where the schema policy needs writes to stop first (`down`, `restore`); nil: not needed.
  public var drain: @Sendable (StepSpec) -> (any StepKind)?
  /// Internal, before the plan: asks the new image which migrations are pending; nil: the step can't tell.
  public var probe: @Sendable (StepSpec) -> (any StepKind)?
  /// Internal, before the plan of a rollback: asks the database where the schema is; nil: it stays there anyway.
  public var schemaProbe: @Sendable (StepSpec) -> (any StepKind)?
  /// Internal, before the first container is replaced: gives database roles the passwords of the release that comes; before the plan,
  /// asks whether that can be done.
  public var role: any StepKind
  public var roleProbe: any StepKind
  /// Which values are passwords of database roles, by name, as far as the compose file tells.
  public var roles: @Sendable (ComposeConfig, Inventory, [ResolvedValue]) -> [String: String]
  /// What a rotation makes of the running configuration, the services outside the app's that have to be recreated for it, and why it can't be.
  public var rotated: @Sendable (StepContext) -> RotatedConfig
  /// What a rollback makes of the older release's configuration, where values were rotated since.
  public var carriedOver: @Sendable (StepContext) -> RotatedConfig
  /// The release that this deployment makes, and what it runs; nil: not known yet.
  public var sealed: @Sendable (StepContext) -> (release: Release, config: ComposeConfig)?
  /// Faults that forbid the deployment and warnings that don't, found in facts and configuration.
  public var inspect: @Sendable (StepContext) -> (problems: [String], warnings: [String])
  /// Services that steps or `--include` name and that neither the compose file nor, where there is none, the running release holds: a sentence each.
  public var unknownServices: @Sendable ([StepSpec], StepContext) -> [String]
  /// What the containers' limits add up to; nil: not known.
  public var memory: @Sendable (StepContext) -> MemoryCommitment?
  /// Names of env values that Compose read differently from what was written.
  public var misread: @Sendable (StepContext, ComposeConfig) -> [String]

  public init(
    kind: @escaping @Sendable (StepSpec) -> any StepKind, seal: any StepKind,
    drain: @escaping @Sendable (StepSpec) -> (any StepKind)?, probe: @escaping @Sendable (StepSpec) -> (any StepKind)?,
    schemaProbe: @escaping @Sendable (StepSpec) -> (any StepKind)? = { _ in nil },
    role: any StepKind, roleProbe: any StepKind,
    roles: @escaping @Sendable (ComposeConfig, Inventory, [ResolvedValue]) -> [String: String] = { _, _, _ in [:] },
    rotated: @escaping @Sendable (StepContext) -> RotatedConfig,
    carriedOver: @escaping @Sendable (StepContext) -> RotatedConfig,
    sealed: @escaping @Sendable (StepContext) -> (release: Release, config: ComposeConfig)? = { _ in nil },
    inspect: @escaping @Sendable (StepContext) -> (problems: [String], warnings: [String]),
    unknownServices: @escaping @Sendable ([StepSpec], StepContext) -> [String] = { _, _ in [] },
    memory: @escaping @Sendable (StepContext) -> MemoryCommitment? = { _ in nil },
    misread: @escaping @Sendable (StepContext, ComposeConfig) -> [String]
  ) {
    self.kind = kind
    self.seal = seal
    self.drain = drain
    self.probe = probe
    self.schemaProbe = schemaProbe
    self.role = role
    self.roleProbe = roleProbe
    self.roles = roles
    self.rotated = rotated
    self.carriedOver = carriedOver
    self.sealed = sealed
    self.inspect = inspect
    self.unknownServices = unknownServices
    self.memory = memory
    self.misread = misread
  }
}

/// What a rotation makes of the running configuration, and what a rollback across one makes of the older release's.
public struct RotatedConfig: Sendable, Equatable {
  public var config: ComposeConfig
  /// Services outside the app's that use the value, the database excepted.
  public var services: Set<String> = []
  public var problems: [String] = []
  public var warnings: [String] = []
  public init(config: ComposeConfig) { self.config = config }
}

extension StepKindName {
  /// When a step of this kind runs, wherever the playbook has it (`run` after the commit is `after`: the packer knows the place).
  public var phase: StepPhase {
    switch self {
    case .preflight, .release, .env, .pull: .prepare
    case .backup, .migrate, .recreate, .health, .run, .commit: .change
    case .prune: .after
    default: .change  // those that prepare a machine
    }
  }
}

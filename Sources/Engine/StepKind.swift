public import Diagnostics
public import Inventory

/// A kind of step: what it would change, and what travels to the host so that the host can do and undo it.
///
/// The scripts are files (playbooks/steps/<kind>.apply.sh and .undo.sh); parameters reach them as the quoted assignments of `params`.
public protocol StepKind: Sendable {
  /// What the step would change. Called after the preparing steps have run, so that the context knows images and configuration.
  func plan(_ context: StepContext) throws -> [Change]
  /// What travels to the host. No I/O.
  func payload(_ context: StepContext) throws -> StepPayload
}

/// When a step runs relative to the plan and to the commit.
public enum StepPhase: Int, Sendable, Comparable {
  /// Before the plan is shown: changes nothing that anybody could notice (preflight, release, env, pull).
  case prepare
  /// After the plan was accepted.
  case change
  /// After the commit: can't fail the deployment.
  case after

  public static func < (left: StepPhase, right: StepPhase) -> Bool { left.rawValue < right.rawValue }
}

/// A step directory's content (docs/runner.md, "Steps").
public struct StepPayload: Sendable, Equatable {
  public enum Side: String, Sendable { case host, client, commit }

  public struct File: Sendable, Equatable {
    /// Relative to the step directory.
    public var path: String
    public var mode: Int
    public var bytes: [UInt8]
    public init(_ path: String, mode: Int = 0o600, bytes: [UInt8]) {
      self.path = path
      self.mode = mode
      self.bytes = bytes
    }
  }

  /// Basename of the scripts in the bundle (`steps/<script>.apply.sh`).
  public var script: String
  public var side: Side
  /// Enforced by the host.
  public var timeout: Duration
  /// From here on something that users could notice may have changed.
  public var changes: Bool
  public var hasUndo: Bool
  public var parameters: [(name: String, value: String)]
  public var files: [File]
  /// Names of files in the step's directory, sent or made there, that hold secrets: the host removes them when the deployment is closed and no
  /// undo can want them any more.
  public var secrets: [String]

  public init(
    script: String, side: Side = .host, timeout: Duration, changes: Bool = false, hasUndo: Bool = false,
    parameters: [(name: String, value: String)] = [], files: [File] = [], secrets: [String] = []
  ) {
    self.script = script
    self.side = side
    self.timeout = timeout
    self.changes = changes
    self.hasUndo = hasUndo
    self.parameters = parameters
    self.files = files
    self.secrets = secrets
  }

  public static func == (left: StepPayload, right: StepPayload) -> Bool {
    left.script == right.script && left.side == right.side && left.timeout == right.timeout
      && left.changes == right.changes
      && left.hasUndo == right.hasUndo && left.files == right.files && left.secrets == right.secrets
      && left.parameters.elementsEqual(right.parameters, by: { $0 == $1 })
  }
}

/// Everything that a step may know when it plans and packs. A value.
public struct StepContext: Sendable {
  public var inventory: Inventory
  /// The host that is worked on.
  public var host: HostEntry?
  public var version: String
  /// The deployment's number; 0 in `plan`, which takes no lock.
  public var number: Int
  public var facts: HostFacts
  /// The running release, and what it runs (its effective.json), if there is one.
  public var current: Release?
  public var currentConfig: ComposeConfig?
  /// The new configuration as Compose on the host parsed it (after the env step); nil before.
  public var config: ComposeConfig?
  /// After pull: what each service's image reference resolved to.
  public var images: [String: Release.Image]
  /// Env values for the release by name (secret or not), in the template's order; nil: no template.
  public var env: [ResolvedValue]?
  /// The values in it that were generated for this deployment.
  public var generated: [String: Secret]
  /// What the template says of database roles (`@role`), by name.
  public var templateRoles: [String: String] = [:]
  /// `secrets rotate`: what it changes.
  public var rotation: Rotation?
  /// Rollback: the older release's env with the present values of the names that were rotated since; nil: none was.
  public var carriedOver: Rotation?
  /// Database roles that get another password.
  public var roleChanges: [RoleChange] = []
  /// Facts that steps of this deployment have reported so far: step name → key → value.
  public var reported: [String: [String: JSONValue]]
  public var options: DeployOptions
  /// The playbook's steps, for what one must know of another's settings; in a rollback those of the release that is left.
  public var steps: [StepSpec] = []
  /// Text of the playbook that is being run, and what its `${name}` stand for, for release.json.
  public var playbookText: String
  public var variables: [String: String] = [:]
  /// Files of the project, read by the client: path relative to the project folder → content and mode.
  public var projectFiles: [String: StepPayload.File]
  /// Rollback: the release that is gone back to.
  public var target: Release?
  public var targetConfig: ComposeConfig?
  /// Password for `inventory.registry`.
  public var registryPassword: Secret?
  /// Values of the names that steps ask for, from variables or the vault.
  public var values: [String: Secret] = [:]
  /// The client's clock when the facts arrived, in milliseconds since 1970; 0: unknown.
  public var now: Int64 = 0
  /// Lowercase hex SHA-256.
  public var sha256: @Sendable ([UInt8]) -> String

  public init(
    inventory: Inventory, version: String, number: Int, facts: HostFacts, options: DeployOptions = DeployOptions(),
    playbookText: String = "", sha256: @escaping @Sendable ([UInt8]) -> String
  ) {
    self.inventory = inventory
    self.version = version
    self.number = number
    self.facts = facts
    self.options = options
    self.playbookText = playbookText
    self.sha256 = sha256
    images = [:]
    generated = [:]
    reported = [:]
    projectFiles = [:]
  }

  /// The running release is one that was gone back to, and this deployment has its images: they run on the schema as it is, which their own
  /// migrations may not even know.
  public var isGoneBackTo: Bool {
    guard target == nil, let current, current.copyOf > 0, current.version == version else { return false }
    return inventory.services.app.allSatisfy { images[$0] != nil && images[$0]?.digest == current.images[$0]?.digest }
  }

  /// Rollback: the database's schema is where the older release wants it; false as long as nobody has asked.
  public var schemaStays: Bool { reported.values.contains { $0["schema_stays"]?.boolValue == true } }
}

public struct DeployOptions: Sendable, Equatable {
  public var skip: Set<String> = []
  public var include: Set<String> = []
  public var acceptDataLoss = false
  public init() {}
}

/// What the host said about itself (docs/runner.md, "Facts").
public struct HostFacts: Sendable, Equatable {
  public var values: [String: String]
  public init(_ values: [String: String] = [:]) { self.values = values }

  public subscript(key: String) -> String { values[key] ?? "" }
  public func integer(_ key: String) -> Int64? { Int64(self[key]) }
  public var currentRelease: Int? { Int(self["current"]) }
  public var hasSudo: Bool { self["sudo"] == "1" }

  /// Nil: the host hasn't told.
  public var machine: MachineSize? {
    guard let total = integer("memory_total") else { return nil }
    let cpus = Int(self["cpus"]) ?? 1
    // In thousandths: one and a half may keep two busy.
    let allowed = Int(self["cpu_limit"]).map { ($0 + 999) / 1000 } ?? cpus
    return MachineSize(memory: min(total, integer("memory_limit") ?? total), cpus: min(cpus, allowed))
  }
}

extension HostFacts {
  public init(parsing text: String) {
    var values: [String: String] = [:]
    for line in text.split(separator: "\n") {
      guard let equals = line.firstIndex(of: "=") else { continue }
      values[String(line[..<equals])] = String(line[line.index(after: equals)...])
    }
    self.init(values)
  }
}

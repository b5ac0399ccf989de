public import Diagnostics
public import Inventory

/// What the engine needs of the machine that it runs on. Tests give a scripted one.
public protocol DeploymentClient: Sendable {
  /// A new, started conversation with the host. Throws `OrchestrateError`.
  ///
  /// - Parameter asking: requests of a line each that travel with the command and cost no round trip of their own.
  func attach(asking: [String]) async throws -> Attachment
  /// The values of the release's env file; nil: the project has no template. Throws `ConfigurationError` with all faults.
  ///
  /// - Parameters:
  ///   - host: text of the running release's env file.
  ///   - generated: text of the values that the host keeps for good (generated.env).
  ///   - machine: what values that follow its memory are planned for; nil: not known.
  func resolveEnv(
    host: String?, generated: String?, current: Release?, hasVolumes: Bool, machine: MachineSize?
  ) throws -> ResolvedEnv?
  /// A new value for one name of the running release's env; the same one each time it is asked. Throws `OrchestrateError`, `ConfigurationError`.
  ///
  /// - Parameter host: text of the running release's env file, values in files included.
  func rotation(of key: String, host: String?, generated: String?, current: Release) throws -> Rotation
  /// The env of the release that a rollback goes back to, with the present values of the names that were rotated since it ran, and what is made from
  /// them; `after` is empty where there are none. In any case with what the template says of roles. Throws `ConfigurationError`.
  ///
  /// - Parameters:
  ///   - host: text of the running release's env file, values in files included.
  ///   - env: the same of the older release.
  func carriedOver(from current: Release, host: String?, to target: Release, env: String?) throws -> Rotation
  /// What a database may keep of a password; nil: it has characters that it isn't made for here.
  func verifier(of password: Secret) -> Secret?
  /// What no view may show of these env files, whoever set the values; everything in `generated` is secret.
  func secrets(envFiles: [String], generated: String?) -> [Secret]
  /// The password for the image registry; nil: the inventory names none. Throws `ConfigurationError` where it has no value.
  func registryPassword() throws -> Secret?
  /// Milliseconds since the epoch, UTC.
  func now() -> Int64
  /// Reads the playbook that a release on the host brought along, with the values that it was deployed with; of its steps those of some kinds alone.
  /// Throws `OrchestrateError`.
  func playbook(of release: Release, only kinds: Set<StepKindName>) throws -> Playbook
  /// Asks a person; nil: nobody can be asked here.
  func ask(_ question: DeploymentQuestion) async -> String?
  /// Proves over a new connection that the deploying user gets in, and may become root. Throws `OrchestrateError`.
  func reach() async throws
  /// Carries out a step that only the client can do.
  func perform(_ step: StepSpec, context: StepContext) async -> ClientStepResult
  func sleep(_ duration: Duration) async throws
  /// Seconds of a clock that never goes back.
  func uptime() -> Double
  /// UTC, RFC 3339, to the second.
  func timestamp() -> String
}

public struct ResolvedEnv: Sendable, Equatable {
  public var values: [ResolvedValue]
  /// Values that were generated now, by name: kept on the host for good before their first use.
  public var generated: [String: Secret]
  /// What the template says of database roles (`@role`), by name.
  public var roles: [String: String]
  public init(values: [ResolvedValue], generated: [String: Secret], roles: [String: String] = [:]) {
    self.values = values
    self.generated = generated
    self.roles = roles
  }
}

public struct ClientStepResult: Sendable, Equatable {
  public var succeeded: Bool
  /// Why not, for a person; or what was seen.
  public var message: String
  public var facts: [String: JSONValue]
  public init(succeeded: Bool, message: String, facts: [String: JSONValue] = [:]) {
    self.succeeded = succeeded
    self.message = message
    self.facts = facts
  }
}

/// What a deployment is asked to do.
public struct DeploymentRequest: Sendable {
  public enum Kind: Sendable, Equatable {
    case deploy(version: String)
    /// Nil: the release before.
    case rollback(to: String?)
    /// Another value for a name of the env file: a new release of the running version.
    case rotate(key: String)
    /// The user's own playbook, or a command that is a playbook (`backup`, `prune`): steps on the running release, nothing is committed.
    case run(playbook: String)
    /// The machine itself, as root; nothing is committed.
    case bootstrap
  }
  public var kind: Kind
  public var inventory: Inventory
  public var playbook: Playbook
  public var playbookText: String
  /// What the playbook's `${name}` stand for, by name, for release.json.
  public var variables: [String: String] = [:]
  public var options = DeployOptions()
  public var projectFiles: [String: StepPayload.File] = [:]
  /// Values of the names that steps ask for (`reverse-proxy`: a certificate's key).
  public var values: [String: Secret] = [:]
  /// How long the host waits for a sign of life from the client before it finishes or undoes by itself.
  public var lease: Duration = .seconds(60)
  public var lockWait: Duration = .zero
  /// Who asks, as the holder of the lock is shown.
  public var holder: LockHolder
  /// Plans that can't lose data go ahead without a question.
  public var assumeYes = false
  /// Nobody sits at a terminal.
  public var isInteractive = false
  /// Show what would change, and change nothing (bootstrap).
  public var planOnly = false
  /// Deploy with a watch: the playbook by which a rollback would go, for the way back that is shipped.
  public var wayBack: Playbook?
  /// Follow the watch behind the commit.
  public var follow = true
  /// Hand the deployment to the host once everything has been sent, and leave.
  public var detach = false
  /// A random name, unique for this deployment: `[a-z0-9]{16}`.
  public var nonce: String

  public init(
    kind: Kind, inventory: Inventory, playbook: Playbook, playbookText: String, holder: LockHolder, nonce: String
  ) {
    self.kind = kind
    self.inventory = inventory
    self.playbook = playbook
    self.playbookText = playbookText
    self.holder = holder
    self.nonce = nonce
  }

  public var command: String {
    switch kind {
    case .deploy: "deploy"
    case .rollback: "rollback"
    case .rotate: "rotate"
    case .run(let name): name
    case .bootstrap: "bootstrap"
    }
  }

  /// Names the directories on the host.
  public var project: String {
    if case .bootstrap = kind { HostPaths.bootstrapProject } else { inventory.project }
  }
}

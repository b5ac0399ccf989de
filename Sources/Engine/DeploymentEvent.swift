public import Diagnostics

/// What happens in a deployment, as a view needs to know it. Emitted by the engine in the order in which it happens; each
/// view decides what to show. Texts that came from a host are as the host sent them: views mask them (`Masker`).
public enum DeploymentEvent: Sendable, Equatable {
  /// The first event: what is about to be done, with the steps in the playbook's order.
  case starting(DeploymentHeading)
  /// Values that must never be shown from here on. May come more than once (the vault's first, generated ones later).
  case secrets([Secret])

  case connecting(host: String, address: String)
  case connected(host: String, timings: ConnectTimings)
  /// The connection was lost; the deployment goes on, on the host. `since` is how long ago, in seconds.
  case reconnecting(host: String, attempt: Int, since: Double)
  case reconnected(host: String)

  /// The lock is held by another deployment, and `--lock-wait` allows waiting for it.
  /// `place`: in the queue, 1 for the one who gets it next; nil: the host has none.
  case waitingForLock(host: String, holder: LockHolder, limit: Double, place: Int? = nil)
  /// The lock is ours. `from` is the version that runs now, if any.
  case opened(host: String, number: Int, from: String?, to: String)
  /// A deployment that somebody left open was closed before ours was opened.
  case recovered(host: String, number: Int, outcome: String)

  case planned(Plan)
  case asked(DeploymentQuestion)
  case answered(question: String, answer: String)

  case stepStarted(host: String, step: String)
  case stepEnded(host: String, step: String, ending: StepEnding)
  /// Left out by `--skip`.
  case stepSkipped(host: String, step: String, reason: String)
  case stepUndone(host: String, step: String, status: Int, attempts: Int)
  /// One line of what a step (or the runner: `step` nil) printed, without its line feed.
  case log(host: String, step: String?, text: String)
  case fact(host: String, step: String, key: String, value: JSONValue)

  /// `reason` is the runner's word: `step-failed`, `aborted`, `lease`, `recovery`.
  case undoing(host: String, reason: String, text: String)
  case committed(host: String, release: Int)
  /// The commit is done; the host watches the new release for so many seconds.
  case watching(host: String, seconds: Double)
  /// The new release isn't well: the host goes back by itself, as the deployment `rollback`.
  case breached(host: String, text: String, rollback: Int)
  /// The watch has ended without a breach. `reason` is the runner's word: `over`, `superseded` (by the deployment `by`), `aborted`, `gave-up`.
  case watched(host: String, reason: String, by: Int?)
  case closed(host: String, outcome: DeploymentOutcome, healthy: Bool?, recovery: Bool)

  case notice(host: String?, text: String)
  case warning(host: String?, text: String)
  /// The last event, exactly once.
  case finished(DeploymentSummary)
}

/// What is about to be done.
public struct DeploymentHeading: Sendable, Equatable, Codable {
  /// `deploy`, `rollback`, `run`, `restore`, `attach`.
  public var command: String
  public var environment: String
  public var app: String
  /// The version asked for, where it is known already.
  public var to: String?
  public var hosts: [String]
  public var steps: [Step]

  public struct Step: Sendable, Equatable, Codable {
    public var name: String
    public var kind: String
    public init(name: String, kind: String) {
      self.name = name
      self.kind = kind
    }
  }

  public init(
    command: String, environment: String, app: String, to: String? = nil, hosts: [String] = [], steps: [Step] = []
  ) {
    self.command = command
    self.environment = environment
    self.app = app
    self.to = to
    self.hosts = hosts
    self.steps = steps
  }
}

/// Where the time of connecting went, in seconds; nil: not measured.
public struct ConnectTimings: Sendable, Equatable, Codable {
  public var tcp: Double?
  public var handshake: Double?
  public var authentication: Double?
  public var total: Double

  public init(total: Double, tcp: Double? = nil, handshake: Double? = nil, authentication: Double? = nil) {
    self.total = total
    self.tcp = tcp
    self.handshake = handshake
    self.authentication = authentication
  }
}

/// A question to a person. On a terminal it is answered there; elsewhere a flag answers it, or the command fails.
public struct DeploymentQuestion: Sendable, Equatable, Codable {
  public var id: String
  public var text: String
  /// The answers, the first of which is what plain Return means; empty: a free text.
  public var choices: [String]
  /// How many seconds the answer is waited for: the lock is held meanwhile.
  public var timeout: Double?

  public init(id: String, text: String, choices: [String], timeout: Double? = nil) {
    self.id = id
    self.text = text
    self.choices = choices
    self.timeout = timeout
  }
}

/// How a step ended on a host.
public struct StepEnding: Sendable, Hashable, Codable {
  /// 0: success.
  public var status: Int
  public var seconds: Double
  /// Name of the signal that it died from (`KILL`), if any.
  public var signal: String?
  /// It ran into its deadline.
  public var timedOut: Bool

  public var succeeded: Bool { status == 0 && signal == nil && !timedOut }

  public init(status: Int, seconds: Double, signal: String? = nil, timedOut: Bool = false) {
    self.status = status
    self.seconds = seconds
    self.signal = signal
    self.timedOut = timedOut
  }
}

/// How a deployment ended on its host (docs/runner.md, `closed`).
public enum DeploymentOutcome: String, Sendable, Codable, CaseIterable {
  case committed
  /// Failed before anything that users could notice had changed.
  case unchanged
  case undone
  /// An undo failed three times: a person must look.
  case stuck
  /// It was stuck, and a person has settled it by hand (`rollback --abandon`).
  case abandoned
  /// Not known to the client: it detached, or lost the connection.
  case unknown
}

/// How a deployment ended, for people and for programs. One of the documented JSON documents (docs/json-output.md).
public struct DeploymentSummary: Sendable, Equatable, Codable {
  public var command: String
  public var environment: String
  public var app: String
  public var hosts: [String]
  /// Nil: no deployment was opened.
  public var number: Int?
  public var from: String?
  public var to: String?
  /// Nil: no deployment was opened (nothing to do, or it failed before).
  public var outcome: DeploymentOutcome?
  /// Whether what runs now passed its health gate; nil: not known.
  public var healthy: Bool?
  /// True: what isn't healthy after the undo wasn't before the deployment either. Nil otherwise.
  public var unhealthyBefore: Bool?
  public var exitStatus: Int32
  public var seconds: Double
  /// From the old container's stop to the new one's first healthy answer, in milliseconds; nil: nothing was stopped, or
  /// not measured.
  public var downtimeMilliseconds: Int?
  /// From the verdict (the gate's, or the failure of another step) to the first healthy answer of the version that was there before, in milliseconds;
  /// nil: nothing was undone, or it never went away.
  public var rollbackMilliseconds: Int?
  /// Name of the backup that this deployment took.
  public var restorePoint: String?
  public var steps: [StepTiming]
  /// Round trips after authentication, for `--timings`.
  public var roundTrips: Int?
  /// The command that a person would type next.
  public var next: String?
  public var problem: ProblemDocument?
  /// How the watch ended; nil: there was none, or it isn't known.
  public var watch: WatchEnding?

  /// The end of a watch (docs/runner.md, `watched` and `breached`).
  public struct WatchEnding: Sendable, Equatable, Codable {
    /// `over`, `breached`, `superseded`, `aborted`, `gave-up`.
    public var reason: String
    /// What was breached.
    public var text: String?
    /// The deployment that went back, or that superseded it.
    public var by: Int?
    public init(reason: String, text: String? = nil, by: Int? = nil) {
      self.reason = reason
      self.text = text
      self.by = by
    }
  }

  public struct StepTiming: Sendable, Equatable, Codable {
    public var host: String
    public var step: String
    public var seconds: Double
    /// `done`, `failed`, `undone`, `skipped`.
    public var state: String
    public init(host: String, step: String, seconds: Double, state: String) {
      self.host = host
      self.step = step
      self.seconds = seconds
      self.state = state
    }
  }

  public init(
    command: String, environment: String, app: String, hosts: [String] = [], exitStatus: ExitStatus, seconds: Double
  ) {
    self.command = command
    self.environment = environment
    self.app = app
    self.hosts = hosts
    self.exitStatus = exitStatus.rawValue
    self.seconds = seconds
    steps = []
  }

  enum CodingKeys: String, CodingKey {
    case command, environment, app, hosts, number, from, to, outcome, healthy, seconds, steps, next, problem, watch
    case exitStatus = "exit_status"
    case unhealthyBefore = "unhealthy_before"
    case downtimeMilliseconds = "downtime_ms"
    case rollbackMilliseconds = "rollback_ms"
    case restorePoint = "restore_point"
    case roundTrips = "round_trips"
  }
}

/// An `OrchestrateError` as a document.
public struct ProblemDocument: Sendable, Equatable, Codable {
  public var code: String
  public var summary: String
  public var host: String?
  public var step: String?
  public var cause: String?
  public var state: String?
  public var remedy: String?

  public init(_ error: OrchestrateError) {
    code = error.code.rawValue
    summary = error.summary
    host = error.host
    step = error.step
    cause = error.cause
    state = error.state
    remedy = error.remedy
  }

  public var error: OrchestrateError {
    OrchestrateError(
      ErrorCode(code), summary, host: host, step: step, cause: cause, state: state, remedy: remedy)
  }
}

/// Who holds a project's lock, as the opener wrote it on the host (docs/runner.md, `holder`).
public struct LockHolder: Sendable, Equatable, Codable {
  /// `user@machine`.
  public var who: String
  /// Address that the connection came from, or what CI job it was.
  public var from: String?
  public var reason: String?
  /// UTC, RFC 3339.
  public var since: String?
  public var number: Int?
  public var version: String?
  public var command: String?
  /// It is a watch, over the deployment of this number, and until when (UTC, RFC 3339). It makes way for a deploy, a rollback and a restore.
  public var watching: Int?
  public var until: String?

  public init(
    who: String, from: String? = nil, reason: String? = nil, since: String? = nil, number: Int? = nil,
    version: String? = nil, command: String? = nil, watching: Int? = nil, until: String? = nil
  ) {
    self.watching = watching
    self.until = until
    self.who = who
    self.from = from
    self.reason = reason
    self.since = since
    self.number = number
    self.version = version
    self.command = command
  }
}

/// What a deployment would change, by step: a value, shown before it is applied.
public struct Plan: Sendable, Equatable, Codable {
  public var environment: String
  public var app: String
  /// Version that runs now, if any.
  public var from: String?
  public var to: String
  public var steps: [StepPlan]
  /// Nil: not known (the host hasn't told its memory, or the configuration isn't known).
  public var memory: MemoryCommitment?
  /// Faults that forbid the deployment, found while planning (preflight): all of them.
  public var problems: [String] = []
  public var warnings: [String] = []
  /// Nothing to do. What would only be tidied up afterwards doesn't count.
  public var isEmpty: Bool { steps.allSatisfy { $0.changes.isEmpty || $0.kind == "prune" } }

  /// Data may be lost by carrying it out.
  public var losesData: Bool { steps.contains { $0.changes.contains(where: \.losesData) } }

  public init(environment: String, app: String, from: String?, to: String, steps: [StepPlan] = []) {
    self.environment = environment
    self.app = app
    self.from = from
    self.to = to
    self.steps = steps
  }
}

public struct StepPlan: Sendable, Equatable, Codable {
  public var step: String
  public var kind: String
  public var changes: [Change]
  /// The step was left out, by `--skip` or because the host doesn't have its role.
  public var skipped: Bool = false
  /// Why it was left out.
  public var reason: String?

  public init(step: String, kind: String, changes: [Change]) {
    self.step = step
    self.kind = kind
    self.changes = changes
  }
}

/// One thing that a step would do.
public struct Change: Sendable, Equatable, Codable {
  public enum Action: String, Sendable, Codable {
    case create, update, delete, recreate, run, unknown
  }
  public var action: Action
  /// What is changed: `service bot`, `env LOG_LEVEL`, `image bot`, `migration 0003`, `file redis.conf`.
  public var subject: String
  /// Lines of the difference, each beginning with `+`, `-`, `~` or a blank. Never a secret.
  public var detail: [String]
  /// Data may be lost by it, or by undoing it: asks, or needs its flag.
  public var losesData: Bool

  public init(_ action: Action, _ subject: String, detail: [String] = [], losesData: Bool = false) {
    self.action = action
    self.subject = subject
    self.detail = detail
    self.losesData = losesData
  }
}

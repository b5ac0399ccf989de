/// What went wrong, as something that code can act upon. Tests match codes, never text.
public struct ErrorCode: RawRepresentable, Hashable, Sendable, Codable, CustomStringConvertible {
  public var rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
  public init(_ rawValue: String) { self.rawValue = rawValue }
  public var description: String { rawValue }

  public static let failed = ErrorCode("failed")
  public static let rolledBack = ErrorCode("rolled-back")
  public static let rollbackFailed = ErrorCode("rollback-failed")
  public static let locked = ErrorCode("locked")
  public static let unreachable = ErrorCode("unreachable")
  public static let hostKey = ErrorCode("host-key")
  public static let authentication = ErrorCode("authentication")
  public static let outcomeUnknown = ErrorCode("outcome-unknown")
  public static let usage = ErrorCode("usage")
  public static let configuration = ErrorCode("configuration")
  public static let internalFault = ErrorCode("internal")
}

/// An error for a tired person: what happened, on which host and step, why, what is true now, which command comes next.
public struct OrchestrateError: Error, Sendable, Equatable {
  public var code: ErrorCode
  /// What happened, in one line.
  public var summary: String
  public var host: String?
  public var step: String?
  /// Why, as far as is known: the remote message, the last answer. May hold several lines.
  public var cause: String?
  /// What is true now ("nothing was changed", "v1.0.0 answers again").
  public var state: String?
  /// The command or the action that comes next.
  public var remedy: String?

  public init(
    _ code: ErrorCode, _ summary: String, host: String? = nil, step: String? = nil, cause: String? = nil,
    state: String? = nil, remedy: String? = nil
  ) {
    self.code = code
    self.summary = summary
    self.host = host
    self.step = step
    self.cause = cause
    self.state = state
    self.remedy = remedy
  }
}

/// The exit statuses of the contract with users (README, "Exit statuses").
public enum ExitStatus: Int32, Sendable, Codable, CaseIterable {
  case done = 0
  case failed = 1
  case planHasChanges = 2
  case rolledBack = 3
  case rollbackFailed = 4
  case locked = 5
  case unreachable = 6
  case outcomeUnknown = 7
  case usage = 64
  case configuration = 78

  /// The one table that maps error codes to exit statuses.
  public init(_ code: ErrorCode) {
    switch code {
    case .rolledBack: self = .rolledBack
    case .rollbackFailed: self = .rollbackFailed
    case .locked: self = .locked
    case .unreachable, .hostKey, .authentication: self = .unreachable
    case .outcomeUnknown: self = .outcomeUnknown
    case .usage: self = .usage
    case .configuration: self = .configuration
    default: self = .failed
    }
  }
}

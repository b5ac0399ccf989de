internal import Diagnostics

/// Where things lie on the host (docs/runner.md, "Files").
public struct HostPaths: Sendable {
  public let state: String
  public let opt: String
  public init(project: String) {
    state = "/var/lib/orchestrate/\(project)"
    opt = "/opt/\(project)"
  }
  /// What prepares the machine has directories of its own, which belong to root, beside those of the projects.
  public static let bootstrapProject = "bootstrap"
  public static let bootstrapBase = "/var/lib/orchestrate-host"
  public var current: String { "\(opt)/current" }
  /// A name that only the conversation knows (docs/runner.md).
  public var previous: String { "\(opt)/previous" }
  /// Of values that containers get in files.
  public var secrets: String { "\(opt)/secrets" }
  public func release(_ number: Int) -> String { "\(opt)/releases/\(number)" }
  public func deployment(_ number: Int) -> String { "\(state)/deployments/\(number)" }

  /// The fault of a running release that nobody could undo to, with the way out; met before anything is opened.
  func withCure(_ error: OrchestrateError) -> OrchestrateError {
    var error = error
    let cure =
      "on the host, point \(current) at a release that is whole (ls \(opt)/releases; ln -sfn releases/NUMBER \(current)), "
      + "or remove it: then the next deploy is a first one"
    error.remedy = error.remedy.map { "\($0) Else \(cure)" } ?? cure
    error.state = "nothing was changed"
    return error
  }
}

public import Engine

/// The commit point itself is the runner's; its script runs after `committed` and makes the new containers come back
/// by themselves.
public struct CommitStep: StepKind {
  public init() {}

  public func plan(_ context: StepContext) -> [Change] { [] }

  public func payload(_ context: StepContext) -> StepPayload {
    StepPayload(
      script: "commit", side: .commit, timeout: .seconds(60),
      parameters: [("IDENTITY", identity(of: context.inventory))])
  }
}

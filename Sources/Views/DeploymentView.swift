public import Engine

/// Shows a deployment. Events may come from any thread, in order; a view never throws and never stops a deployment.
///
/// A view prints the `problem` of the summary that ends a deployment: whoever runs the deployment doesn't print it
/// again.
public protocol DeploymentView: Sendable {
  func handle(_ event: DeploymentEvent)
  /// Called about ten times per second while a deployment runs: redraws and signs of life hang on it.
  func tick()
}

extension DeploymentView {
  public func tick() {}
}

/// `--output`.
public enum OutputFormat: String, Sendable, CaseIterable {
  case human, plain, json
}

/// The view for a format.
/// - Parameters:
///   - github: the process runs as a step of GitHub Actions (GITHUB_ACTIONS=true), which matters for `plain`.
///   - appendSummary: appends Markdown to $GITHUB_STEP_SUMMARY.
public func makeDeploymentView(
  _ format: OutputFormat, _ context: ViewContext, github: Bool = false,
  appendSummary: @escaping @Sendable (String) -> Void = { _ in }
) -> any DeploymentView {
  switch format {
  case .human: HumanView(context)
  case .plain: github ? GitHubView(context, appendSummary: appendSummary) : PlainView(context)
  case .json: JSONView(context)
  }
}

import Diagnostics
public import Engine
public import Inventory

/// A script of the user's own, with an undo if there is one. It runs on the host in its step's directory, with VERSION and the ORCH_ variables.
public struct RunStep: StepKind {
  public var settings: RunSettings

  public init(settings: RunSettings = RunSettings()) { self.settings = settings }

  public func plan(_ context: StepContext) -> [Change] {
    guard context.changesSomething else { return [] }
    let undo = settings.undo.map { "  undo: \($0)" } ?? "  no undo"
    return [Change(.run, "script \(settings.script)", detail: [undo])]
  }

  public func payload(_ context: StepContext) throws -> StepPayload {
    var files = [try file("script", settings.script, context)]
    if let undo = settings.undo { files.append(try file("undo-script", undo, context)) }
    return StepPayload(
      script: "run", timeout: settings.timeout, changes: true, hasUndo: settings.undo != nil,
      parameters: [("VERSION", context.version)], files: files)
  }

  private func file(_ name: String, _ path: String, _ context: StepContext) throws -> StepPayload.File {
    guard let file = context.projectFiles[path] else {
      throw OrchestrateError(
        .configuration, "the script \(path) isn't in the project folder", state: "nothing was changed",
        remedy: "create it, or correct the run step's script")
    }
    return StepPayload.File(name, mode: 0o700, bytes: file.bytes)
  }
}

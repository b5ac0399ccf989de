public import Engine
import Diagnostics
import Synchronization

/// A deployment for a program: one JSON object per line on stdout and nothing else (docs/json-output.md).
public final class JSONView: DeploymentView {
  private let context: ViewContext
  /// Serialises lines.
  private let gate = Mutex(())

  public init(_ context: ViewContext) { self.context = context }

  public func handle(_ event: DeploymentEvent) {
    if case .secrets(let secrets) = event {
      context.masker.add(secrets)
      return
    }
    var object = JSONObject()
    let (name, members) = document(of: event)
    object["event"] = .string(name)
    object["time"] = .string(context.now().precise)
    for (key, value) in members { object[key] = value }
    let line = JSONValue.object(object).masked(by: context.masker).text()
    gate.withLock { _ in context.output.write(line + "\n", to: .standardOutput) }
  }
}

/// Name and members of an event's JSON object. Members without a value are left out.
func document(of event: DeploymentEvent) -> (name: String, members: [(String, JSONValue)]) {
  func string(_ key: String, _ value: String?) -> [(String, JSONValue)] { value.map { [(key, .string($0))] } ?? [] }
  func seconds(_ key: String, _ value: Double) -> [(String, JSONValue)] { [(key, jsonValue(of: [value])[0] ?? .null)] }
  func whole(_ key: String, _ value: some BinaryInteger) -> [(String, JSONValue)] { [(key, .int(value))] }
  func merged(_ value: some Encodable) -> [(String, JSONValue)] {
    jsonValue(of: value).objectValue?.members.map { ($0.key, $0.value) } ?? []
  }

  switch event {
  case .starting(let heading): return ("starting", merged(heading))
  case .secrets: return ("secrets", [])
  case .connecting(let host, let address): return ("connecting", string("host", host) + string("address", address))
  case .connected(let host, let timings):
    return ("connected", string("host", host) + [("timings", jsonValue(of: timings))])
  case .reconnecting(let host, let attempt, let since):
    return ("reconnecting", string("host", host) + whole("attempt", attempt) + seconds("lost_for", since))
  case .reconnected(let host): return ("reconnected", string("host", host))
  case .waitingForLock(let host, let holder, let limit, let place):
    return (
      "waiting_for_lock",
      string("host", host) + [("holder", jsonValue(of: holder))] + seconds("limit", limit)
        + (place.map { whole("place", $0) } ?? [])
    )
  case .opened(let host, let number, let from, let to):
    return ("opened", string("host", host) + whole("number", number) + string("from", from) + string("to", to))
  case .recovered(let host, let number, let outcome):
    return ("recovered", string("host", host) + whole("number", number) + string("outcome", outcome))
  case .planned(let plan): return ("planned", [("plan", jsonValue(of: plan))])
  case .asked(let question): return ("asked", merged(question))
  case .answered(let question, let answer): return ("answered", string("id", question) + string("answer", answer))
  case .stepStarted(let host, let step): return ("step_started", string("host", host) + string("step", step))
  case .stepEnded(let host, let step, let ending):
    return ("step_ended", string("host", host) + string("step", step) + merged(ending))
  case .stepSkipped(let host, let step, let reason):
    return ("step_skipped", string("host", host) + string("step", step) + string("reason", reason))
  case .stepUndone(let host, let step, let status, let attempts):
    return (
      "step_undone", string("host", host) + string("step", step) + whole("status", status) + whole("attempts", attempts)
    )
  case .log(let host, let step, let text):
    return ("log", string("host", host) + string("step", step) + string("text", text))
  case .fact(let host, let step, let key, let value):
    return ("fact", string("host", host) + string("step", step) + string("key", key) + [("value", value)])
  case .undoing(let host, let reason, let text):
    return ("undoing", string("host", host) + string("reason", reason) + string("text", text))
  case .committed(let host, let release): return ("committed", string("host", host) + whole("release", release))
  case .watching(let host, let time): return ("watching", string("host", host) + seconds("seconds", time))
  case .breached(let host, let text, let rollback):
    return ("breached", string("host", host) + string("text", text) + whole("rollback", rollback))
  case .watched(let host, let reason, let by):
    return ("watched", string("host", host) + string("reason", reason) + (by.map { whole("by", $0) } ?? []))
  case .closed(let host, let outcome, let healthy, let recovery):
    return (
      "closed",
      string("host", host) + string("outcome", outcome.rawValue) + (healthy.map { [("healthy", .bool($0))] } ?? [])
        + [("recovery", .bool(recovery))]
    )
  case .notice(let host, let text): return ("notice", string("host", host) + string("text", text))
  case .warning(let host, let text): return ("warning", string("host", host) + string("text", text))
  case .finished(let summary): return ("finished", [("summary", jsonValue(of: summary))])
  }
}

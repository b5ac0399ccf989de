import Engine

/// What is known of each step on each host: the state behind the live list and the closing lists. A value; no I/O.
struct StepBoard {
  enum State: Equatable {
    case waiting
    /// Since a reading of the clock, in milliseconds.
    case running(since: Int64)
    case done(seconds: Double)
    case failed(seconds: Double, StepEnding)
    case skipped
    case undone
    case undoFailed
  }

  struct Row {
    var name: String
    var hosts: [(host: String, state: State)] = []

    subscript(host: String) -> State {
      get { hosts.first { $0.host == host }?.state ?? .waiting }
      set {
        if let index = hosts.firstIndex(where: { $0.host == host }) {
          hosts[index].state = newValue
        } else {
          hosts.append((host, newValue))
        }
      }
    }

    var isRunning: Bool { hosts.contains { if case .running = $0.state { true } else { false } } }
    var hasBegun: Bool { !hosts.isEmpty }
  }

  private(set) var rows: [Row] = []

  mutating func expect(_ steps: [DeploymentHeading.Step]) {
    for step in steps where !rows.contains(where: { $0.name == step.name }) { rows.append(Row(name: step.name)) }
  }

  mutating func set(_ step: String, on host: String, _ state: State) {
    if let index = rows.firstIndex(where: { $0.name == step }) {
      rows[index][host] = state
    } else {
      var row = Row(name: step)
      row[host] = state
      // A step that the playbook doesn't name (the runner's own) stands where it happened: before what still waits.
      let place = rows.firstIndex { !$0.hasBegun } ?? rows.endIndex
      rows.insert(row, at: place)
    }
  }

  func state(_ step: String, on host: String) -> State { rows.first { $0.name == step }?[host] ?? .waiting }
}

extension StepEnding {
  /// Why it failed, in a few words: `exit status 1`, `killed by SIGKILL`, `deadline passed`.
  var reason: String {
    if timedOut { return "deadline passed" }
    if let signal { return "killed by \(signal.hasPrefix("SIG") ? signal : "SIG\(signal)")" }
    return "exit status \(status)"
  }
}

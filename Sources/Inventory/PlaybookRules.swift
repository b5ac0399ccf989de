import ConfigSource
import Diagnostics

/// What has to hold between the steps of a playbook (docs/playbooks.md, "Order").
struct PlaybookRules {
  let playbook: Playbook
  /// False: some steps couldn't be read, so that nothing can be said to be missing.
  let isComplete: Bool
  let watchPlace: SourceLocation
  let stepsPlace: SourceLocation
  let diagnostics: DiagnosticCollector

  /// They run before the plan is shown, and change nothing that anybody could notice.
  static let preparing: Set<StepKindName> = [.preflight, .release, .env, .pull]
  static let single: Set<StepKindName> = [.preflight, .release, .env, .pull, .commit]

  func check() {
    checkHostSteps()
    guard playbook.name != Self.bootstrap else { return checkProxies() }
    checkPreparing()
    checkSingle()
    checkCommit()
    checkMigrate()
  }

  static let bootstrap = "bootstrap"

  /// What prepares a machine and what deploys to it are playbooks of their own: they run as other users, under other locks.
  private func checkHostSteps() {
    let isBootstrap = playbook.name == Self.bootstrap
    for step in playbook.steps where step.kind.preparesHost != isBootstrap {
      diagnostics.error(
        at: step.location,
        isBootstrap
          ? "`\(step.kind.rawValue)` doesn't prepare a machine: it belongs in another playbook"
          : "`\(step.kind.rawValue)` prepares a machine: it belongs in playbooks/bootstrap.yml",
        help: isBootstrap ? nil : "orchestrate bootstrap runs it, as root")
    }
  }

  /// What they build on comes first: the open ports 80 and 443, and sshd's own port.
  private func checkProxies() {
    for (kind, before, why) in [
      (StepKindName.reverseProxy, StepKindName.firewall, "which opens the ports 80 and 443"),
      (.fail2ban, .sshHardening, "which may change sshd's port"),
    ] {
      guard let last = playbook.steps.lastIndex(where: { $0.kind == before }) else { continue }
      for step in playbook.steps[..<last] where step.kind == kind {
        diagnostics.error(
          at: step.location, "`\(kind.rawValue)` stands before `\(before.rawValue)`, \(why)", help: "move it behind")
      }
    }
    var seen: Set<String> = []
    for step in playbook.steps {
      guard case .host(.reverseProxy(let settings)) = step.settings else { continue }
      for name in [settings.domain] + settings.aliases where !seen.insert(name).inserted && !name.isEmpty {
        diagnostics.error(at: step.location, "a second `reverse-proxy` for \(name)", help: "a name has one site")
      }
    }
  }

  private func checkPreparing() {
    var other: StepSpec?
    for step in playbook.steps {
      if !Self.preparing.contains(step.kind) {
        other = other ?? step
      } else if let other {
        diagnostics.error(
          at: step.location,
          "`\(step.kind.rawValue)` stands after `\(other.kind.rawValue)`, which already changes something",
          help: "preflight, release, env and pull come first: they run before the plan is shown")
      }
    }
  }

  private func checkSingle() {
    for kind in StepKindName.allCases where Self.single.contains(kind) {
      for step in playbook.steps.filter({ $0.kind == kind }).dropFirst() {
        diagnostics.error(at: step.location, "a second `\(kind.rawValue)` step", help: "a playbook has one at most")
      }
    }
  }

  private func checkCommit() {
    guard let index = playbook.steps.firstIndex(where: { $0.kind == .commit }) else {
      guard isComplete else { return }
      if ["deploy", "rollback", "rotate"].contains(playbook.name) {
        diagnostics.error(
          at: stepsPlace, "the playbook \(playbook.name) has no `commit` step",
          help: "add - commit after the health steps")
      }
      if playbook.watch != nil {
        diagnostics.error(at: watchPlace, "`watch` begins after the commit, and this playbook has none")
      }
      return
    }
    let commit = playbook.steps[index]
    if isComplete, !playbook.steps[..<index].contains(where: { $0.kind == .health }) {
      diagnostics.error(
        at: commit.location, "`commit` without a health gate before it",
        help: "add a health step between recreate and commit")
    }
    if isComplete, !playbook.steps[..<index].contains(where: { $0.kind == .release }) {
      diagnostics.error(
        at: commit.location, "`commit` without a `release` step: there is nothing to commit",
        help: "add - release near the beginning")
    }
    for step in playbook.steps[(index + 1)...]
    where ![.prune, .run, .commit].contains(step.kind) && !Self.preparing.contains(step.kind) {
      diagnostics.error(
        at: step.location, "`\(step.kind.rawValue)` stands after `commit`, where nothing can be undone",
        help: "only prune and run may follow the commit")
    }
    for step in playbook.steps[..<index] where step.kind == .prune {
      diagnostics.error(
        at: step.location, "`prune` before `commit` could remove what an undo needs", help: "move it behind commit")
    }
  }

  private func checkMigrate() {
    for (index, step) in playbook.steps.enumerated() {
      guard case .migrate(let settings) = step.settings, settings.rollback == .restore else { continue }
      if playbook.watch != nil {
        diagnostics.error(
          at: watchPlace,
          "`watch` can't go together with `rollback: restore`: going back by itself would lose what was written since",
          help: "remove watch, or choose the policy compatible or down")
      }
      if isComplete, !playbook.steps[..<index].contains(where: { $0.kind == .backup }) {
        diagnostics.error(
          at: step.location, "`rollback: restore` needs a restore point", help: "add a backup step before migrate")
      }
    }
  }
}

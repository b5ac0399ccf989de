public import Engine
import Diagnostics

/// How a deployment ended, for a person: the outcome, then from, to, duration, downtime (or how soon the old version answered
/// again), restore point, what to do next. The problem isn't part of it: that goes to stderr.
public func text(
  of summary: DeploymentSummary, style: Style = Style(colour: false), timings: Bool = false
) -> String {
  var out = "\(headline(of: summary, style))\n"
  var fields: [(String, String)] = []
  if let number = summary.number { fields.append(("deployment", "#\(number)")) }
  if let from = summary.from { fields.append(("from", printable(from))) }
  if let to = summary.to { fields.append(("to", printable(to))) }
  fields.append(("duration", durationText(summary.seconds)))
  if let downtime = summary.downtimeMilliseconds {
    fields.append(("downtime", downtime < 10_000 ? "\(downtime) ms" : durationText(Double(downtime) / 1000)))
  }
  if let rollback = summary.rollbackMilliseconds {
    fields.append(("answers again", "\(durationText(Double(rollback) / 1000)) after the verdict"))
  }
  if let restorePoint = summary.restorePoint { fields.append(("restore point", printable(restorePoint))) }
  if timings {
    if let roundTrips = summary.roundTrips { fields.append(("round trips", String(roundTrips))) }
    for step in summary.steps where step.state != "skipped" {
      let host = summary.hosts.count > 1 ? " on \(step.host)" : ""
      fields.append(("  \(step.step)\(host)", durationText(step.seconds)))
    }
  }
  if let next = summary.next, next != summary.problem?.remedy { fields.append(("next", style.cyan(printable(next)))) }
  let width = fields.map { columns(of: $0.0) }.max() ?? 0
  for (name, value) in fields { out += "  \(style.dim(padded(name, to: width)))  \(value)\n" }
  return out
}

func headline(of summary: DeploymentSummary, _ style: Style) -> String {
  let what = "\(summary.app) in \(summary.environment)"
  let target = summary.to.map(printable) ?? "the new version"
  let prepares = summary.command == "bootstrap"
  let before =
    prepares
    ? "the machine is as it was before" : summary.from.map { "\(printable($0)) runs" } ?? "nothing runs, as before"
  switch (summary.outcome, ExitStatus(rawValue: summary.exitStatus)) {
  case (.committed, .done) where prepares: return style.paint("✓ \(what): the machine is prepared", "1;32")
  case (.committed, .done): return style.paint("✓ \(what) runs \(target)", "1;32")
  case (.committed, _): return style.alarm("✗ \(what): \(target) was committed, but isn't well")
  case (.undone, _):
    let unwell = summary.unhealthyBefore == true ? "; it is not healthy, as before" : "; it is not healthy"
    let health = summary.healthy == false ? unwell : summary.healthy == true ? " and is healthy" : ""
    return style.paint("↺ \(what): undone; \(before)\(health)", "1;33")
  case (.unchanged, _): return style.paint("✗ \(what): nothing was changed", "1;33")
  case (.stuck, _): return style.alarm("✗ \(what): the undo failed; a person must look")
  case (.abandoned, _): return style.paint("✗ \(what): the undo failed; it was settled by hand", "1;33")
  case (.unknown, _): return style.paint("? \(what): the outcome isn't known here", "1;33")
  case (nil, .done): return style.paint("✓ \(what): nothing to do", "1;32")
  case (nil, .planHasChanges): return style.bold("\(what): there are changes")
  case (nil, _): return style.paint("✗ \(what): not started; nothing was changed", "1;33")
  }
}

extension LockHolder {
  /// `ada@laptop since 2026-11-21T09:00:00Z (deploy v1.2.0, #12: hotfix)`.
  var sentence: String {
    if watching != nil {
      return "\(who)\(version.map { ", \($0)," } ?? "")\(until.map { " until \($0)" } ?? "")"
    }
    var out = who
    if let from, !from.isEmpty { out += " from \(from)" }
    if let since, !since.isEmpty { out += " since \(since)" }
    var details = [command, version].compactMap { $0 }.filter { !$0.isEmpty }.joined(separator: " ")
    if let number { details += details.isEmpty ? "#\(number)" : ", #\(number)" }
    if let reason, !reason.isEmpty { details += details.isEmpty ? reason : ": \(reason)" }
    return details.isEmpty ? out : "\(out) (\(details))"
  }
}

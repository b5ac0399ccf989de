public import Engine
import Diagnostics

/// A plan for a person: by step, what would be created (+), changed (~), deleted (-), run (>); then warnings, problems,
/// and a count.
public func text(of plan: Plan, style: Style = Style(colour: false)) -> String {
  var out = "\(style.bold("\(plan.app) in \(plan.environment)")): "
  if plan.to.isEmpty {
    out += "the machine itself\n"
  } else {
    out +=
      plan.from.map { "\(printable($0)) → \(printable(plan.to))\n" } ?? "\(printable(plan.to)) (first deployment)\n"
  }
  for step in plan.steps {
    if step.skipped {
      let reason = step.reason.map { ": \(printable($0))" } ?? ""
      out += "\n  \(style.bold(step.step)) \(style.yellow("skipped"))\(reason)\n"
      continue
    }
    guard !step.changes.isEmpty else { continue }
    out += "\n  \(style.bold(step.step))\n"
    for change in step.changes { out += lines(of: change, style) }
  }
  if let memory = plan.memory { out += "\n" + line(of: memory) }
  if !plan.warnings.isEmpty || !plan.problems.isEmpty { out += "\n" }
  for warning in plan.warnings { out += "\(style.paint("warning:", "1;33")) \(printable(warning))\n" }
  for problem in plan.problems { out += "\(style.alarm("problem:")) \(printable(problem))\n" }
  return out + "\n" + summaryLine(of: plan, style)
}

/// `memory: 620 of 957 MiB (65 %) promised to containers: postgres 256, bot 2 × 182`
private func line(of memory: MemoryCommitment) -> String {
  var services = memory.services.map { service in
    let limit = service.limit.map { "\($0 >> 20)" } ?? "without a limit"
    let count = service.containers == 1 ? "" : "\(service.containers) × "
    return "\(printable(service.service)) \(count)\(limit)"
  }
  if memory.others > 0 { services.append("other projects \(memory.others >> 20)") }
  return
    "memory: \(memory.promised >> 20) of \(memory.machine >> 20) MiB (\(memory.percent) %) promised to containers: "
    + "\(services.joined(separator: ", "))\n"
}

private func lines(of change: Change, _ style: Style) -> String {
  let (mark, word) = mark(of: change.action)
  let paint: (String) -> String =
    switch change.action {
    case .create: style.green
    case .delete: style.red
    case .update, .recreate: style.yellow
    case .run, .unknown: style.cyan
    }
  var out = "    \(paint("\(mark) \(printable(change.subject))"))\(word.isEmpty ? "" : " (\(word))")"
  out += change.losesData ? "  \(style.alarm("DATA MAY BE LOST"))\n" : "\n"
  for line in change.detail {
    let text = printable(line)
    let painted =
      switch text.first {
      case "+": style.green(text)
      case "-": style.red(text)
      case "~": style.yellow(text)
      default: text
      }
    out += "        \(painted)\n"
  }
  return out
}

private func mark(of action: Change.Action) -> (mark: String, word: String) {
  switch action {
  case .create: ("+", "")
  case .update: ("~", "")
  case .delete: ("-", "")
  case .recreate: ("~", "recreated")
  case .run: (">", "")
  case .unknown: ("?", "not known")
  }
}

/// `Plan: 2 to create, 3 to change, 1 to run.`
func summaryLine(of plan: Plan, _ style: Style) -> String {
  let changes = plan.steps.filter { !$0.skipped }.flatMap(\.changes)
  let counts: [(String, Int)] = [
    ("to create", changes.count { $0.action == .create }),
    ("to change", changes.count { $0.action == .update }),
    ("to recreate", changes.count { $0.action == .recreate }),
    ("to delete", changes.count { $0.action == .delete }),
    ("to run", changes.count { $0.action == .run }),
    ("not known", changes.count { $0.action == .unknown }),
  ]
  let parts = counts.filter { $0.1 > 0 }.map { "\($0.1) \($0.0)" }
  var line = parts.isEmpty ? "Plan: nothing to do." : "Plan: \(parts.joined(separator: ", "))."
  let losses = changes.count { $0.losesData }
  if losses > 0 { line += " \(style.alarm("\(losses) of them may lose data."))" }
  if !plan.problems.isEmpty {
    line +=
      " \(style.alarm(plan.problems.count == 1 ? "1 problem forbids it." : "\(plan.problems.count) problems forbid it."))"
  }
  return style.bold(line) + "\n"
}

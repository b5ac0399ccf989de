public import Diagnostics
import Engine

/// An error for a person, several lines with a line feed each: what happened and where, why, what is true now, what
/// comes next.
public func text(of error: OrchestrateError, style: Style = Style(colour: false)) -> String {
  var place = ""
  if let host = error.host { place += "\(host): " }
  if let step = error.step { place += "\(step): " }
  var lines = ["\(style.alarm("error:")) \(style.bold(place + printable(error.summary)))"]
  if let cause = error.cause, !cause.isEmpty {
    for line in cause.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline) {
      lines.append(line.isEmpty ? "" : "    \(printable(String(line)))")
    }
    while lines.last == "" { lines.removeLast() }
  }
  if let state = error.state { lines.append("  Now:  \(printable(state))") }
  if let remedy = error.remedy { lines.append("  Next: \(style.cyan(printable(remedy)))") }
  return lines.map { $0 + "\n" }.joined()
}

/// Faults in the user's files as `file:line:column: error: message`, with the line, a caret below the place, and help.
/// - Parameter source: the lines of a file by its name as the diagnostics give it; nil: the line isn't shown.
public func text(
  of diagnostics: [Diagnostic], style: Style = Style(colour: false), source: (String) -> [String]? = { _ in nil }
) -> String {
  var out = ""
  for diagnostic in diagnostics {
    let severity = diagnostic.severity == .error ? style.alarm("error:") : style.paint("warning:", "1;33")
    let place = diagnostic.location.map { style.bold("\($0):") + " " } ?? ""
    out += "\(place)\(severity) \(style.bold(printable(shortened(diagnostic.message))))\n"
    if let location = diagnostic.location, let lines = source(location.file), lines.indices.contains(location.line - 1)
    {
      out += excerpt(lines[location.line - 1], location, style)
    }
    if let help = diagnostic.help { out += "  \(style.cyan("help:")) \(printable(help))\n" }
  }
  let errors = diagnostics.count { $0.severity == .error }
  if errors > 1 { out += "\(errors) errors\n" }
  return out
}

private func excerpt(_ line: String, _ location: SourceLocation, _ style: Style) -> String {
  let number = String(location.line)
  let gutter = String(repeating: " ", count: number.count)
  // Of a line longer than any screen, what stands around the place.
  let scalars = line.unicodeScalars.dropFirst(max(0, location.column - 1 - 120)).prefix(240)
  let skipped = line.unicodeScalars.distance(from: line.unicodeScalars.startIndex, to: scalars.startIndex)
  let start = skipped > 0 ? "…" : "", end = scalars.endIndex < line.unicodeScalars.endIndex ? "…" : ""
  let before = String(String.UnicodeScalarView(scalars.prefix(location.column - 1 - skipped)))
  let caret = String(repeating: " ", count: columns(of: start + printable(before))) + style.green("^")
  let shown = start + printable(String(String.UnicodeScalarView(scalars))) + end
  return "  \(style.dim("\(number) |")) \(shown)\n  \(style.dim("\(gutter) |")) \(caret)\n"
}

/// A message may quote what the user wrote, however long that is.
private func shortened(_ message: String) -> String {
  let limit = 400
  return message.count <= limit ? message : "\(message.prefix(limit / 2))…\(message.suffix(limit / 2))"
}

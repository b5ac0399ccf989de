import ConfigSource
import Diagnostics

/// `${name}` in a playbook. A name that nobody defines is an error; `$$` is a dollar; a dollar before anything else
/// stays.
struct Interpolation {
  /// Names that are set by orchestrate, never by `vars` or `--set`.
  static let reserved = ["version", "environment", "app", "project", "revision"]

  var values: [String: String]
  /// Known names that have no value here, with the reason.
  var unavailable: [String: String] = [:]
  /// The inventory couldn't be read: an unknown name is no fault of the playbook.
  var isLenient = false
  let diagnostics: DiagnosticCollector

  /// - Parameter keep: a name that is left as it is, for others to fill in.
  func apply(to node: YAMLNode, keep: String? = nil) -> YAMLNode {
    node.mapScalars { scalar, location in
      guard scalar.text.contains("$") else { return scalar }
      var result = scalar
      if let text = fill(scalar, at: location, keep: keep) {
        result.text = text
        result.isInterpolated = text != scalar.text
      } else {
        result.isFaulty = true
      }
      return result
    }
  }

  private func fill(_ scalar: YAMLScalar, at location: SourceLocation, keep: String?) -> String? {
    var output = "", isGood = true
    let scalars = Array(scalar.text.unicodeScalars)
    var index = 0
    while index < scalars.count {
      guard scalars[index] == "$", index + 1 < scalars.count else {
        output.unicodeScalars.append(scalars[index])
        index += 1
        continue
      }
      if scalars[index + 1] == "$" {
        output += "$"
        index += 2
        continue
      }
      guard scalars[index + 1] == "{" else {
        output += "$"
        index += 1
        continue
      }
      var place = location
      // Within quotes and block scalars columns can't be counted: there the place is the value's.
      if scalar.isPlain, !scalar.text.contains("\n") { place.column += index }
      guard let end = scalars[(index + 2)...].firstIndex(of: "}") else {
        diagnostics.error(at: place, "`${` without its `}`", help: "a dollar itself is written $$")
        return nil
      }
      var name = String.UnicodeScalarView()
      name.append(contentsOf: scalars[(index + 2)..<end])
      if let value = value(of: String(name), at: place, keep: keep) { output += value } else { isGood = false }
      index = end + 1
    }
    return isGood ? output : nil
  }

  private func value(of name: String, at place: SourceLocation, keep: String?) -> String? {
    if name == keep { return "${\(name)}" }
    if let value = values[name] { return value }
    if isLenient, Names.isVariable(name), name != "revision" { return nil }
    if let reason = unavailable[name] {
      diagnostics.error(at: place, "`${\(name)}` has no value: \(reason)")
    } else if name == "revision" {
      diagnostics.error(at: place, "`${revision}` is known to migrate's `down` only")
    } else if !Names.isVariable(name) {
      diagnostics.error(
        at: place, "`${\(name.prefix(40))}` isn't a name",
        help: "a playbook knows ${name} alone, without defaults; a dollar itself is written $$")
    } else {
      diagnostics.error(
        at: place, "nobody defines `${\(name)}`",
        help: nearestName(to: name, among: values.keys).map { "did you mean `${\($0)}`?" }
          ?? "define it under vars: in the inventory, or with --set \(name)=…")
    }
    return nil
  }
}

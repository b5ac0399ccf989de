import Diagnostics
public import Engine
import Inventory

/// Writes the release's env file and lets Compose on the host say what it understood: config.json in the step's
/// directory.
public struct EnvStep: StepKind {
  public init() {}

  /// Names only, never values.
  public func plan(_ context: StepContext) -> [Change] {
    var new: [String: String] = [:]
    for value in context.env ?? [] { new[value.name] = context.sha256(Array(value.value.utf8)) }
    if let target = context.target { new = target.env }
    let old = context.current?.env ?? [:]
    return Set(old.keys).union(new.keys).sorted().compactMap { name in
      switch (old[name], new[name]) {
      case (nil, _): Change(.create, "env \(name)", detail: ["+ \(name)"])
      case (_, nil): Change(.delete, "env \(name)", detail: ["- \(name)"])
      case (let before, let after): before == after ? nil : Change(.update, "env \(name)", detail: ["~ \(name)"])
      }
    }
  }

  public func payload(_ context: StepContext) throws -> StepPayload {
    var files: [StepPayload.File] = []
    let values = context.env ?? []
    if context.env != nil {
      let text = try EnvFile.render(values)
      files.append(StepPayload.File("env", bytes: Array(text.utf8)))
    }
    let inFiles = values.filter { $0.path != nil }
    if !inFiles.isEmpty {
      files.append(StepPayload.File("secrets", bytes: Array(try EnvFile.renderFiles(values).utf8)))
    }
    for value in inFiles {
      guard let name = value.path?.split(separator: "/").last else { continue }
      files.append(StepPayload.File("files/\(name)", bytes: Array(value.value.utf8)))
    }
    if !context.generated.isEmpty {
      let lines = try context.generated.sorted { $0.key < $1.key }.map {
        try EnvFile.line(name: $0.key, value: $0.value.reveal(), multiline: true)
      }
      let name = context.rotation == nil ? "generated" : "rotated"
      files.append(StepPayload.File(name, bytes: Array((lines.joined(separator: "\n") + "\n").utf8)))
    }
    // VERSION is the deployment's; it stands in a file of its own so that `env_file: .env` doesn't carry it into every
    // container.
    files.append(
      StepPayload.File(
        "version.env", bytes: Array("\(try EnvFile.line(name: "VERSION", value: context.version))\n".utf8)))
    files.append(StepPayload.File("check.json", bytes: Array(checkFile(values.map(\.variable.name)).utf8)))
    return StepPayload(
      script: "env", timeout: .seconds(60), hasUndo: true,
      parameters: [("COMPOSE_DIR", composeDirectory(context.inventory)), ("COMPOSE_FILE", context.inventory.compose)],
      files: files,
      secrets: ["env", "generated", "rotated", "generated.before", "secrets", "config.json"]
        + files.map(\.path).filter { $0.hasPrefix("files/") })
  }
}

/// Top-level member of the check file, which Compose interpolates and gives back as it understood it.
let checkKey = "x-orchestrate-env"

/// A second compose file that asks for each value by name: what comes back in config.json proves that Compose reads
/// what was written.
private func checkFile(_ names: [String]) -> String {
  var members = JSONObject()
  for name in names { members[name] = .string("${\(name)}") }
  return JSONValue.object([checkKey: .object(members)]).text() + "\n"
}

/// What Compose parsed out of the env file is what was written, or the names (sorted) for which it isn't.
public func verifyEnv(_ context: StepContext, _ config: ComposeConfig) -> [String] {
  var differing: Set<String> = []
  let parsed = config.root[checkKey]
  for (name, value) in (context.env ?? []).map(\.variable) {
    let wanted = context.sha256(Array(value.utf8))
    guard let text = parsed?[name]?.stringValue.map(unescapeDollars), context.sha256(Array(text.utf8)) == wanted
    else {
      differing.insert(name)
      continue
    }
    // A service that reads the file in another dialect (`format: raw`) gets the quotes too.
    guard let line = try? EnvFile.line(name: name, value: value, multiline: true) else { continue }
    let written = line.dropFirst(name.count + 1)
    if written == value { continue }
    for service in config.serviceNames {
      let seen = config.service(service)?["environment"]?[name]?.stringValue.map(unescapeDollars)
      if let seen, seen == written { differing.insert(name) }
    }
  }
  return differing.sorted()
}

/// `docker compose config` doubles each dollar, so that its output can be read again.
func unescapeDollars(_ text: String) -> String {
  var out = ""
  var pending = false
  for scalar in text.unicodeScalars {
    if scalar == "$" && pending {
      pending = false
      continue
    }
    pending = scalar == "$"
    out.unicodeScalars.append(scalar)
  }
  return out
}

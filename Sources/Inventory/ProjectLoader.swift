import ConfigSource
public import Diagnostics

/// The folder that holds `inventories/`, and what lies in it.
public struct Project: Sendable, Equatable {
  /// Absolute path, without a slash at its end.
  public var root: String
  /// Names of the environments (inventories/NAME.yml), sorted.
  public var environments: [String]
  /// Names of the project's own playbooks (playbooks/NAME.yml), sorted.
  public var playbooks: [String]

  public init(root: String, environments: [String], playbooks: [String]) {
    self.root = root
    self.environments = environments
    self.playbooks = playbooks
  }
}

/// Everything that the files of a project say about one environment and one playbook.
public struct LoadedProject: Sendable {
  public var project: Project
  public var inventory: Inventory
  public var playbook: Playbook
  /// As it was written, before `${name}` was filled in: what release.json keeps.
  public var playbookText: String
  /// Nil: the inventory names no template.
  public var template: EnvTemplate?
  /// What the playbook's `${name}` stood for, by name, for release.json: `vars` and `--set`, but no secret.
  public var variables: [String: String] = [:]
  /// By name, where the template plans memory.
  var composeServices: [String: ComposeService] = [:]
  public var warnings: [Diagnostic]

  public init(
    project: Project, inventory: Inventory, playbook: Playbook, playbookText: String, template: EnvTemplate? = nil,
    warnings: [Diagnostic] = []
  ) {
    self.project = project
    self.inventory = inventory
    self.playbook = playbook
    self.playbookText = playbookText
    self.template = template
    self.warnings = warnings
  }
}

/// The door to a project's configuration.
///
/// ```swift
/// let loader = ProjectLoader(startDirectory: "/home/ada/bot/src")
/// let loaded = try loader.load(
///   environment: "prod", playbook: "deploy", builtin: ["deploy": deployText, "rollback": rollbackText],
///   version: "v1.1.0", set: ["workers": "4"])
/// let inventory = try loader.inventory(environment: nil).inventory      // for commands that run no playbook
/// let env = try loaded.template?.resolve(EnvRequest(from: inventory.env.from, values: [.environment: [:]], …))
/// ```
///
/// All methods throw `ConfigurationError` with the faults of all files at once (exit status 78). Nothing is kept
/// between calls.
public struct ProjectLoader: Sendable {
  public var files: FileSource
  /// The project is looked for here and in the folders above.
  public var startDirectory: String

  public init(files: FileSource = .disk, startDirectory: String) {
    self.files = files
    self.startDirectory = startDirectory
  }

  /// The project's root with the names of what is in it; reads no file.
  public func project() throws -> Project {
    var folder = Paths.normalized(startDirectory)
    while true {
      if files.kind(Paths.join(folder, "inventories")) == .folder {
        return Project(
          root: folder, environments: names(in: Paths.join(folder, "inventories"), without: ".secrets"),
          playbooks: names(in: Paths.join(folder, "playbooks")))
      }
      guard let parent = Paths.parent(folder) else {
        throw ConfigurationError([
          Diagnostic(
            at: nil,
            "there is no folder inventories/ in \(Paths.normalized(startDirectory)), nor in any folder above it",
            help: "go to the project's folder, name it with --project DIR, or begin one: orchestrate init")
        ])
      }
      folder = parent
    }
  }

  /// The inventory alone. `environment` nil: the only one there is, or the one with `default: true`.
  public func inventory(environment: String?) throws -> (
    project: Project, inventory: Inventory, warnings: [Diagnostic]
  ) {
    let project = try project()
    let diagnostics = DiagnosticCollector(root: project.root)
    let name = try chosen(environment, of: project, diagnostics)
    let inventory = self.inventory(name, of: project, diagnostics).inventory
    try diagnostics.throwIfErrors()
    guard let inventory else { throw ConfigurationError(diagnostics.diagnostics) }
    return (project, inventory, diagnostics.warnings)
  }

  /// Inventory, playbook and env template.
  /// - Parameters:
  ///   - environment: nil: the only inventory, or the one with `default: true`.
  ///   - playbook: playbooks/NAME.yml of the project, else the text under that name in `builtin`.
  ///   - builtin: the texts of the built-in playbooks, by name.
  ///   - version: what `${version}` stands for; nil: a command without a version.
  ///   - set: `--set name=value`: stands above the inventory's `vars`.
  ///   - kinds: nil: all of the playbook is read. Else steps of other kinds keep their names and nothing more, so that a command which doesn't use
  ///     them needs no version and no `--set`.
  public func load(
    environment: String?, playbook: String, builtin: [String: String], version: String? = nil,
    set: [String: String] = [:], only kinds: Set<StepKindName>? = nil
  ) throws -> LoadedProject {
    let project = try project()
    let diagnostics = DiagnosticCollector(root: project.root)
    let name = try chosen(environment, of: project, diagnostics)
    let (inventory, varsAreComplete) = self.inventory(name, of: project, diagnostics)
    var interpolation = Interpolation(values: inventory?.vars ?? [:], diagnostics: diagnostics)
    interpolation.isLenient = !varsAreComplete
    check(set, diagnostics)
    interpolation.values.merge(set) { _, new in new }
    interpolation.values["environment"] = name
    interpolation.values["app"] = inventory?.app
    interpolation.values["project"] = inventory?.project
    interpolation.values["version"] = version
    if version == nil { interpolation.unavailable["version"] = "this command has no version" }

    let source = self.source(ofPlaybook: playbook, builtin: builtin, project, diagnostics)
    var decoded: Playbook?
    if let source, let node = YAMLParser.parse(source, diagnostics: diagnostics) {
      let reader = PlaybookReader(
        name: playbook, interpolation: interpolation, diagnostics: diagnostics, kinds: kinds, inventory: inventory,
        root: project.root,
        files: files)
      decoded = reader.read(node)
    }
    let template = inventory.flatMap { self.template(of: $0, project, diagnostics) }
    if let inventory, !inventory.services.app.isEmpty { template?.checkMemory(inventory, diagnostics) }
    for name in set.keys.sorted() where source?.text.contains("${\(name)}") == false {
      if template?.entries.contains(where: { $0.name == name }) == true { continue }
      diagnostics.warning(
        at: nil, "--set \(name): neither the playbook \(playbook) nor the env template has `${\(name)}`")
    }
    try diagnostics.throwIfErrors()
    guard let inventory, let decoded, let source else { throw ConfigurationError(diagnostics.diagnostics) }
    var loaded = LoadedProject(
      project: project, inventory: inventory, playbook: decoded, playbookText: source.text, template: template,
      warnings: diagnostics.warnings)
    if template?.plansMemory == true,
      let bytes = try? files.read(Paths.join(project.root, inventory.compose)),
      let compose = SourceText(file: inventory.compose, bytes: bytes, diagnostics: DiagnosticCollector())
    {
      loaded.composeServices = ComposeService.all(in: compose)
    }
    let marked = Set((template?.entries ?? []).filter(\.isMarkedSecret).map(\.name))
    loaded.variables = interpolation.values.filter { name, _ in
      !Interpolation.reserved.contains(name) && source.text.contains("${\(name)}")
        && !Secrecy.isSecret(name: name) && !marked.contains(name)
    }
    return loaded
  }

  /// The env template by itself: whatever is wrong with the playbook or with other lines of it doesn't matter. Nil: there is none that can be read.
  public func template(of inventory: Inventory) -> EnvTemplate? {
    guard let project = try? project() else { return nil }
    return template(of: inventory, project, DiagnosticCollector(root: project.root))
  }

  /// A playbook that a release on the host brought along: what it names on this machine's disk isn't looked for, and its order was judged when it
  /// was deployed.
  /// - Parameters:
  ///   - variables: what `${name}` stood for then, by name; what isn't among them comes from today's inventory.
  ///   - kinds: steps of other kinds keep their names and nothing more.
  public func playbook(
    text: String, name: String, version: String?, variables: [String: String] = [:], inventory: Inventory,
    only kinds: Set<StepKindName>
  ) throws -> Playbook {
    let diagnostics = DiagnosticCollector()
    var interpolation = Interpolation(
      values: inventory.vars.merging(variables) { _, recorded in recorded }, diagnostics: diagnostics)
    interpolation.values["environment"] = inventory.environment
    interpolation.values["app"] = inventory.app
    interpolation.values["project"] = inventory.project
    interpolation.values["version"] = version
    let source = SourceText(file: "playbook of \(name)", text: text)
    var playbook: Playbook?
    if let node = YAMLParser.parse(source, diagnostics: diagnostics) {
      playbook = PlaybookReader(name: name, interpolation: interpolation, diagnostics: diagnostics, kinds: kinds)
        .read(node)
    }
    try diagnostics.throwIfErrors()
    guard let playbook else { throw ConfigurationError(diagnostics.diagnostics) }
    return playbook
  }

  // MARK: Environments

  private func names(in folder: String, without suffix: String? = nil) -> [String] {
    ((try? files.list(folder)) ?? []).compactMap { file in
      guard file.hasSuffix(".yml"), !file.hasPrefix(".") else { return nil }
      let name = String(file.dropLast(4))
      if let suffix, name.hasSuffix(suffix) { return nil }
      // Also what can't be read, as a folder or a broken link: that is told, never passed over for a built-in one.
      return name
    }.sorted()
  }

  private func chosen(_ environment: String?, of project: Project, _ diagnostics: DiagnosticCollector) throws -> String
  {
    let list = project.environments
    if let environment {
      guard !list.contains(environment) else { return environment }
      let help: String
      if files.kind(Paths.join(project.root, "inventories/\(environment).yaml")) == .file {
        help = "inventories/\(environment).yaml has to be called \(environment).yml"
      } else if let nearest = nearestName(to: environment, among: list) {
        help = "did you mean \(nearest)? There \(list.count == 1 ? "is" : "are") \(list.joined(separator: ", "))"
      } else {
        help =
          list.isEmpty
          ? "inventories/ holds no *.yml: orchestrate init"
          : "there \(list.count == 1 ? "is" : "are") \(list.joined(separator: ", "))"
      }
      throw ConfigurationError([
        Diagnostic(
          at: nil, "there is no environment `\(environment)`: no file inventories/\(environment).yml", help: help)
      ])
    }
    guard list.count != 1 else { return list[0] }
    guard !list.isEmpty else {
      throw ConfigurationError([
        Diagnostic(at: nil, "inventories/ holds no environment", help: "write inventories/prod.yml: orchestrate init")
      ])
    }
    return try defaultEnvironment(of: project)
  }

  /// The one with `default: true`. An inventory that can't be read could be it, so its faults count here.
  private func defaultEnvironment(of project: Project) throws -> String {
    let diagnostics = DiagnosticCollector(root: project.root)
    var marked: [(name: String, location: SourceLocation)] = []
    for name in project.environments {
      guard let source = source("inventories/\(name).yml", project, diagnostics),
        let node = YAMLParser.parse(source, diagnostics: diagnostics), case .mapping(let entries) = node.content,
        let entry = entries.first(where: { $0.key == "default" }), case .scalar(let scalar) = entry.value.content
      else { continue }
      if scalar.text == "true", scalar.isPlain { marked.append((name, entry.keyLocation)) }
    }
    if marked.count == 1 { return marked[0].name }
    for (name, location) in marked.dropFirst() {
      diagnostics.error(
        at: location, "`\(marked[0].name)` and `\(name)` are both the default environment",
        help: "remove default: true from one of them")
    }
    if marked.isEmpty {
      diagnostics.error(
        at: nil, "which environment? There are \(project.environments.joined(separator: ", "))",
        help: "name one, or write default: true into its inventory")
    }
    throw ConfigurationError(diagnostics.diagnostics)
  }

  // MARK: Files

  private func inventory(
    _ name: String, of project: Project, _ diagnostics: DiagnosticCollector
  ) -> (inventory: Inventory?, varsAreComplete: Bool) {
    guard let source = source("inventories/\(name).yml", project, diagnostics),
      let node = YAMLParser.parse(source, diagnostics: diagnostics)
    else { return (nil, false) }
    var reader = InventoryReader(environment: name, root: project.root, files: files, diagnostics: diagnostics)
    guard let inventory = reader.read(node) else { return (nil, false) }
    return (inventory, reader.varsAreComplete)
  }

  /// The project's own playbook, else the built-in one.
  private func source(
    ofPlaybook name: String, builtin: [String: String], _ project: Project, _ diagnostics: DiagnosticCollector
  ) -> SourceText? {
    if project.playbooks.contains(name) { return source("playbooks/\(name).yml", project, diagnostics) }
    if let text = builtin[name] { return SourceText(file: "<built-in \(name).yml>", text: text) }
    let known = Set(project.playbooks).union(builtin.keys).sorted()
    diagnostics.error(
      at: nil, "there is no playbook `\(name)`: no file playbooks/\(name).yml, and none is built in",
      help: nearestName(to: name, among: known).map { "did you mean \($0)?" }
        ?? "there are \(known.joined(separator: ", "))")
    return nil
  }

  private func template(of inventory: Inventory, _ project: Project, _ diagnostics: DiagnosticCollector) -> EnvTemplate?
  {
    let paths = inventory.env.templates.filter { files.kind(Paths.join(project.root, $0)) == .file }
    let sources = paths.compactMap { source($0, project, diagnostics) }
    return sources.isEmpty ? nil : EnvTemplate.parse(sources, diagnostics: diagnostics)
  }

  /// A file of the project, by its path in it.
  private func source(_ path: String, _ project: Project, _ diagnostics: DiagnosticCollector) -> SourceText? {
    do {
      return SourceText(file: path, bytes: try files.read(Paths.join(project.root, path)), diagnostics: diagnostics)
    } catch {
      diagnostics.error(
        at: SourceLocation(file: path, line: 1, column: 1), "the file can't be read",
        help: "are you allowed to read it? ls -l \(path)")
      return nil
    }
  }

  private func check(_ set: [String: String], _ diagnostics: DiagnosticCollector) {
    for name in set.keys.sorted() {
      if !Names.isVariable(name) {
        diagnostics.error(
          at: nil, "--set: `\(name)` isn't a name: letters, digits and _, and no digit at its beginning")
      } else if Interpolation.reserved.contains(name) {
        diagnostics.error(at: nil, "--set \(name): it is set by orchestrate", help: "choose another name")
      }
    }
  }
}

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
  public var warnings: [Diagnostic]
}

/// The door to a project's configuration.
///
/// ```swift
/// let loader = ProjectLoader(files: .disk, startDirectory: "/home/ada/bot/src")
/// let loaded = try loader.load(
///   environment: "prod", playbook: "deploy", builtin: ["deploy": deployText, "rollback": rollbackText],
///   version: "v1.1.0", set: ["workers": "4"])
/// let inventory = try loader.inventory(environment: nil).inventory      // for commands that run no playbook
/// let env = try loaded.template?.resolve(EnvRequest(from: inventory.env.from, values: [.environment: [:]], …))
/// ```
///
/// All methods throw `ConfigurationError` with the faults of all files at once (exit status 78). Nothing is kept between calls.
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
    throw ConfigurationError([Diagnostic(at: nil, "reading projects isn't there yet")])
  }

  /// The inventory alone. `environment` nil: the only one there is, or the one with `default: true`.
  public func inventory(environment: String?) throws -> (project: Project, inventory: Inventory, warnings: [Diagnostic]) {
    throw ConfigurationError([Diagnostic(at: nil, "reading inventories isn't there yet")])
  }

  /// Inventory, playbook and env template.
  /// - Parameters:
  ///   - environment: nil: the only inventory, or the one with `default: true`.
  ///   - playbook: playbooks/NAME.yml of the project, else the text under that name in `builtin`.
  ///   - builtin: the texts of the built-in playbooks, by name.
  ///   - version: what `${version}` stands for; nil: a command without a version.
  ///   - set: `--set name=value`: stands above the inventory's `vars`.
  public func load(
    environment: String?, playbook: String, builtin: [String: String], version: String? = nil,
    set: [String: String] = [:]
  ) throws -> LoadedProject {
    throw ConfigurationError([Diagnostic(at: nil, "reading playbooks isn't there yet")])
  }
}

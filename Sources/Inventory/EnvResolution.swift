public import Diagnostics

/// What a template is resolved against.
public struct EnvRequest: Sendable {
  /// The inventory's `env.from`: the first that has a value wins.
  public var from: [EnvSource]
  /// What each source has, by name. `.generated` is what the host keeps in generated.env, `.host` the running
  /// release's env.
  public var values: [EnvSource: [String: String]]
  /// Names that the deployment sets itself (`VERSION`); they may be referred to, and not defined.
  public var builtins: [String: String]
  /// Names whose present value on the host came from the template's default: the template may change it.
  public var defaultedOnHost: Set<String>
  /// The database's volume is there: it remembers its password, so that none may be made anew.
  public var databaseVolumeExists: Bool
  /// What `${memory:NAME}` stands for on this host, or why it can't be; nil: the host hasn't told its memory.
  public var memory: Result<MemoryPlan, MemoryShortage>?
  /// For the messages.
  public var environment: String
  /// Makes a value of that many characters from [A-Za-z0-9], from a cryptographic source.
  public var generate: @Sendable (Int) -> String

  public init(
    from: [EnvSource] = EnvSource.allCases, values: [EnvSource: [String: String]] = [:],
    builtins: [String: String] = [:], defaultedOnHost: Set<String> = [], databaseVolumeExists: Bool = false,
    environment: String, generate: @escaping @Sendable (Int) -> String
  ) {
    self.from = from
    self.values = values
    self.builtins = builtins
    self.defaultedOnHost = defaultedOnHost
    self.databaseVolumeExists = databaseVolumeExists
    self.environment = environment
    self.generate = generate
  }
}

/// Where a value came from. Its description is the word that users see.
public enum EnvOrigin: Sendable, Equatable, CustomStringConvertible {
  /// Written in the template.
  case fixed
  /// The template's default.
  case fallback
  /// Put together from other names.
  case composed
  /// From the plan of the machine's memory.
  case memory
  case source(EnvSource)

  public var description: String {
    switch self {
    case .fixed: "fixed"
    case .fallback: "default"
    case .composed: "composed"
    case .memory: "memory"
    case .source(let source): source.rawValue
    }
  }
}

/// A value of the env file. Its description doesn't show a secret.
public struct ResolvedValue: Sendable, Equatable, CustomStringConvertible {
  public var name: String
  public var value: String
  public var isSecret: Bool
  public var origin: EnvOrigin
  public var type: EnvType
  /// Containers get it in a file (`@file`).
  public var isFile: Bool
  /// Of that file, on the host; nil as long as nobody has given it one, and of every other value.
  public var path: String?

  public init(
    name: String, value: String, isSecret: Bool, origin: EnvOrigin, type: EnvType = .string, isFile: Bool = false,
    path: String? = nil
  ) {
    self.name = name
    self.value = value
    self.isSecret = isSecret
    self.origin = origin
    self.type = type
    self.isFile = isFile
    self.path = path
  }

  /// What the env file says of it: the value, or where the file lies that holds it.
  public var variable: (name: String, value: String) {
    path.map { (name + EnvFile.pathSuffix, $0) } ?? (name, value)
  }

  public var description: String { "\(name)=\(isSecret ? "********" : value) (\(origin))" }
}

public struct EnvResolution: Sendable, Equatable {
  /// In the template's order.
  public var values: [ResolvedValue]
  /// Names of `values` that were generated now: the caller writes them to generated.env before anything uses them.
  public var generated: [String]
  public var warnings: [Diagnostic]

  public init(values: [ResolvedValue] = [], generated: [String] = [], warnings: [Diagnostic] = []) {
    self.values = values
    self.generated = generated
    self.warnings = warnings
  }
}

extension EnvTemplate {
  /// Values for all names, or `ConfigurationError` with all faults at once. A secret's value is never shown.
  public func resolve(_ request: EnvRequest) throws -> EnvResolution {
    var resolver = EnvResolver(template: self, request: request)
    return try resolver.resolve()
  }
}

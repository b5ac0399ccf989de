import ConfigSource
public import Diagnostics

/// env.template: the names that a release's env file holds, and where each value comes from.
public struct EnvTemplate: Sendable, Equatable {
  public struct Entry: Sendable, Equatable {
    public var name: String
    /// The comment above it, without annotations.
    public var documentation: String
    public var type: EnvType
    /// Marked `@secret`.
    public var isMarkedSecret: Bool
    /// Marked `@keep`: never generated anew while the database's volume exists.
    public var isKept: Bool
    public var location: SourceLocation
  }

  public var entries: [Entry]

  static func parse(_ source: SourceText, diagnostics: DiagnosticCollector) -> EnvTemplate? {
    diagnostics.error(at: source.location(line: 1, column: 1), "reading templates isn't there yet")
    return nil
  }

  /// Values for all names, or all faults at once. Never shows a secret.
  public func resolve(_ request: EnvRequest) throws -> EnvResolution {
    throw ConfigurationError([Diagnostic(at: nil, "resolving templates isn't there yet")])
  }
}

/// Where in a file of the user's something stands. Lines and columns count from 1, columns in Unicode scalars.
public struct SourceLocation: Sendable, Equatable, Codable, CustomStringConvertible {
  public var file: String
  public var line: Int
  public var column: Int

  public init(file: String, line: Int, column: Int) {
    self.file = file
    self.line = line
    self.column = column
  }

  public var description: String { "\(file):\(line):\(column)" }
}

/// One fault (or warning) in something that the user wrote: where, what, what was expected, the nearest right thing.
public struct Diagnostic: Sendable, Equatable, Codable {
  public enum Severity: String, Sendable, Codable { case error, warning }

  public var severity: Severity
  public var location: SourceLocation?
  /// What is wrong, in one line without a full stop.
  public var message: String
  /// What to do about it, or the nearest valid name; one line.
  public var help: String?

  public init(_ severity: Severity = .error, at location: SourceLocation?, _ message: String, help: String? = nil) {
    self.severity = severity
    self.location = location
    self.message = message
    self.help = help
  }
}

/// All the faults that were found in the user's files, thrown at once. Exit status 78.
public struct ConfigurationError: Error, Sendable, Equatable {
  public var diagnostics: [Diagnostic]
  /// The folder that the files' names are relative to; nil: the working directory.
  public var root: String?
  /// The files hold secrets: none of their lines may be shown.
  public var isConfidential: Bool

  public init(_ diagnostics: [Diagnostic], root: String? = nil, isConfidential: Bool = false) {
    self.diagnostics = diagnostics
    self.root = root
    self.isConfidential = isConfidential
  }
}

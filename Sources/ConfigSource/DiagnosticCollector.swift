public import Diagnostics

/// Gathers the faults of several files, so that all of them can be reported at once.
///
/// Not thread-safe: one reading of a project uses one collector.
public final class DiagnosticCollector {
  private var found: [Diagnostic] = []
  private var fileOrder: [String] = []

  private let root: String?

  /// - Parameter root: the folder that the files' names are relative to.
  public init(root: String? = nil) { self.root = root }

  /// Files are reported in the order in which they were announced.
  public func announce(file: String) {
    if !fileOrder.contains(file) { fileOrder.append(file) }
  }

  public func error(at location: SourceLocation?, _ message: String, help: String? = nil) {
    add(Diagnostic(.error, at: location, message, help: help))
  }

  public func warning(at location: SourceLocation?, _ message: String, help: String? = nil) {
    add(Diagnostic(.warning, at: location, message, help: help))
  }

  public func add(_ diagnostic: Diagnostic) {
    if let file = diagnostic.location?.file { announce(file: file) }
    if !found.contains(diagnostic) { found.append(diagnostic) }
  }

  public var count: Int { found.count }

  public var hasErrors: Bool { found.contains { $0.severity == .error } }

  /// In the order of the files, then of the lines; those without a place come first.
  public var diagnostics: [Diagnostic] {
    func rank(_ diagnostic: Diagnostic) -> (Int, Int, Int) {
      guard let location = diagnostic.location else { return (-1, 0, 0) }
      return (fileOrder.firstIndex(of: location.file) ?? 0, location.line, location.column)
    }
    return found.enumerated().sorted { left, right in
      let a = rank(left.element), b = rank(right.element)
      return a == b ? left.offset < right.offset : a < b
    }.map(\.element)
  }

  public var warnings: [Diagnostic] { diagnostics.filter { $0.severity == .warning } }

  /// Throws `ConfigurationError` with everything that was found, if there is an error among it.
  public func throwIfErrors() throws {
    if hasErrors { throw ConfigurationError(diagnostics, root: root) }
  }
}

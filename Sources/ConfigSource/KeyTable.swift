/// The keys that a mapping may hold. The reader checks by it, and a test holds the documentation against it.
public struct KeyTable: Sendable, Equatable {
  public struct Key: Sendable, Equatable {
    public var name: String
    /// What the value is, in the words of the documentation.
    public var type: String
    public var isRequired: Bool
    /// As the documentation shows it; nil: none.
    public var fallback: String?

    public init(_ name: String, _ type: String, required: Bool = false, default fallback: String? = nil) {
      self.name = name
      self.type = type
      self.isRequired = required
      self.fallback = fallback
    }
  }
  /// Heading of its section in the documentation.
  public var title: String
  public var keys: [Key]

  public init(_ title: String, _ keys: [Key]) {
    self.title = title
    self.keys = keys
  }

  public var names: [String] { keys.map(\.name) }

  /// A row of the documentation's table, up to the column with the explanation.
  public func documentationRow(_ key: Key) -> String {
    "| `\(key.name)` | \(key.type) | \(key.isRequired ? "required" : key.fallback.map { "`\($0)`" } ?? "—") |"
  }
}

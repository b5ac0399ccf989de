/// A value that must not be seen: its description is masked, and the raw value is given on explicit request only.
public struct Secret: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  private let raw: String

  public init(_ raw: String) { self.raw = raw }

  /// The value itself. Each use of it is a place to look at in a review.
  public func reveal() -> String { raw }

  public var description: String { "********" }
  public var debugDescription: String { description }
  public var customMirror: Mirror { Mirror(self, children: []) }
}

/// An image reference as Compose files have it: `[registry[:port]/]name[:tag][@sha256:…]` (distribution/reference).
public struct ImageReference: Sendable, Equatable {
  /// With the registry, without tag and digest.
  public var name: String
  public var tag: String?
  public var digest: String?

  public init(_ text: String) {
    var rest = text[...]
    if let at = rest.firstIndex(of: "@") {
      digest = String(rest[rest.index(after: at)...])
      rest = rest[..<at]
    }
    // A colon before the last slash belongs to the registry's port.
    let afterSlash = rest.lastIndex(of: "/").map { rest.index(after: $0) } ?? rest.startIndex
    if let colon = rest[afterSlash...].firstIndex(of: ":") {
      tag = String(rest[rest.index(after: colon)...])
      rest = rest[..<colon]
    }
    name = String(rest)
  }
}

/// The local tag that keeps a release's image findable after its own tag has moved: it follows the content, so that an
/// unchanged image
/// gives an unchanged configuration.
public func localTag(project: String, service: String, digest: String) -> String {
  let hex = digest.split(separator: ":").last.map(String.init) ?? digest
  return "orchestrate/\(project)/\(service.lowercased()):\(hex.prefix(12))"
}

/// What `docker compose config --format json` printed: the project with everything interpolated.
public struct ComposeConfig: Sendable, Equatable {
  public var root: JSONValue

  public init(_ root: JSONValue) { self.root = root }

  public var serviceNames: [String] { root["services"]?.objectValue?.keys ?? [] }

  public func service(_ name: String) -> JSONValue? { root["services"]?[name] }

  public func image(of service: String) -> String? { self.service(service)?["image"]?.stringValue }
}

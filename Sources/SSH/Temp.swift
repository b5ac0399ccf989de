public struct OpenSSHConfiguration: Sendable { public init?(parsing: String, alias: String, home: String) { return nil }
 public var hostName: String? { nil }; public var user: String? { nil }; public var port: UInt16? { nil }; public var hostKeyAlias: String? { nil }; public var userKnownHostsFiles: [String] { [] }; public var identityFiles: [String] { [] } }

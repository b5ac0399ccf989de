#if canImport(FoundationEssentials)
  internal import FoundationEssentials
#else
  internal import Foundation
#endif
internal import Diagnostics

/// What release.json of a release on the host says. Immutable once it is written.
public struct Release: Sendable, Equatable, Codable {
  public struct Image: Sendable, Equatable, Codable {
    /// As the compose file names it: `registry:5000/bot:v1.0.0`.
    public var reference: String
    /// `sha256:…` of the manifest, where the registry gave one; else of the image's configuration.
    public var digest: String
    /// Image id (`sha256:…` of the configuration).
    public var id: String
    /// The local tag that the release's compose file names: `orchestrate/<project>/<service>:<12 hex of the digest>`.
    public var tag: String
    public init(reference: String, digest: String, id: String, tag: String) {
      self.reference = reference
      self.digest = digest
      self.id = id
      self.tag = tag
    }
  }
  public struct Schema: Sendable, Equatable, Codable {
    public var service: String
    public var revision: String
    public var policy: String
    public init(service: String, revision: String, policy: String) {
      self.service = service
      self.revision = revision
      self.policy = policy
    }
  }

  public var number: Int
  public var version: String
  /// Number of the release that was active when this one was deployed; 0: none.
  public var previous: Int
  /// The release that this one is a copy of (a rollback), by number; 0: none.
  public var copyOf: Int
  public var created: String
  public var images: [String: Image]
  public var services: [String]
  public var schemaPolicy: String?
  /// Text of the playbook by which it was deployed.
  public var playbook: String
  /// What the playbook's `${name}` stood for, by name, except `version` and secrets; nil in releases of older versions of the tool.
  public var variables: [String: String]?
  /// Names in its env file, with the SHA-256 of each value.
  public var env: [String: String]
  /// Names in its env file whose value was the template's default, which a later template may change.
  public var envDefaults: [String]
  /// Names in its env file whose values are passwords of database roles, with the role; nil in releases of older versions of the tool.
  public var roles: [String: String]?
  /// By name, the SHA-256 of each value that a rotation has replaced, the last one at the end: a source that still has one is behind.
  public var replaced: [String: [String]]?
  /// The files that it mounts: path relative to the project folder to SHA-256.
  public var files: [String: String]

  public init(number: Int, version: String, previous: Int, copyOf: Int = 0, created: String, playbook: String) {
    self.number = number
    self.version = version
    self.previous = previous
    self.copyOf = copyOf
    self.created = created
    self.playbook = playbook
    images = [:]
    services = []
    env = [:]
    envDefaults = []
    files = [:]
  }
}

extension Release {
  /// Reads release.json. Members that a newer version of the tool added are passed over.
  ///
  /// Throws `OrchestrateError` where it can't be read: then nothing of it may be guessed.
  public init(json text: String, host: String) throws {
    do {
      self = try JSONDecoder().decode(Release.self, from: Data(text.utf8))
    } catch {
      throw OrchestrateError(
        .failed, "the running release's release.json can't be read", host: host, cause: "\(error)",
        remedy: "was it written by a newer version of orchestrate?")
    }
  }

  /// release.json: members in the order of their names, a line each.
  public func json() throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    return Array(try encoder.encode(self)) + [0x0a]
  }
}

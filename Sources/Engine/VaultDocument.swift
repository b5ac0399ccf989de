/// `secrets list`: what the vault's file says without being opened. No values.
public struct VaultDocument: Sendable, Equatable, Codable {
  public var environment: String
  /// Relative to the project.
  public var file: String
  public var lastModified: String
  public var keys: [Key]
  public var recipients: [String]
  /// Other kinds of keys that can open it, by SOPS' names (`pgp`, `kms` …).
  public var otherKeys: [String]

  public struct Key: Sendable, Equatable, Codable {
    /// Groups and positions in lists between dots.
    public var name: String
    /// SOPS' type: `str`, `int`, `float`, `bool`, `bytes`, `time`. Left out of a value that isn't encrypted.
    public var type: String?
    public var encrypted: Bool

    public init(name: String, type: String?, encrypted: Bool) {
      self.name = name
      self.type = type
      self.encrypted = encrypted
    }
  }

  public init(
    environment: String, file: String, lastModified: String, keys: [Key], recipients: [String], otherKeys: [String]
  ) {
    self.environment = environment
    self.file = file
    self.lastModified = lastModified
    self.keys = keys
    self.recipients = recipients
    self.otherKeys = otherKeys
  }
}

/// `secrets get --json`.
public struct VaultValueDocument: Sendable, Equatable, Codable {
  public var environment: String
  public var name: String
  public var type: String
  public var value: String

  public init(environment: String, name: String, type: String, value: String) {
    self.environment = environment
    self.name = name
    self.type = type
    self.value = value
  }
}

/// `secrets keygen --json`.
public struct KeyDocument: Sendable, Equatable, Codable {
  public var file: String
  public var recipient: String

  public init(file: String, recipient: String) {
    self.file = file
    self.recipient = recipient
  }
}

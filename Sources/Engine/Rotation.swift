public import Diagnostics
public import Inventory

/// A new value for one name, with all that is made of it: what `secrets rotate` changes, and what a rollback keeps of what was changed. A value.
public struct Rotation: Sendable, Equatable {
  /// The name that was asked for; of a rollback none.
  public var key: String
  /// The whole env of the release that comes of it, in the order of the running one's.
  public var values: [ResolvedValue]
  /// The variables of the env file that change (`NAME_FILE` of a value in a file), with what they are now.
  public var before: [String: Secret]
  /// The same, as they will be.
  public var after: [String: Secret]
  /// New values of those that the host keeps for good (generated.env).
  public var kept: [String: Secret]
  /// What the template says of roles (`@role`), by name.
  public var roles: [String: String]
  /// What the release will run: what runs now, and in it the new values in the place of the old ones; nil before the host's Compose has read them.
  public var config: ComposeConfig?
  /// What should be known of the new value before it is accepted.
  public var note: String?

  public init(
    key: String, values: [ResolvedValue], before: [String: Secret], after: [String: Secret],
    kept: [String: Secret] = [:], roles: [String: String] = [:]
  ) {
    self.key = key
    self.values = values
    self.before = before
    self.after = after
    self.kept = kept
    self.roles = roles
  }

  /// Names (not variables) whose value changes.
  public var changed: Set<String> {
    Set(values.filter { after[$0.variable.name] != nil }.map(\.name))
  }
}

/// A database role that gets another password.
public struct RoleChange: Sendable, Equatable {
  public var role: String
  /// The name in the env file whose value the password is.
  public var name: String
  /// SCRAM-SHA-256: the host never hands the password itself to the database.
  public var verifier: Secret
  /// Rollback: the version whose password it is.
  public var backTo: String?

  public init(role: String, name: String, verifier: Secret, backTo: String? = nil) {
    self.role = role
    self.name = name
    self.verifier = verifier
    self.backTo = backTo
  }
}

extension Release {
  /// The passwords of database roles, by role, with the hash of the value.
  /// - Parameters:
  ///   - roles: by name, what is known of this release.
  ///   - others: what was said of names in other releases and in the template: a role is often annotated after its password was there.
  func rolePasswords(_ roles: [String: String], others: [String: String]) -> [String: (name: String, hash: String)] {
    var found: [String: (name: String, hash: String)] = [:]
    for known in [roles, others] {
      for (name, role) in known.sorted(by: { $0.key < $1.key }) {
        if let hash = env[name], found[role] == nil { found[role] = (name, hash) }
      }
    }
    return found
  }
}

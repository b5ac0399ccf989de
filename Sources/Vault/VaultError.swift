public import Diagnostics

/// Why a vault can't be read, opened or changed. Each diagnostic has the place in the file; none quotes a value.
public struct VaultError: Error, Sendable, Equatable {
  public enum Code: String, Sendable, Equatable {
    /// No YAML, or YAML of a form that isn't kept through an edit.
    case syntax
    /// No SOPS metadata, or incomplete ones.
    case notAVault
    /// A feature of SOPS that isn't implemented.
    case unsupported
    /// None of the identities is a recipient.
    case noIdentity
    /// The wrapped data key was changed or cut off.
    case dataKey
    /// A value was changed, moved to another key, or isn't encrypted though it should be.
    case tampered
    /// All values are whole, but not those that were written together.
    case mac
    case noSuchKey
    /// A mapping where a value is meant, or the reverse.
    case wrongKind
    /// A name or a value that can't be written.
    case refused
    case recipient
    /// A key file or a key in the environment that can't be read.
    case identity
  }

  public var code: Code
  /// At least one.
  public var diagnostics: [Diagnostic]

  public init(_ code: Code, _ diagnostics: [Diagnostic]) {
    self.code = code
    self.diagnostics = diagnostics
  }

  public init(_ code: Code, at location: SourceLocation?, _ message: String, help: String? = nil) {
    self.init(code, [Diagnostic(at: location, message, help: help)])
  }
}

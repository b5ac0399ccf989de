import Diagnostics

/// Where private keys are looked for, in this order; the first one that opens a vault is used:
///
/// 1. `ORCHESTRATE_VAULT_KEY`: the key itself
/// 2. `SOPS_AGE_KEY`: the key itself
/// 3. `SOPS_AGE_KEY_FILE`: a file of keys
/// 4. `SOPS_AGE_SSH_PRIVATE_KEY_FILE`: an OpenSSH key
/// 5. `~/.config/orchestrate/keys.txt`
/// 6. `~/.config/sops/age/keys.txt`
/// 7. `~/.ssh/id_ed25519`
///
/// `~/.config` is `$XDG_CONFIG_HOME` where that is set. What a variable names has to be there and be readable; of the files
/// 5 to 7 those that are absent are passed over, and an SSH key with a passphrase too.
public struct IdentitySources: Sendable {
  public struct Found: Sendable {
    public var identities: [Identity] = []
    /// Where they came from, as messages name it.
    public var used: [String] = []
    /// Where there was nothing, or nothing of use.
    public var passedOver: [String] = []
  }

  private let environment: [String: String]
  private let read: @Sendable (String) throws -> [UInt8]?

  /// - Parameter read: the bytes of a file by its path; nil: there is none.
  public init(environment: [String: String], read: @escaping @Sendable (String) throws -> [UInt8]?) {
    self.environment = environment
    self.read = read
  }

  static let variables = ["ORCHESTRATE_VAULT_KEY", "SOPS_AGE_KEY"]
  static let fileVariables = ["SOPS_AGE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_FILE"]
  /// A key file bigger than this is none.
  static let sizeLimit = 256 * 1024

  /// The file that `keygen` writes; nil where the environment has no home.
  public static func keyFile(_ environment: [String: String]) -> String? {
    configuration(environment).map { $0 + "/orchestrate/keys.txt" }
  }

  private static func configuration(_ environment: [String: String]) -> String? {
    if let folder = environment["XDG_CONFIG_HOME"], folder.hasPrefix("/") { return folder }
    return environment["HOME"].flatMap { $0.isEmpty ? nil : $0 + "/.config" }
  }

  /// Throws `VaultError` (`identity`) with all faults; none quotes a key.
  public func load() throws(VaultError) -> Found {
    var found = Found(), faults: [Diagnostic] = []
    for name in Self.variables {
      guard let text = environment[name], !text.isEmpty else {
        found.passedOver.append("\(name) (not set)")
        continue
      }
      add(text, from: name, isFile: false, &found, &faults)
    }
    for name in Self.fileVariables {
      guard let path = environment[name], !path.isEmpty else {
        found.passedOver.append("\(name) (not set)")
        continue
      }
      addFile(path, named: name, &found, &faults)
    }
    if let folder = Self.configuration(environment) {
      for path in [folder + "/orchestrate/keys.txt", folder + "/sops/age/keys.txt"] {
        addFile(path, named: nil, &found, &faults)
      }
    }
    if let home = environment["HOME"], !home.isEmpty { addSSHKey(home + "/.ssh/id_ed25519", &found) }
    guard faults.isEmpty else { throw VaultError(.identity, faults) }
    return found
  }

  private func bytes(_ path: String) throws -> [UInt8]? {
    guard let bytes = try read(path) else { return nil }
    struct TooBig: Error {}
    guard bytes.count <= Self.sizeLimit else { throw TooBig() }
    return bytes
  }

  private func addFile(_ path: String, named name: String?, _ found: inout Found, _ faults: inout [Diagnostic]) {
    let label = name.map { "\(path) (\($0))" } ?? path
    do {
      guard let bytes = try bytes(path) else {
        if let name {
          faults.append(Diagnostic(at: nil, "\(name) names a file that isn't there: \(path)"))
        } else {
          found.passedOver.append("\(path) (not there)")
        }
        return
      }
      // A file that nobody has named may be another program's: whatever it holds, the other keys count.
      guard name == nil else {
        return add(String(decoding: bytes, as: UTF8.self), from: label, path: path, isFile: true, &found, &faults)
      }
      var itsFaults: [Diagnostic] = []
      add(String(decoding: bytes, as: UTF8.self), from: label, path: path, isFile: true, &found, &itsFaults)
      found.passedOver += itsFaults.map(\.message)
    } catch  where name == nil {
      found.passedOver.append("\(label) (can't be read)")
    } catch {
      faults.append(
        Diagnostic(at: nil, "the key file \(label) can't be read", help: "are you allowed to? ls -l \(path)"))
    }
  }

  private func add(
    _ text: String, from label: String, path: String? = nil, isFile: Bool, _ found: inout Found,
    _ faults: inout [Diagnostic]
  ) {
    do {
      let identities = try Identity.parse(text)
      found.identities += identities
      if identities.isEmpty { found.passedOver.append("\(label) (holds no key)") } else { found.used.append(label) }
    } catch {
      let place = isFile ? error.line.map { SourceLocation(file: path ?? label, line: $0, column: 1) } : nil
      faults.append(Diagnostic(at: place, "\(label): \(error.message)"))
    }
  }

  /// It is there for SSH: one that can't be used here is no fault.
  private func addSSHKey(_ path: String, _ found: inout Found) {
    guard let bytes = try? bytes(path) else {
      found.passedOver.append("\(path) (not there)")
      return
    }
    do {
      found.identities += try Identity.parse(String(decoding: bytes, as: UTF8.self))
      found.used.append(path)
    } catch {
      found.passedOver.append("\(path) (\(error.message))")
    }
  }
}

internal import Playbooks

/// The host's side of the product as it travels: a tar, named by its content, so that it is sent once per host and version.
public struct HostBundle: Sendable {
  /// The first 16 hex digits of the SHA-256 over the tar.
  public let name: String
  public let tar: [UInt8]
  private let stub: String

  /// - Parameter sha256: lowercase hex.
  public init(sha256: (_ bytes: [UInt8]) -> String) {
    var archive = TarArchive()
    var folders: Set<String> = []
    for file in Playbooks.bundle.sorted(by: { $0.path < $1.path }) {
      if let slash = file.path.lastIndex(of: "/"), folders.insert(String(file.path[..<slash])).inserted {
        archive.add(directory: String(file.path[..<slash]), mode: 0o755)
      }
      archive.add(file: file.path, mode: 0o644, file.bytes)
    }
    tar = archive.finished()
    name = String(sha256(tar).prefix(16))
    stub = String(decoding: Playbooks.stub.bytes, as: UTF8.self)
  }

  /// The command line of the exec channel: the stub with its parameters.
  ///
  /// The names are of letters, digits and dashes (checked when the inventory is read), the stub is ours: nothing of it is secret.
  /// - Parameters:
  ///   - asking: messages of a line each that are answered first, without a round trip of their own.
  ///   - preparation: what prepares the machine runs as root, in directories of its own.
  public func command(project: String, asking: [String] = [], preparation: Preparing? = nil) -> String {
    let words = [stub, "orchestrate", name, project, asking.joined(separator: "\n")]
    let base = HostPaths.bootstrapBase
    let places = "env ORCHESTRATE_STATE=\(base) ORCHESTRATE_OPT=\(base)/opt "
    let prefix =
      switch preparation {
      case nil: ""
      case .asRoot: places
      case .bySudo: "sudo -n " + places
      }
    return "exec \(prefix)sh -c " + words.map(shellQuoted).joined(separator: " ")
  }

  /// How the conversation becomes root's.
  public enum Preparing: Sendable { case asRoot, bySudo }
}

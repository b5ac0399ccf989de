/// Steps that travel to the host together: directories `NN-<name>` in one tar (docs/runner.md, "Steps").
public struct StepBatch: Sendable {
  public private(set) var directories: [String] = []
  private var archive = TarArchive()
  private var next: Int
  /// Where the directories lie, with its slash; empty: in the deployment's own.
  private let folder: String

  /// - Parameter first: the number of the first step, from 1.
  public init(first: Int, below folder: String = "") {
    next = first
    self.folder = folder
    if !folder.isEmpty { archive.add(directory: folder) }
  }

  public var isEmpty: Bool { directories.isEmpty }
  /// The number of the step that would come next.
  public var following: Int { next }

  /// - Parameter kind: `KIND` of the step's meta, for the log and the history.
  public mutating func append(name: String, kind: String, payload: StepPayload, after: Bool) {
    let directory = (next < 10 ? "0" : "") + "\(next)-\(name)"
    next += 1
    directories.append(directory)
    let place = folder + directory
    archive.add(directory: place)
    let seconds = max(1, payload.timeout.components.seconds + (payload.timeout.components.attoseconds > 0 ? 1 : 0))
    let meta = shellAssignments([
      ("KIND", payload.script.isEmpty ? kind : payload.script), ("NAME", name), ("TIMEOUT", "\(seconds)"),
      ("SIDE", payload.side.rawValue), ("CHANGES", payload.changes ? "1" : "0"),
      ("UNDO", payload.hasUndo && !after ? "1" : "0"), ("AFTER", after ? "1" : "0"),
      ("SECRETS", payload.secrets.joined(separator: " ")),
    ])
    archive.add(file: "\(place)/meta", Array(meta.utf8))
    archive.add(file: "\(place)/params", Array(shellAssignments(payload.parameters).utf8))
    var made: Set<String> = []
    for file in payload.files {
      var inner = ""
      for part in file.path.split(separator: "/").dropLast() {
        inner += (inner.isEmpty ? "" : "/") + part
        if made.insert(inner).inserted { archive.add(directory: "\(place)/\(inner)", mode: 0o755) }
      }
      archive.add(file: "\(place)/\(file.path)", mode: file.mode, file.bytes)
    }
  }

  /// A file beside the step directories.
  public mutating func add(file path: String, _ bytes: [UInt8]) { archive.add(file: path, bytes) }

  /// The directories of a batch with a folder of its own, to travel along.
  public mutating func carry(_ other: StepBatch) { archive.add(other.archive) }

  public var tar: [UInt8] { archive.finished() }

  /// The step's name in a directory's name: `05-backup` → `backup`.
  public static func name(of directory: String) -> String {
    guard let dash = directory.firstIndex(of: "-") else { return directory }
    return String(directory[directory.index(after: dash)...])
  }
}

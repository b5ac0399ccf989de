internal import Diagnostics
internal import Synchronization

#if canImport(FoundationEssentials)
  internal import FoundationEssentials
#else
  internal import Foundation
#endif

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// A folder for a text that must not outlive the process: for its owner alone, in memory where there is such storage, with
/// the editor's own copies in it. A guard of its own session removes it when the process is gone, however it went (SIGKILL
/// too); only the machine's end can leave it, and then memory is gone as well.
final class PlaintextSpace: Sendable {
  let folder: String
  let isInMemory: Bool
  /// The guard, and the pipe whose end it waits for.
  private let sentinel: Mutex<(process: pid_t, pipe: Int32)?>

  init(_ context: CommandContext) throws {
    var made: (folder: String, isInMemory: Bool)?
    let runtime = [context.environment["XDG_RUNTIME_DIR"], "/dev/shm"].compactMap { $0 }.filter { $0.hasPrefix("/") }
    for place in runtime where Self.isInMemory(place) {
      if let folder = Self.makeFolder(in: place) {
        made = (folder, true)
        break
      }
    }
    if made == nil {
      let place = context.environment["TMPDIR"].flatMap { $0.hasPrefix("/") ? $0 : nil } ?? "/tmp"
      made = Self.makeFolder(in: place).map { ($0, Self.isInMemory(place)) }
    }
    guard let made else { throw Self.fault("mkdtemp: \(String(cString: strerror(errno)))") }
    (folder, isInMemory) = made
    do {
      sentinel = Mutex(try Self.startGuard(of: made.folder))
    } catch {
      rmdir(made.folder)
      throw Self.fault("\(error)")
    }
  }

  /// mkdtemp(3): mode 0700, a name that nobody can foretell.
  private static func makeFolder(in place: String) -> String? {
    var template = Array("\(place)/orchestrate-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { return nil }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// By the type of the file system that is mounted there (proc_pid_mounts(5)); where that can't be told, it isn't.
  private static func isInMemory(_ path: String) -> Bool {
    guard let real = realpath(path, nil), let mounts = FileManager.default.contents(atPath: "/proc/self/mounts") else {
      return false
    }
    defer { free(real) }
    return isInMemory(String(cString: real), mounts: String(decoding: mounts, as: UTF8.self))
  }

  static func isInMemory(_ path: String, mounts: String) -> Bool {
    var best: (point: String, type: Substring) = ("", "")
    for line in mounts.split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard fields.count > 2 else { continue }
      let point = String(fields[1])
      // The last of equal ones lies on top.
      if path == point || point == "/" || path.hasPrefix(point + "/"), point.utf8.count >= best.point.utf8.count {
        best = (point, fields[2])
      }
    }
    return best.type == "tmpfs" || best.type == "ramfs"
  }

  private static func startGuard(of folder: String) throws -> (process: pid_t, pipe: Int32) {
    var ends: [Int32] = [0, 0]
    guard pipe(&ends) == 0 else { throw SpawnFault(description: "pipe: \(String(cString: strerror(errno)))") }
    defer { close(ends[0]) }
    // Nobody else may hold the end that we write to: the guard would wait for them, too.
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    let script = "trap '' INT TERM HUP; read -r gone; rm -rf -- \"$1\""
    do {
      let process = try spawn(
        ["/bin/sh", "-c", script, "sh", folder], environment: ["PATH": "/usr/bin:/bin"], input: ends[0], isQuiet: true,
        ownSession: true)
      return (process, ends[1])
    } catch {
      close(ends[1])
      throw error
    }
  }

  private static func fault(_ reason: String) -> OrchestrateError {
    OrchestrateError(
      .failed, "the text can't be kept while it is edited", cause: reason, state: "nothing was written")
  }

  /// The path of a file in it that holds the text.
  func write(_ name: String, _ text: String) throws -> String {
    let path = folder + "/" + name
    do { try PrivateFile.create(path, Array(text.utf8)) } catch let error as PrivateFile.Fault {
      throw Self.fault(error.reason)
    }
    return path
  }

  func read(_ name: String) throws -> String {
    guard let bytes = FileManager.default.contents(atPath: folder + "/" + name) else {
      throw Self.fault("the editor has removed the file")
    }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw Self.fault("the editor has saved it in another encoding than UTF-8")
    }
    return text
  }

  /// May be called more than once, from any thread.
  func remove() {
    try? FileManager.default.removeItem(atPath: folder)
    let ending = sentinel.withLock { sentinel in
      defer { sentinel = nil }
      return sentinel
    }
    guard let ending else { return }
    // The guard sees the end of its input and removes what an editor may have written in between.
    close(ending.pipe)
    var status: Int32 = 0
    while waitpid(ending.process, &status, 0) < 0, errno == EINTR {}
  }
}

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Read access to the user's files: the disk, or a dictionary in tests. Paths are absolute, with `/`.
public struct FileSource: Sendable {
  public enum Kind: Sendable { case file, folder }

  /// Nil: there is nothing at that path.
  public var kind: @Sendable (String) -> Kind?
  /// The bytes of a file. Throws whatever the system says if it can't be read.
  public var read: @Sendable (String) throws -> [UInt8]
  /// Names in a folder, sorted, hidden ones included.
  public var list: @Sendable (String) throws -> [String]

  public init(
    kind: @escaping @Sendable (String) -> Kind?, read: @escaping @Sendable (String) throws -> [UInt8],
    list: @escaping @Sendable (String) throws -> [String]
  ) {
    self.kind = kind
    self.read = read
    self.list = list
  }

  /// The disk of this machine.
  public static let disk = FileSource(
    kind: { path in
      var isFolder = false
      guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else { return nil }
      return isFolder ? .folder : .file
    },
    read: { path in
      var status = stat()
      guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { throw NotARegularFile() }
      return [UInt8](try Data(contentsOf: URL(filePath: path)))
    },
    list: { try FileManager.default.contentsOfDirectory(atPath: $0).sorted() })

  /// A folder, or what would keep its reader waiting: a pipe, a device.
  private struct NotARegularFile: Error {}

  /// Files in memory, by absolute path; folders are there because something lies in them. A path that ends in `/` is
  /// an empty folder.
  public static func memory(_ files: [String: String]) -> FileSource {
    memory(files.mapValues { Array($0.utf8) })
  }

  public static func memory(_ files: [String: [UInt8]]) -> FileSource {
    struct NoSuchFile: Error {}
    return FileSource(
      kind: { path in
        if files[path] != nil { return .file }
        return path == "/" || files.keys.contains { $0.hasPrefix(path + "/") } ? .folder : nil
      },
      read: { path in
        guard let bytes = files[path] else { throw NoSuchFile() }
        return bytes
      },
      list: { path in
        let prefix = path == "/" ? "/" : path + "/"
        let names = files.keys.filter { $0.hasPrefix(prefix) }.map { key in
          String(key.dropFirst(prefix.count).prefix { $0 != "/" })
        }
        return Set(names).subtracting([""]).sorted()
      })
  }
}

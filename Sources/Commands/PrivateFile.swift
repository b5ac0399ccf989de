internal import Views

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

/// Files that are written whole or not at all, and never readable for others in between.
enum PrivateFile {
  struct Fault: Error {
    var reason: String
  }

  /// Writes beside the file, then takes its place (rename(2)). A link is followed; an existing file keeps its mode.
  ///
  /// - Parameter mode: of a new file.
  static func replace(_ path: String, with bytes: [UInt8], mode: mode_t) throws {
    var target = path
    if let real = realpath(path, nil) {
      target = String(cString: real)
      free(real)
    }
    let folder = parent(target)
    var status = stat()
    let mode = stat(target, &status) == 0 ? status.st_mode & 0o7777 : mode
    let temporary =
      "\(folder)/.\(target[target.index(target.startIndex, offsetBy: folder.count + 1)...]).\(getpid()).tmp"
    unlink(temporary)
    do {
      try write(temporary, bytes, mode: mode)
      guard rename(temporary, target) == 0 else { throw fault("rename") }
    } catch {
      unlink(temporary)
      throw error
    }
    try sync(folder)
  }

  /// Whether `replace` would be let: what counts is the folder (rename(2)).
  static func canReplace(_ path: String) -> Bool {
    guard let real = realpath(path, nil) else { return access(parent(path), W_OK) == 0 }
    defer { free(real) }
    return access(parent(String(cString: real)), W_OK) == 0
  }

  /// Runs the body while no other process of ours changes a file of that folder. The lock is on the folder (flock(2)): on
  /// the file it would be lost when another takes its place. Where it can't be had the body runs without.
  static func locked<Value>(_ path: String, _ body: () throws -> Value) throws -> Value {
    let descriptor = open(parent(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    defer { if descriptor >= 0 { close(descriptor) } }
    if descriptor >= 0 { while flock(descriptor, LOCK_EX) != 0, errno == EINTR {} }
    return try body()
  }

  /// A new file, for its owner alone; throws if there is one. The folders above are made, for their owner alone too.
  static func create(_ path: String, _ bytes: [UInt8]) throws {
    let folder = parent(path)
    try makeFolder(folder)
    do {
      try write(path, bytes, mode: 0o600)
    } catch {
      if (error as? Fault)?.reason.hasPrefix("open") != true { unlink(path) }
      throw error
    }
    try sync(folder)
  }

  private static func makeFolder(_ path: String) throws {
    guard path.count > 1, access(path, F_OK) != 0 else { return }
    try makeFolder(parent(path))
    guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw fault("mkdir") }
  }

  private static func write(_ path: String, _ bytes: [UInt8], mode: mode_t) throws {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else { throw fault("open") }
    defer { close(descriptor) }
    guard writeAll(bytes, to: descriptor) else { throw fault("write") }
    guard fchmod(descriptor, mode) == 0, fsync(descriptor) == 0 else { throw fault("fsync") }
  }

  private static func sync(_ folder: String) throws {
    let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    // Some file systems can't; the rename has happened all the same.
    _ = fsync(descriptor)
  }

  private static func parent(_ path: String) -> String {
    guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return "/" }
    return String(path[..<slash])
  }

  private static func fault(_ call: String) -> Fault { Fault(reason: "\(call): \(String(cString: strerror(errno)))") }
}

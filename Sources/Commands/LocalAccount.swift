#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// The account that this process runs as, from the password database (getpwuid(3)): cron and CI often set no USER, and ssh(1) goes by this alone.
struct LocalAccount: Sendable {
  var name: String
  var home: String

  /// Looked up once: the function's own memory is everybody's. Nil: the user's number is in no database.
  static let current: LocalAccount? = {
    guard let entry = getpwuid(getuid()), let name = entry.pointee.pw_name, let home = entry.pointee.pw_dir else {
      return nil
    }
    return LocalAccount(name: String(cString: name), home: String(cString: home))
  }()
}

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

struct SpawnFault: Error, CustomStringConvertible {
  var description: String
}

/// Starts a program (posix_spawn(3)) with the signals' default actions, whatever this process does with them.
///
/// - Parameters:
///   - input: what becomes its stdin; nil: ours.
///   - isQuiet: stdout and stderr go nowhere.
func spawn(
  _ arguments: [String], environment: [String: String], input: Int32? = nil, isQuiet: Bool = false,
  ownSession: Bool = false
) throws(SpawnFault) -> pid_t {
  var attributes = posix_spawnattr_t()
  var actions = posix_spawn_file_actions_t()
  posix_spawnattr_init(&attributes)
  posix_spawn_file_actions_init(&actions)
  defer {
    posix_spawnattr_destroy(&attributes)
    posix_spawn_file_actions_destroy(&actions)
  }
  var signals = sigset_t()
  sigemptyset(&signals)
  for signal in [SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT] { sigaddset(&signals, signal) }
  posix_spawnattr_setsigdefault(&attributes, &signals)
  var none = sigset_t()
  sigemptyset(&none)
  posix_spawnattr_setsigmask(&attributes, &none)
  var flags = Int32(POSIX_SPAWN_SETSIGDEF) | Int32(POSIX_SPAWN_SETSIGMASK)
  #if canImport(Darwin)
    if ownSession { flags |= Int32(POSIX_SPAWN_SETSID) }
  #else
    // POSIX_SPAWN_SETSID, which glibc has behind _GNU_SOURCE (spawn.h).
    if ownSession { flags |= 0x80 }
  #endif
  posix_spawnattr_setflags(&attributes, Int16(flags))
  if let input { posix_spawn_file_actions_adddup2(&actions, input, 0) }
  if isQuiet {
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
  }
  var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
  var envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
  defer { for pointer in argv + envp { free(pointer) } }
  var process: pid_t = 0
  let status = posix_spawn(&process, arguments[0], &actions, &attributes, &argv, &envp)
  guard status == 0 else {
    throw SpawnFault(
      description: "\(arguments[0]): \(String(cString: strerror(status)))")
  }
  return process
}

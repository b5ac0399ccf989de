internal import Diagnostics

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// The terminal that a person sits at (termios(3)). Questions go to stderr, since stdout is payload.
enum Terminal {
  @Sendable static func readLine(_ prompt: String) async -> String? {
    write(prompt)
    return await line()
  }

  /// Without echo; the terminal's mode is put back also when the input ends.
  @Sendable static func readSecret(_ prompt: String) async -> Secret? {
    guard isatty(0) == 1 else { return nil }
    write(prompt)
    var saved = termios()
    guard tcgetattr(0, &saved) == 0 else { return nil }
    var quiet = saved
    quiet.c_lflag &= ~tcflag_t(ECHO)
    tcsetattr(0, TCSAFLUSH, &quiet)
    defer {
      tcsetattr(0, TCSAFLUSH, &saved)
      write("\n")
    }
    return await line().map { Secret($0) }
  }

  private static func write(_ text: String) {
    let bytes = Array(text.utf8)
    _ = bytes.withUnsafeBytes { systemWrite(2, $0.baseAddress, $0.count) }
  }

  /// Off the cooperative threads: a person may take their time.
  private static func line() async -> String? {
    await withCheckedContinuation { (continuation: CheckedContinuation<String?, Never>) in
      startThread { continuation.resume(returning: Swift.readLine(strippingNewline: true)) }
    }
  }
}

/// A detached POSIX thread (pthread_create(3)) that runs the body once.
func startThread(_ body: @escaping @Sendable () -> Void) {
  final class Box: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  let box = Unmanaged.passRetained(Box(body))
  #if canImport(Darwin)
    var thread: pthread_t?
    let entry: @convention(c) (UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? = { pointer in
      Unmanaged<Box>.fromOpaque(pointer).takeRetainedValue().body()
      return nil
    }
  #else
    var thread = pthread_t()
    let entry: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? = { pointer in
      Unmanaged<Box>.fromOpaque(pointer!).takeRetainedValue().body()
      return nil
    }
  #endif
  let status = pthread_create(&thread, nil, entry, box.toOpaque())
  precondition(status == 0, "pthread_create: \(status)")
  #if canImport(Darwin)
    pthread_detach(thread!)
  #else
    pthread_detach(thread)
  #endif
}

private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
  write(descriptor, bytes, count)
}

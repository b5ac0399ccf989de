internal import Diagnostics
internal import Synchronization
internal import Views

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// The terminal's mode before the echo was turned off; read in a signal handler and at the process's end.
nonisolated(unsafe) private var echoing: termios?

/// tcsetattr(3) is async-signal-safe (signal-safety(7)).
func restoreEcho() {
  guard var mode = echoing else { return }
  tcsetattr(0, TCSANOW, &mode)
}

/// The terminal that a person sits at (termios(3)). Questions go to stderr, since stdout is payload.
enum Terminal {
  @Sendable static func readLine(_ prompt: String) async -> String? {
    write(prompt)
    return await line()
  }

  /// Without echo; the terminal's mode is put back also when the input ends.
  @Sendable static func readSecret(_ prompt: String) async -> Secret? {
    guard isatty(0) == 1 else { return nil }
    var saved = termios()
    guard tcgetattr(0, &saved) == 0 else { return nil }
    var quiet = saved
    quiet.c_lflag &= ~tcflag_t(ECHO)
    echoing = saved
    // Where Ctrl-C would end the process at once, the shell behind it must not be left without echo.
    let previous = signal(SIGINT) { number in
      restoreEcho()
      signal(number, SIG_DFL)
      raise(number)
    }
    let hadHandler = previous.map { unsafeBitCast($0, to: Int.self) } ?? 0 != 0
    if hadHandler { signal(SIGINT, previous) }
    tcsetattr(0, TCSAFLUSH, &quiet)
    // Only now: an answer that came before would have been shown, and flushed.
    write(prompt)
    defer {
      tcsetattr(0, TCSAFLUSH, &saved)
      echoing = nil
      if !hadHandler { signal(SIGINT, SIG_DFL) }
      write("\n")
    }
    return await line().map { Secret($0) }
  }

  /// All of stdin, by read(2). Nil: it can't be read, or has more bytes than that.
  @Sendable static func readInput(_ limit: Int) -> [UInt8]? {
    var input: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 * 1024)
    while true {
      let count = read(0, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0, input.count + count <= limit else { return nil }
      guard count > 0 else { return input }
      input += buffer[..<count]
    }
  }

  private static func write(_ text: String) { _ = writeAll(Array(text.utf8), to: 2) }

  /// Off the cooperative threads: a person may take their time. A line that is still being waited for when the next is asked for (a question
  /// that was called off) belongs to whoever asked last.
  private static func line() async -> String? {
    await withCheckedContinuation { (continuation: CheckedContinuation<String?, Never>) in
      let (before, isReading) = reader.withLock { reader in
        defer { reader = (continuation, true) }
        return reader
      }
      before?.resume(returning: nil)
      guard !isReading else { return }
      startThread {
        let line = blockingLine()
        let waiter = reader.withLock { reader in
          defer { reader = (nil, false) }
          return reader.waiter
        }
        waiter?.resume(returning: line)
      }
    }
  }
  private static let reader = Mutex<(waiter: CheckedContinuation<String?, Never>?, isReading: Bool)>((nil, false))

  /// By read(2): stdio would hold the lock of stdin while it waits, and the process could not end (fflush(3), exit(3))
  /// under an open question.
  private static func blockingLine() -> String? {
    var line: [UInt8] = []
    var byte: UInt8 = 0
    while true {
      let count = read(0, &byte, 1)
      if count < 0, errno == EINTR { continue }
      guard count == 1 else { return line.isEmpty ? nil : String(decoding: line, as: UTF8.self) }
      if byte == 0x0a { return String(decoding: line, as: UTF8.self) }
      line.append(byte)
    }
  }
}

/// Whether a read from the terminal would be answered: to a job in the background it would be the end (SIGTTIN, termios(3)).
func hasForeground() -> Bool { tcgetpgrp(0) == getpgrp() }

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

import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Seconds of the monotonic clock (a suspended machine doesn't age).
func monotonicSeconds() -> Double {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

extension Duration {
  var inSeconds: Double {
    let (seconds, attoseconds) = components
    return Double(seconds) + Double(attoseconds) / 1e18
  }
}

/// One thread that sleeps in poll(2) and is the executor of every `SSHSession` on it: all of libssh2 runs here, one call at
/// a time, and never blocks. Name look-up and the decryption of keys happen elsewhere.
public final class SSHEventLoop: SerialExecutor, @unchecked Sendable {
  /// The loop that all sessions share unless told otherwise.
  public static let shared = SSHEventLoop()

  private enum Work {
    case job(UnownedJob)
    case body(@Sendable () -> Void)
  }
  /// Told what poll(2) saw. Runs on the loop's thread.
  typealias Handler = (Int16) -> Void
  private struct Watch {
    var events: Int16
    let handler: Handler
  }
  private struct Timer {
    let deadline: Double
    let handler: () -> Void
  }

  private let work = Mutex<[Work]>([])
  private let thread = Atomic<UInt>(0)
  private let wakeRead: Int32
  private let wakeWrite: Int32

  // Touched on the loop's thread only.
  private var watches: [Int32: Watch] = [:]
  private var timers: [UInt64: Timer] = [:]
  private var lastTimer: UInt64 = 0
  /// For one call after the other to read into: its content is nobody's between them.
  let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 16)

  public init() {
    var ends: [Int32] = [0, 0]
    precondition(pipe(&ends) == 0, "no file descriptor left for the SSH event loop")
    wakeRead = ends[0]
    wakeWrite = ends[1]
    for end in ends {
      _ = fcntl(end, F_SETFL, fcntl(end, F_GETFL) | O_NONBLOCK)
      _ = fcntl(end, F_SETFD, FD_CLOEXEC)
    }
    // The loop lives as long as the process: sessions hold unowned references to it as their executor.
    startThread { [self] in run() }
  }

  public func enqueue(_ job: consuming ExecutorJob) { add(.job(UnownedJob(job))) }

  public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

  public func checkIsolated() { precondition(isCurrent, "not on the SSH event loop's thread") }

  var isCurrent: Bool { thread.load(ordering: .relaxed) == currentThread() }

  /// Runs `body` on the loop's thread, soon.
  func perform(_ body: @escaping @Sendable () -> Void) { add(.body(body)) }

  private func add(_ item: Work) {
    let first = work.withLock {
      $0.append(item)
      return $0.count == 1
    }
    // The loop looks at the queue again before it sleeps: from its own thread no wake-up is needed.
    if first, !isCurrent {
      var byte: UInt8 = 1
      _ = write(wakeWrite, &byte, 1)
    }
  }

  // MARK: On the loop's thread

  func watch(_ descriptor: Int32, events: Int16, _ handler: @escaping Handler) {
    watches[descriptor] = Watch(events: events, handler: handler)
  }

  func setEvents(_ descriptor: Int32, _ events: Int16) { watches[descriptor]?.events = events }

  func unwatch(_ descriptor: Int32) { watches[descriptor] = nil }

  func schedule(at deadline: Double, _ handler: @escaping () -> Void) -> UInt64 {
    lastTimer += 1
    timers[lastTimer] = Timer(deadline: deadline, handler: handler)
    return lastTimer
  }

  func unschedule(_ timer: UInt64) { timers[timer] = nil }

  private func run() {
    thread.store(currentThread(), ordering: .relaxed)
    var drain = [UInt8](repeating: 0, count: 64)
    var polled: [pollfd] = []
    while true {
      runQueue()
      polled.removeAll(keepingCapacity: true)
      polled.append(pollfd(fd: wakeRead, events: Int16(POLLIN), revents: 0))
      for (descriptor, watch) in watches { polled.append(pollfd(fd: descriptor, events: watch.events, revents: 0)) }
      _ = poll(&polled, nfds_t(polled.count), pollTimeout())
      if polled[0].revents != 0 { while read(wakeRead, &drain, drain.count) > 0 {} }
      // A handler may end another watch: only those that still stand are told. Sockets before timers, so that a process
      // that was stopped for a while first sees what arrived in the meantime.
      for entry in polled.dropFirst() where entry.revents != 0 { watches[entry.fd]?.handler(entry.revents) }
      runTimers()
    }
  }

  private func runQueue() {
    while true {
      let items = work.withLock {
        let items = $0
        $0.removeAll(keepingCapacity: true)
        return items
      }
      if items.isEmpty { return }
      for item in items {
        switch item {
        case .job(let job): job.runSynchronously(on: asUnownedSerialExecutor())
        case .body(let body): body()
        }
      }
    }
  }

  private func pollTimeout() -> Int32 {
    guard let next = timers.values.min(by: { $0.deadline < $1.deadline })?.deadline, next.isFinite else { return -1 }
    return Int32(max(0, min((next - monotonicSeconds()) * 1000 + 1, 1e6)))
  }

  private func runTimers() {
    let now = monotonicSeconds()
    for (id, timer) in timers where timer.deadline <= now {
      if timers.removeValue(forKey: id) != nil { timer.handler() }
    }
  }
}

private func currentThread() -> UInt {
  #if canImport(Darwin)
    UInt(bitPattern: pthread_self())
  #else
    UInt(pthread_self())
  #endif
}

/// A detached thread of its own for `body`.
func startThread(_ body: @escaping @Sendable () -> Void) {
  final class Box {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  let context = Unmanaged.passRetained(Box(body)).toOpaque()
  #if canImport(Darwin)
    var thread: pthread_t?
    let status = pthread_create(
      &thread, nil,
      {
        Unmanaged<Box>.fromOpaque($0).takeRetainedValue().body(); return nil
      }, context)
    if status == 0, let thread { pthread_detach(thread) }
  #else
    var thread = pthread_t()
    let status = pthread_create(
      &thread, nil,
      {
        Unmanaged<Box>.fromOpaque($0!).takeRetainedValue().body()
        return nil
      }, context)
    if status == 0 { pthread_detach(thread) }
  #endif
  precondition(status == 0, "no thread could be started")
}

/// Runs what blocks (name look-up, key derivation, the agent) on a thread of its own. It can't be interrupted: who
/// can't wait for its end races it.
func offLoop<T: Sendable>(_ body: @escaping @Sendable () -> T) async -> T {
  await withUnsafeContinuation { continuation in
    startThread { continuation.resume(returning: body()) }
  }
}

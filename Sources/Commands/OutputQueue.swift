internal import Views

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Darwin)
  internal import Darwin
#endif

/// Passes on what it is given in order, from a thread of its own: a terminal that is stopped (Ctrl-S) or a pipe that nobody reads doesn't hold up
/// whoever reports, and least of all a deployment's signs of life. Once `limit` bytes wait it does, so that memory is bounded.
final class OutputQueue: OutputSink, @unchecked Sendable {
  private let next: any OutputSink
  private let limit: Int
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  // The rest under the mutex. `size`: bytes that haven't been passed on, those that are on their way included.
  private var waiting: [(bytes: [UInt8], stream: OutputStream)] = []
  private var size = 0
  private var isPassingOn = false
  private var isLeaving = false
  private var isLate = false

  init(_ next: any OutputSink, limit: Int = 8 << 20) {
    self.next = next
    self.limit = limit
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(changed, nil)
  }

  deinit {
    pthread_cond_destroy(changed)
    pthread_mutex_destroy(mutex)
    changed.deallocate()
    mutex.deallocate()
  }

  func write(_ text: String, to stream: OutputStream) { write(Array(text.utf8), to: stream) }

  func write(_ bytes: [UInt8], to stream: OutputStream) {
    locked {
      while size >= limit && !isLeaving { pthread_cond_wait(changed, mutex) }
      waiting.append((bytes, stream))
      size += bytes.count
      guard !isPassingOn else { return }
      isPassingOn = true
      startThread { self.passOn() }
    }
  }

  /// Something that was given still waits.
  var isBehind: Bool { locked { isPassingOn } }

  /// More of it than there is on its way to a reader who reads.
  var isFarBehind: Bool { locked { size > 16 << 10 } }

  /// Returns once everything was passed on, however long that takes; blocks.
  private func wait() {
    locked { while isPassingOn { pthread_cond_wait(changed, mutex) } }
  }

  /// Returns once everything was passed on.
  func drain() async {
    guard isBehind else { return }
    await withCheckedContinuation { continuation in
      startThread {
        self.wait()
        continuation.resume()
      }
    }
  }

  /// The same before the process's end, but for so many seconds at most; blocks.
  func drain(seconds: UInt32) {
    startThread {
      _ = sleep(seconds)
      self.locked {
        self.isLate = true
        pthread_cond_broadcast(self.changed)
      }
    }
    locked { while isPassingOn && !isLate { pthread_cond_wait(changed, mutex) } }
  }

  /// Before the process's end nobody is held up any more.
  func leave() {
    locked {
      isLeaving = true
      pthread_cond_broadcast(changed)
    }
  }

  private func passOn() {
    while let batch = takeBatch() {
      for (bytes, stream) in batch {
        next.write(bytes, to: stream)
        locked {
          size -= bytes.count
          pthread_cond_broadcast(changed)
        }
      }
    }
  }

  /// Nil: there is no more, and the thread ends.
  private func takeBatch() -> [(bytes: [UInt8], stream: OutputStream)]? {
    locked {
      defer { waiting = [] }
      guard waiting.isEmpty else { return waiting }
      isPassingOn = false
      pthread_cond_broadcast(changed)
      return nil
    }
  }

  private func locked<Result>(_ body: () -> Result) -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return body()
  }
}

extension CommandContext {
  /// A context in which reports are written from behind a queue, for the body: what it has said is passed on before it returns or throws, and
  /// before anything is asked.
  static func reporting<Result: Sendable>(_ body: (CommandContext, OutputQueue) async throws -> Result) async throws
    -> Result
  {
    let queue = OutputQueue(current.output)
    var context = current
    context.output = queue
    context.readLine = { [readLine = current.readLine] prompt in
      await queue.drain()
      return await readLine(prompt)
    }
    context.readSecret = { [readSecret = current.readSecret] prompt in
      await queue.drain()
      return await readSecret(prompt)
    }
    do {
      let result = try await $current.withValue(context) { try await body(context, queue) }
      await queue.drain()
      return result
    } catch {
      await queue.drain()
      throw error
    }
  }
}

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

private final class Body {
  let run: @Sendable () -> Void
  init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

/// Runs `body` on a detached thread of its own, which takes no signal: not SIGINT (the main thread's business), and not
/// the SIGPIPE of a connection that TLS writes to after the other side has gone.
func startThread(_ body: @escaping @Sendable () -> Void) {
  let context = Unmanaged.passRetained(Body(body)).toOpaque()
  var all = sigset_t()
  var before = sigset_t()
  sigfillset(&all)
  // A new thread inherits the mask of its creator (pthread_create(3)).
  pthread_sigmask(SIG_SETMASK, &all, &before)
  defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
  #if canImport(Darwin)
    var thread: pthread_t?
    let status = pthread_create(
      &thread, nil,
      {
        Unmanaged<Body>.fromOpaque($0).takeRetainedValue().run(); return nil
      }, context)
    if status == 0, let thread { pthread_detach(thread) }
  #else
    var thread = pthread_t()
    let status = pthread_create(
      &thread, nil,
      { context in
        Unmanaged<Body>.fromOpaque(context!).takeRetainedValue().run()
        return nil
      }, context)
    if status == 0 { pthread_detach(thread) }
  #endif
  precondition(status == 0, "pthread_create failed with \(status)")
}

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif
public import Diagnostics
import Synchronization

public enum OutputStream: Sendable, Hashable, CaseIterable {
  /// Payload: what was asked for.
  case standardOutput
  /// Narrative: errors, warnings, questions.
  case standardError
}

/// Where text goes. The only way in which anything of the product reaches stdout or stderr.
public protocol OutputSink: Sendable {
  /// Never fails: a reader that has gone doesn't end a deployment.
  func write(_ text: String, to stream: OutputStream)
  /// Bytes as they are: what a remote program writes needn't be text, nor end where a character does.
  func write(_ bytes: [UInt8], to stream: OutputStream)
}

extension OutputSink {
  public func write(_ bytes: [UInt8], to stream: OutputStream) {
    write(String(decoding: bytes, as: UTF8.self), to: stream)
  }
}

/// The process's own stdout and stderr, unbuffered. Lines of several threads don't mix. Once a stream's reader is gone
/// (EPIPE) or its device fails, what is written to it is dropped. The process ignores SIGPIPE, which `init` sees to.
public final class ProcessOutput: OutputSink {
  private let broken = Mutex<Set<OutputStream>>([])

  public init() { signal(SIGPIPE, SIG_IGN) }

  public func write(_ text: String, to stream: OutputStream) { write(Array(text.utf8), to: stream) }

  public func write(_ bytes: [UInt8], to stream: OutputStream) {
    let descriptor: Int32 = stream == .standardOutput ? 1 : 2
    broken.withLock { broken in
      guard !broken.contains(stream) else { return }
      if !writeAll(bytes, to: descriptor) { broken.insert(stream) }
    }
  }
}

/// Writes everything (write(2)), however many calls that takes; blocks. False: the reader is gone, or the device fails, with the reason in `errno`.
public func writeAll(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
  var rest = bytes[...]
  while !rest.isEmpty {
    let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
    if count >= 0 {
      rest = rest.dropFirst(count)
    } else if errno == EAGAIN {
      // A terminal or pipe that another process has set to non-blocking.
      var descriptor = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
      _ = poll(&descriptor, 1, -1)
    } else if errno != EINTR {
      return false
    }
  }
  return true
}

/// Masks secrets in everything that passes through: for commands that print more than documents. Not for a deployment
/// view, which masks by itself (and GitHubView has to name the secrets to its runner).
public struct MaskingOutput: OutputSink {
  private let masker: Masker
  private let next: any OutputSink

  public init(_ masker: Masker, _ next: any OutputSink) {
    self.masker = masker
    self.next = next
  }

  public func write(_ text: String, to stream: OutputStream) { next.write(masker.mask(text), to: stream) }
  public func write(_ bytes: [UInt8], to stream: OutputStream) { next.write(masker.mask(bytes), to: stream) }
}

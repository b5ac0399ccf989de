import Foundation
import Synchronization

/// A TCP proxy on 127.0.0.1 that can go silent or cut its connections.
final class TestProxy: Sendable {
  let port: UInt16
  private let listening: Int32
  private let target: UInt16
  private struct State {
    var sockets: [Int32] = []
    var isSilent = false
    var isStopped = false
  }
  private let state = Mutex(State())

  init(to target: UInt16) throws {
    self.target = target
    (listening, port) = try listener()
    Thread.detachNewThread { [self] in accept() }
  }

  /// Swallows everything from now on, in both directions, without closing.
  func goSilent() { state.withLock { $0.isSilent = true } }

  /// Cuts all connections, with RST.
  func cut() {
    state.withLock { state in
      for socket in state.sockets {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(socket, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        shutdown(socket, Int32(SHUT_RD))
        close(socket)
      }
      state.sockets = []
    }
  }

  func stop() {
    state.withLock { $0.isStopped = true }
    shutdown(listening, Int32(SHUT_RDWR))
    close(listening)
    cut()
  }

  private func accept() {
    while true {
      let client = Foundation.accept(listening, nil, nil)
      guard client >= 0, let server = connectLoopback(target) else { return }
      state.withLock { $0.sockets += [client, server] }
      Thread.detachNewThread { [self] in pump(client, server) }
      Thread.detachNewThread { [self] in pump(server, client) }
    }
  }

  private func pump(_ source: Int32, _ sink: Int32) {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = recv(source, &buffer, buffer.count, 0)
      guard count > 0 else { break }
      if state.withLock({ $0.isSilent }) { continue }
      var sent = 0
      while sent < count {
        let written = buffer.withUnsafeBytes { send(sink, $0.baseAddress! + sent, count - sent, Int32(MSG_NOSIGNAL)) }
        guard written > 0 else { return }
        sent += written
      }
    }
    if !state.withLock({ $0.isSilent }) { shutdown(sink, Int32(SHUT_WR)) }
  }
}

import Foundation

#if canImport(Glibc)
  import Glibc
#endif

/// A listener on 127.0.0.1 that answers each connection by `answer` on a thread of its own: as small as a test needs.
final class LocalServer: Sendable {
  struct Connection: Sendable {
    let descriptor: Int32
    /// The request up to its empty line.
    let request: String

    func send(_ text: String) {
      let bytes = Array(text.utf8)
      var sent = 0
      while sent < bytes.count {
        let count = bytes.withUnsafeBytes {
          Glibc.send(descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
        }
        if count <= 0 { return }
        sent += count
      }
    }

    /// Blocks until the client has closed its side.
    func waitForClose() {
      var byte: UInt8 = 0
      while recv(descriptor, &byte, 1, 0) > 0 {}
    }

    var path: String { String(request.split(separator: " ").dropFirst().first ?? "") }
  }

  let port: UInt16
  var url: String { "http://127.0.0.1:\(port)" }

  /// It listens until the process ends: a test may still wait for an answer when nothing refers to the server any more.
  init(_ answer: @escaping @Sendable (Connection) -> Void) {
    let (descriptor, port) = Self.listen()
    self.port = port
    Thread.detachNewThread {
      while true {
        let client = accept(descriptor, nil, nil)
        if client < 0 { return }
        Thread.detachNewThread {
          defer { close(client) }
          var request: [UInt8] = []
          var byte: UInt8 = 0
          while !request.suffix(4).elementsEqual([13, 10, 13, 10]) {
            if recv(client, &byte, 1, 0) <= 0 { return }
            request.append(byte)
            // The first byte of a TLS handshake record (RFC 8446, 5.1): no request will come.
            if request == [22] { break }
          }
          answer(Connection(descriptor: client, request: String(decoding: request, as: UTF8.self)))
        }
      }
    }
  }

  /// A port on which nobody listens (bound and released just now).
  static func closedPort() -> UInt16 {
    let (descriptor, port) = listen()
    close(descriptor)
    return port
  }

  private static func listen() -> (descriptor: Int32, port: UInt16) {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let status = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        bind(descriptor, address, length) == 0 && Glibc.listen(descriptor, 64) == 0
          && getsockname(descriptor, address, &length) == 0
      }
    }
    precondition(descriptor >= 0 && status, "no listener")
    return (descriptor, UInt16(bigEndian: address.sin_port))
  }
}

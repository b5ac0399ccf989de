import Foundation
import Synchronization
import Testing

@testable import HTTP

private let client = HTTPClient(usesProxyVariables: false)

private func kind(_ work: () async throws -> HTTPResponse) async -> HTTPError.Kind? {
  do {
    let response = try await work()
    Issue.record("answered \(response.status)")
    return nil
  } catch let error as HTTPError {
    return error.kind
  } catch {
    Issue.record("another error: \(error)")
    return nil
  }
}

@Suite(.timeLimit(.minutes(1))) struct HTTPClientTests {
  @Test func readsStatusHeadersAndBody() async throws {
    let server = LocalServer {
      $0.send("HTTP/1.1 503 Service Unavailable\r\nX-One: 1\r\nx-two:  two words \r\nContent-Length: 5\r\n\r\nhello")
    }
    let response = try await client.get(server.url + "/health")
    #expect(response.status == 503)
    #expect(response.text == "hello")
    #expect(response.header("x-one") == "1")
    #expect(response.header("X-Two") == "two words")
    #expect(response.timings.total > 0)
    #expect(response.timings.connected <= response.timings.firstByte)
    #expect(response.timings.secured == 0)
  }

  @Test func sendsPathAndHeaders() async throws {
    let seen = Mutex("")
    let server = LocalServer { connection in
      seen.withLock { $0 = connection.request }
      connection.send("HTTP/1.1 204 No Content\r\n\r\n")
    }
    let response = try await client.get(
      server.url + "/a?b=c", headers: [HTTPHeader("Host", "bot.example.com"), HTTPHeader("X-Empty", "")])
    #expect(response.status == 204)
    #expect(response.body.isEmpty)
    let request = seen.withLock { $0 }
    #expect(request.hasPrefix("GET /a?b=c HTTP/1.1\r\n"))
    #expect(request.contains("\r\nHost: bot.example.com\r\n"))
    #expect(request.contains("\r\nX-Empty:\r\n"))
    #expect(request.contains("\r\nUser-Agent: orchestrate\r\n"))
  }

  @Test func followsRedirectsOnlyWhenAsked() async throws {
    let server = LocalServer { connection in
      connection.path == "/old"
        ? connection.send("HTTP/1.1 302 Found\r\nLocation: /new\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n")
        : connection.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")
    }
    let first = try await client.get(server.url + "/old")
    #expect(first.status == 302 && first.redirects == 0)
    let second = try await client.get(server.url + "/old", followRedirects: true)
    #expect(second.status == 200 && second.redirects == 1)
    #expect(second.header("X-Hop") == nil)
  }

  @Test func redirectsAreBoundedAndStayWithHTTP() async {
    let server = LocalServer { connection in
      let target = connection.path == "/file" ? "file:///etc/hostname" : "/again"
      connection.send("HTTP/1.1 302 Found\r\nLocation: \(target)\r\nContent-Length: 0\r\n\r\n")
    }
    #expect(await kind { try await client.get(server.url + "/x", followRedirects: true) } == .tooManyRedirects)
    #expect(await kind { try await client.get(server.url + "/file", followRedirects: true) } == .badRequest)
  }

  @Test(arguments: [(100, nil), (99, HTTPError.Kind.tooLarge)] as [(Int, HTTPError.Kind?)])
  func boundsTheBody(limit: Int, expected: HTTPError.Kind?) async throws {
    let server = LocalServer { $0.send("HTTP/1.1 200 OK\r\n\r\n" + String(repeating: "x", count: 100)) }
    if let expected {
      #expect(await kind { try await client.get(server.url, maxBody: limit) } == expected)
    } else {
      #expect(try await client.get(server.url, maxBody: limit).body.count == 100)
    }
  }

  @Test func nobodyListens() async {
    let url = "http://127.0.0.1:\(LocalServer.closedPort())"
    #expect(await kind { try await client.get(url) } == .unreachable)
  }

  @Test(arguments: ["ftp://127.0.0.1/", "file:///etc/hostname", "http://", "not a url"])
  func refusesAddress(url: String) async {
    #expect(await kind { try await client.get(url) } == .badRequest)
  }

  @Test(arguments: [
    HTTPHeader("A\r\nB", "x"), HTTPHeader("A", "x\r\nB: y"), HTTPHeader("", "x"), HTTPHeader("A:B", "x"),
  ])
  func refusesHeader(header: HTTPHeader) async {
    #expect(await kind { try await client.get("http://127.0.0.1:1/", headers: [header]) } == .badRequest)
  }

  @Test func aSilentServerTimesOut() async {
    let server = LocalServer { $0.waitForClose() }
    let start = ContinuousClock.now
    #expect(await kind { try await client.get(server.url, timeout: .milliseconds(200)) } == .timeout)
    #expect(ContinuousClock.now - start < .seconds(10))
  }

  @Test func anAnswerThatBreaksOff() async {
    let short = LocalServer { $0.send("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nonly this") }
    #expect(await kind { try await client.get(short.url) } == .brokenAnswer)
    let none = LocalServer { _ in }
    #expect(await kind { try await client.get(none.url) } == .brokenAnswer)
  }

  /// The request ends by cancellation, long before its deadline: the server sees the connection close.
  @Test func cancellationEndsTheRequest() async throws {
    let (asked, askedSignal) = AsyncStream<Void>.makeStream()
    let (closed, closedSignal) = AsyncStream<Void>.makeStream()
    let server = LocalServer { connection in
      askedSignal.yield()
      connection.waitForClose()
      closedSignal.yield()
    }
    let url = server.url
    let start = ContinuousClock.now
    let request = Task { await kind { try await client.get(url, timeout: .seconds(600)) } }
    for await _ in asked { break }
    request.cancel()
    #expect(await request.value == .cancelled)
    for await _ in closed { break }
    #expect(ContinuousClock.now - start < .seconds(30))
    _ = server
  }

  @Test func aCancelledTaskDoesNotAsk() async {
    let server = LocalServer { $0.waitForClose() }
    let url = server.url
    let request = Task {
      while !Task.isCancelled { await Task.yield() }
      return await kind { try await client.get(url) }
    }
    request.cancel()
    #expect(await request.value == .cancelled)
  }

  /// More requests at once than the cooperative pool has threads: they don't block it, nor each other.
  @Test func manyAtOnce() async throws {
    let waiting = Mutex(0)
    let server = LocalServer { connection in
      waiting.withLock { $0 += 1 }
      while waiting.withLock({ $0 }) < 32 { usleep(1000) }
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    }
    let url = server.url
    let statuses = await withTaskGroup(of: Int?.self) { group in
      for _ in 0..<32 { group.addTask { try? await client.get(url, timeout: .seconds(30)).status } }
      return await group.reduce(into: []) { $0.append($1) }
    }
    #expect(statuses == Array(repeating: 200, count: 32))
  }

  @Test func credentialsStayOutOfErrors() {
    #expect(HTTPError(.failed, url: "http://u:p@host/x@y", "").url == "http://host/x@y")
    #expect(HTTPError(.failed, url: "http://host/x@y", "").url == "http://host/x@y")
    #expect(HTTPError(.failed, url: "nonsense", "").url == "nonsense")
  }
}

@Suite(.timeLimit(.minutes(1))) struct TLSTests {
  @Test func noTLSThere() async {
    let server = LocalServer { $0.send("HTTP/1.1 400 Bad Request\r\n\r\n") }
    #expect(await kind { try await client.get("https://127.0.0.1:\(server.port)/") } == .tls)
  }

  /// A certificate of our own is refused by the system's authorities, and accepted by those that the option names.
  @Test func certificatesAreChecked() async throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "orchestrate-tls-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let key = folder.appending(path: "key.pem").path, certificate = folder.appending(path: "cert.pem").path
    try await openssl([
      "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out",
      certificate, "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
    ]).ended.reduce(()) { _, _ in }

    let port = LocalServer.closedPort()
    let server = try openssl([
      "s_server", "-accept", "127.0.0.1:\(port)", "-key", key, "-cert", certificate, "-www", "-quiet",
    ]).process
    defer { server.terminate() }
    let url = "https://127.0.0.1:\(port)/"
    var trusting = client
    trusting.authorities = certificate
    // The server says nothing when it is ready: ask until it listens.
    var answer: Result<HTTPResponse, HTTPError>
    repeat {
      do throws(HTTPError) { answer = .success(try await trusting.get(url)) } catch { answer = .failure(error) }
    } while answer.isUnreachable && server.isRunning
    let response = try answer.get()
    #expect(response.status == 200)
    #expect(response.timings.secured > 0)
    #expect(await kind { try await client.get(url) } == .tls)
    trusting.authorities = folder.appending(path: "missing.pem").path
    #expect(await kind { try await trusting.get(url) } == .tls)
  }

  /// The stream ends when the process has (waitUntilExit would hold a thread of the cooperative pool).
  private func openssl(_ arguments: [String]) throws -> (process: Process, ended: AsyncStream<Void>) {
    let (ended, signal) = AsyncStream<Void>.makeStream()
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/openssl")
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    process.terminationHandler = { _ in signal.finish() }
    try process.run()
    return (process, ended)
  }
}

extension Result<HTTPResponse, HTTPError> {
  fileprivate var isUnreachable: Bool {
    if case .failure(let error) = self { error.kind == .unreachable } else { false }
  }
}

/// HTTP GET by libcurl, for questions that the client asks: health gates on public addresses, registries, webhooks.
///
/// Each request runs on a thread of its own, never on Swift's cooperative pool, and ends at once when its task is
/// cancelled. A value of this type holds settings only; it is safe to use from any number of tasks.
public struct HTTPClient: Sendable {
  /// PEM file with the certificate authorities to trust. Nil: the system's.
  public var authorities: String?
  /// Whether `http_proxy`, `https_proxy` and `no_proxy` are honoured.
  public var usesProxyVariables: Bool

  public init(authorities: String? = nil, usesProxyVariables: Bool = true) {
    self.authorities = authorities
    self.usesProxyVariables = usesProxyVariables
  }

  /// Asks for `url` (http or https only) and reads the whole answer; an HTTP status of 400 and above is an answer like
  /// any other.
  ///
  /// - Parameters:
  ///   - timeout: for everything together: name, connection, TLS, answer, redirects.
  ///   - followRedirects: at most five, to http and https only.
  ///   - maxBody: bytes of body; a longer one is `HTTPError.Kind.tooLarge`.
  /// - Throws: `HTTPError`; of kind `cancelled` when the task was cancelled.
  public func get(
    _ url: String, timeout: Duration = .seconds(10), headers: [HTTPHeader] = [], followRedirects: Bool = false,
    maxBody: Int = 1 << 20
  ) async throws(HTTPError) -> HTTPResponse {
    for header in headers where !header.isWellFormed {
      throw HTTPError(.badRequest, url: url, "a header that HTTP can't carry: \(header.name)")
    }
    let transfer = Transfer(
      Transfer.Request(
        url: url, timeout: timeout, headers: headers, followRedirects: followRedirects, maxBody: maxBody,
        authorities: authorities, usesProxyVariables: usesProxyVariables))
    let result = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        startThread { continuation.resume(returning: transfer.run()) }
      }
    } onCancel: {
      transfer.cancel()
    }
    return try result.get()
  }
}

public struct HTTPHeader: Sendable, Equatable {
  public var name: String
  public var value: String

  public init(_ name: String, _ value: String) {
    self.name = name
    self.value = value
  }

  /// A token and a field value (RFC 9110, 5.1 and 5.5): nothing that could end the line and begin another.
  var isWellFormed: Bool {
    !name.isEmpty && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: ":") }
      && value.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f || $0 == 0x09 }
  }
}

public struct HTTPResponse: Sendable, Equatable {
  public var status: Int
  /// Those of the last answer, in order, names as they were sent.
  public var headers: [HTTPHeader]
  public var body: [UInt8]
  public var timings: Timings
  public var redirects: Int

  /// Where the time went, in seconds from the start of the request (curl_easy_getinfo(3), TIMES).
  public struct Timings: Sendable, Equatable {
    public var nameResolved: Double
    public var connected: Double
    /// TLS established; 0 without TLS.
    public var secured: Double
    public var firstByte: Double
    public var total: Double
  }

  /// The body as text; bytes that are no UTF-8 become replacement characters.
  public var text: String { String(decoding: body, as: UTF8.self) }

  /// The first header of that name, whatever its case.
  public func header(_ name: String) -> String? {
    headers.first { $0.name.lowercased() == name.lowercased() }?.value
  }
}

/// Why there was no answer.
public struct HTTPError: Error, Sendable, Equatable, CustomStringConvertible {
  public enum Kind: Sendable, Equatable {
    /// No such name, or nobody listens there.
    case unreachable
    case timeout
    /// No TLS on the other side, or a certificate that isn't trusted.
    case tls
    /// The connection ended in the middle, or what came was no HTTP.
    case brokenAnswer
    case tooLarge
    case tooManyRedirects
    /// The address or a header can't be used.
    case badRequest
    case cancelled
    case failed
  }

  public var kind: Kind
  /// The address that was asked, without user and password.
  public var url: String
  /// libcurl's reason, for people.
  public var message: String

  init(_ kind: Kind, url: String, _ message: String) {
    self.kind = kind
    self.url = Self.withoutCredentials(url)
    self.message = message
  }

  public var description: String { "\(url): \(message)" }

  static func withoutCredentials(_ url: String) -> String {
    guard let scheme = url.firstRange(of: "://") else { return url }
    let rest = url[scheme.upperBound...]
    let authority = rest.prefix { !"/?#".contains($0) }
    guard let at = authority.lastIndex(of: "@") else { return url }
    return String(url[..<scheme.upperBound] + rest[rest.index(after: at)...])
  }
}

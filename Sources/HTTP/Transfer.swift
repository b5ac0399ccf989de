import CLibCurl
import Synchronization

/// One request, from its options to its result. `run` blocks and is called once, on a thread of its own; `cancel` may
/// come from any thread at any time.
final class Transfer: Sendable {
  struct Request: Sendable {
    var url: String
    var timeout: Duration
    var headers: [HTTPHeader]
    var followRedirects: Bool
    var maxBody: Int
    var authorities: String?
    var usesProxyVariables: Bool
  }

  private struct State: ~Copyable, @unchecked Sendable {
    var isCancelled = false
    /// The running multi handle, as long as it may be woken.
    var multi: UnsafeMutableRawPointer?
  }

  let request: Request
  private let state = Mutex(State())

  /// curl_global_init(3) must come first, once; it is thread-safe from 7.84 on, and a static is anyway.
  private static let isReady: Bool = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

  init(_ request: Request) { self.request = request }

  func cancel() {
    state.withLock { state in
      state.isCancelled = true
      // curl_multi_wakeup(3) may be called from another thread as long as the handle lives: the lock sees to that.
      if let multi = state.multi { curl_multi_wakeup(multi) }
    }
  }

  func run() -> Result<HTTPResponse, HTTPError> {
    guard Self.isReady, let easy = curl_easy_init() else { return failure(.failed, "libcurl doesn't start") }
    defer { curl_easy_cleanup(easy) }
    guard let multi = curl_multi_init() else { return failure(.failed, "libcurl doesn't start") }
    defer {
      state.withLock { $0.multi = nil }
      curl_multi_cleanup(multi)
    }
    let answer = Answer(limit: request.maxBody)
    let reason = UnsafeMutablePointer<CChar>.allocate(capacity: Int(CURL_ERROR_SIZE))
    reason.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    defer { reason.deallocate() }
    var list: UnsafeMutablePointer<curl_slist>?
    defer { curl_slist_free_all(list) }
    for header in request.headers {
      // "Name;" is how libcurl spells an empty value (CURLOPT_HTTPHEADER(3)).
      list = curl_slist_append(list, header.value.isEmpty ? "\(header.name);" : "\(header.name): \(header.value)")
    }

    let code = configure(easy, answer: answer, headers: list, reason: reason)
    guard code == CURLE_OK else { return failure(.badRequest, text(code, reason)) }
    return withExtendedLifetime(answer) {
      guard curl_multi_add_handle(multi, easy) == CURLM_OK else { return failure(.failed, "libcurl doesn't start") }
      defer { curl_multi_remove_handle(multi, easy) }
      let cancelled = state.withLock { state in
        state.multi = multi
        return state.isCancelled
      }
      if cancelled { return failure(.cancelled, "cancelled") }
      guard let code = perform(multi) else { return failure(.cancelled, "cancelled") }
      if answer.isTooLarge { return failure(.tooLarge, "the answer is longer than \(request.maxBody) bytes") }
      guard code == CURLE_OK else { return failure(Self.kind(of: code), text(code, reason)) }
      return .success(response(easy, answer))
    }
  }

  /// Nil: cancelled.
  private func perform(_ multi: UnsafeMutableRawPointer) -> CURLcode? {
    var running: Int32 = 1
    while true {
      guard curl_multi_perform(multi, &running) == CURLM_OK else { return CURLE_FAILED_INIT }
      if state.withLock({ $0.isCancelled }) { return nil }
      if running == 0 { break }
      // Woken by the socket, by libcurl's own timers, or by cancel(); the second is a bound, not a rhythm.
      guard curl_multi_poll(multi, nil, 0, 1000, nil) == CURLM_OK else { return CURLE_FAILED_INIT }
    }
    var left: Int32 = 0
    while let message = curl_multi_info_read(multi, &left) {
      if message.pointee.msg == CURLMSG_DONE { return message.pointee.data.result }
    }
    return CURLE_FAILED_INIT
  }

  private func configure(
    _ easy: UnsafeMutableRawPointer, answer: Answer, headers: UnsafeMutablePointer<curl_slist>?,
    reason: UnsafeMutablePointer<CChar>
  ) -> CURLcode {
    // Borrowed by the callbacks; run() keeps it alive until the transfer has ended.
    let sink = Unmanaged.passUnretained(answer).toOpaque()
    let (seconds, attoseconds) = request.timeout.components
    let milliseconds = max(1, Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000))
    let set: [() -> CURLcode] = [
      { curl_set_pointer(easy, CURLOPT_ERRORBUFFER, reason) },
      { curl_set_string(easy, CURLOPT_URL, self.request.url) },
      { curl_set_string(easy, CURLOPT_PROTOCOLS_STR, "http,https") },
      { curl_set_string(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https") },
      // No SIGALRM for names, no meddling with SIGPIPE: the process has several threads.
      { curl_set_long(easy, CURLOPT_NOSIGNAL, 1) },
      { curl_set_long(easy, CURLOPT_TIMEOUT_MS, milliseconds) },
      { curl_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS, milliseconds) },
      { curl_set_long(easy, CURLOPT_FOLLOWLOCATION, self.request.followRedirects ? 1 : 0) },
      { curl_set_long(easy, CURLOPT_MAXREDIRS, 5) },
      { curl_set_string(easy, CURLOPT_USERAGENT, "orchestrate") },
      { curl_set_list(easy, CURLOPT_HTTPHEADER, headers) },
      { curl_set_body_callback(easy, CURLOPT_WRITEFUNCTION, Answer.takeBody) },
      { curl_set_pointer(easy, CURLOPT_WRITEDATA, sink) },
      { curl_set_body_callback(easy, CURLOPT_HEADERFUNCTION, Answer.takeHeader) },
      { curl_set_pointer(easy, CURLOPT_HEADERDATA, sink) },
      { self.request.authorities.map { curl_set_string(easy, CURLOPT_CAINFO, $0) } ?? CURLE_OK },
      // An empty proxy is none, whatever the environment says (CURLOPT_PROXY(3)).
      { self.request.usesProxyVariables ? CURLE_OK : curl_set_string(easy, CURLOPT_PROXY, "") },
    ]
    for option in set {
      let code = option()
      if code != CURLE_OK { return code }
    }
    return CURLE_OK
  }

  private func response(_ easy: UnsafeMutableRawPointer, _ answer: Answer) -> HTTPResponse {
    func long(_ info: CURLINFO) -> Int {
      var value = 0
      return curl_get_long(easy, info, &value) == CURLE_OK ? value : 0
    }
    func seconds(_ info: CURLINFO) -> Double {
      var microseconds: curl_off_t = 0
      return curl_get_offset(easy, info, &microseconds) == CURLE_OK ? Double(microseconds) / 1e6 : 0
    }
    return HTTPResponse(
      status: long(CURLINFO_RESPONSE_CODE), headers: answer.headers, body: answer.body,
      timings: HTTPResponse.Timings(
        nameResolved: seconds(CURLINFO_NAMELOOKUP_TIME_T), connected: seconds(CURLINFO_CONNECT_TIME_T),
        secured: seconds(CURLINFO_APPCONNECT_TIME_T), firstByte: seconds(CURLINFO_STARTTRANSFER_TIME_T),
        total: seconds(CURLINFO_TOTAL_TIME_T)),
      redirects: long(CURLINFO_REDIRECT_COUNT))
  }

  private func failure(_ kind: HTTPError.Kind, _ message: String) -> Result<HTTPResponse, HTTPError> {
    .failure(HTTPError(kind, url: request.url, message))
  }

  private func text(_ code: CURLcode, _ reason: UnsafeMutablePointer<CChar>) -> String {
    reason.pointee != 0 ? String(cString: reason) : String(cString: curl_easy_strerror(code))
  }

  static func kind(of code: CURLcode) -> HTTPError.Kind {
    switch code {
    case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY, CURLE_COULDNT_CONNECT: .unreachable
    case CURLE_OPERATION_TIMEDOUT: .timeout
    case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CIPHER, CURLE_SSL_CACERT_BADFILE,
      CURLE_SSL_CERTPROBLEM, CURLE_SSL_ISSUER_ERROR, CURLE_SSL_CRL_BADFILE, CURLE_SSL_INVALIDCERTSTATUS,
      CURLE_SSL_PINNEDPUBKEYNOTMATCH, CURLE_SSL_SHUTDOWN_FAILED, CURLE_SSL_ENGINE_INITFAILED, CURLE_USE_SSL_FAILED:
      .tls
    case CURLE_GOT_NOTHING, CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_PARTIAL_FILE, CURLE_WEIRD_SERVER_REPLY,
      CURLE_BAD_CONTENT_ENCODING, CURLE_HTTP2, CURLE_HTTP2_STREAM:
      .brokenAnswer
    case CURLE_TOO_MANY_REDIRECTS: .tooManyRedirects
    case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL: .badRequest
    default: .failed
    }
  }
}

/// What came so far. Touched by the transfer's own thread only.
private final class Answer {
  let limit: Int
  var body: [UInt8] = []
  var headers: [HTTPHeader] = []
  var isTooLarge = false

  init(limit: Int) { self.limit = limit }

  /// CURLOPT_WRITEFUNCTION(3): returns the count taken; less ends the transfer with CURLE_WRITE_ERROR.
  static let takeBody: curl_body_callback = { bytes, size, count, context in
    let answer = Unmanaged<Answer>.fromOpaque(context!).takeUnretainedValue()
    let length = size * count
    guard answer.body.count + length <= answer.limit else {
      answer.isTooLarge = true
      return 0
    }
    answer.body.append(contentsOf: UnsafeRawBufferPointer(start: bytes, count: length))
    return length
  }

  /// CURLOPT_HEADERFUNCTION(3): one complete line at a time, status lines included, of each answer of a chain.
  static let takeHeader: curl_body_callback = { bytes, size, count, context in
    let answer = Unmanaged<Answer>.fromOpaque(context!).takeUnretainedValue()
    let length = size * count
    let line = String(decoding: UnsafeRawBufferPointer(start: bytes, count: length), as: UTF8.self)
    if line.hasPrefix("HTTP/") {
      answer.headers = []
    } else if let colon = line.firstIndex(of: ":"), answer.headers.count < 1000 {
      let value = line[line.index(after: colon)...]
      answer.headers.append(HTTPHeader(String(line[..<colon]), trimmed(value)))
    }
    return length
  }
}

private func trimmed(_ text: Substring) -> String {
  var text = text
  while text.first?.isWhitespace == true { text.removeFirst() }
  while text.last?.isWhitespace == true { text.removeLast() }
  return String(text)
}

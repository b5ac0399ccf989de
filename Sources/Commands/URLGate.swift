internal import Diagnostics
internal import Engine
internal import HTTP
internal import Inventory

/// A health gate that is asked from here, over the way that users take (`health: { url: … }`).
struct URLGate: Sendable {
  let url: String
  let settings: HealthSettings
  var client = HTTPClient()

  /// Healthy once every answer has been good for `stable`; the first good one must come `within`.
  func run(sleep: @Sendable (Duration) async throws -> Void, uptime: @Sendable () -> Double) async -> ClientStepResult {
    let began = uptime()
    var firstGood: Double?
    var last = "no answer yet"
    var answers = 0
    while true {
      answers += 1
      let verdict = await ask()
      let now = uptime()
      switch verdict {
      case .success(let text):
        last = text
        if firstGood == nil { firstGood = now }
        if now - firstGood! >= settings.stable.seconds {
          return ClientStepResult(
            succeeded: true, message: "\(url): \(text), stable for \(Int(now - firstGood!)) s",
            facts: ["answers": .int(answers), "first_ok_s": .number(format3(firstGood! - began))])
        }
      case .failure(let fault):
        last = fault.text
        firstGood = nil
      }
      if firstGood == nil, now - began >= settings.within.seconds {
        return ClientStepResult(
          succeeded: false,
          message: "\(url) wasn't healthy within \(Int(settings.within.seconds)) s; the last answer: \(last)")
      }
      do { try await sleep(.milliseconds(200)) } catch {
        return ClientStepResult(succeeded: false, message: "cancelled while asking \(url)")
      }
    }
  }

  struct Fault: Error { var text: String }

  private func ask() async -> Result<String, Fault> {
    do {
      let response = try await client.get(url, timeout: .seconds(5))
      let body = String(decoding: response.body.prefix(2048), as: UTF8.self)
      if let fault = HealthExpectation.fault(
        status: response.status, body: response.body, expectStatus: settings.expectStatus,
        expectJSON: settings.expectJSON)
      {
        return .failure(Fault(text: "status \(response.status), \(fault): \(body)"))
      }
      return .success("status \(response.status)")
    } catch {
      return .failure(Fault(text: "\(error)"))
    }
  }
}

/// What an answer must be: a status, and bounds on the values of a JSON body.
enum HealthExpectation {
  /// Nil: as expected.
  static func fault(status: Int, body: [UInt8], expectStatus: Int?, expectJSON: [JSONExpectation]) -> String? {
    if let expectStatus {
      if status != expectStatus { return "expected status \(expectStatus)" }
    } else if !(200..<300).contains(status) {
      return "expected a status of 2xx"
    }
    guard !expectJSON.isEmpty else { return nil }
    guard let document = try? JSONValue(parsing: body) else { return "the body isn't JSON" }
    for expectation in expectJSON {
      let name = expectation.path.joined(separator: ".")
      guard let value = document[path: expectation.path] else { return "\(name) is missing" }
      if let fault = fault(value, expectation.bound) { return "\(name) is \(value.text()), \(fault)" }
    }
    return nil
  }

  private static func fault(_ value: JSONValue, _ bound: JSONBound) -> String? {
    func compare(_ word: String, _ limit: Double, _ holds: (Double, Double) -> Bool) -> String? {
      guard let number = value.numberValue, holds(number, limit) else { return "expected \(word) \(limit)" }
      return nil
    }
    switch bound {
    case .string(let text): return value.stringValue == text ? nil : "expected \"\(text)\""
    case .number(let number): return value.numberValue == number ? nil : "expected \(number)"
    case .bool(let flag): return value.boolValue == flag ? nil : "expected \(flag)"
    case .null: return value == .null ? nil : "expected null"
    case .below(let limit): return compare("below", limit, <)
    case .above(let limit): return compare("above", limit, >)
    case .atLeast(let limit): return compare("at least", limit, >=)
    case .atMost(let limit): return compare("at most", limit, <=)
    case .notEqual(let text):
      return value.stringValue != text && value.text() != text ? nil : "expected anything but \(text)"
    }
  }
}

/// Seconds with three digits behind the point.
func format3(_ value: Double) -> String {
  let thousandths = Int((value * 1000).rounded())
  let rest = String(thousandths % 1000)
  return "\(thousandths / 1000)." + String(repeating: "0", count: 3 - rest.count) + rest
}

/// A point in time, in milliseconds since 1970-01-01T00:00:00Z, with its RFC 3339 text in UTC. (Proleptic Gregorian
/// calendar, no leap seconds, as POSIX counts; no Foundation.)
public struct Timestamp: Sendable, Hashable, Comparable, CustomStringConvertible {
  public var milliseconds: Int64

  public init(milliseconds: Int64) { self.milliseconds = milliseconds }
  public init(seconds: Int64) { milliseconds = seconds * 1000 }

  public static func < (left: Timestamp, right: Timestamp) -> Bool { left.milliseconds < right.milliseconds }

  /// Seconds from `earlier` to this one.
  public func seconds(since earlier: Timestamp) -> Double { Double(milliseconds - earlier.milliseconds) / 1000 }

  /// `2026-11-21T09:25:51Z`.
  public var description: String { "\(date)T\(time)Z" }
  /// `2026-11-21T09:25:51.042Z`.
  public var precise: String { "\(date)T\(time).\(padded(floorRemainder(milliseconds, 1000), 3))Z" }
  /// `2026-11-21`.
  public var date: String {
    let (year, month, day) = civil
    return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))"
  }
  /// `09:25:51`.
  public var time: String {
    let seconds = floorRemainder(floorQuotient(milliseconds, 1000), 86_400)
    return "\(padded(seconds / 3600, 2)):\(padded(seconds / 60 % 60, 2)):\(padded(seconds % 60, 2))"
  }

  /// Days to a date by Howard Hinnant's "chrono-compatible low-level date algorithms", civil_from_days.
  private var civil: (year: Int64, month: Int64, day: Int64) {
    let days = floorQuotient(milliseconds, 86_400_000) + 719_468
    let era = floorQuotient(days, 146_097)
    let dayOfEra = days - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shifted = (5 * dayOfYear + 2) / 153
    let month = shifted < 10 ? shifted + 3 : shifted - 9
    return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shifted + 2) / 5 + 1)
  }

  /// Reads RFC 3339 text: a date, `T`, a time with any fraction, and `Z` or an offset. Nil for everything else.
  public init?(_ text: String) {
    let bytes = Array(text.utf8)
    func number(_ range: Range<Int>) -> Int64? {
      guard range.upperBound <= bytes.count, bytes[range].allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
      return Int64(String(decoding: bytes[range], as: UTF8.self))
    }
    func mark(_ index: Int, _ marks: String) -> Bool { bytes.count > index && marks.utf8.contains(bytes[index]) }
    guard let year = number(0..<4), mark(4, "-"), let month = number(5..<7), mark(7, "-"), let day = number(8..<10),
      mark(10, "Tt "), let hour = number(11..<13), mark(13, ":"), let minute = number(14..<16), mark(16, ":"),
      let second = number(17..<19), (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60,
      second <= 60
    else { return nil }
    var index = 19
    var fraction: Int64 = 0
    if mark(index, ".") {
      let start = index + 1
      index = start
      while index < bytes.count, bytes[index] >= 0x30, bytes[index] <= 0x39 { index += 1 }
      guard index > start else { return nil }
      let digits = String(decoding: bytes[start..<min(index, start + 3)], as: UTF8.self)
      fraction = Int64(digits + String(repeating: "0", count: 3 - digits.utf8.count)) ?? 0
    }
    var offset: Int64 = 0
    if mark(index, "Zz") {
      index += 1
    } else if mark(index, "+-"), let hours = number(index + 1..<index + 3), mark(index + 3, ":"),
      let minutes = number(index + 4..<index + 6)
    {
      offset = (hours * 60 + minutes) * (bytes[index] == UInt8(ascii: "-") ? -60 : 60)
      index += 6
    } else {
      return nil
    }
    guard index == bytes.count else { return nil }
    // days_from_civil of the same source.
    let shiftedYear = month <= 2 ? year - 1 : year
    let era = floorQuotient(shiftedYear, 400)
    let yearOfEra = shiftedYear - era * 400
    let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
    let days = era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    milliseconds = (days * 86_400 + hour * 3600 + minute * 60 + second - offset) * 1000 + fraction
  }
}

private func floorQuotient(_ value: Int64, _ divisor: Int64) -> Int64 {
  value >= 0 ? value / divisor : -((-value + divisor - 1) / divisor)
}

private func floorRemainder(_ value: Int64, _ divisor: Int64) -> Int64 {
  value - floorQuotient(value, divisor) * divisor
}

private func padded(_ value: Int64, _ width: Int) -> String {
  let text = String(value)
  return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
}

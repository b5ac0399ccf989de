import Testing

@testable import Diagnostics

@Suite struct TimestampTests {
  static let known: [(Int64, String)] = [
    (0, "1970-01-01T00:00:00.000Z"), (951_782_400_000, "2000-02-29T00:00:00.000Z"),
    (1_795_253_151_042, "2026-11-21T09:25:51.042Z"), (-1, "1969-12-31T23:59:59.999Z"),
    (4_107_542_399_999, "2100-02-28T23:59:59.999Z"), (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
  ]

  @Test(arguments: known) func knownInstants(milliseconds: Int64, text: String) {
    #expect(Timestamp(milliseconds: milliseconds).precise == text)
    #expect(Timestamp(text)?.milliseconds == milliseconds)
  }

  /// Every eleventh day, which meets each day of the month and of the leap cycle.
  @Test func daysOfEightCenturies() {
    var previous = ""
    for day in stride(from: Int64(-146_097), through: 146_097, by: 11) {
      let time = Timestamp(seconds: day * 86_400)
      #expect(Timestamp(time.description) == time)
      #expect(previous < time.date)
      previous = time.date
    }
  }

  @Test func otherSpellings() {
    let expected = Timestamp("2026-11-21T09:25:51Z")
    #expect(Timestamp("2026-11-21t10:25:51+01:00") == expected)
    #expect(Timestamp("2026-11-21 04:55:51-04:30") == expected)
    #expect(Timestamp("2026-11-21T09:25:51.123456789Z")?.milliseconds == expected.map { $0.milliseconds + 123 })
    #expect(Timestamp("2026-11-21T09:25:51.5Z")?.milliseconds == expected.map { $0.milliseconds + 500 })
  }

  @Test(arguments: [
    "", "2026-11-21", "2026-11-21T09:25:51", "2026-13-21T09:25:51Z", "2026-11-21T24:25:51Z", "2026-11-21T09:25:51.Z",
    "2026-11-21T09:25:51Zx", "2026-11-21T09:25:51+01", "x026-11-21T09:25:51Z",
  ])
  func refuses(text: String) { #expect(Timestamp(text) == nil) }
}

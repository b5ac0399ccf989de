/// Durations and sizes as users write them.
public enum Quantity {
  public enum Fault: Error, Equatable { case form(help: String?), outOfRange }

  /// `10s`, `5m`, `1h`, `1h30m`, `500ms`, `7d`; units from big to small, each at most once. At most 3650 days.
  public static func duration(_ text: String) throws(Fault) -> Duration {
    let units: [(name: String, milliseconds: Int64)] = [
      ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1),
    ]
    var rest = text[...], total: Int64 = 0, nextUnit = 0
    guard !rest.isEmpty else { throw .form(help: nil) }
    while !rest.isEmpty {
      let digits = rest.prefix { ("0"..."9").contains($0) }
      rest = rest.dropFirst(digits.count)
      let unit = rest.prefix { $0.isLetter }
      rest = rest.dropFirst(unit.count)
      guard !digits.isEmpty else { throw .form(help: nil) }
      if rest.first == "." { throw .form(help: "whole numbers only: 1h30m instead of 1.5h") }
      guard !unit.isEmpty else {
        throw .form(help: rest.isEmpty ? "a unit is missing: \(text)s, \(text)m or \(text)h" : nil)
      }
      guard let index = units.firstIndex(where: { $0.name == unit }) else {
        throw .form(help: unitHelp(String(unit), digits: String(digits)))
      }
      guard index >= nextUnit else { throw .form(help: "units go from big to small, each once: 1h30m") }
      nextUnit = index + 1
      guard let number = Int64(digits) else { throw .outOfRange }
      let (product, overflow) = number.multipliedReportingOverflow(by: units[index].milliseconds)
      guard !overflow, product <= 3650 * 86_400_000 else { throw .outOfRange }
      total += product
    }
    guard total <= 3650 * 86_400_000 else { throw .outOfRange }
    return .milliseconds(total)
  }

  private static func unitHelp(_ unit: String, digits: String) -> String {
    let meant = [
      "sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m", "minutes": "m",
      "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "day": "d", "days": "d", "msec": "ms", "S": "s", "M": "m",
      "H": "h",
    ]
    return meant[unit].map { "write \(digits)\($0)" } ?? "the units are d, h, m, s and ms"
  }

  /// `512MiB`, `2GiB` (powers of 1024), `10MB` (powers of 1000), `0`, `100B`. At most 2^60 bytes.
  public static func size(_ text: String) throws(Fault) -> Int64 {
    let units: [String: Int64] = [
      "B": 1, "kB": 1000, "KB": 1000, "MB": 1_000_000, "GB": 1_000_000_000, "TB": 1_000_000_000_000,
      "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
    ]
    let digits = text.prefix { ("0"..."9").contains($0) }
    let unit = String(text.dropFirst(digits.count))
    guard !digits.isEmpty else { throw .form(help: nil) }
    if unit.isEmpty, digits.allSatisfy({ $0 == "0" }) { return 0 }
    guard let factor = units[unit] else {
      if unit.hasPrefix(".") { throw .form(help: "whole numbers only: 1536MiB instead of 1.5GiB") }
      if unit.isEmpty { throw .form(help: "a unit is missing: \(digits)MiB or \(digits)GiB") }
      let big = unit.drop { $0 == " " }.prefix(1).uppercased()
      throw .form(
        help: "KMGT".contains(big) && !big.isEmpty
          ? "write \(digits)\(big)iB" : "the units are KiB, MiB, GiB, TiB, KB, MB, GB, TB and B")
    }
    guard let number = Int64(digits) else { throw .outOfRange }
    let (product, overflow) = number.multipliedReportingOverflow(by: factor)
    guard !overflow, product <= 1 << 60 else { throw .outOfRange }
    return product
  }
}

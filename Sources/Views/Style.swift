/// Colours (ECMA-48 SGR, the eight that every terminal has), or none.
public struct Style: Sendable {
  public var colour: Bool

  public init(colour: Bool) { self.colour = colour }

  func paint(_ text: String, _ codes: String) -> String {
    colour && !text.isEmpty ? "\u{1b}[\(codes)m\(text)\u{1b}[0m" : text
  }
  func bold(_ text: String) -> String { paint(text, "1") }
  func dim(_ text: String) -> String { paint(text, "2") }
  func red(_ text: String) -> String { paint(text, "31") }
  func green(_ text: String) -> String { paint(text, "32") }
  func yellow(_ text: String) -> String { paint(text, "33") }
  func cyan(_ text: String) -> String { paint(text, "36") }
  func alarm(_ text: String) -> String { paint(text, "1;31") }
}

/// `text` on one line and without anything that a terminal would act upon: escape sequences are dropped, tabs become
/// blanks, other control characters `?`. What a carriage return has overwritten (progress bars) is dropped.
func printable(_ text: String) -> String {
  var out = String.UnicodeScalarView()
  var scalars = text.unicodeScalars.makeIterator()
  var next = scalars.next()
  while let scalar = next {
    next = scalars.next()
    switch scalar.value {
    case 0x1b:
      if next == "[" {
        // CSI: parameters and intermediates, then one final byte (ECMA-48, 5.4).
        next = scalars.next()
        while let byte = next, (0x20...0x3f).contains(byte.value) { next = scalars.next() }
        next = scalars.next()
      } else if next == "]" {
        // OSC: up to BEL or ST.
        while let byte = next, byte.value != 7, byte.value != 0x1b { next = scalars.next() }
        if next?.value == 0x1b { next = scalars.next() }
        next = scalars.next()
      } else {
        next = scalars.next()
      }
    case 0x09: out.append(contentsOf: "  ".unicodeScalars)
    case 0x0a: out.append(" ")
    case 0x0d:
      if next != nil, next != "\n" { out = String.UnicodeScalarView() }
    case 0..<0x20, 0x7f..<0xa0, 0x202a...0x202e, 0x2066...0x2069: out.append("?")
    default: out.append(scalar)
    }
  }
  return String(out)
}

/// Columns that a terminal needs for a character: 0 for combining marks, 2 for East Asian wide ones and emoji, else 1.
func columns(of character: Character) -> Int {
  guard let first = character.unicodeScalars.first else { return 0 }
  switch first.properties.generalCategory {
  case .nonspacingMark, .enclosingMark, .format: return 0
  default: break
  }
  if character.unicodeScalars.contains(where: { $0.value == 0xfe0f }) { return 2 }
  switch first.value {
  case 0x1100...0x115f, 0x2e80...0x303e, 0x3041...0x33ff, 0x3400...0x4dbf, 0x4e00...0x9fff, 0xa000...0xa4cf,
    0xac00...0xd7a3, 0xf900...0xfaff, 0xfe30...0xfe4f, 0xff00...0xff60, 0xffe0...0xffe6, 0x1f300...0x1f64f,
    0x1f680...0x1f6ff, 0x1f900...0x1f9ff, 0x20000...0x3fffd:
    return 2
  default: return 1
  }
}

func columns(of text: String) -> Int { text.reduce(0) { $0 + columns(of: $1) } }

/// `text` in at most `limit` columns, with `…` where something was cut off.
func truncated(_ text: String, to limit: Int) -> String {
  guard columns(of: text) > limit else { return text }
  guard limit > 0 else { return "" }
  var out = ""
  var used = 0
  for character in text {
    let width = columns(of: character)
    if used + width > limit - 1 { break }
    out.append(character)
    used += width
  }
  return out + "…"
}

func padded(_ text: String, to width: Int, right: Bool = false) -> String {
  let blanks = String(repeating: " ", count: max(0, width - columns(of: text)))
  return right ? blanks + text : text + blanks
}

/// How many wait for the lock before us.
func queueText(_ place: Int?) -> String {
  guard let place, place > 1 else { return "" }
  return place == 2 ? ", 1 other is before us" : ", \(place - 1) others are before us"
}

/// `0.4s`, `12.3s`, `2m05s`, `1h02m`.
func durationText(_ seconds: Double) -> String {
  let seconds = max(0, seconds)
  if seconds < 59.95 {
    let tenths = Int((seconds * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)s"
  }
  let whole = Int(seconds.rounded())
  func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
  if whole < 3600 { return "\(whole / 60)m\(two(whole % 60))s" }
  if whole < 86_400 { return "\(whole / 3600)h\(two(whole / 60 % 60))m" }
  return "\(whole / 86_400)d\(two(whole / 3600 % 24))h"
}

/// `812 B`, `1.5 KiB`, `20 GiB`.
func sizeText(_ bytes: Int64) -> String {
  let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
  var value = Double(bytes)
  var unit = 0
  while value >= 1023.95, unit < units.count - 1 {
    value /= 1024
    unit += 1
  }
  if unit == 0 || value >= 99.95 { return "\(Int(value.rounded())) \(units[unit])" }
  let tenths = Int((value * 10).rounded())
  return tenths % 10 == 0 ? "\(tenths / 10) \(units[unit])" : "\(tenths / 10).\(tenths % 10) \(units[unit])"
}

import Synchronization

/// Replaces secrets in text that goes to a person or a log: the values themselves, and the forms in which programs
/// print them (base64 at any alignment, percent-encoded, quoted for a shell, escaped for JSON). Values that hold
/// several lines are masked line by line.
///
/// Values shorter than `minimumLength` bytes are not masked: they would blot out ordinary text. Safe to use from any
/// thread; secrets may be added at any time and count from then on.
public final class Masker: Sendable {
  public static let mask = "********"
  public static let minimumLength = 6

  private let patterns = Mutex(MaskPatterns([]))

  public init(_ secrets: [Secret] = []) { add(secrets) }

  public func add(_ secrets: [Secret]) {
    let forms = secrets.flatMap { maskedForms(of: $0) }
    guard !forms.isEmpty else { return }
    patterns.withLock { $0 = MaskPatterns($0.all + forms) }
  }

  /// `text` with every secret masked. For text that is complete; a stream takes `MaskingStream`.
  public func mask(_ text: String) -> String {
    let patterns = snapshot
    guard !patterns.isEmpty else { return text }
    return String(decoding: mask(Array(text.utf8), patterns), as: UTF8.self)
  }

  public func mask(_ bytes: [UInt8]) -> [UInt8] { mask(bytes, snapshot) }

  private func mask(_ bytes: [UInt8], _ patterns: MaskPatterns) -> [UInt8] {
    var covered = 0
    return patterns.replace(in: bytes, upTo: bytes.count, covered: &covered)
  }

  var snapshot: MaskPatterns { patterns.withLock { $0 } }
}

/// Masks a stream that arrives in pieces, however a secret is cut between them. It holds back at most as many bytes of
/// an unfinished line as the longest form has; a line feed lets everything before it go, since no form spans lines.
public struct MaskingStream: Sendable {
  private let masker: Masker
  private var pending: [UInt8] = []
  /// How many bytes at the beginning of `pending` a mask already stands for.
  private var covered = 0

  public init(_ masker: Masker) { self.masker = masker }

  /// Takes the next piece, and returns what may be shown now.
  public mutating func feed(_ bytes: [UInt8]) -> [UInt8] {
    pending += bytes
    let patterns = masker.snapshot
    let lineStart = pending.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
    return release(max(lineStart, pending.count - max(0, patterns.longest - 1)), patterns)
  }

  /// The stream has ended, or nothing more is expected soon: returns the rest.
  public mutating func flush() -> [UInt8] { release(pending.count, masker.snapshot) }

  private mutating func release(_ limit: Int, _ patterns: MaskPatterns) -> [UInt8] {
    guard limit > 0 else { return [] }
    let out = patterns.replace(in: pending, upTo: limit, covered: &covered)
    pending.removeFirst(limit)
    return out
  }
}

/// The forms to look for, indexed by their first six bytes.
struct MaskPatterns: Sendable {
  private(set) var all: [[UInt8]]
  private(set) var longest = 0
  private var index: [UInt64: [[UInt8]]] = [:]
  /// One bit per hash of the first six bytes: most positions of a text are dismissed by it.
  private var filter = [UInt64](repeating: 0, count: 1024)

  var isEmpty: Bool { all.isEmpty }

  init(_ patterns: [[UInt8]]) {
    var seen = Set<[UInt8]>()
    all = patterns.filter { $0.count >= Masker.minimumLength && seen.insert($0).inserted }
    for pattern in all {
      longest = max(longest, pattern.count)
      let key = pattern.prefix(Masker.minimumLength).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      index[key, default: []].append(pattern)
      let slot = Self.slot(key)
      filter[slot >> 6] |= 1 << (slot & 63)
    }
    for key in index.keys { index[key]!.sort { $0.count > $1.count } }
  }

  private static func slot(_ key: UInt64) -> Int { Int(truncatingIfNeeded: (key &* 0x9e37_79b9_7f4a_7c15) >> 48) }

  /// `bytes` up to `limit`, with one mask for each run of overlapping matches. All forms that begin before `limit` must
  /// be complete in `bytes`. `covered` counts, before and after, the bytes at the beginning (of the rest) that an
  /// earlier mask stands for.
  func replace(in bytes: [UInt8], upTo limit: Int, covered: inout Int) -> [UInt8] {
    var out: [UInt8] = []
    out.reserveCapacity(limit)
    var maskedUntil = covered
    var key: UInt64 = 0
    let width = Masker.minimumLength
    for position in 0..<min(width - 1, bytes.count) { key = key << 8 | UInt64(bytes[position]) }
    for position in 0..<limit {
      if position + width <= bytes.count {
        key = (key << 8 | UInt64(bytes[position + width - 1])) & 0xffff_ffff_ffff
        let slot = Self.slot(key)
        if filter[slot >> 6] & 1 << (slot & 63) != 0, let length = match(key, bytes, position) {
          // A match that touches the one before extends its mask.
          if position >= maskedUntil { out.append(contentsOf: Masker.mask.utf8) }
          maskedUntil = max(maskedUntil, position + length)
        }
      }
      if position >= maskedUntil { out.append(bytes[position]) }
    }
    covered = max(0, maskedUntil - limit)
    return out
  }

  private func match(_ key: UInt64, _ bytes: [UInt8], _ position: Int) -> Int? {
    for pattern in index[key] ?? [] where position + pattern.count <= bytes.count {
      if bytes[position..<position + pattern.count].elementsEqual(pattern) { return pattern.count }
    }
    return nil
  }
}

/// The ways in which a secret may be printed.
private func maskedForms(of secret: Secret) -> [[UInt8]] {
  let value = secret.reveal()
  var forms: [[UInt8]] = []
  // The value as a whole: encoders see its line feeds too.
  if value.utf8.count >= Masker.minimumLength {
    forms += base64Forms(Array(value.utf8))
    forms += escapedForms(value).map { Array($0.utf8) }
  }
  for line in value.split(whereSeparator: \.isNewline) where line.utf8.count >= Masker.minimumLength {
    forms += base64Forms(Array(line.utf8))
    forms += escapedForms(String(line)).map { Array($0.utf8) }
    forms.append(Array(line.utf8))
  }
  return forms.filter { !$0.contains(UInt8(ascii: "\n")) }
}

/// The characters of a Base64 text that depend on `value` alone, for each of its three positions relative to a group of
/// three bytes, in the standard and the URL-safe alphabet (RFC 4648, 4 and 5); and the whole text with its padding.
private func base64Forms(_ value: [UInt8]) -> [[UInt8]] {
  var forms: [[UInt8]] = []
  for alphabet in ["+/", "-_"] {
    for offset in 0..<3 {
      let encoded = base64(Array(repeating: 0, count: offset) + value, Array(alphabet.utf8))
      let first = (8 * offset + 5) / 6
      let last = 8 * (offset + value.count) / 6
      forms.append(Array(encoded[first..<last]))
    }
    forms.append(base64(value, Array(alphabet.utf8)))
    // As `echo "$VALUE" | base64` writes it.
    forms.append(base64(value + [UInt8(ascii: "\n")], Array(alphabet.utf8)))
  }
  return forms
}

private func base64(_ bytes: [UInt8], _ last: [UInt8]) -> [UInt8] {
  let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8) + last
  var out: [UInt8] = []
  for start in stride(from: 0, to: bytes.count, by: 3) {
    let group = bytes[start..<min(start + 3, bytes.count)]
    let bits = (0..<3).reduce(0) { $0 << 8 | (start + $1 < bytes.count ? Int(bytes[start + $1]) : 0) }
    for digit in 0...3 {
      out.append(digit <= group.count ? alphabet[bits >> (18 - 6 * digit) & 63] : UInt8(ascii: "="))
    }
  }
  return out
}

private func escapedForms(_ value: String) -> Set<String> {
  var forms: Set<String> = []
  // Percent-encoding (RFC 3986, 2.1): what each usual encoder leaves alone beside letters and digits.
  for safe in ["-._~", "-._~/", "-_.!~*'()", "-._*"] {
    for digits in ["0123456789ABCDEF", "0123456789abcdef"] {
      let encoded = percentEncoded(value, safe: safe, digits: Array(digits))
      forms.insert(encoded)
      // application/x-www-form-urlencoded.
      forms.insert(encoded.split(separator: "%20", omittingEmptySubsequences: false).joined(separator: "+"))
    }
  }
  // Quotes as sh, bash, dash's `set -x` and Python's shlex write them.
  for quote in [#"'\''"#, #"'"'"'"#, #"\'"#] { forms.insert(replacing(value, ["'": quote])) }
  forms.insert(replacing(value, ["\\": #"\\"#, "\"": #"\""#, "$": #"\$"#, "`": #"\`"#]))
  let special = " \t\"'`$\\!#&()*;<>?[]^{}|~="
  forms.insert(replacing(value, Dictionary(uniqueKeysWithValues: special.map { ($0, "\\\($0)") })))
  // Compose doubles dollars where it prints a configuration.
  forms.insert(replacing(value, ["$": "$$"]))
  // JSON (RFC 8259, 7), with and without the escapes that are optional; Python's repr is among them.
  let json: [Character: String] = [
    "\\": #"\\"#, "\"": #"\""#, "\n": #"\n"#, "\r": #"\r"#, "\t": #"\t"#, "\r\n": #"\r\n"#,
  ]
  forms.insert(replacing(value, json))
  forms.insert(replacing(value, json.merging(["/": #"\/"#]) { $1 }))
  let html: [Character: String] = ["<": #"\u003c"#, ">": #"\u003e"#, "&": #"\u0026"#]
  forms.insert(replacing(value, json.merging(html) { $1 }))
  forms.insert(
    replacing(value, ["\\": #"\\"#, "'": #"\'"#, "\n": #"\n"#, "\r": #"\r"#, "\t": #"\t"#, "\r\n": #"\r\n"#]))
  return forms
}

private func percentEncoded(_ value: String, safe: String, digits: [Character]) -> String {
  var out = ""
  for byte in value.utf8 {
    let scalar = Unicode.Scalar(byte)
    if byte < 0x80, Character(scalar).isLetter || Character(scalar).isNumber || safe.unicodeScalars.contains(scalar) {
      out.unicodeScalars.append(scalar)
    } else {
      out += "%\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])"
    }
  }
  return out
}

private func replacing(_ value: String, _ table: [Character: String]) -> String {
  value.reduce(into: "") { $0 += table[$1] ?? String($1) }
}

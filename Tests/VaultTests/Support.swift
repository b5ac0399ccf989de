import ConfigSource
import Diagnostics
import Testing

@testable import Vault

/// Random numbers that are the same in each run (SplitMix64, Steele, Lea and Flood 2014).
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 &+ 0x1234_5678 }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}

let noon = Timestamp("2026-11-21T12:00:00Z")!
let later = Timestamp("2026-11-22T13:14:15Z")!

/// A vault for the sample key that holds what a person wrote.
func vault(_ plaintext: String, for recipients: [Recipient] = [Sample.identity.recipient]) throws -> Vault {
  var vault = try Vault.create(file: "prod.secrets.yml", recipients: recipients)
  try vault.replace(plaintext: plaintext, file: "prod.secrets.yml")
  _ = try vault.seal(at: noon)
  return vault
}

func open(_ text: String, _ identities: [Identity] = [Sample.identity]) throws(VaultError) -> Vault {
  try Vault.open(Array(text.utf8), file: "prod.secrets.yml", identities: identities)
}

func outline(_ text: String) throws(VaultError) -> Outline { try Outline(SourceText(file: "x", text: text)) }

extension Vault {
  /// Names with texts, in their order.
  var shown: [String] {
    entries.map { entry in
      guard let value = entry.value else { return "\(entry.name)=" }
      return "\(entry.name)=\(value.kind.rawValue):\(value.text?.reveal() ?? "?")"
    }
  }

  var values: [String: VaultValue] {
    Dictionary(entries.compactMap { entry in entry.value.map { (entry.name, $0) } }, uniquingKeysWith: { $1 })
  }
}

/// The lines of which a text has more or fewer than another.
func changedLines(_ old: String, _ new: String) -> [String] {
  new.split(separator: "\n", omittingEmptySubsequences: false).map(String.init).difference(
    from: old.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
  ).map { change in
    switch change {
    case .insert(_, let line, _): "+" + line
    case .remove(_, let line, _): "-" + line
    }
  }
}

/// A tree of made-up values, and its text as a person might write it.
struct RandomTree {
  var generator: SeededGenerator
  private(set) var text = ""
  /// By name, with SOPS' type.
  private(set) var values: [String: String] = [:]

  init(seed: UInt64) {
    generator = SeededGenerator(seed)
    mapping(depth: 0, indent: 0, path: [])
  }

  private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &generator) < percent }

  private mutating func mapping(depth: Int, indent: Int, path: [String]) {
    var used: Set<String> = []
    for _ in 0..<Int.random(in: 1...6, using: &generator) {
      var name = key()
      while used.contains(name) { name += "x" }
      used.insert(name)
      if chance(20) { text += space(indent) + "#" + (chance(80) ? " note \(name)" : "") + "\n" }
      if chance(10) { text += "\n" }
      text += space(indent) + YAMLText.key(name) + ":"
      value(depth: depth, indent: indent, path: path + [name])
    }
  }

  private mutating func value(depth: Int, indent: Int, path: [String]) {
    let name = path.joined(separator: ".")
    switch Int.random(in: 0..<100, using: &generator) {
    case 0..<15 where depth < 3:
      text += "\n"
      mapping(depth: depth + 1, indent: indent + [2, 4].randomElement(using: &generator)!, path: path)
    case 15..<25 where depth < 3:
      text += "\n"
      for index in 0..<Int.random(in: 1...4, using: &generator) {
        text += space(indent + 2) + "-"
        scalar(indent: indent + 2, name: "\(name).\(index)", isFlow: false)
        text += "\n"
      }
    case 25..<30:
      text += " ["
      for index in 0..<Int.random(in: 0...3, using: &generator) {
        if index > 0 { text += "," }
        scalar(indent: indent, name: "\(name).\(index)", isFlow: true)
      }
      text += "]\n"
    case 30..<33: text += [" {}", "", " ~", " null"].randomElement(using: &generator)! + "\n"
    default:
      scalar(indent: indent, name: name, isFlow: false)
      text += (chance(5) ? " # behind" : "") + "\n"
    }
  }

  private mutating func scalar(indent: Int, name: String, isFlow: Bool) {
    switch Int.random(in: 0..<10, using: &generator) {
    case 0:
      let number = Int.random(in: .min ... .max, using: &generator) >> Int.random(in: 0..<63, using: &generator)
      values[name] = "int:\(number)"
      text += " \(number)"
    case 1:
      let flag = Bool.random(using: &generator)
      values[name] = "bool:\(flag)"
      text += " \(flag)"
    case 2:
      let number = Double(Int.random(in: -100_000...100_000, using: &generator)) / 8
      let decimal = VaultValue.decimal(number)
      values[name] = "float:\(decimal)"
      text += " " + (decimal.contains(".") ? decimal : decimal + ".0")
    default:
      let string = string()
      values[name] = "str:" + string
      let written = YAMLText.scalar(string, column: indent, isFlow: isFlow)
      // A comment behind a block is refused; the caller writes one now and then.
      text += " " + (written.hasPrefix("|") ? YAMLText.quoted(string) : written)
    }
  }

  private mutating func key() -> String {
    switch Int.random(in: 0..<12, using: &generator) {
    case 0: return "with space \(Int.random(in: 0...99, using: &generator))"
    case 1: return "12\(Int.random(in: 0...99, using: &generator))"
    case 2: return ["yes", "null", "é", "a:b", "x.y", "#c", "-", "*"].randomElement(using: &generator)!
    default:
      return ["DB", "REDIS", "token", "S3"].randomElement(using: &generator)!
        + "_\(Int.random(in: 0...999, using: &generator))"
    }
  }

  private mutating func string() -> String {
    if chance(4) { return "" }
    let alphabets: [[String]] = [
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+=@".map(String.init),
      [
        " ", "a", "b", ":", "#", "\"", "'", "\\", "{", "}", "[", "]", ",", "&", "*", "!", "|", ">", "%", "`", "$", "?",
        "-",
      ],
      ["\n", "x", " ", "y", "\t", "\n\n", "é"],
      ["ü", "日", "🔑", "\u{0}", "\u{7f}", "\u{85}", "\u{2028}", "\u{1f}", "a", "\r\n"],
    ]
    let alphabet = alphabets[chance(70) ? 0 : Int.random(in: 1...3, using: &generator)]
    let fixed = [
      "true", "no", "null", "~", "12", "1e3", "0x1F", "2026-11-21", "=", "ENC[AES256_GCM,data:x]", "1_000", ".5",
    ]
    if chance(8) { return fixed.randomElement(using: &generator)! }
    return (0..<Int.random(in: 1...40, using: &generator)).map { _ in alphabet.randomElement(using: &generator)! }
      .joined()
  }

  private func space(_ count: Int) -> String { String(repeating: " ", count: count) }
}

import Testing

@testable import SSH

/// What each file says about one host's key, by the rules of sshd(8) and of OpenSSH's client.
@Suite struct KnownHostsTests {
  static func key(_ type: String, _ fill: UInt8) -> [UInt8] {
    var writer = SSHWriter()
    writer.string(type)
    writer.string([UInt8](repeating: fill, count: 32))
    return writer.bytes
  }
  static let shown = key("ssh-ed25519", 1)
  static let a = "ssh-ed25519 " + Base64.encode(shown)
  static let other = "ssh-ed25519 " + Base64.encode(key("ssh-ed25519", 2))
  static let rsa = "ssh-rsa " + Base64.encode(key("ssh-rsa", 3))
  static let salt = "xbvsjwIOGNaClHTxZyTdLMKEfpg="

  struct Case: Sendable, CustomTestStringConvertible {
    var name: String
    var text: String
    var host = "bot.example.com"
    var port: UInt16 = 22
    var alias: String?
    var expected: String
    var testDescription: String { name }
  }

  static let cases: [Case] = [
    Case(name: "empty", text: "", expected: "unknown"),
    Case(name: "plain", text: "bot.example.com \(a)\n", expected: "known f:1"),
    Case(name: "no last newline", text: "bot.example.com \(a)", expected: "known f:1"),
    Case(name: "CRLF", text: "# mine\r\nbot.example.com \(a)\r\n", expected: "known f:2"),
    Case(name: "comment after the key", text: "bot.example.com \(a) root@bot\n", expected: "known f:1"),
    Case(name: "leading space and tabs", text: " \tbot.example.com\t\(a)\n", expected: "known f:1"),
    Case(name: "several names", text: "203.0.113.10,bot.example.com \(a)\n", expected: "known f:1"),
    Case(name: "upper case", text: "BOT.example.COM \(a)\n", host: "bot.Example.com", expected: "known f:1"),
    Case(name: "a name of one letter", text: "b \(a)\n", host: "b", expected: "known f:1"),
    Case(name: "another name", text: "bot.example.org \(a)\n", expected: "unknown"),
    Case(name: "part of a name", text: "bot.example.co \(a)\n", expected: "unknown"),
    Case(name: "star", text: "*.example.com \(a)\n", expected: "known f:1"),
    Case(name: "star matches no more than it may", text: "*.example.org \(a)\n", expected: "unknown"),
    Case(name: "question mark", text: "b?t.example.com \(a)\n", expected: "known f:1"),
    Case(name: "negation", text: "*.example.com,!bot.example.com \(a)\n", expected: "unknown"),
    Case(name: "negation before", text: "!bot.*,* \(a)\n", expected: "unknown"),
    Case(name: "negation of another", text: "*.example.com,!web.* \(a)\n", expected: "known f:1"),
    Case(name: "changed", text: "bot.example.com \(other)\n", expected: "changed f:1"),
    Case(name: "changed by pattern", text: "* \(other)\n", expected: "changed f:1"),
    Case(name: "old and new key", text: "bot.example.com \(other)\nbot.example.com \(a)\n", expected: "known f:2"),
    Case(name: "another type only", text: "bot.example.com \(rsa)\n", expected: "unknown ssh-rsa"),
    Case(name: "revoked", text: "bot.example.com \(a)\n@revoked bot.example.com \(a)\n", expected: "revoked f:2"),
    Case(name: "revoked everywhere", text: "bot.example.com \(a)\n@revoked * \(a)\n", expected: "revoked f:2"),
    Case(name: "another key revoked", text: "bot.example.com \(a)\n@revoked * \(other)\n", expected: "known f:1"),
    Case(name: "certificate authority is no key", text: "@cert-authority * \(a)\n", expected: "unknown"),
    Case(name: "port", text: "[bot.example.com]:2222 \(a)\n", port: 2222, expected: "known f:1"),
    Case(name: "port in brackets though 22", text: "[bot.example.com]:22 \(a)\n", expected: "unknown"),
    Case(name: "another port", text: "[bot.example.com]:2222 \(a)\n", port: 2223, expected: "unknown"),
    Case(name: "port: plain name has it", text: "bot.example.com \(a)\n", port: 2222, expected: "known f:1"),
    Case(name: "port: plain name differs", text: "bot.example.com \(other)\n", port: 2222, expected: "unknown"),
    Case(
      name: "port changed, plain equal", text: "bot.example.com \(a)\n[bot.example.com]:2222 \(other)\n", port: 2222,
      expected: "changed f:2"),
    Case(
      name: "revoked for the plain name", text: "@revoked bot.example.com \(a)\n", port: 2222, expected: "revoked f:1"),
    Case(name: "alias", text: "bot \(a)\n", port: 2222, alias: "bot", expected: "known f:1"),
    Case(name: "alias instead of the address", text: "bot.example.com \(a)\n", alias: "bot", expected: "unknown"),
    Case(name: "IPv6", text: "2001:db8::1 \(a)\n", host: "2001:DB8::1", expected: "known f:1"),
    Case(
      name: "IPv6 and port", text: "[2001:db8::1]:2222 \(a)\n", host: "2001:db8::1", port: 2222, expected: "known f:1"),
    Case(
      name: "garbage before", text: "garbage\n\0\u{1}\nbot.example.com ssh-ed25519 ???\nbot.example.com \(a)\n",
      expected: "known f:4"),
    Case(
      name: "a line longer than 4 KiB before", text: String(repeating: "x", count: 9000) + "\nbot.example.com \(a)\n",
      expected: "known f:2"),
    Case(
      name: "type doesn't fit the key", text: "bot.example.com ssh-rsa \(Base64.encode(shown))\n", expected: "unknown"),
    Case(name: "hashed", text: "|1|\(salt)|\(hash("bot.example.com")) \(a)\n", expected: "known f:1"),
    Case(name: "hashed, changed", text: "|1|\(salt)|\(hash("bot.example.com")) \(other)\n", expected: "changed f:1"),
    Case(name: "hashed, another name", text: "|1|\(salt)|\(hash("web.example.com")) \(a)\n", expected: "unknown"),
    Case(
      name: "hashed with port", text: "|1|\(salt)|\(hash("[bot.example.com]:2222")) \(a)\n", port: 2222,
      expected: "known f:1"),
    Case(name: "broken hash", text: "|1|\(salt) \(a)\n|2|x|y \(a)\nbot.example.com \(a)\n", expected: "known f:3"),
  ]

  /// HMAC-SHA1 of the name, keyed by the salt; made with Python's hmac.
  static func hash(_ name: String) -> String {
    [
      "bot.example.com": "lLyYNI6mRgYNe+UY0r+lw7WhJJU=", "web.example.com": "mPn+vtJFbZ6xoxKI7skTpz9bFvM=",
      "[bot.example.com]:2222": "6qN25GOXX0QajjbD2doeurYP3aQ=",
    ][name]!
  }

  @Test(arguments: cases) func verdict(_ item: Case) {
    var known = KnownHosts()
    known.add(Array(item.text.utf8), file: "f")
    let verdict = known.verdict(host: item.host, port: item.port, alias: item.alias, key: Self.shown)
    let text =
      switch verdict {
      case .known(let location): "known \(location)"
      case .changed(let location, let expected):
        expected == fingerprint(of: Self.key("ssh-ed25519", 2)) ? "changed \(location)" : "wrong fingerprint"
      case .revoked(let location): "revoked \(location)"
      case .unknown(let others): (["unknown"] + others).joined(separator: " ")
      }
    #expect(text == item.expected)
  }

  @Test func severalFilesAreReadInOrder() {
    var known = KnownHosts()
    known.add(Array("bot.example.com \(Self.other)\n".utf8), file: "first")
    known.add(Array("bot.example.com \(Self.a)\n".utf8), file: "second")
    #expect(known.verdict(host: "bot.example.com", port: 22, key: Self.shown) == .known(at: "second:1"))
  }

  @Test func skippedLinesAreNoted() {
    var known = KnownHosts()
    known.add(
      Array("garbage\n@cert-authority * \(Self.a)\n@new * \(Self.a)\nx ssh-rsa ???\n# comment\n\n".utf8), file: "f")
    #expect(known.notes.map { $0.prefix(3) } == ["f:1", "f:2", "f:3", "f:4"])
  }

  @Test func typesToAskFor() {
    var known = KnownHosts()
    known.add(
      Array("bot \(Self.rsa)\nbot \(Self.a)\n@revoked bot \(Self.other)\n[web]:22022 \(Self.a)\n".utf8), file: "f")
    #expect(known.keyTypes(host: "bot", port: 22) == ["ssh-rsa", "ssh-ed25519"])
    #expect(known.keyTypes(host: "web", port: 22022) == ["ssh-ed25519"])
    #expect(known.keyTypes(host: "web", port: 22) == [])
  }
}

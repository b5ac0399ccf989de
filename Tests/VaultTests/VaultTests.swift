import Crypto
import Diagnostics
import Testing

@testable import Vault

@Suite struct VaultTests {
  static let example = """
    # The bot's own secrets.
    TELEGRAM_TOKEN: 123:abc
    DB_PASSWORD: "p w"   # rotated in May

    retries: 3
    ratio: 0.25
    debug: false
    nothing:
    empty: ""
    tls:
        # the private half
        key: |
            -----BEGIN KEY-----
            abc
            -----END KEY-----
        names: [a, "b,c"]
        hosts:
            - one
            - user: ada
              pass: x
    host_unencrypted: db.example.com

    """

  @Test func holdsWhatWasWritten() throws {
    let vault = try vault(Self.example)
    let expected = [
      "TELEGRAM_TOKEN=str:123:abc", "DB_PASSWORD=str:p w", "retries=int:3", "ratio=float:0.25", "debug=bool:false",
      "nothing=", "empty=str:", "tls.key=str:-----BEGIN KEY-----\nabc\n-----END KEY-----\n", "tls.names.0=str:a",
      "tls.names.1=str:b,c", "tls.hosts.0=str:one", "tls.hosts.1.user=str:ada", "tls.hosts.1.pass=str:x",
      "host_unencrypted=str:db.example.com",
    ]
    #expect(vault.shown == expected)
    #expect(try open(vault.text).shown == expected)
    let plain = vault.text.split(separator: "\n").prefix { $0 != "sops:" }.filter {
      !$0.contains("ENC[") && !$0.contains("unencrypted")
    }
    for secret in ["123", "p w", "rotated", "bot's", "private", "BEGIN KEY", "ada", "0.25"] {
      #expect(!plain.joined().contains(secret))
    }
    #expect(vault.text.contains("host_unencrypted: db.example.com\n"))
    #expect(vault.text.contains("\nsops:\n    age:\n        - recipient: \(Sample.recipient)\n          enc: |\n"))
    #expect(vault.text.contains("    lastmodified: \"2026-11-21T12:00:00Z\"\n"))
  }

  @Test func isShownAsItWasWritten() throws {
    var vault = try vault(Self.example)
    let text = try vault.plaintext()
    #expect(text == Self.example.replacing("123:abc", with: "\"123:abc\""))
    let before = vault.text
    try vault.replace(plaintext: text, file: "x")
    #expect(vault.text == before && !vault.isChanged)
  }

  /// What a reader of YAML takes for a line's end, drops, or refuses as it stands.
  @Test(arguments: [
    "\u{feff}x", "\u{85}", "a\u{2028}b", "a\rb", "\r\n", "\u{1b}[31m", "\u{7f}", "\u{fffe}", "\u{0}", " x ", "\t",
    "# x", "- x", "~",
  ])
  func anyTextIsShownSoThatItIsReadAgain(text: String) throws {
    var vault = try vault("A: x\n")
    try vault.set(VaultValue(text), at: ["B"])
    var opened = try open(try vault.seal(at: later))
    #expect(opened.values["B"] == VaultValue(text))
    try opened.replace(plaintext: opened.plaintext(), file: "x")
    #expect(opened.values["B"] == VaultValue(text) && !opened.isChanged)
  }

  @Test func oneChangeIsOneLine() throws {
    var vault = try open(try vault(Self.example).text)
    let before = vault.text
    try vault.set(VaultValue("new"), at: vault.path("tls.hosts.1.pass"))
    let after = try vault.seal(at: later)
    let changes = changedLines(before, after)
    #expect(changes.count == 6)
    #expect(
      Set(changes.map { $0.dropFirst().split(separator: ":")[0].filter { $0 != " " } })
        == ["pass", "lastmodified", "mac"])
    #expect(try open(after).values["tls.hosts.1.pass"] == VaultValue("new"))
    var same = try open(after)
    try same.set(VaultValue("new"), at: ["tls", "hosts", "1", "pass"])
    #expect(!same.isChanged)
  }

  @Test func editingKeepsWhatIsTheSame() throws {
    var vault = try vault(Self.example)
    let before = vault.text
    let text = try vault.plaintext().replacing("retries: 3", with: "# how often\nretries: 4\nfresh: \"yes please\"")
      .replacing("# rotated in May", with: "# rotated in June")
    try vault.replace(plaintext: text, file: "x")
    let after = try vault.seal(at: later)
    let keys = changedLines(before, after).map { String($0.prefix(8)) }
    #expect(keys.count == 10, "\(keys)")
    let opened = try open(after)
    #expect(try opened.plaintext() == text)
    #expect(opened.values["retries"]?.text?.reveal() == "4" && opened.values["fresh"] == VaultValue("yes please"))
    // Moving a value to another place in the file keeps its ciphertext, too.
    let token = before.split(separator: "\n").first { $0.hasPrefix("TELEGRAM_TOKEN") }!
    var moved = opened
    try moved.replace(
      plaintext: text.replacing("TELEGRAM_TOKEN: \"123:abc\"\n", with: "") + "TELEGRAM_TOKEN: '123:abc'\n", file: "x")
    #expect(try moved.seal(at: later).contains(token + "\nsops:"))
  }

  struct Case: Sendable {
    var before: String
    var path: [String]
    /// Nil: it is removed.
    var value: String?
    var after: String
  }

  static let cases: [Case] = [
    Case(before: "", path: ["A"], value: "x", after: "A: x\n"),
    Case(before: "A: x\n", path: ["B"], value: "w z", after: "A: x\nB: \"w z\"\n"),
    Case(before: "A: x # c\n# end\n", path: ["B"], value: "w", after: "A: x # c\nB: w\n# end\n"),
    Case(before: "A: x\n", path: ["b", "c", "d"], value: "w", after: "A: x\nb:\n    c:\n        d: w\n"),
    Case(before: "b:\n  c: 1\nd: 2\n", path: ["b", "e"], value: "w", after: "b:\n  c: 1\n  e: w\nd: 2\n"),
    Case(before: "b:\n    - c: 1\n", path: ["b", "0", "e"], value: "w", after: "b:\n    - c: 1\n      e: w\n"),
    Case(before: "b: {}\n", path: ["b", "e"], value: "w", after: "b: {e: w}\n"),
    Case(before: "b: {c: 1}\n", path: ["b", "e"], value: "w", after: "b: {c: 1, e: w}\n"),
    Case(before: "b: {c: 1}\n", path: ["b", "e", "f"], value: "w", after: "b: {c: 1, e: {f: w}}\n"),
    Case(before: "b:\nc: 1\n", path: ["b", "e"], value: "w", after: "b:\n    e: w\nc: 1\n"),
    Case(before: "b:\nc: 1\n", path: ["b"], value: "w", after: "b: w\nc: 1\n"),
    Case(before: "b: ~\n", path: ["b"], value: "w", after: "b: w\n"),
    Case(before: "b: \"\"\n", path: ["b"], value: "w", after: "b: w\n"),
    Case(before: "b: [1, x]\n", path: ["b", "1"], value: "a,b", after: "b: [1, \"a,b\"]\n"),
    Case(
      before: "A: x\n", path: ["B"], value: "one\ntwo\n", after: "A: x\nB: |\n    one\n    two\n"),
    Case(before: "A: x\n", path: ["odd key: #1"], value: "w", after: "A: x\n\"odd key: #1\": w\n"),
    Case(before: "A: x\n", path: ["yes"], value: "w1", after: "A: x\n\"yes\": w1\n"),
    Case(before: "x_unencrypted: 1\n", path: ["x_unencrypted"], value: "on", after: "x_unencrypted: \"on\"\n"),
    Case(before: "A: x\n", path: ["A"], value: nil, after: ""),
    Case(before: "A: x\n# of B\nB: w # c\nC: z\n", path: ["B"], value: nil, after: "A: x\n# of B\nC: z\n"),
    Case(before: "b:\n  c: 1\n  e: w\nd: 2\n", path: ["b", "c"], value: nil, after: "b:\n  e: w\nd: 2\n"),
    Case(before: "b:\n  c: 1\nd: 2\n", path: ["b", "c"], value: nil, after: "b: {}\nd: 2\n"),
    Case(before: "b:\n  c: 1\nd: 2\n", path: ["b"], value: nil, after: "d: 2\n"),
    Case(before: "b:\n  - x\n  - w\n  - z\n", path: ["b", "1"], value: nil, after: "b:\n  - x\n  - z\n"),
    Case(before: "b:\n- x\nc: 1\n", path: ["b", "0"], value: nil, after: "b: []\nc: 1\n"),
    Case(
      before: "b:\n  - p: 1\n    q: 2\n  - r: 3\n", path: ["b", "0", "p"], value: nil,
      after: "b:\n  - q: 2\n  - r: 3\n"),
    Case(before: "b:\n  - p: 1\n  - r: 3\n", path: ["b", "0", "p"], value: nil, after: "b:\n  - {}\n  - r: 3\n"),
    Case(before: "b: [x, w, z]\n", path: ["b", "0"], value: nil, after: "b: [w, z]\n"),
    Case(before: "b: [x, w, z]\n", path: ["b", "2"], value: nil, after: "b: [x, w]\n"),
    Case(before: "b: {c: 1}\n", path: ["b", "c"], value: nil, after: "b: {}\n"),
  ]

  @Test(arguments: cases.indices) func changes(index: Int) throws {
    let item = Self.cases[index]
    var vault = try vault(item.before)
    if let value = item.value { try vault.set(VaultValue(value), at: item.path) } else { try vault.unset(item.path) }
    #expect(vault.isChanged)
    let opened = try open(try vault.seal(at: later))
    #expect(try opened.plaintext() == item.after)
    if let value = item.value { #expect(try opened.value(at: item.path) == VaultValue(value)) }
  }

  @Test func changesThatAreRefused() throws {
    var vault = try vault("A: x\nb:\n  c: [1]\n")
    let text = vault.text
    func code(_ body: (inout Vault) throws(VaultError) -> Void) -> VaultError.Code? {
      do { try body(&vault) } catch { return error.code }
      return nil
    }
    let value = VaultValue("v")
    #expect(code { (v: inout Vault) throws(VaultError) in try v.set(value, at: ["b"]) } == .wrongKind)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.set(value, at: ["b", "c"]) } == .wrongKind)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.set(value, at: ["A", "z"]) } == .wrongKind)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.set(value, at: ["b", "c", "7"]) } == .wrongKind)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.set(value, at: ["sops"]) } == .refused)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.set(value, at: ["sops", "mac"]) } == .refused)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.set(value, at: ["a\nb"]) } == .refused)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.set(value, at: ["a", ""]) } == .refused)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.unset(["Z"]) } == .noSuchKey)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.unset(["b", "c", "1"]) } == .noSuchKey)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.unset(["b", "c", "00"]) } == .noSuchKey)
    #expect(code { (v: inout Vault) throws(VaultError) in try v.unset(["sops"]) } == .refused)
    #expect(code { (v: inout Vault) throws(VaultError) in _ = try v.value(at: ["b"]) } == .wrongKind)
    let huge = VaultValue(String(repeating: "x", count: 300_000))
    #expect(code { (v: inout Vault) throws(VaultError) in try v.set(huge, at: ["A"]) } == .syntax)
    #expect(vault.text == text && !vault.isChanged)
  }

  struct Fault: Sendable {
    var text: String
    var line: Int
    var column: Int
  }

  static let faults: [Fault] = [
    Fault(text: "A: x\nB: [1\n", line: 3, column: 4),
    Fault(text: "A: x\nA: y\n", line: 2, column: 1),
    Fault(text: "- x\n", line: 1, column: 1),
    Fault(text: "canary\n", line: 1, column: 1),
    Fault(text: "A: yes\n", line: 1, column: 4),
    Fault(text: "A: 0777\n", line: 1, column: 4),
    Fault(text: "A: 99999999999999999999\n", line: 1, column: 4),
    Fault(text: "A: &x canary\nB: *x\n", line: 1, column: 4),
    Fault(text: "A: !!str canary\n", line: 1, column: 4),
    Fault(text: "A: canary\n  canary two\n", line: 1, column: 4),
    Fault(text: "A: | # canary\n  x\n", line: 1, column: 4),
    Fault(text: "? A\n: canary\n", line: 1, column: 3),
    Fault(text: "12: canary\n", line: 1, column: 1),
    Fault(text: "sops: canary\n", line: 1, column: 1),
    Fault(text: "{A: canary}\n", line: 1, column: 1),
    Fault(text: "A: x\n---\nB: y\n", line: 2, column: 1),
    Fault(text: "A:\t- canary\n", line: 1, column: 4),
    Fault(text: "A: \"canary\\q\"\n", line: 1, column: 4),
  ]

  @Test(arguments: faults.indices) func faultsOfAnEditHaveTheirPlace(index: Int) throws {
    let fault = Self.faults[index]
    var vault = try vault("A: x\n")
    let text = vault.text
    let error = #expect(throws: VaultError.self) { try vault.replace(plaintext: fault.text, file: "edited.yml") }
    let first = try #require(error?.diagnostics.first)
    #expect(error?.code == .syntax && first.location?.file == "edited.yml")
    #expect(first.location?.line == fault.line, "\(first)")
    #expect(!"\(error!)".contains("canary"))
    #expect(vault.text == text)
  }

  @Test func allFaultsOfAnEditAtOnce() throws {
    var vault = try vault("A: x\n")
    let error = #expect(throws: VaultError.self) {
      try vault.replace(plaintext: "A: on\nB: 0x1F\nC: 1_000\nsops: 1\n", file: "e")
    }
    #expect(error?.diagnostics.count == 4)
  }

  // MARK: Files of others

  @Test func layoutsOfOtherWriters() throws {
    let text = try vault("A: x\nb:\n    c: w\n").text
    // Lists as older versions wrote them, single quotes, other services' empty lists, a block that isn't the last one.
    let older = text.replacing("        - recipient", with: "    -   recipient").replacing(
      "          enc", with: "        enc"
    )
    .replacing("            ", with: "            ").replacing(
      "\"2026-11-21T12:00:00Z\"", with: "'2026-11-21T12:00:00Z'"
    )
    .replacing("sops:\n", with: "sops:\n    kms: []\n    gcp_kms: []\n    hc_vault: []\n    pgp: []\n")
    var vault = try open(older)
    #expect(vault.shown == ["A=str:x", "b.c=str:w"])
    #expect(try vault.add(Sample.sshIdentity.recipient))
    #expect(vault.text.contains("\n    - recipient: \"ssh-ed25519 "))
    #expect(try open(try vault.seal(at: later), [Sample.sshIdentity]).shown == ["A=str:x", "b.c=str:w"])
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    let sops = lines.firstIndex { $0 == "sops:" }!
    let moved = (lines[sops...].dropLast() + lines[..<sops]).joined(separator: "\n") + "\n"
    var reversed = try open(moved)
    #expect(reversed.shown == ["A=str:x", "b.c=str:w"])
    try reversed.set(VaultValue("z"), at: ["D"])
    #expect(try open(reversed.seal(at: later)).shown == ["A=str:x", "b.c=str:w", "D=str:z"])
    #expect(try open(text.replacing("\n", with: "\r\n")).shown == ["A=str:x", "b.c=str:w"])
    #expect(try open("---\n" + text).shown == ["A=str:x", "b.c=str:w"])
  }

  @Test func rulesOfEncryption() throws {
    for (rule, expected) in [
      ("encrypted_suffix: _secret", ["a_secret", "g_secret.b"]),
      ("unencrypted_suffix: _plain", ["a_secret", "b", "g_secret.b"]),
      ("encrypted_regex: ^(a_|g_)", ["a_secret", "g_secret.b"]), ("unencrypted_regex: ^b$", ["a_secret", "c_plain"]),
    ] {
      var vault = try Vault.create(file: "v", recipients: [Sample.identity.recipient])
      try vault.reload(vault.text.replacing("unencrypted_suffix: _unencrypted", with: rule))
      try vault.replace(
        plaintext: "a_secret: 1\nb: 0.50\nc_plain: x\ng_secret:\n  b: t\n".replacing("0.50", with: "0.5"), file: "v")
      let opened = try open(try vault.seal(at: noon))
      let encrypted = opened.entries.filter(\.isEncrypted).map(\.name)
      #expect(encrypted == expected, "\(rule)")
      #expect(opened.entries.map { $0.value!.text!.reveal() } == ["1", "0.5", "x", "t"])
      #expect(
        opened.text.split(separator: "\n").prefix { $0 != "sops:" }.filter { $0.contains("ENC[") }.count
          == encrypted.count)
    }
  }

  @Test func patternsThatCouldTakeForever() {
    for pattern in ["^(data|stringData)$", "(?i)password", #"\d+_key$"#, "^.*_secret$", "[*+?]", #"a\)\*"#, ""] {
      #expect(EncryptionRule.isTame(pattern), "\(pattern)")
    }
    for pattern in ["(a+)+$", "(a*)*", "(x){99}", "a*a*a*a*a*b", "(a|a)?"] {
      #expect(!EncryptionRule.isTame(pattern), "\(pattern)")
    }
  }

  @Test func mergesByValue() throws {
    let base = try vault("A: old\nB: old\nC: old\nD: old\nE:\n    x: old\nL: [p, q]\n")
    var ours = try open(base.text), theirs = try open(base.text)
    try ours.set(VaultValue("ours"), at: ["B"])
    try ours.set(VaultValue("ours"), at: ["C"])
    try ours.set(VaultValue("both"), at: ["N"])
    try ours.unset(["D"])
    try theirs.set(VaultValue("theirs"), at: ["A"])
    try theirs.set(VaultValue("theirs"), at: ["C"])
    try theirs.set(VaultValue("both"), at: ["N"])
    try theirs.set(VaultValue("theirs"), at: ["D"])
    try theirs.set(VaultValue("theirs"), at: ["L", "1"])
    try theirs.unset(["E", "x"])
    _ = try theirs.add(Sample.sshIdentity.recipient)
    #expect(try ours.merge(base: base, theirs: theirs) == ["C", "D"])
    let merged = try open(try ours.seal(at: later), [Sample.sshIdentity])
    #expect(merged.shown == ["A=str:theirs", "B=str:ours", "C=str:ours", "L.0=str:p", "L.1=str:theirs", "N=str:both"])
    // The recipient goes again, and with it the data key.
    var without = try open(merged.text), copy = try open(merged.text)
    try without.remove(Sample.sshIdentity.recipient)
    #expect(try copy.merge(base: merged, theirs: without).isEmpty)
    #expect(copy.recipients == [Sample.recipient] && copy.shown == merged.shown)
    #expect(throws: VaultError.self) { try open(try copy.seal(at: later), [Sample.sshIdentity]) }
    // Two vaults that were made on both sides.
    var fresh = try vault("A: ours\n")
    #expect(try fresh.merge(base: nil, theirs: try vault("A: theirs\nB: b\n")) == ["A"])
    #expect(fresh.shown == ["A=str:ours", "B=str:b"])
  }

  /// What can't be merged by value is a conflict or an error, never another value.
  @Test func mergesNothingIntoSomethingElse() throws {
    let base = try vault("A: old\n")
    var ours = try open(base.text), theirs = try open(base.text)
    try ours.set(VaultValue("ours"), at: ["A"])
    try theirs.replace(plaintext: "# new\nA: old\nhosts: [p, q]\n", file: "v")
    #expect(
      try ours.merge(base: base, theirs: theirs) == ["hosts.0", "hosts.1", "comments (theirs aren't taken over)"])
    #expect(ours.shown == ["A=str:ours"])
    #expect(throws: VaultError.self) { try ours.set(VaultValue("x"), at: ["hosts", "0"]) }
    // Their new data key makes a new one here.
    var rekeyed = try open(base.text), changed = try open(base.text)
    try rekeyed.rekey()
    try changed.set(VaultValue("b"), at: ["B"])
    let before = changed.dataKey
    #expect(try changed.merge(base: base, theirs: rekeyed).isEmpty)
    #expect(changed.dataKey != before && changed.shown == ["A=str:old", "B=str:b"])
    // Keys that only sops can handle.
    var other = try open(base.text)
    try other.reload(
      other.text.replacing("    version", with: "    pgp:\n        - fp: X\n          enc: y\n    version"))
    let error = #expect(throws: VaultError.self) { try changed.merge(base: base, theirs: other) }
    #expect(error?.code == .refused)
  }

  @Test func commentsStayWhereTheyBelong() throws {
    var vault = try vault("tls:\n    key: x\n    # trailing note\nZ: z\n")
    try vault.unset(["Z"])
    try vault.set(VaultValue("new"), at: ["NEW"])
    #expect(try vault.plaintext() == "tls:\n    key: x\n    # trailing note\nNEW: new\n")
  }

  @Test(arguments: ["hosts: [a, \"b\"]#c\n", "a: \"x\"#c\n"]) func whatOthersTakeForACommentIsRefused(text: String)
    throws
  {
    var vault = try vault("A: x\n")
    #expect(throws: VaultError.self) { try vault.replace(plaintext: text, file: "v") }
    try vault.replace(plaintext: text.replacing("#c", with: " #c"), file: "v")
    #expect(!vault.text.contains("#c"))
  }

  @Test func aRuleThatLeavesAValueInTheClearIsAskedAbout() throws {
    var vault = try vault("A: x\nB_unencrypted: b\n")
    try vault.checkEncrypts(["A"])
    try vault.checkEncrypts(["B_unencrypted"])
    vault.metadata.rule = .unencryptedRegex("^NEW_")
    #expect(throws: VaultError.self) { try vault.checkEncrypts(["NEW_TOKEN"]) }
  }

  @Test func aRecipientThatIsThereTwiceGoesTwice() throws {
    var vault = try vault("A: x\n")
    _ = try vault.add(Sample.sshIdentity.recipient)
    let item = try SOPSMetadata.item(Sample.sshIdentity.recipient, dataKey: vault.dataKey, column: 8)
    try vault.reload(vault.text.replacing("    age:\n", with: "    age:\n" + item + "\n"))
    #expect(vault.recipients.count == 3)
    try vault.remove(Sample.sshIdentity.recipient)
    #expect(vault.recipients == [Sample.recipient])
    let sealed = try vault.seal(at: later)
    #expect(throws: VaultError.self) { try open(sealed, [Sample.sshIdentity]) }
  }

  @Test(arguments: ["1.50", ".5", "3.14159265358979323846"]) func aNumberThatWouldChangeIsRefused(text: String)
    throws
  {
    var vault = try vault("A: x\n")
    #expect(throws: VaultError.self) { try vault.replace(plaintext: "A: \(text)\n", file: "v") }
    try vault.replace(plaintext: "A: \"\(text)\"\n", file: "v")
    #expect(vault.shown == ["A=str:\(text)"])
  }

  @Test func macOverEncryptedValuesOnly() throws {
    var vault = try Vault.create(file: "v", recipients: [Sample.identity.recipient])
    try vault.reload(vault.text.replacing("    version", with: "    mac_only_encrypted: true\n    version"))
    try vault.replace(plaintext: "a: x\nb_unencrypted: w\n", file: "v")
    let text = try vault.seal(at: noon)
    #expect(try open(text.replacing("b_unencrypted: w", with: "b_unencrypted: z")).shown.last == "b_unencrypted=str:z")
    let error = #expect(throws: VaultError.self) {
      try open(text.replacing("    mac_only_encrypted: true\n", with: ""))
    }
    #expect(error?.code == .mac)
  }

  @Test func typesOfUnencryptedValues() throws {
    let table: [(String, String)] = [
      ("0777", "int:511"), ("0x1F", "int:31"), ("0o17", "int:15"), ("0b11", "int:3"), ("1_000", "int:1000"),
      ("+5", "int:5"),
      ("-0", "int:0"), ("1.50", "float:1.5"), ("1e3", "float:1000"), (".5", "float:0.5"), ("5.", "float:5"),
      ("1e-7", "float:0.0000001"),
      ("123456789012345678901234.5", "float:123456789012345690000000"), ("True", "bool:true"), ("FALSE", "bool:false"),
      ("yes", "str:yes"), ("on", "str:on"), ("12:30", "str:12:30"), ("2026-11-21", "time:2026-11-21T00:00:00Z"),
      ("2026-11-21T01:02:03Z", "time:2026-11-21T01:02:03Z"), ("'1'", "str:1"), ("_1", "str:_1"), ("1a", "str:1a"),
    ]
    for (written, expected) in table {
      let scalar = try #require(outline("k: \(written)\n").leaves().first?.scalar)
      let value = try #require(try VaultValue.asSOPSReads(scalar))
      #expect("\(value.kind.rawValue):\(value.text!.reveal())" == expected, "\(written)")
    }
    for written in [".inf", "-.INF", ".nan", "99999999999999999999", "2026-1-2", "2026-11-21 01:02:03"] {
      let scalar = try #require(outline("k: \(written)\n").leaves().first?.scalar)
      #expect(throws: VaultValue.Unreadable.self) { try VaultValue.asSOPSReads(scalar) }
    }
  }

  // MARK: Recipients

  @Test func recipientsComeAndGo() throws {
    var vault = try vault(Self.example)
    let shown = vault.shown, before = vault.text
    #expect(try vault.add(Sample.sshIdentity.recipient))
    #expect(try !vault.add(Sample.identity.recipient))
    let both = try vault.seal(at: later)
    #expect(vault.recipients == [Sample.recipient, Sample.sshRecipient])
    // No value changes for a new recipient.
    #expect(changedLines(before, both).filter { $0.hasPrefix("-") }.count == 2)
    for identity in [Sample.identity, Sample.sshIdentity] { #expect(try open(both, [identity]).shown == shown) }

    var ssh = try open(both, [Sample.sshIdentity])
    try ssh.remove(Sample.identity.recipient)
    let one = try ssh.seal(at: later)
    #expect(try open(one, [Sample.sshIdentity]).shown == shown)
    #expect(try open(one, [Sample.sshIdentity]).plaintext() == vault.plaintext())
    let error = #expect(throws: VaultError.self) { try open(one) }
    #expect(error?.code == .noIdentity && error!.diagnostics[0].message.contains(Sample.sshRecipient))
    #expect(error!.diagnostics[0].help!.contains(Sample.recipient))
    // Nothing of the old ciphertexts is left.
    let old = Set(both.split(separator: "\n").filter { $0.contains("ENC[") }.map(String.init))
    #expect(one.split(separator: "\n").allSatisfy { !old.contains(String($0)) })

    let last = #expect(throws: VaultError.self) { try ssh.remove(Sample.sshIdentity.recipient) }
    #expect(last?.code == .recipient)
    let unknown = #expect(throws: VaultError.self) { try ssh.remove(Sample.identity.recipient) }
    #expect(unknown?.code == .recipient)
  }

  @Test func aNewDataKey() throws {
    var vault = try vault(Self.example, for: [Sample.identity.recipient, Sample.sshIdentity.recipient])
    let before = vault.text, shown = vault.shown, plaintext = try vault.plaintext()
    try vault.rekey()
    let after = try vault.seal(at: later)
    for identity in [Sample.identity, Sample.sshIdentity] {
      #expect(try open(after, [identity]).shown == shown && open(after, [identity]).plaintext() == plaintext)
    }
    for line in before.split(separator: "\n") where line.contains("ENC[") { #expect(!after.contains(line)) }
    // A value of the old file doesn't pass in the new one.
    let old = before.split(separator: "\n").first { $0.hasPrefix("retries") }!
    let new = after.split(separator: "\n").first { $0.hasPrefix("retries") }!
    let error = #expect(throws: VaultError.self) { try open(after.replacing(new, with: old)) }
    #expect(error?.code == .tampered)
  }

  @Test func keysOfOtherServicesAreLeftToSOPS() throws {
    let text = try vault("A: x\n", for: [Sample.identity.recipient, Sample.sshIdentity.recipient]).text
      .replacing("    version", with: "    pgp:\n        - fp: ABCD\n          enc: x\n    version")
    var vault = try open(text)
    #expect(vault.otherKeys == ["pgp"] && vault.shown == ["A=str:x"])
    try vault.set(VaultValue("y"), at: ["A"])
    #expect(try vault.seal(at: later).contains("        - fp: ABCD\n          enc: x\n"))
    for body in [{ try $0.rekey() }, { try $0.remove(Sample.sshIdentity.recipient) }] as [(inout Vault) throws -> Void]
    {
      let error = #expect(throws: VaultError.self) { try body(&vault) }
      #expect(error?.code == .unsupported)
    }
  }

  // MARK: Broken files

  @Test func brokenFilesAreNamed() throws {
    let text = try vault("A: first\nB: second\nlist: [x, w]\nu_unencrypted: p\n").text
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    let a = lines[0].dropFirst(3), b = lines[1].dropFirst(3)
    func code(_ text: String) -> VaultError? {
      do { _ = try open(text) } catch { return error }
      return nil
    }
    #expect(code(text) == nil)
    let table: [(String, String, VaultError.Code, Int?)] = [
      ("values exchanged", text.replacing(a, with: "@").replacing(b, with: a).replacing("@", with: b), .tampered, 1),
      ("a key renamed", text.replacing("A: ENC", with: "C: ENC"), .tampered, 1),
      ("a ciphertext cut", text.replacing(b, with: b.dropLast(9)), .tampered, 2),
      ("in the clear", text.replacing(b, with: "second"), .tampered, 2),
      ("another type", text.replacing(a, with: a.replacing("type:str", with: "type:int")), .tampered, 1),
      ("no type", text.replacing(a, with: a.replacing(",type:str", with: "")), .tampered, 1),
      ("a line removed", text.replacing(lines[1] + "\n", with: ""), .mac, nil),
      ("emptied", text.replacing(b, with: "\"\""), .mac, nil),
      ("nothing", text.replacing(b, with: "~"), .mac, nil),
      ("lines exchanged", text.replacing(lines[0] + "\n" + lines[1], with: lines[1] + "\n" + lines[0]), .mac, nil),
      ("the unencrypted changed", text.replacing("u_unencrypted: p", with: "u_unencrypted: q"), .mac, nil),
      ("time changed", text.replacing("12:00:00", with: "12:00:01"), .mac, nil),
      ("time missing", text.replacing("lastmodified", with: "modified"), .notAVault, nil),
      ("MAC missing", text.replacing("    mac: ", with: "    cam: "), .mac, nil),
      ("a rule changed", text.replacing("suffix: _unencrypted", with: "suffix: A"), .tampered, nil),
      ("two rules", text.replacing("    version", with: "    encrypted_suffix: x\n    version"), .notAVault, nil),
      ("a bad pattern", text.replacing("unencrypted_suffix: _", with: "encrypted_regex: ("), .notAVault, nil),
      (
        "comments' pattern", text.replacing("    version", with: "    encrypted_comment_regex: x\n    version"),
        .unsupported, nil
      ),
      ("groups", text.replacing("    version", with: "    shamir_threshold: 2\n    version"), .unsupported, nil),
      ("no block", lines.prefix { $0 != "sops:" }.joined(separator: "\n"), .notAVault, 1),
      ("empty", "", .notAVault, 1), ("a list", "- x\n", .syntax, 1),
      ("doubled", lines[0] + "\n" + text, .syntax, nil), ("not UTF-8", "", .notAVault, nil),
      ("merge marks", "<<<<<<< HEAD\n" + text, .syntax, nil),
      ("the armor damaged", text.replacing("BEGIN AGE", with: "BEGIN EGA"), .dataKey, nil),
      ("the key damaged", text.replacing("            YWdl", with: "            YWdm"), .dataKey, nil),
      ("nobody", text.replacing("        - recipient", with: "        - recipent"), .notAVault, nil),
    ]
    for (name, changed, expected, line) in table {
      let error = code(changed)
      #expect(error?.code == expected, "\(name): \(String(describing: error))")
      if let line { #expect(error?.diagnostics.first?.location?.line == line, "\(name)") }
      if expected == .tampered { #expect(error?.diagnostics[0].message.hasPrefix("`") == true) }
      #expect(!"\(String(describing: error))".contains("second") || name == "in the clear")
    }
    // All tampered values at once.
    #expect(code(text.replacing("A: ENC", with: "C: ENC").replacing("B: ENC", with: "D: ENC"))?.diagnostics.count == 2)
    // Cut off after each line, and in the middle of each.
    for count in stride(from: 0, to: text.utf8.count - 1, by: 13) {
      #expect(throws: VaultError.self) {
        try Vault.open(Array(text.utf8.prefix(count)), file: "v", identities: [Sample.identity])
      }
    }
    #expect(throws: VaultError.self) { try Vault.open([0xff, 0x41], file: "v", identities: [Sample.identity]) }
  }

  @Test func whatIsReadableWithoutAKey() throws {
    let index = try VaultIndex(Array(try vault(Self.example).text.utf8), file: "v")
    #expect(index.recipients == [Sample.recipient] && index.lastModified == "2026-11-21T12:00:00Z")
    #expect(index.entries.map(\.name).prefix(3) == ["TELEGRAM_TOKEN", "DB_PASSWORD", "retries"])
    #expect(index.entries[2].kind == .int && index.entries.last?.kind == nil)
  }

  // MARK: At random

  @Test func twoHundredRandomFiles() throws {
    for seed in 1...200 as ClosedRange<UInt64> {
      var tree = RandomTree(seed: seed)
      var vault = try Vault.create(file: "v", recipients: [Sample.identity.recipient])
      do {
        try vault.replace(plaintext: tree.text, file: "v")
      } catch {
        Issue.record("seed \(seed): \(error)\n\(tree.text)")
        continue
      }
      let text = try vault.seal(at: noon)
      var opened = try open(text)
      let shown = opened.values.mapValues { "\($0.kind.rawValue):\($0.text!.reveal())" }
      #expect(shown == tree.values, "seed \(seed)")
      let plaintext = try opened.plaintext()
      try opened.replace(plaintext: plaintext, file: "v")
      #expect(opened.text == text, "seed \(seed): an edit without changes changes something")

      // Random edits: one value anew, one more, one less.
      var expected = opened.values
      let names = opened.entries.map(\.path)
      if let path = names.randomElement(using: &tree.generator) {
        let value = VaultValue("fresh \(seed)\nline")
        try opened.set(value, at: path)
        expected[path.joined(separator: ".")] = value
      }
      let added = VaultValue("added")
      try opened.set(added, at: ["ADDED", "below"])
      expected["ADDED.below"] = added
      if let path = names.filter({ $0.count == 1 }).randomElement(using: &tree.generator) {
        try opened.unset(path)
        expected[path[0]] = nil
      }
      let after = try open(try opened.seal(at: later))
      #expect(after.values == expected, "seed \(seed)")
      // Whatever wasn't touched has the ciphertext that it had.
      let old = Set(text.split(separator: "\n").filter { $0.contains("ENC[") }.map(String.init))
      let fresh = after.text.split(separator: "\n").filter { $0.contains("ENC[") && !old.contains(String($0)) }
      #expect(fresh.count <= 3, "seed \(seed): \(fresh.count) lines have new ciphertexts")
    }
  }

  @Test func aThousandMutations() throws {
    // SOPS protects neither the names of empty and unencrypted values nor positions in lists (their order it does).
    let example = Self.example.split(separator: "\n").filter {
      !$0.hasPrefix("nothing") && !$0.hasPrefix("empty") && !$0.hasPrefix("host_")
    }
    let original = try vault(example.joined(separator: "\n") + "\n")
    func keys(_ path: [String]) -> String { path.filter { Int($0) == nil }.joined(separator: ".") }
    let values = Set(original.entries.map { "\(keys($0.path))=\($0.value!.text!.reveal())" })
    let bytes = Array(original.text.utf8)
    var generator = SeededGenerator(7)
    var refused = 0
    let pieces = [
      "\n", " ", ":", "#", "- ", "ENC[", "]", "'", "\"", "|", "&a ", "*a", "!!x ", "{", "}", "\t", "\u{85}", "sops:\n",
      "~", "true",
    ]
    for _ in 0..<1000 {
      var changed = bytes
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        let place = Int.random(in: 0..<changed.count, using: &generator)
        switch Int.random(in: 0..<7, using: &generator) {
        case 0: changed[place] = UInt8.random(in: 0...255, using: &generator)
        case 1: changed.remove(at: place)
        case 2: changed.insert(UInt8.random(in: 0x20...0x7e, using: &generator), at: place)
        case 3: changed.removeSubrange(place..<min(changed.count, place + Int.random(in: 1...400, using: &generator)))
        case 4: changed.insert(contentsOf: Array(pieces.randomElement(using: &generator)!.utf8), at: place)
        case 5:
          let other = Int.random(in: 0..<changed.count, using: &generator)
          changed.swapAt(place, other)
        default:
          // A line doubled elsewhere.
          var lines = changed.split(separator: 10, omittingEmptySubsequences: false)
          lines.insert(lines.randomElement(using: &generator)!, at: Int.random(in: 0...lines.count, using: &generator))
          changed = Array(lines.joined(separator: [10]))
        }
        if changed.isEmpty { changed = [10] }
      }
      do {
        let opened = try Vault.open(changed, file: "v", identities: [Sample.identity])
        let found = Set(
          opened.entries.compactMap { entry in
            entry.value.flatMap { $0.isEmpty ? nil : "\(keys(entry.path))=\($0.text!.reveal())" }
          })
        #expect(found == values, "another value in\n\(String(decoding: changed, as: UTF8.self))")
        _ = try opened.plaintext()
      } catch {
        refused += 1
        #expect(!"\(error)".contains("123:abc"))
      }
    }
    #expect(refused > 600)
  }
}

import ConfigSource
import Diagnostics
import Testing

@testable import Vault

@Suite struct OutlineTests {
  @Test func commentsAreCountedToTheirCollections() throws {
    let text = """
      # top
      a: 1 # behind
      b:
          # inner
          c: 2
          # foot
      d:
          - x
          # between
          - y
      # last

      """
    let comments = try outline(text).comments()
    #expect(comments.map { $0.candidates[0] } == [[], [], ["b"], ["b"], ["d"], []])
  }

  @Test func hashesThatAreNoComments() throws {
    let text = "a: \"# no\"\nb: x#no\nc: |\n    # no\n\n    # no\nd: '# no'\n'#e': [\"#no\", '# no'] # yes\n"
    let outline = try outline(text)
    #expect(outline.comments().map { outline.text($0.range) } == ["# yes"])
  }

  @Test func extents() throws {
    let text = "a: \"x\\\"y\" # c\nb: 'it''s'\nc: |2\n    lead\n\n   end\n\nd: {e: [1, \"]\"], f: }\n\"g h\" : ~\n"
    let outline = try outline(text)
    #expect(
      outline.leaves().map { outline.text($0.range) } == [
        "\"x\\\"y\"", "'it''s'", "|2\n    lead\n\n   end", "1", "\"]\"", "", "~",
      ])
  }

  @Test func textsAreReadBackByLibyaml() throws {
    let samples = [
      "", "x", "a b", "12", "true", "no", "~", "x: y", "# c", "a\nb", "a\n", "a\n\n", "\n", " a\nb", "a \nb", "\ta",
      "é\u{85}x",
      "\u{0}\u{1b}", "🔑", "-", "- a", "'", "\"", "\\", "a\r\nb", "2026-11-21", "null", "=", "<<", "a\n b\n  c",
      "x\u{2028}y",
    ]
    for sample in samples {
      for isFlow in [false, true] {
        let written = YAMLText.scalar(sample, column: 0, isFlow: isFlow)
        let text = isFlow ? "k: [\(written)]\n" : "k: \(written)\n"
        let scalar = try #require(outline(text).leaves().first?.scalar)
        #expect(scalar.text == sample, "\(written)")
        #expect(try VaultValue.written(scalar) == VaultValue(sample), "\(written)")
      }
    }
  }

  @Test func decimals() {
    let table: [(Double, String)] = [
      (0, "0"), (1, "1"), (-1.5, "-1.5"), (1e21, "1000000000000000000000"), (1e-7, "0.0000001"),
      (123456.789, "123456.789"),
      (.leastNonzeroMagnitude, "0." + String(repeating: "0", count: 323) + "5"), (0.1, "0.1"),
      (1e16, "10000000000000000"),
      (.greatestFiniteMagnitude, "17976931348623157" + String(repeating: "0", count: 292)),
    ]
    for (number, expected) in table { #expect(VaultValue.decimal(number) == expected) }
  }
}

@Suite struct IdentitySourceTests {
  private func load(_ environment: [String: String], _ files: [String: String]) throws -> IdentitySources.Found {
    try IdentitySources(environment: environment) { path in files[path].map { Array($0.utf8) } }.load()
  }

  @Test func theirOrder() throws {
    let keys = try (0..<4).map { _ in try Identity.generate() }
    let found = try load(
      [
        "HOME": "/h", "ORCHESTRATE_VAULT_KEY": keys[0].secretText!, "SOPS_AGE_KEY": keys[1].secretText!,
        "SOPS_AGE_KEY_FILE": "/k",
      ],
      [
        "/k": "# c\n" + keys[2].secretText!, "/h/.config/orchestrate/keys.txt": keys[3].secretText! + "\n",
        "/h/.config/sops/age/keys.txt": Sample.secret, "/h/.ssh/id_ed25519": Sample.sshSecret,
      ])
    #expect(found.identities == keys + [Sample.identity, Sample.sshIdentity])
    #expect(found.used.count == 6 && found.passedOver == ["SOPS_AGE_SSH_PRIVATE_KEY_FILE (not set)"])
  }

  @Test func folders() throws {
    #expect(IdentitySources.keyFile(["HOME": "/h"]) == "/h/.config/orchestrate/keys.txt")
    #expect(IdentitySources.keyFile(["HOME": "/h", "XDG_CONFIG_HOME": "/c"]) == "/c/orchestrate/keys.txt")
    #expect(IdentitySources.keyFile([:]) == nil)
    #expect(
      try load(["HOME": "/h", "XDG_CONFIG_HOME": "/c"], ["/c/sops/age/keys.txt": Sample.secret]).identities == [
        Sample.identity
      ])
    #expect(try load(["HOME": "/h"], [:]).identities.isEmpty)
    #expect(try load([:], [:]).identities.isEmpty)
  }

  @Test func whatIsNamedHasToBeThere() throws {
    for environment in [
      ["SOPS_AGE_KEY_FILE": "/none"], ["ORCHESTRATE_VAULT_KEY": "canary-hunter2"], ["SOPS_AGE_KEY": Sample.recipient],
      ["SOPS_AGE_SSH_PRIVATE_KEY_FILE": "/bad"], ["SOPS_AGE_KEY_FILE": "/bad"],
    ] {
      let error = #expect(throws: VaultError.self) { try load(environment, ["/bad": "# x\ncanary-hunter2\n"]) }
      #expect(error?.code == .identity)
      #expect(error?.diagnostics[0].message.contains(environment.keys.first!) == true)
      #expect(!"\(error!)".contains("canary-hunter2"))
      if environment["SOPS_AGE_KEY_FILE"] == "/bad" { #expect(error?.diagnostics[0].location?.line == 2) }
    }
    // A file of another program's is none either, if nobody has named it.
    let beside = try load(
      ["HOME": "/h", "SOPS_AGE_KEY": Sample.secret], ["/h/.config/sops/age/keys.txt": "AGE-PLUGIN-YUBIKEY-1CANARY\n"])
    #expect(beside.identities == [Sample.identity])
    #expect(beside.passedOver.contains { $0.hasPrefix("/h/.config/sops/age/keys.txt") && !$0.contains("CANARY") })
    // An SSH key that can't be used is no fault: it is there for other things.
    let found = try load(
      ["HOME": "/h"], ["/h/.ssh/id_ed25519": "-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----"])
    #expect(found.identities.isEmpty && found.passedOver.last!.hasPrefix("/h/.ssh/id_ed25519 ("))
  }
}

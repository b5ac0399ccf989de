import Crypto
import Foundation
import Testing

@testable import Vault

/// Keys made by age-keygen and ssh-keygen for these tests, and what `age` 1.1.1 encrypted for them.
enum Sample {
  static let secret = "AGE-SECRET-KEY-1S7FVKQYE96YL7M0VKAGP83JK0LUUYAVVTCP8RR0M4E3S9VNX0WLQJ6JM98"
  static let recipient = "age1ztumkrzqpe65m9hjg72hgtjfq3czdmtc4hxclepu46nnakd06s4qmzn04w"
  static let sshRecipient =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFMQqcmEPfi53cahkms5TT9QFE0OdkHzO2nNXyQm5Saw ada@laptop"
  static let sshSecret = """
    -----BEGIN OPENSSH PRIVATE KEY-----
    b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
    QyNTUxOQAAACBTEKnJhD34ud3GoZJrOU0/UBRNDnZB8ztpzV8kJuUmsAAAAJABeZDkAXmQ
    5AAAAAtzc2gtZWQyNTUxOQAAACBTEKnJhD34ud3GoZJrOU0/UBRNDnZB8ztpzV8kJuUmsA
    AAAEAmFMcS+KcJwqZXm7NRDGi4nw4K1yV7WPKU58HXJ76MXFMQqcmEPfi53cahkms5TT9Q
    FE0OdkHzO2nNXyQm5SawAAAACmFkYUBsYXB0b3ABAgM=
    -----END OPENSSH PRIVATE KEY-----

    """
  static let plaintext = Array("a data key of thirty-two bytes!!".utf8)

  static let forX25519 = """
    -----BEGIN AGE ENCRYPTED FILE-----
    YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBPLzN1NVJjSHF3eDNaOC9R
    dEduVXE0MTFqNTJ3TXlVQjJXYURiNWRXbHdRCk5QRmQwQXB0UEFtWGU1K094VTFi
    YUtOVnhGZzc0bUxvclhaQjF5bnhTL0kKLS0tIHVjWWhDRnIxUFREdkhtL3JqZ2pn
    Vm1MTVdDSnV0UG9QTEFrRUl2THRhaTgKL2XwkqWLJE/61AihkcvVrzrVzmysgiCT
    r8tbwsbKizBeTX8cRiM1rx1KrmWTdRB+FkwVS8HLGfcpcd0tNBkn9w==
    -----END AGE ENCRYPTED FILE-----

    """
  static let forSSH = """
    -----BEGIN AGE ENCRYPTED FILE-----
    YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNzaC1lZDI1NTE5ICtEOFRBZyA2Y01D
    aS9ZMUJBWWFSL1hVaDA2R1Fyc2pOSms3ZXFGd1BWQTFzZDRGUkFzCjl4b1B5T3hx
    UFdUNEhKYzFXM0FGU203elkxNWxaSU1pakdQMW9zU1hPdDAKLS0tIFFJc2dnOFNj
    M1VWbzh3NTN3cG5sZ3F5NDVwTStvcUU2V1gxVFlFMTlLYVEKC70vRTWpwmKurWPn
    SUlWq9vS+4DLoKWYZ8UUFOCdwT9cwc1L2aZk9ptewZCa2fu92ypr6zMxHJCkDJep
    5iRM0w==
    -----END AGE ENCRYPTED FILE-----

    """
  static let forBoth = """
    -----BEGIN AGE ENCRYPTED FILE-----
    YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBmVTMyWUtyZ09jQ1VwWXJN
    V1FsSEZmT2pRN2tIT1J4ZlRwRThqYjRuRzIwCllOVVJnNGsxTGxEMnVrdDlaSUti
    ZEFvMEhsd3hoU3Nya20zaElVWXlLekkKLT4gc3NoLWVkMjU1MTkgK0Q4VEFnIGVB
    TTdsL3Z6SFhGT0VGaDlTcDB1M0wwa1ZzMjJacmJuVHdXVnZmOGswSFUKdnppRDVk
    dVZNT3ZtUlIyR1dxS0VtMWl4R3FCeXEyQ2RBeFo2bHVuRXV0QQotLS0gR0RRTU90
    Qk4wOGI0S1hMYkNYRG5ZaENGV1kxYjFRZFpIL3QrdmVBY0VwUQq97dzUcSFzVC3+
    kxTgI4j+GQq+fNsCfuZxmnf/qi5XtASc4503VCCDb7nU8Fh+EZILyEydVifIOjbY
    FQdMl706
    -----END AGE ENCRYPTED FILE-----

    """

  static var identity: Identity { try! Identity.parse(secret)[0] }
  static var sshIdentity: Identity { try! Identity.parse(sshSecret)[0] }
}

@Suite struct AgeKeyTests {
  @Test func keysAreThoseOfOtherTools() throws {
    #expect("\(Sample.identity.recipient)" == Sample.recipient)
    #expect(Sample.identity.secretText == Sample.secret)
    #expect("\(Sample.sshIdentity.recipient)" == Sample.sshRecipient)
    #expect(Sample.sshIdentity.secretText == nil)
    #expect("\(try Recipient(Sample.recipient))" == Sample.recipient)
    #expect("\(try Recipient("  " + Sample.sshRecipient + "\n"))" == Sample.sshRecipient)
    let bare = Sample.sshRecipient.split(separator: " ").prefix(2).joined(separator: " ")
    #expect(try Recipient(bare) == Recipient(Sample.sshRecipient))
  }

  @Test func aKeyFileAsItIsWritten() throws {
    let text = "# created: 2026\r\n# public key: \(Sample.recipient)\r\n\(Sample.secret)\r\n\n  \(Sample.secret)  \n"
    #expect(try Identity.parse(text) == [Sample.identity, Sample.identity])
    #expect(try Identity.parse("") == [])
    // What CI makes of line breaks.
    #expect(try Identity.parse(Sample.sshSecret.replacing("\n", with: "\\n")) == [Sample.sshIdentity])
    #expect(try Identity.parse(Sample.sshSecret.replacing("\n", with: " ")) == [Sample.sshIdentity])
  }

  static let badRecipients = [
    "", "age1", "age1ztumkrzqpe65m9hjg72hgtjfq3czdmtc4hxclepu46nnakd06s4qmzn04v", "AGE1ZTUM",
    "age1Ztumkrzqpe65m9hjg72hgtjfq3czdmtc4hxclepu46nnakd06s4qmzn04w", Sample.secret, "ssh-ed25519", "ssh-ed25519 AAAA",
    "ssh-rsa AAAAB3NzaC1yc2E=", "ecdsa-sha2-nistp256 AAAA", "age1yubikey1qwerty", "\(Sample.recipient) x", "prod",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFMQqcmEPfi53cahkms5TT9QFE0OdkHzO2nNXyQm5Sawxx",
  ]
  @Test(arguments: badRecipients) func refusedRecipients(text: String) {
    #expect(throws: Recipient.Malformed.self) { try Recipient(text) }
  }

  static let badKeys = [
    "AGE-SECRET-KEY-1S7FVKQYE96YL7M0VKAGP83JK0LUUYAVVTCP8RR0M4E3S9VNX0WLQJ6JM99", Sample.secret.lowercased(),
    String(Sample.secret.dropLast()), Sample.recipient, "AGE-PLUGIN-YUBIKEY-1XYZ", "hunter2",
    "-----BEGIN OPENSSH PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----",
    Sample.sshSecret.replacing("AAAAtzc2gt", with: "AAAAtzc2gu"),
    "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
  ]
  @Test(arguments: badKeys) func refusedKeys(text: String) {
    let error = #expect(throws: Identity.Malformed.self) { try Identity.parse(text) }
    // A key isn't quoted, however wrong it is.
    for word in text.split(whereSeparator: \.isWhitespace) where word.count > 12 && !word.hasPrefix("-----") {
      #expect(error?.message.contains(word) == false)
    }
  }

  @Test func bech32() throws {
    for count in [0, 1, 5, 32, 33] {
      let bytes = try SecureRandom.bytes(count)
      let text = Bech32.encode(prefix: "age", bytes)
      let (prefix, decoded) = try #require(Bech32.decode(text))
      #expect(prefix == "age" && decoded == bytes)
      #expect(Bech32.decode(text.uppercased())?.bytes == bytes)
    }
    // BIP 173, valid and invalid strings.
    for text in [
      "A12UEL5L", "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
      "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
    ] {
      #expect(Bech32.decode(text) != nil || text.hasPrefix("abcdef") || text.hasPrefix("split"))
    }
    for text in [
      "pzry9x0s0muk", "1pzry9x0s0muk", "x1b4n0q5v", "li1dgmt3", "A1G7SGD8", "10a06t8", "1qzzfhee", "A12uEL5L",
    ] {
      #expect(Bech32.decode(text) == nil)
    }
  }

  @Test func nothingShowsAKey() {
    #expect(!"\(Sample.identity)".contains("AGE-SECRET"))
    #expect(!String(reflecting: Sample.sshIdentity).contains("seed"))
    var dumped = ""
    dump(Sample.identity, to: &dumped)
    #expect(!dumped.contains("["))
  }
}

@Suite struct AgeFileTests {
  @Test func opensWhatAgeWrote() throws {
    let x25519 = try AgeArmor.decode(Sample.forX25519), ssh = try AgeArmor.decode(Sample.forSSH)
    let both = try AgeArmor.decode(Sample.forBoth)
    #expect(try AgeFile.decrypt(x25519, with: [Sample.identity]) == Sample.plaintext)
    #expect(try AgeFile.decrypt(ssh, with: [Sample.identity, Sample.sshIdentity]) == Sample.plaintext)
    #expect(try AgeFile.decrypt(both, with: [Sample.identity]) == Sample.plaintext)
    #expect(try AgeFile.decrypt(both, with: [Sample.sshIdentity]) == Sample.plaintext)
    let error = #expect(throws: AgeError.self) { try AgeFile.decrypt(x25519, with: [Sample.sshIdentity]) }
    #expect(error?.code == .noIdentity)
  }

  @Test(arguments: [0, 1, 32, 47, 48, 65535, 65536, 65537, 131072]) func roundTrips(count: Int) throws {
    let plaintext = try SecureRandom.bytes(count)
    let recipients = [Sample.identity.recipient, Sample.sshIdentity.recipient]
    let file = try AgeFile.encrypt(plaintext, for: recipients)
    for identity in [Sample.identity, Sample.sshIdentity] {
      #expect(try AgeFile.decrypt(file, with: [identity]) == plaintext)
    }
    #expect(try AgeArmor.decode(AgeArmor.encode(file)) == file)
  }

  @Test func everyChangeIsNoticed() throws {
    let file = try AgeArmor.decode(Sample.forBoth)
    for index in file.indices {
      for bit in [0x01, 0x20, 0x80] as [UInt8] {
        var changed = file
        changed[index] ^= bit
        #expect(throws: AgeError.self) { try AgeFile.decrypt(changed, with: [Sample.identity]) }
      }
    }
    for count in 0..<file.count {
      #expect(throws: AgeError.self) { try AgeFile.decrypt(Array(file.prefix(count)), with: [Sample.identity]) }
    }
    #expect(throws: AgeError.self) { try AgeFile.decrypt(file + [0], with: [Sample.identity]) }
  }

  /// Chunks left out, doubled, or exchanged.
  @Test func chunksKeepTheirOrder() throws {
    let key = try SecureRandom.bytes(32), whole = AgeStream.chunkCount + 16
    let sealed = AgeStream.seal(try SecureRandom.bytes(3 * AgeStream.chunkCount), key: key)
    #expect(AgeStream.open(sealed, key: key) != nil)
    let chunks = (0..<3).map { Array(sealed[($0 * whole)..<(($0 + 1) * whole)]) }
    for order in [[0, 1], [0, 2], [1, 2], [1, 0, 2], [0, 1, 2, 2], [0, 0, 1, 2], [2], []] {
      #expect(AgeStream.open(order.flatMap { chunks[$0] }, key: key) == nil)
    }
    // An empty last chunk behind a full one.
    let full = AgeStream.seal(try SecureRandom.bytes(AgeStream.chunkCount), key: key)
    #expect(AgeStream.open(full, key: key) != nil)
    #expect(AgeStream.open(AgeStream.seal([], key: key), key: key) == [])
  }

  @Test func headersAreExact() throws {
    let file = try AgeFile.encrypt(Sample.plaintext, for: [Sample.identity.recipient])
    let text = String(decoding: file.prefix(while: { $0 < 0x80 }), as: UTF8.self)
    let lines = text.split(separator: "\n").map(String.init)
    #expect(lines[0] == "age-encryption.org/v1" && lines[1].hasPrefix("-> X25519 ") && lines[3].hasPrefix("--- "))
    let stanza = lines[1] + "\n" + lines[2] + "\n"
    let mac = lines[3]
    let headers = [
      "age-encryption.org/v2\n\(stanza)\(mac)\n", "\(stanza)\(mac)\n", "age-encryption.org/v1\n\(mac)\n",
      "age-encryption.org/v1\r\n\(stanza)\(mac)\n", "age-encryption.org/v1\n->\n\n\(stanza)\(mac)\n",
      "age-encryption.org/v1\n->  X25519\n\n\(mac)\n", "age-encryption.org/v1\n\(lines[1]) \n\(lines[2])\n\(mac)\n",
      "age-encryption.org/v1\n\(lines[1])\n\(lines[2])=\n\(mac)\n",
      "age-encryption.org/v1\n\(lines[1]) x\n\(lines[2])\n\(mac)\n",
      "age-encryption.org/v1\n-> X25519 AAAA\n\(lines[2])\n\(mac)\n",
      "age-encryption.org/v1\n\(stanza)---\n", "age-encryption.org/v1\n\(stanza)--- AAAA\n",
      "age-encryption.org/v1\n\(stanza)\(mac)",
      "age-encryption.org/v1\n-> scrypt AAAA 18\n\(lines[2])\n\(stanza)\(mac)\n",
      String(repeating: "a", count: 100_000), "age-encryption.org/v1\n" + String(repeating: "-> x\n\n", count: 20_000),
    ]
    for header in headers {
      let error = #expect(throws: AgeError.self) {
        try AgeFile.decrypt(Array(header.utf8) + file.suffix(64), with: [Sample.identity])
      }
      #expect(error?.code == .malformed, "\(header.prefix(80))")
    }
    let passphrase = "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 18\n\(lines[2])\n\(mac)\n"
    let error = #expect(throws: AgeError.self) { try AgeFile.decrypt(Array(passphrase.utf8), with: [Sample.identity]) }
    #expect(error?.code == .noIdentity)
  }

  static let badArmor = [
    "", "hello", Sample.forX25519.replacing("-----BEGIN", with: "----BEGIN"),
    Sample.forX25519.replacing("END AGE", with: "END"), Sample.forX25519.replacing("\nr8tb", with: "\n r8tb"),
    Sample.forX25519.replacing("\nr8tb", with: "\n\nr8tb"), Sample.forX25519.replacing("9w==", with: "9w="),
    Sample.forX25519.replacing("9w==", with: "9x=="), Sample.forX25519.replacing("9w==", with: "9w"),
    Sample.forX25519.replacing("\nr8tb", with: "r8tb"), Sample.forX25519 + "x", "x" + Sample.forX25519,
    "-----BEGIN AGE ENCRYPTED FILE-----", "-----BEGIN AGE ENCRYPTED FILE-----\n",
  ]
  @Test(arguments: badArmor) func refusedArmor(text: String) {
    let error = #expect(throws: AgeError.self) {
      try AgeFile.decrypt(AgeArmor.decode(text), with: [Sample.identity])
    }
    #expect(error?.code == .malformed)
  }

  @Test func armorMayHaveOtherLineEnds() throws {
    let bytes = try AgeArmor.decode(Sample.forX25519)
    #expect(try AgeArmor.decode("\n \t\n" + Sample.forX25519 + "\n\n") == bytes)
    #expect(try AgeArmor.decode(Sample.forX25519.replacing("\n", with: "\r\n")) == bytes)
  }

  /// The test kit of the format's authors (C2SP/CCTV, age/testdata), where its folder is named by AGE_TESTKIT.
  @Test(.enabled(if: ProcessInfo.processInfo.environment["AGE_TESTKIT"] != nil))
  func testKit() throws {
    let folder = URL(filePath: ProcessInfo.processInfo.environment["AGE_TESTKIT"]!)
    var checked = 0
    for name in try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() {
      let bytes = [UInt8](try Data(contentsOf: folder.appending(path: name)))
      var fields: [String: [String]] = [:], position = 0
      while let end = bytes[position...].firstIndex(of: 10), end > position {
        let line = String(decoding: bytes[position..<end], as: UTF8.self)
        let parts = line.split(separator: ":", maxSplits: 1).map { $0.drop { $0 == " " } }
        fields[String(parts[0]), default: []].append(String(parts[1]))
        position = end + 1
      }
      // Passphrases, other kinds of keys and compressed files aren't for us.
      guard fields["passphrase"] == nil, fields["compressed"] == nil, let keys = fields["identity"],
        keys.allSatisfy({ $0.hasPrefix("AGE-SECRET-KEY-1") })
      else { continue }
      let expected = fields["expect"]![0], file = Array(bytes[(position + 1)...])
      let identities = try keys.flatMap { try Identity.parse($0) }
      var result = "success"
      var plaintext: [UInt8] = []
      do {
        let binary = fields["armored"] != nil ? try AgeArmor.decode(String(decoding: file, as: UTF8.self)) : file
        plaintext = try AgeFile.decrypt(binary, with: identities)
      } catch {
        result = "\(error.code)"
      }
      checked += 1
      if expected == "success" {
        #expect(result == "success" && SHA256.hex(plaintext) == fields["payload"]![0], "\(name): \(result)")
      } else {
        #expect(result != "success", "\(name): expected \(expected)")
        if expected == "no match" { #expect(result == "noIdentity", "\(name)") }
      }
    }
    #expect(checked > 50)
  }
}

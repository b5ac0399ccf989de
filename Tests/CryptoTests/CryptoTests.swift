import Testing

@testable import Crypto

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite struct SHA256Tests {
  /// FIPS 180-4 examples (NIST CSRC), and the empty message.
  static let vectors: [(message: [UInt8], digest: String)] = [
    ([], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (bytes("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
      bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    (
      [UInt8](repeating: UInt8(ascii: "a"), count: 1_000_000),
      "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    ),
  ]

  @Test(arguments: vectors.indices) func published(index: Int) {
    #expect(SHA256.hex(Self.vectors[index].message) == Self.vectors[index].digest)
  }

  @Test(arguments: [1, 7, 63, 64, 65, 100_000]) func inPieces(size: Int) {
    let message = Self.vectors[3].message
    var hash = SHA256()
    for start in stride(from: 0, to: message.count, by: size) {
      hash.update(Array(message[start..<min(start + size, message.count)]))
    }
    #expect(Hex.encode(hash.finalize()) == Self.vectors[3].digest)
  }
}

@Suite struct HMACTests {
  /// RFC 4231, test cases 1, 2, 3, 6 and 7.
  static let vectors: [(key: [UInt8], message: [UInt8], code: String)] = [
    (
      [UInt8](repeating: 0x0b, count: 20), bytes("Hi There"),
      "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    ),
    (
      bytes("Jefe"), bytes("what do ya want for nothing?"),
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    ),
    (
      [UInt8](repeating: 0xaa, count: 20), [UInt8](repeating: 0xdd, count: 50),
      "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"
    ),
    (
      [UInt8](repeating: 0xaa, count: 131), bytes("Test Using Larger Than Block-Size Key - Hash Key First"),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    ),
    (
      [UInt8](repeating: 0xaa, count: 131),
      bytes(
        "This is a test using a larger than block-size key and a larger than block-size data. "
          + "The key needs to be hashed before being used by the HMAC algorithm."),
      "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"
    ),
    // Empty key and message: the well-known value of HMAC_SHA256("", "").
    ([], [], "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"),
  ]

  @Test(arguments: vectors.indices) func published(index: Int) {
    let vector = Self.vectors[index]
    #expect(Hex.encode(HMACSHA256.authenticate(vector.message, key: vector.key)) == vector.code)
  }
}

@Suite struct ConstantTimeTests {
  @Test func comparesContent() {
    #expect(constantTimeEquals([], []))
    #expect(constantTimeEquals([1, 2, 3], [1, 2, 3]))
    #expect(!constantTimeEquals([1, 2, 3], [1, 2, 4]))
    #expect(!constantTimeEquals([1, 2, 3], [1, 2]))
    #expect(!constantTimeEquals([0], []))
  }
}

@Suite struct RandomTests {
  @Test func bytesDiffer() throws {
    let first = try SecureRandom.bytes(32), second = try SecureRandom.bytes(32)
    #expect(first.count == 32 && first != second)
    #expect(try SecureRandom.bytes(0) == [])
  }

  @Test func textHasItsLengthAndAlphabet() throws {
    for length in [0, 1, 32, 1000] {
      let text = try SecureRandom.text(length)
      #expect(text.utf8.count == length)
      #expect(text.utf8.allSatisfy { SecureRandom.alphabet.contains($0) })
    }
  }

  /// Over all 256 bytes, each character must come from exactly as many bytes as each other.
  @Test func noCharacterIsLikelier() {
    var counts: [UInt8: Int] = [:]
    for byte in UInt8.min...UInt8.max {
      if let character = SecureRandom.character(for: byte) { counts[character, default: 0] += 1 }
    }
    #expect(counts.count == 62)
    #expect(Set(counts.values) == [4])
  }
}

@Suite struct EncodingTests {
  /// RFC 4648, 10.
  static let base64 = [
    ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
    ("foobar", "Zm9vYmFy"),
  ]

  @Test(arguments: base64) func published(plain: String, encoded: String) {
    #expect(Base64.encode(bytes(plain)) == encoded)
    #expect(Base64.decode(encoded) == bytes(plain))
    let bare = String(encoded.prefix { $0 != "=" })
    #expect(Base64.encode(bytes(plain), padded: false) == bare)
    #expect(Base64.decode(bare) == bytes(plain))
  }

  @Test func everyByteSurvives() {
    let all = Array(UInt8.min...UInt8.max)
    #expect(Base64.decode(Base64.encode(all)) == all)
    #expect(Hex.decode(Hex.encode(all)) == all)
    #expect(Hex.encode([0, 10, 0xff]) == "000aff")
    #expect(Hex.decode("000AfF") == [0, 10, 0xff])
  }

  @Test(arguments: ["Z", "Zg=", "Z===", "====", "=", "Zh==", "Zm9=", "Zg==Zg==", "Zm9v\n", "Zm-_", "Zm 9v", "Zé=="])
  func refusesBase64(text: String) { #expect(Base64.decode(text) == nil) }

  @Test(arguments: ["a", "0g", "0x00", " 00"]) func refusesHex(text: String) { #expect(Hex.decode(text) == nil) }
}

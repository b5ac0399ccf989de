import Testing

@testable import Crypto

private func hex(_ text: String) -> [UInt8] { Hex.decode(text.filter { !$0.isWhitespace })! }

@Suite struct AES256GCMTests {
  struct Vector {
    var nonce: String, additional: String, plaintext: String, ciphertext: String, tag: String
    var key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
  }

  static let plaintext = """
    d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39
    """
  static let additional = "feedfacedeadbeeffeedfacedeadbeefabaddad2"

  /// McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13, 14, 15, 16 and 18 (a nonce of 60 bytes).
  static let vectors: [Vector] = [
    Vector(
      nonce: "000000000000000000000000", additional: "", plaintext: "", ciphertext: "",
      tag: "530f8afbc74536b9a963b4f1c4cb738b", key: String(repeating: "00", count: 32)),
    Vector(
      nonce: "000000000000000000000000", additional: "", plaintext: String(repeating: "00", count: 16),
      ciphertext: "cea7403d4d606b6e074ec5d3baf39d18", tag: "d0d1c8a799996bf0265b98b5d48ab919",
      key: String(repeating: "00", count: 32)),
    Vector(
      nonce: "cafebabefacedbaddecaf888", additional: "", plaintext: plaintext + "1aafd255",
      ciphertext: """
        522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
        8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad
        """, tag: "b094dac5d93471bdec1a502270e3cc6c"),
    Vector(
      nonce: "cafebabefacedbaddecaf888", additional: additional, plaintext: plaintext,
      ciphertext: """
        522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
        8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662
        """, tag: "76fc6ece0f4e1768cddf8853bb2d551b"),
    Vector(
      nonce: """
        9313225df88406e555909c5aff5269aa6a7a9538534f7da1e4c303d2a318a728
        c3c0c95156809539fcf0e2429a6b525416aedbf5a0de6a57a637b39b
        """, additional: additional, plaintext: plaintext,
      ciphertext: """
        5a8def2f0c9e53f1f75d7853659e2a20eeb2b22aafde6419a058ab4f6f746bf4
        0fc0c3b780f244452da3ebf1c5d82cdea2418997200ef82e44ae7e3f
        """, tag: "a44a8266ee1c8eb0c8b5d4cf5ae9f19a"),
  ]

  @Test(arguments: vectors.indices) func published(index: Int) {
    let vector = Self.vectors[index]
    let key = hex(vector.key), nonce = hex(vector.nonce), additional = hex(vector.additional)
    let sealed = AES256GCM.seal(hex(vector.plaintext), key: key, nonce: nonce, additionalData: additional)
    #expect(sealed.ciphertext == hex(vector.ciphertext) && sealed.tag == hex(vector.tag))
    #expect(
      AES256GCM.open(sealed.ciphertext, tag: sealed.tag, key: key, nonce: nonce, additionalData: additional)
        == hex(vector.plaintext))
  }

  @Test func everyChangeIsNoticed() {
    let key = [UInt8](repeating: 7, count: 32), nonce = [UInt8](repeating: 9, count: 32), extra: [UInt8] = [1, 2, 3]
    let (ciphertext, tag) = AES256GCM.seal([1, 2, 3, 4, 5], key: key, nonce: nonce, additionalData: extra)
    func opens(
      _ ciphertext: [UInt8], _ tag: [UInt8], _ key: [UInt8], _ nonce: [UInt8], _ extra: [UInt8]
    ) -> Bool {
      AES256GCM.open(ciphertext, tag: tag, key: key, nonce: nonce, additionalData: extra) != nil
    }
    func changed(_ bytes: [UInt8]) -> [[UInt8]] {
      bytes.indices.map { index in
        var copy = bytes
        copy[index] ^= 0x10
        return copy
      } + [Array(bytes.dropLast()), bytes + [0], []]
    }
    #expect(opens(ciphertext, tag, key, nonce, extra))
    for other in changed(ciphertext) { #expect(!opens(other, tag, key, nonce, extra)) }
    for other in changed(tag) { #expect(!opens(ciphertext, other, key, nonce, extra)) }
    for other in changed(key) { #expect(!opens(ciphertext, tag, other, nonce, extra)) }
    for other in changed(nonce) { #expect(!opens(ciphertext, tag, key, other, extra)) }
    for other in changed(extra) { #expect(!opens(ciphertext, tag, key, nonce, other)) }
    #expect(!opens(ciphertext, tag, key, [UInt8](repeating: 0, count: 129), extra))
  }
}

@Suite struct ChaCha20Poly1305Tests {
  /// RFC 8439, 2.8.2.
  @Test func published() {
    let key = Array<UInt8>(0x80...0x9f), nonce = hex("070000004041424344454647")
    let additional = hex("50515253c0c1c2c3c4c5c6c7")
    let plaintext = Array(
      ("Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        + "sunscreen would be it.").utf8)
    let sealed = ChaCha20Poly1305.seal(plaintext, key: key, nonce: nonce, additionalData: additional)
    #expect(
      sealed
        == hex(
          """
          d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
          3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
          92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
          3ff4def08e4b7a9de576d26586cec64b6116 1ae10b594f09e26a7e902ecbd0600691
          """))
    #expect(ChaCha20Poly1305.open(sealed, key: key, nonce: nonce, additionalData: additional) == plaintext)
    for index in sealed.indices {
      var changed = sealed
      changed[index] ^= 1
      #expect(ChaCha20Poly1305.open(changed, key: key, nonce: nonce, additionalData: additional) == nil)
    }
    #expect(ChaCha20Poly1305.open(sealed, key: key, nonce: nonce) == nil)
    #expect(ChaCha20Poly1305.open(Array(sealed.prefix(15)), key: key, nonce: nonce) == nil)
    #expect(ChaCha20Poly1305.open(sealed, key: [], nonce: nonce) == nil)
  }

  @Test func anEmptyText() {
    let key = [UInt8](repeating: 1, count: 32), nonce = [UInt8](repeating: 2, count: 12)
    let sealed = ChaCha20Poly1305.seal([], key: key, nonce: nonce)
    #expect(sealed.count == 16)
    #expect(ChaCha20Poly1305.open(sealed, key: key, nonce: nonce) == [])
  }
}

@Suite struct X25519Tests {
  static let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
  static let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")

  /// RFC 7748, 6.1.
  @Test func publishedKeys() {
    let a = X25519.publicKey(Self.alice), b = X25519.publicKey(Self.bob)
    #expect(a == hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"))
    #expect(b == hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"))
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    #expect(X25519.sharedSecret(Self.alice, b) == shared && X25519.sharedSecret(Self.bob, a) == shared)
    #expect(X25519.sharedSecret(Self.alice, X25519.basePoint) == a)
  }

  /// RFC 7748, 5.2: the first vector, and one and a thousand rounds of the iteration.
  @Test func publishedProducts() {
    #expect(
      X25519.sharedSecret(
        hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
        hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"))
        == hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"))
    var k = X25519.basePoint, u = k
    for round in 1...1000 {
      (k, u) = (X25519.sharedSecret(k, u)!, k)
      if round == 1 { #expect(k == hex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")) }
    }
    #expect(k == hex("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"))
  }

  @Test func pointsOfSmallOrderAndWrongLengths() {
    #expect(X25519.sharedSecret(Self.alice, [UInt8](repeating: 0, count: 32)) == nil)
    #expect(X25519.sharedSecret(Self.alice, [1] + [UInt8](repeating: 0, count: 31)) == nil)
    #expect(X25519.sharedSecret(Self.alice, Self.bob + [0]) == nil)
    #expect(X25519.sharedSecret([], Self.bob) == nil)
  }
}

@Suite struct Ed25519Tests {
  /// RFC 8032, 7.1, test 1; its X25519 form as libsodium converts it.
  @Test func published() {
    let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    let key = Ed25519.publicKey(seed: seed)
    #expect(key == hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
    #expect(
      Ed25519.x25519PublicKey(key) == hex("d85e07ec22b0ad881537c2f44d662d1a143cf830c57aca4305d85c7a90f6b62e"))
  }

  @Test func bothHalvesAgree() throws {
    for _ in 0..<50 {
      let seed = try SecureRandom.bytes(32)
      #expect(
        X25519.publicKey(Ed25519.x25519PrivateKey(seed: seed)) == Ed25519.x25519PublicKey(Ed25519.publicKey(seed: seed))
      )
    }
  }

  @Test func refused() {
    #expect(Ed25519.x25519PublicKey([]) == nil)
    // y = 1 (no u), and y = 2²⁵⁵ − 1 (not reduced).
    #expect(Ed25519.x25519PublicKey([1] + [UInt8](repeating: 0, count: 31)) == nil)
    #expect(Ed25519.x25519PublicKey([UInt8](repeating: 0xff, count: 32)) == nil)
  }
}

@Suite struct KeyDerivationTests {
  static let long = (
    input: Array<UInt8>(0x00...0x4f), salt: Array<UInt8>(0x60...0xaf), info: Array<UInt8>(0xb0...0xff)
  )

  /// RFC 5869, A.1 to A.3.
  @Test func hkdf() {
    let input = [UInt8](repeating: 0x0b, count: 22)
    #expect(
      HKDFSHA256.derive(from: input, salt: Array(0x00...0x0c), info: Array(0xf0...0xf9), count: 42)
        == hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"))
    #expect(
      HKDFSHA256.derive(from: Self.long.input, salt: Self.long.salt, info: Self.long.info, count: 82)
        == hex(
          """
          b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c
          59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87
          """))
    #expect(
      HKDFSHA256.derive(from: input, salt: [], info: [], count: 42)
        == hex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"))
    #expect(HKDFSHA256.derive(from: [], salt: [], info: [], count: 8160).count == 8160)
  }
}

@Suite struct SHA512Tests {
  /// FIPS 180-4 examples, and the empty message.
  @Test func published() {
    #expect(
      SHA512.hash([])
        == hex(
          """
          cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce
          47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e
          """))
    #expect(
      SHA512.hash(Array("abc".utf8))
        == hex(
          """
          ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a
          2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f
          """))
  }

  @Test func inPieces() {
    var hash = SHA512()
    hash.update([UInt8(ascii: "a")])
    hash.update([])
    hash.update(Array("bc".utf8))
    #expect(hash.finalize() == SHA512.hash(Array("abc".utf8)))
  }
}

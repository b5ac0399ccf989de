import COpenSSL

/// OpenSSH's key derivation (bcrypt_pbkdf, after OpenBSD's manual page of that name): PBKDF2's shape with bcrypt, fed by
/// SHA-512, as its function, and the output's bytes dealt out over all blocks. Costs a tenth of a second and more, on purpose.
func bcryptPBKDF(_ passphrase: [UInt8], salt: [UInt8], rounds: Int, count: Int) -> [UInt8] {
  let blockSize = 32
  var output = [UInt8](repeating: 0, count: count)
  let blocks = (count + blockSize - 1) / blockSize
  let hashedPassphrase = sha512(passphrase)
  for block in 1...blocks {
    let number = UInt32(block)
    let counter = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) }
    var last = bcryptHash(hashedPassphrase, sha512(salt + counter))
    var sum = last
    for _ in 1..<max(rounds, 1) {
      last = bcryptHash(hashedPassphrase, sha512(last))
      for i in 0..<blockSize { sum[i] ^= last[i] }
    }
    for i in 0..<blockSize {
      let position = i * blocks + block - 1
      if position < count { output[position] = sum[i] }
    }
  }
  return output
}

private func bcryptHash(_ passphrase: [UInt8], _ salt: [UInt8]) -> [UInt8] {
  var cipher = Blowfish()
  let key = words(passphrase)
  let seed = words(salt)
  cipher.expand(key, seed)
  for _ in 0..<64 {
    cipher.expand(seed, [])
    cipher.expand(key, [])
  }
  var text = words(Array("OxychromaticBlowfishSwatDynamite".utf8))
  for _ in 0..<64 {
    for i in stride(from: 0, to: text.count, by: 2) { (text[i], text[i + 1]) = cipher.encrypt(text[i], text[i + 1]) }
  }
  return text.flatMap { word in [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: word >> $0) } }
}

private func words(_ bytes: [UInt8]) -> [UInt32] {
  stride(from: 0, to: bytes.count, by: 4).map { start in bytes[start..<(start + 4)].reduce(0) { $0 << 8 | UInt32($1) } }
}

private struct Blowfish {
  private var state = blowfishDigits

  /// Mixes the key in, then replaces all subkeys by the cipher's own output over the salt (bcrypt's ExpandKey).
  mutating func expand(_ key: [UInt32], _ salt: [UInt32]) {
    state.withUnsafeMutableBufferPointer { state in
      let table = state.baseAddress!
      for i in 0..<18 { table[i] ^= key[i % key.count] }
      var left: UInt32 = 0
      var right: UInt32 = 0
      var next = 0
      var i = 0
      while i < 18 + 1024 {
        if !salt.isEmpty {
          left ^= salt[next]
          right ^= salt[next + 1]
          next = (next + 2) % salt.count
        }
        (left, right) = Self.encrypt(table, left, right)
        table[i] = left
        table[i + 1] = right
        i += 2
      }
    }
  }

  mutating func encrypt(_ left: UInt32, _ right: UInt32) -> (UInt32, UInt32) {
    state.withUnsafeBufferPointer { Self.encrypt($0.baseAddress!, left, right) }
  }

  @inline(__always)
  private static func encrypt(_ table: UnsafePointer<UInt32>, _ left: UInt32, _ right: UInt32) -> (UInt32, UInt32) {
    var l = left
    var r = right
    var i = 0
    while i < 16 {
      l ^= table[i]
      let mixed = (table[18 + Int(l >> 24)] &+ table[274 + Int(l >> 16 & 0xff)]) ^ table[530 + Int(l >> 8 & 0xff)]
      r ^= mixed &+ table[786 + Int(l & 0xff)]
      swap(&l, &r)
      i += 1
    }
    return (r ^ table[17], l ^ table[16])
  }
}

private func sha512(_ bytes: [UInt8]) -> [UInt8] {
  [UInt8](unsafeUninitializedCapacity: 64) { buffer, count in
    _ = SHA512(bytes, bytes.count, buffer.baseAddress)
    count = 64
  }
}

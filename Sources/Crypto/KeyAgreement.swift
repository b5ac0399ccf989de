import COpenSSL

/// Diffie-Hellman on Curve25519 (RFC 7748).
public enum X25519 {
  public static let byteCount = 32
  /// The u coordinate of the base point.
  public static let basePoint: [UInt8] = [9] + [UInt8](repeating: 0, count: 31)

  /// The public key of a private one. Precondition: 32 bytes.
  public static func publicKey(_ privateKey: [UInt8]) -> [UInt8] {
    precondition(privateKey.count == byteCount, "X25519: wrong length")
    guard let key = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nil, privateKey, privateKey.count) else {
      fatalError("libcrypto gives no X25519: \(openSSLErrors())")
    }
    defer { EVP_PKEY_free(key) }
    return rawPublicKey(key)
  }

  /// The shared secret; nil if the result is all zeroes, which a point of small order makes of any key (RFC 7748, 6.1), or
  /// if a length is wrong.
  public static func sharedSecret(_ privateKey: [UInt8], _ publicKey: [UInt8]) -> [UInt8]? {
    guard privateKey.count == byteCount, publicKey.count == byteCount else { return nil }
    guard let mine = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nil, privateKey, privateKey.count) else {
      fatalError("libcrypto gives no X25519: \(openSSLErrors())")
    }
    defer { EVP_PKEY_free(mine) }
    guard let theirs = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nil, publicKey, publicKey.count) else {
      fatalError("libcrypto gives no X25519: \(openSSLErrors())")
    }
    defer { EVP_PKEY_free(theirs) }
    guard let context = EVP_PKEY_CTX_new(mine, nil) else { fatalError("no memory for a key agreement") }
    defer { EVP_PKEY_CTX_free(context) }
    var secret = [UInt8](repeating: 0, count: byteCount)
    var count = byteCount
    guard EVP_PKEY_derive_init(context) == 1, EVP_PKEY_derive_set_peer(context, theirs) == 1,
      EVP_PKEY_derive(context, &secret, &count) == 1, count == byteCount, secret.contains(where: { $0 != 0 })
    else {
      ERR_clear_error()
      return nil
    }
    return secret
  }
}

/// Keys for Ed25519 signatures (RFC 8032) as keys for X25519: the same curve in other coordinates.
public enum Ed25519 {
  public static let byteCount = 32

  /// The public key of a seed. Precondition: 32 bytes.
  public static func publicKey(seed: [UInt8]) -> [UInt8] {
    precondition(seed.count == byteCount, "Ed25519: wrong length")
    guard let key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nil, seed, seed.count) else {
      fatalError("libcrypto gives no Ed25519: \(openSSLErrors())")
    }
    defer { EVP_PKEY_free(key) }
    return rawPublicKey(key)
  }

  /// The X25519 private key: the first half of the seed's SHA-512, from which Ed25519 makes its scalar (RFC 8032, 5.1.5).
  public static func x25519PrivateKey(seed: [UInt8]) -> [UInt8] { Array(SHA512.hash(seed).prefix(byteCount)) }

  /// The X25519 public key: u = (1 + y) / (1 − y) modulo 2²⁵⁵ − 19 (RFC 7748, 4.1). Nil for the wrong length, for a y that
  /// isn't reduced, and for the points without a u.
  public static func x25519PublicKey(_ publicKey: [UInt8]) -> [UInt8]? {
    guard publicKey.count == byteCount else { return nil }
    var encoded = publicKey
    encoded[31] &= 0x7f  // the sign of x
    guard let context = BN_CTX_new(), let prime = BN_new(), let y = BN_lebin2bn(encoded, Int32(encoded.count), nil),
      let above = BN_new(), let below = BN_new()
    else { fatalError("no memory for numbers") }
    defer {
      for number in [prime, y, above, below] { BN_free(number) }
      BN_CTX_free(context)
    }
    var result = [UInt8](repeating: 0, count: byteCount)
    guard BN_set_bit(prime, 255) == 1, BN_sub_word(prime, 19) == 1, BN_cmp(y, prime) < 0,
      BN_mod_add(above, BN_value_one(), y, prime, context) == 1,
      BN_mod_sub(below, BN_value_one(), y, prime, context) == 1,
      BN_mod_inverse(below, below, prime, context) != nil, BN_mod_mul(above, above, below, prime, context) == 1,
      BN_bn2lebinpad(above, &result, Int32(byteCount)) == byteCount
    else {
      ERR_clear_error()
      return nil
    }
    return result
  }
}

private func rawPublicKey(_ key: OpaquePointer) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 32)
  var count = 32
  guard EVP_PKEY_get_raw_public_key(key, &bytes, &count) == 1, count == 32 else {
    fatalError("libcrypto gives no public key: \(openSSLErrors())")
  }
  return bytes
}

import COpenSSL

/// AES-256 in Galois/counter mode (NIST SP 800-38D) with tags of 16 bytes.
public enum AES256GCM {
  public static let keyCount = 32
  public static let tagCount = 16
  /// Lengths of a nonce that libcrypto takes; 12 is the usual one, SOPS has 32.
  public static let nonceCounts = 1...128

  /// The ciphertext, as long as the plaintext, and its tag. A nonce must never meet two plaintexts under one key.
  ///
  /// Precondition: the key's and the nonce's lengths are allowed.
  public static func seal(
    _ plaintext: [UInt8], key: [UInt8], nonce: [UInt8], additionalData: [UInt8] = []
  ) -> (ciphertext: [UInt8], tag: [UInt8]) {
    precondition(key.count == keyCount && nonceCounts.contains(nonce.count), "AES-256-GCM: wrong length")
    return AEAD.seal(EVP_aes_256_gcm(), plaintext, key: key, nonce: nonce, additionalData: additionalData)
  }

  /// The plaintext; nil if key, nonce, additional data, ciphertext or tag isn't what was sealed, or a length isn't allowed.
  public static func open(
    _ ciphertext: [UInt8], tag: [UInt8], key: [UInt8], nonce: [UInt8], additionalData: [UInt8] = []
  ) -> [UInt8]? {
    guard key.count == keyCount, nonceCounts.contains(nonce.count), tag.count == tagCount else { return nil }
    return AEAD.open(EVP_aes_256_gcm(), ciphertext, tag: tag, key: key, nonce: nonce, additionalData: additionalData)
  }
}

/// ChaCha20-Poly1305 (RFC 8439); the tag follows the ciphertext.
public enum ChaCha20Poly1305 {
  public static let keyCount = 32
  public static let nonceCount = 12
  public static let tagCount = 16

  /// Ciphertext and tag. Precondition: the key has 32 bytes, the nonce 12.
  public static func seal(_ plaintext: [UInt8], key: [UInt8], nonce: [UInt8], additionalData: [UInt8] = []) -> [UInt8] {
    precondition(key.count == keyCount && nonce.count == nonceCount, "ChaCha20-Poly1305: wrong length")
    let sealed = AEAD.seal(EVP_chacha20_poly1305(), plaintext, key: key, nonce: nonce, additionalData: additionalData)
    return sealed.ciphertext + sealed.tag
  }

  /// The plaintext; nil if anything isn't what was sealed, or a length isn't allowed.
  public static func open(_ sealed: [UInt8], key: [UInt8], nonce: [UInt8], additionalData: [UInt8] = []) -> [UInt8]? {
    guard key.count == keyCount, nonce.count == nonceCount, sealed.count >= tagCount else { return nil }
    return AEAD.open(
      EVP_chacha20_poly1305(), Array(sealed.dropLast(tagCount)), tag: Array(sealed.suffix(tagCount)), key: key,
      nonce: nonce, additionalData: additionalData)
  }
}

/// What both have in common (EVP_EncryptInit(3), "AEAD Interface"). Lengths were checked.
private enum AEAD {
  static func seal(
    _ cipher: OpaquePointer?, _ plaintext: [UInt8], key: [UInt8], nonce: [UInt8], additionalData: [UInt8]
  ) -> (ciphertext: [UInt8], tag: [UInt8]) {
    guard let context = EVP_CIPHER_CTX_new() else { fatalError("no memory for a cipher") }
    defer { EVP_CIPHER_CTX_free(context) }
    var ciphertext = [UInt8](repeating: 0, count: plaintext.count)
    var tag = [UInt8](repeating: 0, count: 16)
    var count: Int32 = 0
    var none: UInt8 = 0
    guard let size = Int32(exactly: plaintext.count), let extra = Int32(exactly: additionalData.count),
      EVP_EncryptInit_ex(context, cipher, nil, nil, nil) == 1,
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_IVLEN, Int32(nonce.count), nil) == 1,
      EVP_EncryptInit_ex(context, nil, nil, key, nonce) == 1,
      extra == 0 || EVP_EncryptUpdate(context, nil, &count, additionalData, extra) == 1,
      size == 0 || EVP_EncryptUpdate(context, &ciphertext, &count, plaintext, size) == 1,
      EVP_EncryptFinal_ex(context, &none, &count) == 1,
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, &tag) == 1
    else { fatalError("libcrypto doesn't encrypt: \(openSSLErrors())") }
    return (ciphertext, tag)
  }

  static func open(
    _ cipher: OpaquePointer?, _ ciphertext: [UInt8], tag: [UInt8], key: [UInt8], nonce: [UInt8],
    additionalData: [UInt8]
  ) -> [UInt8]? {
    guard let context = EVP_CIPHER_CTX_new() else { fatalError("no memory for a cipher") }
    defer { EVP_CIPHER_CTX_free(context) }
    var plaintext = [UInt8](repeating: 0, count: ciphertext.count)
    var tag = tag
    var count: Int32 = 0
    var none: UInt8 = 0
    guard let size = Int32(exactly: ciphertext.count), let extra = Int32(exactly: additionalData.count),
      EVP_DecryptInit_ex(context, cipher, nil, nil, nil) == 1,
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_IVLEN, Int32(nonce.count), nil) == 1,
      EVP_DecryptInit_ex(context, nil, nil, key, nonce) == 1,
      extra == 0 || EVP_DecryptUpdate(context, nil, &count, additionalData, extra) == 1,
      size == 0 || EVP_DecryptUpdate(context, &plaintext, &count, ciphertext, size) == 1,
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, &tag) == 1,
      EVP_DecryptFinal_ex(context, &none, &count) == 1
    else {
      // A failed check leaves no entry, another fault would: neither may be seen by the next caller of this thread.
      ERR_clear_error()
      return nil
    }
    return plaintext
  }
}

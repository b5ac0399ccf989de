import Crypto

/// A value as SOPS writes it: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`.
struct Ciphertext: Equatable {
  var data: [UInt8]
  var nonce: [UInt8]
  var tag: [UInt8]
  var type: String

  static let prefix = "ENC[AES256_GCM,data:"

  /// Nil unless it is exactly of this form.
  init?(_ text: String) {
    guard text.hasPrefix(Self.prefix), text.hasSuffix("]") else { return nil }
    let fields = text.dropFirst("ENC[AES256_GCM,".count).dropLast().split(
      separator: ",", omittingEmptySubsequences: false)
    let names = ["data:", "iv:", "tag:", "type:"]
    guard fields.count == names.count, zip(fields, names).allSatisfy({ $0.hasPrefix($1) }) else { return nil }
    let values = zip(fields, names).map { String($0.dropFirst($1.count)) }
    func padded(_ text: String) -> [UInt8]? { text.utf8.count.isMultiple(of: 4) ? Base64.decode(text) : nil }
    guard let data = padded(values[0]), let nonce = padded(values[1]), let tag = padded(values[2]),
      AES256GCM.nonceCounts.contains(nonce.count), tag.count == AES256GCM.tagCount, !data.isEmpty
    else { return nil }
    self.data = data
    self.nonce = nonce
    self.tag = tag
    type = values[3]
  }

  init(_ plaintext: [UInt8], type: String, key: [UInt8], additional: String) throws(SecureRandom.Unavailable) {
    // SOPS' length; others are read too.
    nonce = try SecureRandom.bytes(32)
    (data, tag) = AES256GCM.seal(plaintext, key: key, nonce: nonce, additionalData: Array(additional.utf8))
    self.type = type
  }

  /// Nil: it isn't what was encrypted under this key for this place.
  func open(key: [UInt8], additional: String) -> [UInt8]? {
    AES256GCM.open(data, tag: tag, key: key, nonce: nonce, additionalData: Array(additional.utf8))
  }

  var text: String {
    "\(Self.prefix)\(Base64.encode(data)),iv:\(Base64.encode(nonce)),tag:\(Base64.encode(tag)),type:\(type)]"
  }
}

/// What binds a value to its place: the keys on the way to it, positions in lists left out.
func additionalData(_ keys: [String]) -> String { keys.joined(separator: ":") + ":" }

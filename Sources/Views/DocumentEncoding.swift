public import Diagnostics
public import Engine

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// A document as a JSON value: members in snake_case, what is nil is left out (docs/json-output.md).
public func jsonValue(of document: some Encodable) -> JSONValue {
  let encoder = JSONEncoder()
  encoder.keyEncodingStrategy = .convertToSnakeCase
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  do {
    return try JSONValue(parsing: Array(encoder.encode(document)))
  } catch {
    // Documents hold texts, numbers and lists of them: an infinite number is the only thing that could fail.
    fatalError("a document that JSON can't carry: \(type(of: document)): \(error)")
  }
}

extension JSONValue {
  /// Every text in it masked; names of members as they are.
  public func masked(by masker: Masker) -> JSONValue {
    switch self {
    case .string(let text): .string(masker.mask(text))
    case .array(let items): .array(items.map { $0.masked(by: masker) })
    case .object(let object):
      .object(object.members.reduce(into: JSONObject()) { $0[$1.key] = $1.value.masked(by: masker) })
    default: self
    }
  }
}

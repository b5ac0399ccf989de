import Diagnostics

/// The env file in Compose's dotenv dialect: plain where that is safe, else in quotes.
///
/// Throws `OrchestrateError` (configuration) for names and values that no dotenv file can hold.
public func envFile(_ values: [(name: String, value: String)]) throws -> String {
  var text = ""
  for (name, value) in values {
    guard let first = name.unicodeScalars.first, isNameStart(first),
      name.unicodeScalars.allSatisfy({ isNameStart($0) || ("0"..."9").contains($0) })
    else { throw OrchestrateError(.configuration, "“\(name)” is no name for an environment variable", step: "env") }
    text += "\(name)=\(try quoted(name, value))\n"
  }
  return text
}

private func isNameStart(_ scalar: Unicode.Scalar) -> Bool {
  ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || scalar == "_"
}

func quoted(_ name: String, _ value: String) throws -> String {
  let plain = "./:@%+,=-_"
  let isPlain = value.unicodeScalars.allSatisfy { scalar in
    ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || ("0"..."9").contains(scalar) || plain.unicodeScalars.contains(scalar)
  }
  if isPlain { return value }
  if let control = value.unicodeScalars.first(where: { $0.value < 0x20 && $0 != "\n" && $0 != "\t" && $0 != "\r" }) {
    throw OrchestrateError(
      .configuration, "the value of \(name) holds the control character \(control.value), which no env file can hold", step: "env")
  }
  return quotedText(value)
}

/// Single quotes are literal for Compose, but know no escape for a backslash before a quote; double quotes know escapes for everything.
private func quotedText(_ text: String) -> String {
  if !text.unicodeScalars.contains(where: { $0 == "'" || $0 == "\\" || $0 == "\r" }) { return "'\(text)'" }
  var out = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\\", "\"", "$": out += "\\\(scalar)"
    case "\n": out += "\\n"
    case "\r": out += "\\r"
    default: out.unicodeScalars.append(scalar)
    }
  }
  return out + "\""
}

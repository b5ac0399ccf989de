/// Text as one word of a POSIX shell (XCU 2.2.2): single quotes, and each single quote of the text outside of them.
public func shellQuoted(_ text: String) -> String {
  "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: #"'\''"#) + "'"
}

/// Assignments that a script may source: `NAME='value'`, a line each. Names are ours, so that a bad one is a defect of ours.
public func shellAssignments(_ parameters: [(name: String, value: String)]) -> String {
  parameters.map { parameter in
    precondition(
      parameter.name.utf8.allSatisfy {
        ($0 >= 0x41 && $0 <= 0x5a) || ($0 >= 0x61 && $0 <= 0x7a) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x5f
      }, "not a shell name: \(parameter.name)")
    return "\(parameter.name)=\(shellQuoted(parameter.value))\n"
  }.joined()
}

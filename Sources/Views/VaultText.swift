public import Engine

extension VaultDocument: TextDocument {
  public func text(width: Int, style: Style) -> String {
    var out = "\(style.bold(printable(file)))  \(style.dim("last changed \(printable(lastModified))"))\n"
    if !keys.isEmpty {
      let rows = keys.map { [Cell($0.name), Cell($0.type ?? ($0.encrypted ? nil : "not encrypted"), "2")] }
      out += table(["NAME", "TYPE"], rows, width: width, style: style)
    }
    out += style.dim("for") + "\n"
    for recipient in recipients { out += "  \(printable(recipient))\n" }
    for other in otherKeys { out += "  \(printable(other)) (keys that only sops can write)\n" }
    return out
  }
}

/// Rows of cells as aligned columns, two blanks apart. The last column is cut where the line would grow longer than `width`; the others
/// are as wide as their widest cell.
func table(_ header: [String], _ rows: [[Cell]], width: Int, style: Style, indent: Int = 0) -> String {
  var widths = header.map { columns(of: $0) }
  for row in rows {
    for (index, cell) in row.enumerated() { widths[index] = max(widths[index], columns(of: cell.text)) }
  }
  // A column that is empty throughout is left out.
  let kept = header.indices.filter { index in rows.contains { !$0[index].text.isEmpty } }
  let margin = String(repeating: " ", count: indent)

  func line(_ cells: [Cell]) -> String {
    var out = margin
    var used = indent
    for (place, index) in kept.enumerated() {
      let isLast = place == kept.count - 1
      let text = isLast ? truncated(cells[index].text, to: max(8, width - used)) : cells[index].text
      let blanks = isLast ? "" : String(repeating: " ", count: widths[index] - columns(of: text) + 2)
      out += style.paint(text, cells[index].codes) + blanks
      used += columns(of: text) + blanks.count
    }
    while out.last == " " { out.removeLast() }
    return out + "\n"
  }

  guard !kept.isEmpty else { return "" }
  return line(header.map { Cell($0, "2") }) + rows.map { line($0) }.joined()
}

/// A cell's text with its colour (SGR codes; empty: none).
struct Cell {
  var text: String
  var codes: String

  init(_ text: String?, _ codes: String = "") {
    self.text = printable(text ?? "")
    self.codes = codes
  }
}

/// Names and values below each other, values aligned. Pairs without a value are left out.
func fields(_ pairs: [(String, String?)], style: Style, indent: Int = 2) -> String {
  let present = pairs.compactMap { name, value in value.map { (name, $0) } }
  let width = present.map { columns(of: $0.0) }.max() ?? 0
  let margin = String(repeating: " ", count: indent)
  return present.map { "\(margin)\(style.dim(padded($0.0, to: width)))  \($0.1)\n" }.joined()
}

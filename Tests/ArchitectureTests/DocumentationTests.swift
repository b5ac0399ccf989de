import Foundation
import Testing

private let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent()

private func read(_ path: String) throws -> String {
  try String(contentsOf: root.appending(path: path), encoding: .utf8)
}

/// All texts in backquotes of a page.
private func quoted(_ page: String) -> [String] {
  page.split(separator: "`", omittingEmptySubsequences: false).enumerated().filter { $0.offset % 2 == 1 }
    .map { String($0.element) }
}

@Suite struct DocumentationTests {
  /// A promise without a test is none: what docs/reliability.md names exists.
  @Test func everyTestThatShowsAPromiseExists() throws {
    let page = try read("docs/reliability.md")
    let names = quoted(page)
    let python = names.filter { $0.hasPrefix("Tests/") && $0.contains("::") }
    let swift = names.filter { $0.contains(/^[A-Za-z]+Tests\.[a-zA-Z0-9]+$/) }
    #expect(python.count > 30 && swift.count > 10)
    for name in python {
      let parts = name.split(separator: ":", omittingEmptySubsequences: true)
      let source = try read(String(parts[0]))
      #expect(source.contains("def \(parts[1])("), "there is no \(name)")
    }
    let sources = try FileManager.default.subpathsOfDirectory(atPath: root.appending(path: "Tests").path)
      .filter { $0.hasSuffix(".swift") }.map { try read("Tests/" + $0) }
    for name in swift {
      let parts = name.split(separator: ".")
      let exists = sources.contains { $0.contains("struct \(parts[0])") && $0.contains("func \(parts[1])(") }
      #expect(exists, "there is no \(name)")
    }
    let table = page.split(separator: "## ").first { $0.hasPrefix("Which test shows it") } ?? ""
    for row in table.split(separator: "\n") where row.hasPrefix("| ") && !row.hasPrefix("| promise") {
      #expect(row.contains("`"), "a promise without a test: \(row)")
    }
  }

  /// Every module and every decision is on its page.
  @Test func pagesAreComplete() throws {
    let architecture = try read("docs/architecture.md")
    let modules = try FileManager.default.contentsOfDirectory(atPath: root.appending(path: "Sources").path)
      .filter { !$0.hasPrefix("C") || $0 == "Commands" || $0 == "Crypto" || $0 == "ConfigSource" }
    for module in modules { #expect(architecture.contains(module), "docs/architecture.md doesn't name \(module)") }
    let index = try read("docs/decisions/README.md")
    let pages = try FileManager.default.contentsOfDirectory(atPath: root.appending(path: "docs/decisions").path)
    for page in pages where page != "README.md" {
      #expect(index.contains("(\(page))"), "the index doesn't name \(page)")
    }
  }

  /// The exit statuses that README.md lists are those of the code.
  @Test func exitStatusesAreDocumented() throws {
    let section = try read("README.md").split(separator: "## ").first { $0.hasPrefix("Exit statuses") } ?? ""
    let listed = section.split(separator: "\n").compactMap { line in
      line.hasPrefix("| ") ? Int(line.dropFirst(2).prefix { $0.isNumber }) : nil
    }
    let source = try read("Sources/Diagnostics/OrchestrateError.swift")
    let coded = source.matches(of: /case [a-zA-Z]+ = ([0-9]+)/).compactMap { Int($0.output.1) }
    #expect(listed == coded && listed.count == 10)
  }
}

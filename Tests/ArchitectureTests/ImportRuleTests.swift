import Foundation
import Testing

private let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent()

private func files(below folder: String, suffix: String) throws -> [URL] {
  let base = root.appending(path: folder)
  let names = try FileManager.default.subpathsOfDirectory(atPath: base.path)
  return names.filter { $0.hasSuffix(suffix) }.sorted().map { base.appending(path: $0) }
}

/// docs/architecture.md: arrows point to what may be imported. SwiftPM doesn't refuse undeclared transitive imports, so the sources are read.
@Suite struct ImportRuleTests {
  static let ours: Set<String> = [
    "Commands", "Views", "Steps", "Engine", "Inventory", "Vault", "ConfigSource", "SSH", "HTTP", "Crypto",
    "Diagnostics", "Playbooks", "CLibSSH2", "CLibCurl", "CLibYAML", "COpenSSL",
  ]
  static let others: [String: Set<String>] = [
    "Commands": ["ArgumentParser", "Subprocess", "SystemPackage"]
  ]
  static let system: Set<String> = [
    "Foundation", "FoundationEssentials", "Synchronization", "Glibc", "Darwin", "Musl", "Dispatch", "System",
  ]
  static let allowed: [String: Set<String>] = [
    "orchestrate": ["Commands"],
    "Commands": [
      "Views", "Steps", "Engine", "Inventory", "Vault", "SSH", "HTTP", "Crypto", "Playbooks", "Diagnostics",
    ],
    "Views": ["Engine", "Diagnostics"],
    "Steps": ["Engine", "Inventory", "Playbooks", "Diagnostics"],
    "Engine": ["Inventory", "Playbooks", "Diagnostics"],
    "Inventory": ["ConfigSource", "Diagnostics"],
    "Vault": ["Crypto", "ConfigSource", "Diagnostics"],
    "ConfigSource": ["CLibYAML", "Diagnostics"],
    "SSH": ["CLibSSH2", "COpenSSL", "Diagnostics"],
    "HTTP": ["CLibCurl", "Diagnostics"],
    "Crypto": ["COpenSSL", "Diagnostics"],
    "Diagnostics": [],
  ]

  @Test(arguments: allowed.keys.sorted())
  func importsPointDownwards(module: String) throws {
    let sources = try files(below: "Sources/\(module)", suffix: ".swift")
    #expect(!sources.isEmpty)
    for file in sources {
      for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") {
        let words = line.split(separator: " ").filter {
          !["public", "internal", "package", "private", "fileprivate", "@preconcurrency", "@testable"].contains($0)
        }
        guard words.first == "import", words.count > 1 else { continue }
        let name = String(words[1].split(separator: ".")[0])
        let ok =
          Self.allowed[module]!.contains(name) || Self.system.contains(name)
          || (Self.others[module]?.contains(name) ?? false)
        #expect(ok, "\(module) may not import \(name): \(file.lastPathComponent)")
      }
    }
  }

  /// The manifest names each embedded file; a script that it forgets would not reach any host.
  @Test func everyPlaybookAndScriptIsEmbedded() throws {
    let manifest = try String(contentsOf: root.appending(path: "Package.swift"), encoding: .utf8)
    let accessor = try String(contentsOf: root.appending(path: "playbooks/Playbooks.swift"), encoding: .utf8)
    for folder in ["builtin", "host", "queries", "steps", "templates"] {
      let base = root.appending(path: "playbooks/\(folder)")
      guard let names = try? FileManager.default.contentsOfDirectory(atPath: base.path) else { continue }
      for name in names.sorted() where !name.hasPrefix(".") {
        #expect(manifest.contains("\"\(folder)/\(name)\""), "Package.swift doesn't embed playbooks/\(folder)/\(name)")
        let symbol = String(name.map { $0.isLetter || $0.isNumber ? $0 : "_" })
        #expect(
          accessor.contains("PackageResources.\(symbol)"), "playbooks/Playbooks.swift doesn't name \(folder)/\(name)")
      }
    }
  }
}

import Diagnostics
import Foundation
import Inventory
import Testing

private let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Malformed")

/// A file of Malformed/: `=== path` begins a file of the project, `=== expect` the diagnostics, one per line as
/// `file:line:column: severity: message [help]`. With `escaped` in the first line, `\xHH` stands for a byte.
private struct MalformedCase {
  var files: [String: [UInt8]] = [:]
  var expected: [String] = []

  init(_ name: String) throws {
    let lines = try String(contentsOf: folder.appending(path: name), encoding: .utf8).split(
      separator: "\n", omittingEmptySubsequences: false)
    let isEscaped = lines.first == "escaped"
    var section: String?
    for line in lines.dropLast() {
      if line.hasPrefix("=== ") {
        section = String(line.dropFirst(4))
        if let section, section != "expect" { files["/p/" + section] = [] }
      } else if section == "expect" {
        expected.append(String(line))
      } else if let section {
        files["/p/" + section]! += (isEscaped ? Self.unescape(line) : Array(line.utf8)) + [0x0A]
      }
    }
  }

  static func unescape(_ line: Substring) -> [UInt8] {
    var bytes: [UInt8] = [], rest = Array(line.utf8)[...]
    while let byte = rest.first {
      if rest.starts(with: Array("\\x".utf8)),
        let value = UInt8(String(decoding: rest.dropFirst(2).prefix(2), as: UTF8.self), radix: 16)
      {
        bytes.append(value)
        rest = rest.dropFirst(4)
      } else {
        bytes.append(byte)
        rest = rest.dropFirst()
      }
    }
    return bytes
  }

  func faults() -> [String] {
    var all = Sample().files.mapValues { Array($0.utf8) }
    all["/p/playbooks/deploy.yml"] = Array("steps: [release, health, commit]\n".utf8)
    all.merge(files) { _, new in new }
    let loader = ProjectLoader(files: .memory(all), startDirectory: "/p")
    do {
      _ = try loader.load(environment: "prod", playbook: "deploy", builtin: [:], version: "v1.1.0")
      return []
    } catch let error as ConfigurationError {
      return error.diagnostics.map(render)
    } catch {
      return ["not a ConfigurationError: \(error)"]
    }
  }
}

@Suite struct MalformedTests {
  static let names = try! FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".txt") }
    .sorted()

  /// Set ORCHESTRATE_RECORD=1 to write what is reported now into the files, and read the difference.
  @Test(arguments: names) func isReported(name: String) throws {
    let malformed = try MalformedCase(name)
    let found = malformed.faults()
    if ProcessInfo.processInfo.environment["ORCHESTRATE_RECORD"] == "1" {
      let file = folder.appending(path: name)
      let text = try String(contentsOf: file, encoding: .utf8)
      let head = text[..<(try #require(text.range(of: "=== expect\n"))).upperBound]
      try (head + found.map { $0 + "\n" }.joined()).write(to: file, atomically: true, encoding: .utf8)
      return
    }
    #expect(!malformed.expected.isEmpty)
    #expect(found == malformed.expected)
  }

  @Test func thereAreEnough() { #expect(Self.names.count >= 40) }
}

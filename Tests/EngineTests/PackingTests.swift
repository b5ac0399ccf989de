import Engine
import Foundation
import Testing

@Suite struct PackingTests {
  @Test(arguments: ["", "plain", "it's", "'", "a\nb", "$(rm -rf /) `x` \\ \"", "''"])
  func aShellReadsBackWhatWasQuoted(text: String) throws {
    let shell = Process()
    shell.executableURL = URL(filePath: "/bin/sh")
    shell.arguments = ["-c", "\(shellAssignments([("VALUE", text)]))printf %s \"$VALUE\""]
    let pipe = Pipe()
    shell.standardOutput = pipe
    try shell.run()
    #expect(String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self) == text)
    shell.waitUntilExit()
  }

  @Test func tarReadsTheArchive() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "tar-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let long = String(repeating: "directory/", count: 12) + "file.txt"
    var batch = StepBatch(first: 9)
    batch.append(
      name: "env", kind: "env",
      payload: StepPayload(
        script: "env", timeout: .milliseconds(1500), parameters: [("A", "it's")],
        files: [.init(long, mode: 0o640, bytes: Array("x".utf8)), .init("empty", bytes: [])]), after: false)
    batch.append(
      name: "pull", kind: "pull", payload: StepPayload(script: "pull", timeout: .seconds(5), hasUndo: true),
      after: false)
    #expect(batch.directories == ["09-env", "10-pull"])
    try Data(batch.tar).write(to: folder.appending(path: "steps.tar"))
    let tar = Process()
    tar.executableURL = URL(filePath: "/bin/tar")
    tar.currentDirectoryURL = folder
    tar.arguments = ["-xpf", "steps.tar"]
    try tar.run()
    tar.waitUntilExit()
    #expect(tar.terminationStatus == 0)
    func text(_ path: String) throws -> String { try String(contentsOf: folder.appending(path: path), encoding: .utf8) }
    #expect(try text("09-env/\(long)") == "x")
    #expect(try text("09-env/params") == "A='it'\\''s'\n")
    #expect(try text("09-env/meta").contains("TIMEOUT='2'\n"))
    #expect(try text("10-pull/meta").contains("UNDO='1'\n"))
    let mode = try FileManager.default.attributesOfItem(atPath: folder.appending(path: "09-env/\(long)").path)[
      .posixPermissions]
    #expect(mode as? Int == 0o640)
  }
}

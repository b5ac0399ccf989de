import Foundation
import Synchronization
import Views

/// What a command wrote, by stream.
final class RecordedOutput: OutputSink {
  private let written = Mutex<[Views.OutputStream: String]>([:])
  func write(_ text: String, to stream: Views.OutputStream) { written.withLock { $0[stream, default: ""] += text } }
  func text(_ stream: Views.OutputStream) -> String { written.withLock { $0[stream, default: ""] } }
}

/// A project folder with one environment, for the body alone.
///
/// - Parameters:
///   - inventory: more lines of inventories/prod.yml.
///   - files: more files by their paths below the folder.
func withProject(
  inventory: String = "", envTemplate: String, files: [String: String] = [:], _ body: (URL) async throws -> Void
) async throws {
  let root = FileManager.default.temporaryDirectory.appending(path: "orchestrate-\(UUID().uuidString)")
  defer { try? FileManager.default.removeItem(at: root) }
  let sound = [
    "inventories/prod.yml": """
    app: bot
    hosts:
      bot-1: { address: 127.0.0.1, user: deploy, roles: [app] }
    compose: compose.yml
    env: { template: env.template }
    services: { app: [bot] }
    \(inventory)
    """,
    "compose.yml": "services: { bot: { image: bot } }\n",
    "env.template": envTemplate,
  ]
  for (path, text) in sound.merging(files, uniquingKeysWith: { $1 }) {
    let file = root.appending(path: path)
    try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try text.write(to: file, atomically: true, encoding: .utf8)
  }
  try await body(root)
}

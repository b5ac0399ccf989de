internal import Diagnostics
internal import Engine
internal import Inventory
internal import Synchronization
internal import Views

#if canImport(FoundationEssentials)
  internal import FoundationEssentials
#else
  internal import Foundation
#endif

/// What the commands that only read have in common: the inventory, a conversation without the lock, a document as the answer.
struct ReadingCommand: Sendable {
  let session: ProjectSession
  let loaded: (project: Project, inventory: Inventory, warnings: [Diagnostic])
  let host: HostEntry
  let connector: HostConnector
  /// Of the conversation, once it has ended; for `--timings`.
  let timings = TimingsBox()

  init(_ global: GlobalOptions, environment: String?) throws {
    session = ProjectSession(global)
    loaded = try session.loader.inventory(environment: environment)
    host = try session.host(of: loaded.inventory)
    connector = HostConnector(
      host, inventory: loaded.inventory, projectRoot: loaded.project.root, context: session.context)
  }

  var inventory: Inventory { loaded.inventory }
  var paths: HostPaths { HostPaths(project: inventory.project) }

  /// Runs the body with a conversation, and ends both however it ends.
  ///
  /// - Parameter asking: what the body asks first, a line each: it travels with the command.
  func converse<Answer: Sendable>(asking: [String] = [], _ body: (Attachment) async throws -> Answer) async throws
    -> Answer
  {
    let began = ContinuousClock.now
    let attachment = try await connector.attach(asking: asking)
    do {
      let answer = try await body(attachment)
      let measured = CommandTimings(
        host: host.name, connect: await connector.timings, flights: await attachment.flights,
        seconds: began.duration(to: .now).seconds)
      timings.value.withLock { $0 = measured }
      await attachment.close()
      await connector.close()
      return answer
    } catch {
      await attachment.close()
      await connector.close()
      throw error
    }
  }

  /// What `report` asks, for the command line.
  var reportQuestions: [String] {
    [
      "facts", "get \(paths.current)/release.json", "get \(paths.state)/history.jsonl", "get \(paths.state)/holder",
      "query status 0", "query health 0", "query certificates 0",
    ]
  }

  /// Facts, release, history, holder and containers, in one flight.
  func report(_ attachment: Attachment) async throws -> HostReport {
    let paths = paths
    async let facts = attachment.request("facts")
    async let release = attachment.request("get \(paths.current)/release.json")
    async let history = attachment.request("get \(paths.state)/history.jsonl")
    async let holder = attachment.request("get \(paths.state)/holder")
    async let containers = attachment.request("query status 0")
    async let gates = attachment.request("query health 0")
    async let certificates = attachment.request("query certificates 0")
    let releaseText = try await release.found, holderText = try await holder.found
    var report = HostReport(
      host: host.name, facts: HostFacts(parsing: try await facts.text),
      release: releaseText.flatMap { try? Release(json: $0, host: host.name) },
      history: HistoryEntry.all(in: try await history.found ?? ""), holder: holderText.flatMap { LockHolder(json: $0) },
      containers: try await containers.text, gates: try await gates.text, app: inventory.services.app)
    (report.certificates, report.now) = (try await certificates.text, Timestamp.now())
    return report
  }

  /// Hides what applications print of themselves: a health check's answer may hold a password.
  func masker(_ attachment: Attachment) async throws -> Masker {
    Masker(try await HostSecrets(session, inventory: inventory).values(attachment, deployment: nil))
  }

  /// Prints a document: as JSON, or as the given text.
  func answer(
    _ document: some Encodable, _ global: GlobalOptions, masker: Masker = Masker(),
    text: (_ style: Style, _ width: Int) -> String
  ) throws {
    let context = session.context
    let timings = global.timings ? timings.value.withLock { $0 } : nil
    if global.format(context) == .json {
      context.payload(jsonValue(of: document).with(timings).masked(by: masker).text() + "\n")
    } else {
      if let timings { context.narrate(Views.text(of: timings, style: context.errorStyle)) }
      let width = context.standardOutputIsTerminal ? terminalSize().columns : 120
      context.payload(masker.mask(text(context.style, width)))
    }
  }
}

/// What a conversation has cost.
final class TimingsBox: Sendable {
  let value = Mutex<CommandTimings?>(nil)
}

extension JSONValue {
  /// The document with its `timings`, if they were asked for.
  func with(_ timings: CommandTimings?) -> JSONValue {
    guard let timings, case .object(var object) = self else { return self }
    object["timings"] = jsonValue(of: timings)
    return .object(object)
  }
}

extension Reply {
  /// The text of a `file` reply; nil: there is no such file.
  var found: String? { tag == "file" ? text : nil }
}

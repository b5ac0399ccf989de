internal import ArgumentParser
internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Views

/// `rollback --abandon`: a person has settled by hand what the undo of a stuck deployment couldn't, and says so. The host closes it as it is:
/// nothing of it is undone any more, and the history keeps who decided it, when and why.
struct Abandonment: Sendable {
  let command: ReadingCommand
  let global: GlobalOptions
  let write: WriteOptions
  let reason: String

  func run() async throws {
    let entry = try await command.converse { attachment in
      let stuck = try await stuckDeployment(attachment)
      try await confirm(stuck)
      try await close(stuck.number, attachment)
      return try await history(attachment).first { $0.number == stuck.number } ?? stuck
    }
    let inventory = command.inventory
    let document = HistoryDocument(
      environment: inventory.environment, app: inventory.app,
      hosts: [.init(host: command.host.name, deployments: [entry])])
    try command.answer(document, global) { document.text(width: $1, style: $0) }
    command.session.context.narrate(
      "deployment #\(entry.number) is closed as it stands; \(entry.from ?? "no version") is current. To bring the host to a version: "
        + "orchestrate deploy \(inventory.environment) VERSION\n")
  }

  private func history(_ attachment: Attachment) async throws -> [HistoryEntry] {
    HistoryEntry.all(in: try await attachment.request("get \(command.paths.state)/history.jsonl").found ?? "")
  }

  private func stuckDeployment(_ attachment: Attachment) async throws -> HistoryEntry {
    guard let stuck = try await history(attachment).first(where: { $0.outcome == "stuck" }) else {
      throw OrchestrateError(
        .failed, "no deployment is stuck", host: command.host.name, state: "nothing was changed",
        remedy: "orchestrate status \(command.inventory.environment)")
    }
    return stuck
  }

  private func confirm(_ stuck: HistoryEntry) async throws {
    guard !write.yes else { return }
    let context = command.session.context
    guard context.isInteractive, global.format(context) != .json else {
      throw OrchestrateError(
        .usage, "--abandon asks a person", host: command.host.name, state: "nothing was changed",
        remedy: "without a terminal it wants --yes")
    }
    let versions = [stuck.from, stuck.to].compactMap { $0 }.joined(separator: " → ")
    let answer = await context.readLine(
      "Deployment #\(stuck.number) (\(stuck.command) \(versions)) is stuck. Abandoned, it counts as settled by hand: nothing of it is undone "
        + "any more, and \(stuck.from ?? "no version") stays current. Abandon it? [y/N] ")
    guard let answer, answer.lowercased().hasPrefix("y") else {
      throw OrchestrateError(.failed, "not abandoned", host: command.host.name, state: "nothing was changed")
    }
  }

  /// The request that opens a deployment, with the number of the one that is to be closed (docs/runner.md, `open`).
  private func close(_ number: Int, _ attachment: Attachment) async throws {
    let inventory = command.inventory, holder = command.session.holder(reason: reason)
    var object = JSONObject()
    object["who"] = .string(holder.who)
    object["from"] = holder.from.map { .string($0) }
    object["reason"] = .string(reason)
    object["since"] = holder.since.map { .string($0) }
    object["command"] = .string("rollback --abandon")
    object["environment"] = .string(inventory.environment)
    object["app"] = .string(inventory.app)
    object["abandon"] = .int(number)
    let body = Array(JSONValue.object(object).text().utf8)
    let wait = write.lockWait?.duration.components.seconds ?? 0
    let nonce = SecureRandom.word(16).lowercased()
    let reply = try await attachment.request("open \(nonce) 60 \(wait) \(body.count)", body: body, deadline: nil)
    guard reply.tag != "recovered" else { return }
    if let fault = LockAbort.fault(ofRecovery: reply, host: command.host.name, environment: inventory.environment) {
      throw fault
    }
  }
}

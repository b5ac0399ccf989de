import ArgumentParser
import Diagnostics
import Engine
import Foundation
import Inventory
import SSH
import Synchronization
import Testing
import Views

@testable import Commands

@Suite struct FaultTests {
  @Test(arguments: [
    (Reply(tag: "recovered", body: Array("\n7 unchanged\n".utf8)), nil),
    (Reply(tag: "recovered", body: Array("\n7 undone\n6 stuck\n".utf8)), ErrorCode.rollbackFailed),
    (Reply(tag: "locked", body: Array("{}".utf8)), .locked),
    (Reply(tag: "error", body: Array("runner no".utf8)), .failed),
  ])
  func whatALockAbortWithoutAHolderBecomes(reply: Reply, code: ErrorCode?) {
    #expect(LockAbort.fault(ofRecovery: reply, host: "bot-1", environment: "prod")?.code == code)
  }
}

@Suite struct LockAbortTests {
  private func journal(_ lines: String...) -> JournalReport {
    let begun = [#""opened","number":7"#, #""accepted","steps":["01-migrate"]"#]
    let text = (begun + lines).map { #"{"event":\#($0)}"# }.joined(separator: "\n")
    return JournalReport(journal: text + "\n{\"event\":\"torn")
  }

  @Test func whatTheDeploymentDoesIsTold() {
    let started = #""started","step":"01-migrate","t":60000"#
    #expect(
      LockAbort.doing(journal(started), now: 102_500).hasPrefix("the step migrate has run for 42 s and isn't killed"))
    #expect(LockAbort.doing(journal(started, #""ended","step":"01-migrate""#), now: 1) == "it undoes now")
    #expect(LockAbort.doing(journal(started, #""undoing","reason":"aborted""#), now: 1) == "it is undoing")
  }

  @Test(arguments: [
    ("undone", nil), ("unchanged", nil), ("stuck", ErrorCode.outcomeUnknown), ("x", .outcomeUnknown),
  ])
  func howItsUndoEndedIsAStatus(outcome: String, code: ErrorCode?) {
    let report = journal(#""undoing","reason":"aborted""#, #""closed","outcome":"\#(outcome)""#)
    let fault = LockAbort.fault(after: report, number: 7, host: "bot-1", environment: "prod")
    #expect(fault?.code == code)
    #expect((fault?.cause?.contains("line 4") ?? false) == (code == .outcomeUnknown))
  }

  @Test func whatElseBecameOfItIsAStatus() {
    let committed = journal(#""closed","outcome":"committed""#)
    #expect(LockAbort.fault(after: committed, number: 7, host: "bot-1", environment: "prod")?.code == .failed)
    let stuck = journal(
      #""started","step":"01-migrate""#, #""undoing","reason":"aborted""#,
      #""undone","step":"01-migrate","status":1,"attempts":3"#, #""closed","outcome":"stuck""#)
    #expect(LockAbort.fault(after: stuck, number: 7, host: "bot-1", environment: "prod")?.code == .rollbackFailed)
  }
}

@Suite struct AbandonmentTests {
  @Test(arguments: [
    (["prod", "--abandon"], false), (["prod", "--abandon", "--reason", " "], false),
    (["prod", "v1.0.0", "--abandon", "--reason", "x"], false),
    (["prod", "--abandon", "--reason", "x", "--skip", "backup"], false),
    (["prod", "--abandon", "--reason", "x", "--detach"], false), (["prod", "--abandon", "--reason", "x"], true),
    (["--abandon", "--reason", "x", "--yes"], true), (["prod", "v1.0.0"], true),
  ])
  func aReasonIsWantedAndNothingElse(arguments: [String], good: Bool) {
    let parsed = try? RollbackCommand.parse(arguments)
    #expect((parsed != nil) == good)
  }
}

@Suite struct ConnectionFaultTests {
  @Test(arguments: [SSHError.Code.connectionLost, .channelClosed, .timeout])
  func aConnectionThatBreaksIsAnUnreachableHost(code: SSHError.Code) {
    let host = HostEntry(name: "bot-1", address: "203.0.113.10")
    let error = SSHByteChannel.explain(SSHError(code, "gone", detail: "reset"), host: host)
    #expect(ExitStatus(error.code) == .unreachable)
    #expect(error.cause == "reset")
    #expect(error.state == nil)
  }
}

@Suite struct DocumentSecrecyTests {
  @Test(arguments: [false, true]) func whatAnApplicationPrintsIsMaskedInDocuments(json: Bool) throws {
    let root = FileManager.default.temporaryDirectory.appending(path: "orchestrate-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: root.appending(path: "inventories"), withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: root) }
    try "app: bot\nhosts: { bot-1: { address: 127.0.0.1 } }\nservices: { app: [bot] }\n"
      .write(to: root.appending(path: "inventories/prod.yml"), atomically: true, encoding: .utf8)
    try "services: {}\n".write(to: root.appending(path: "compose.yml"), atomically: true, encoding: .utf8)
    let sink = RecordedOutput()
    var context = CommandContext.process
    context.output = sink
    try CommandContext.$current.withValue(context) {
      let global = try GlobalOptions.parse(["--project", root.path] + (json ? ["--json"] : []))
      let command = try ReadingCommand(global, environment: "prod")
      var status = HostStatus(host: "bot-1", state: .unhealthy)
      status.reason = "bot: cannot connect with canary-pass\"word"
      let document = StatusDocument(environment: "prod", app: "bot", checked: "now", hosts: [status])
      try command.answer(document, global, masker: Masker([Secret("canary-pass\"word")])) {
        document.text(width: $1, style: $0)
      }
    }
    let text = Views.OutputStream.allCases.map(sink.text).joined()
    #expect(text.contains("cannot connect with") && !text.contains("canary"))
  }
}

import Engine
import Foundation
import Testing

/// Journals that the shipped runner has written, through the transition function that the model goes by.
@Suite struct JournalReplayTests {
  private static let recorded = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Journals")
  /// Where the suites that drive the runner have put theirs (script/test).
  private static let collected = ProcessInfo.processInfo.environment["ORCHESTRATE_JOURNALS"].map { URL(filePath: $0) }

  private static func journals(in folder: URL) throws -> [(name: String, text: String)] {
    try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".jsonl") }.sorted().map {
      ($0, String(decoding: try Data(contentsOf: folder.appending(path: $0)), as: UTF8.self))
    }
  }

  @Test func recordedJournalsAreAccepted() throws {
    let journals = try Self.journals(in: Self.recorded)
    #expect(!journals.isEmpty)
    for (name, text) in journals {
      let state = try JournalState(journal: text)
      #expect(name.hasPrefix(state.outcome?.rawValue ?? "open"), "\(name) is \(state.phase)")
    }
  }

  /// Torn off behind any line, as by a crash.
  @Test func everyBeginningIsAccepted() throws {
    for (name, text) in try Self.journals(in: Self.recorded) {
      let lines = text.split(separator: "\n")
      for count in 1...lines.count {
        let beginning = lines[..<count].joined(separator: "\n") + "\n"
        #expect(throws: Never.self, "\(name), \(count) lines") {
          try JournalState(journal: beginning + "{\"event\":\"to")
        }
      }
    }
  }

  @Test(.enabled(if: collected != nil)) func journalsOfTheSuitesAreAccepted() throws {
    let journals = try Self.journals(in: Self.collected!)
    var endings: [String: Int] = [:]
    for (name, text) in journals {
      do {
        let outcome = try JournalState(journal: text).outcome?.rawValue ?? "open"
        endings[outcome, default: 0] += 1
      } catch {
        Issue.record("\(name): \(error)\n\(text)")
      }
    }
    print("\(journals.count) journals: \(endings.sorted { $0.key < $1.key })")
    #expect(!journals.isEmpty)
  }
}

@Suite struct JournalStateTests {
  private static func line(_ words: Substring) -> String {
    let parts = words.split(separator: " ").map(String.init), step = parts.count > 1 ? parts[1] : ""
    let members =
      switch parts[0] {
      case "opened": #","number":7,"previous":5"#
      case "accepted": #","steps":["\#(step.replacing(",", with: "\",\""))"]"#
      case "ended", "undone": #","step":"\#(step)","status":\#(parts.count > 2 ? parts[2] : "0")"#
      case "committing", "committed": #","release":\#(step.isEmpty ? "7" : step)"#
      case "closed": #","outcome":"\#(step)""#
      case "watching": #","release":7,"seconds":120"#
      case "breached": #","text":"bot: it was restarted","rollback":8"#
      case "watched": #","reason":"\#(step)""#
      default: #","step":"\#(step)""#
      }
    return #"{"event":"\#(parts[0])"\#(members)}"# + "\n"
  }

  /// A line each, `;` between them; what begins with `@` stands for a whole story.
  private static func journal(_ text: String) -> String {
    text.split(separator: ";").map { $0.first == "@" ? journal(stories[String($0)]!) : line($0) }.joined()
  }
  private static let stories = [
    "@begun": "opened;accepted 01-a,02-b,03-commit,04-d;started 01-a;ended 01-a",
    "@committed": "@begun;started 02-b;ended 02-b;started 03-commit;committing;committed;ended 03-commit",
    "@stuck": "@begun;undoing;undone 01-a 1;closed stuck", "@watched": "@committed;closed committed;watching",
  ]

  static let refused: [(String, JournalFault.Rule)] = [
    ("started 01-a", .opensOnce), ("opened;opened", .opensOnce),
    ("opened;accepted 02-b;accepted 01-a", .acceptedInOrder),
    ("opened;started 01-a", .stepsInOrder), ("@begun;started 03-commit", .stepsInOrder),
    ("@begun;started 01-a", .stepsInOrder), ("@begun;started 02-b;started 03-commit", .oneStepAtATime),
    ("@begun;ended 02-b", .oneStepAtATime), ("@begun;started 02-b;ended 02-b 1;started 03-commit", .onlyAfterSuccess),
    ("@begun;committing", .onlyAfterSuccess), ("@begun;started 02-b;committing 6", .commitIsOwn),
    ("@begun;started 02-b;committing;committed 6", .commitIsOwn),
    ("@begun;started 02-b;committed", .committedAfterCommitting), ("@committed;undoing", .committedIsNeverUndone),
    ("@committed;closed committed;undoing", .committedIsNeverUndone), ("@committed;closed undone", .outcomeFollows),
    ("@committed;started 02-b", .stepsInOrder), ("@begun;undoing;started 02-b", .undoIsNeverTurnedBack),
    ("@begun;undoing;committing", .undoIsNeverTurnedBack), ("@begun;undone 01-a", .undoneOnlyInAnUndo),
    ("@begun;undoing;undone 02-b", .undoneBackwards),
    ("@begun;started 02-b;undoing;undone 01-a;undone 02-b", .undoneBackwards),
    ("@begun;undoing;undone 01-a;undone 01-a", .undoneBackwards), ("@begun;undoing;closed stuck", .outcomeFollows),
    ("@begun;closed undone", .outcomeFollows), ("@begun;undoing;undone 01-a 1;closed undone", .outcomeFollows),
    ("@begun;undoing;closed undone;undoing", .closedStays), ("@begun;undoing;abandoned", .onlyStuckIsAbandoned),
    ("@stuck;started 02-b", .closedStays), ("@stuck;abandoned;started 02-b", .closedStays),
    ("@begun;undoing;closed x", .outcomeFollows),
    ("@committed;watching", .watchedInOrder), ("@stuck;watching", .watchedInOrder),
    ("@committed;closed committed;breached", .watchedInOrder), ("@watched;watched over;watching", .watchedInOrder),
    ("@watched;watched over;breached", .watchedInOrder), ("@watched;breached;watched over", .watchedInOrder),
    ("@watched;undoing", .committedIsNeverUndone),
  ]

  @Test(arguments: refused)
  func whatCannotFollowIsRefused(text: String, rule: JournalFault.Rule) {
    let error = #expect(throws: JournalFault.self) { try JournalState(journal: Self.journal(text)) }
    #expect(error?.rule == rule)
  }

  @Test func eachRuleIsBrokenByOne() {
    let broken = Set(Self.refused.map { $0.1 })
    #expect(broken.union([.lineIsWhole]) == Set(JournalFault.Rule.allCases))
  }

  @Test(arguments: [
    "@committed;closed committed", "@committed;started 04-d;ended 04-d 1;closed committed",
    "@committed;started 04-d;started 04-d;ended 04-d;closed committed",  // killed in between
    // A full disk has swallowed `committed`.
    "@begun;started 02-b;ended 02-b;started 03-commit;committing;ended 03-commit;started 04-d;ended 04-d;closed committed",
    "@begun;undoing;undoing;undone 01-a;closed undone", "@stuck", "@stuck;undoing;undone 01-a;closed undone",
    "@stuck;abandoned;closed abandoned", "@stuck;abandoned;abandoned;closed abandoned",
    "@stuck;abandoned;undoing;undone 01-a;closed undone", "@stuck;undoing;abandoned;closed abandoned",
    "@watched", "@watched;watched over", "@watched;watching;breached", "@watched;breached;watching;breached",
    "@committed;closed committed;watched superseded",
    "opened;undoing;closed unchanged",
    "opened;accepted 01-a;started 01-a;ended 01-a;closed committed",
  ])
  func whatMayFollowIsTaken(text: String) throws {
    #expect(try JournalState(journal: Self.journal(text)).outcome != nil)
  }

  @Test func halfALineWasNeverWritten() throws {
    let whole = Self.journal("@begun"), state = try JournalState(journal: whole)
    #expect(try JournalState(journal: whole + #"{"event":"clo"#) == state)
    #expect(try JournalState(journal: whole + "{\"event\":\"clo\n") == state)
    let error = #expect(throws: JournalFault.self) { try JournalState(journal: "{\"event\":\"op\n" + whole) }
    #expect(error?.rule == .lineIsWhole)
  }

  /// `lock --abort` has to do with journals of other versions, too; a replay hasn't.
  @Test func whatIsUnknownIsPassedOverByTheReportAlone() {
    let report = JournalReport(journal: Self.journal("@begun;resting;undoing;closed unchanged"))
    #expect(report.outcome == .unchanged && report.unknown == 1 && report.fault == nil)
    #expect(throws: JournalFault.self) { try JournalState(journal: Self.journal("@begun;resting")) }
  }
}

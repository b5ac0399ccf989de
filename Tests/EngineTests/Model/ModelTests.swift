import Engine
import Foundation
import Testing

/// The protocol of docs/reliability.md ("The protocol as a state machine"), looked at in every state that it can get into.
@Suite struct ModelTests {
  /// More of everything than a test run has time for: ORCHESTRATE_EXPLORE=deep (some minutes, some GB).
  private static let isDeep = ProcessInfo.processInfo.environment["ORCHESTRATE_EXPLORE"] == "deep"

  static let scenarios: [(Scenario, Int)] = [
    (.init("killed twice, a power loss, a lost client", kills: 2, outages: 1, cuts: 1, systemd: false), 150_000),
    (.init("two power losses, killed once", kills: 1, outages: 2), 50_000),
    (.init("two clients, killed once", two: true, kills: 1), 90_000),
    (.init("two clients, a power loss", two: true, outages: 1), 130_000),
    (
      .init(
        "a step of the client's, cut off and aborted", steps: Scenario.gateOfTheClient, kills: 1, cuts: 1, aborts: true),
      80_000
    ),
    (.init("no commit, two clients, a power loss", steps: Scenario.withoutCommit, two: true, outages: 1), 90_000),
    (.init("a full disk, killed, a power loss", kills: 1, outages: 1, full: 1), 30_000),
    (.init("two clients, cut off, nothing else", two: true, cuts: 1), 100_000),
    (
      .init(
        "a watch, Docker stopped, killed, a power loss", steps: Scenario.perhaps, watched: true, kills: 1, outages: 1,
        stops: 1), 60_000
    ),
    (
      .init(
        "a watch, two clients, Docker stopped, killed", steps: Scenario.surely, watched: true, two: true, kills: 1,
        stops: 1), 120_000
    ),
    (
      .init("a watch, two clients, a power loss", steps: Scenario.surely, watched: true, two: true, outages: 1), 130_000
    ),
    (
      .init(
        "a watch, killed twice, a lost client", steps: Scenario.perhaps, watched: true, kills: 2, cuts: 1,
        systemd: false), 100_000
    ),
  ]
  static let deep: [(Scenario, Int)] = [
    (.init("two clients, cut off and killed, no systemd", two: true, kills: 1, cuts: 1, systemd: false), 1_000_000),
    (.init("two clients, cut off and killed", two: true, kills: 1, cuts: 1), 1_000_000),
    (.init("two clients, a power loss, killed once", two: true, kills: 1, outages: 1), 1_000_000),
    (.init("killed twice, a power loss, a lost client, systemd", kills: 2, outages: 1, cuts: 1), 500_000),
  ]

  @Test(arguments: isDeep ? scenarios + deep : scenarios)
  func everyPromiseIsKeptInEveryState(scenario: Scenario, states: Int) {
    let explorer = Explorer(scenario)
    print("\(scenario.name): \(explorer.states.count) states, \(explorer.transitions) transitions")
    #expect(explorer.finding == nil, "\(explorer.finding?.description ?? "")")
    #expect(explorer.states.count >= states)
  }

  /// A check that can't fail proves nothing: for each promise there is a protocol, wrong in one point, that breaks it.
  @Test(arguments: Mutant.allCases)
  func aWrongProtocolIsFoundOut(mutant: Mutant) {
    let explorer = Explorer(mutant.scenario, mutant: mutant)
    #expect(
      explorer.finding?.violation.invariant == mutant.breaks, "\(explorer.finding?.description ?? "not found out")")
  }

  @Test func eachPromiseHasItsMutant() {
    #expect(Set(Mutant.allCases.map(\.breaks)) == Set(Invariant.allCases))
  }

  @Test func thePageNamesThemAll() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../..")
    let page = try String(contentsOf: root.appending(path: "docs/reliability.md"), encoding: .utf8)
    for (scenario, _) in Self.scenarios { #expect(page.contains("| \(scenario.name) |")) }
    for mutant in Mutant.allCases { #expect(page.contains("| \(mutant.rawValue) |")) }
  }
}

extension Scenario {
  fileprivate init(
    _ name: String, steps: [Step] = Scenario.deploy, watched: Bool = false, two: Bool = false, kills: UInt8 = 0,
    outages: UInt8 = 0, cuts: UInt8 = 0, full: UInt8 = 0, stops: UInt8 = 0, aborts: Bool = false, systemd: Bool = true
  ) {
    self.init(
      name: name, steps: steps, systemd: systemd, ben: two, kills: kills,
      outages: outages, cuts: cuts, full: full, aborts: aborts, watch: watched, stops: stops)
  }
}

extension Mutant {
  /// Where it shows.
  fileprivate var scenario: Scenario {
    switch self {
    case .startedIsNotSynced, .scriptsAreNotSynced, .tornLineIsWrittenOn, .directoryBeforeMarker:
      .init(rawValue, outages: 1)
    case .toldBeforeSynced: .init(rawValue, steps: Scenario.withoutCommit, outages: 1)
    case .tornLineIsBelieved, .takenUpWithoutAMarker: .init(rawValue, two: true, outages: 1)
    case .readClosedIsNotSynced: .init(rawValue, two: true, kills: 1, outages: 1)
    case .recoveryContinues, .undoIsTurnedBack, .recoveryBelievesTheJournal, .rollForwardDoesNotSync,
      .recoveryDropsWhatIsLeft, .lockOutlivesItsHolder:
      .init(rawValue, kills: 1)
    case .stepsDoNotInheritTheLock: .init(rawValue, kills: 1, systemd: false)
    case .nextOpensOverWhatIsOpen: .init(rawValue, two: true, kills: 1, systemd: false)
    case .lockIsReleasedBeforeTheUndo, .numbersFollowCurrent: .init(rawValue, two: true)
    case .anyMessageIsTaken: .init(rawValue, two: true, cuts: 1)
    case .fullDiskUndoesAfterTheCommit: .init(rawValue, full: 1)
    case .abortIsHeardAfterTheCommit: .init(rawValue, aborts: true)
    case .lostClientGuesses: .init(rawValue, cuts: 1)
    case .watchIsMarkedBehindTheEnd: .init(rawValue, steps: Scenario.surely, watched: true, outages: 1)
    case .opensAboveWhatIsStuck: .init(rawValue, steps: Scenario.perhaps, watched: true, kills: 1)
    case .recoveryForgetsTheWatch, .breachIsForgotten, .brokenOffIsBelieved:
      .init(rawValue, steps: Scenario.surely, watched: true, kills: 1)
    case .breachIsNotSynced: .init(rawValue, steps: Scenario.surely, watched: true)
    case .returnsWithoutTheLock, .returnsToAnother:
      .init(rawValue, steps: Scenario.surely, watched: true, two: true, stops: 1)
    case .watchesWhatIsNotCurrent: .init(rawValue, steps: Scenario.surely, watched: true, kills: 1)
    case .supersededBehindTheBreach: .init(rawValue, steps: Scenario.surely, watched: true, two: true, kills: 1)
    case .readWatchIsNotSynced, .toldWatchIsNotSynced:
      .init(rawValue, steps: Scenario.surely, watched: true, kills: 1, outages: 1)
    case .failedStepsAreIgnored, .undoRunsForwards, .renameIsNotSynced, .closedBeforeHistory, .failedUndoIsPassedOver,
      .clientForgetsWhatItSaw:
      .init(rawValue)
    }
  }
}

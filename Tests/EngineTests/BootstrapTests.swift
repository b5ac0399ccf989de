import Diagnostics
import Engine
import Inventory
import Synchronization
import Testing

/// Preparing a machine: looked at without a lock, changed under it, and every step that could lock somebody out is proven.
@Suite(.timeLimit(.minutes(1))) struct BootstrapTests {
  private static let change = #"[{"action":"update","subject":"file /etc/x","detail":["+ a"]}]"#

  private func run(
    _ host: ScriptedHost, planOnly: Bool = false, reach: @escaping @Sendable () async throws -> Void = {},
    events: DeploymentRunTests.Events = .init()
  ) async throws -> (summary: DeploymentSummary, plan: Plan?) {
    var request = try Fixtures.request(.bootstrap, steps: "time firewall")
    request.playbook.name = "bootstrap"
    request.planOnly = planOnly
    var client = ScriptedClient(host: host, bundle: HostBundle(sha256: Fixtures.digest))
    client.whenReaching = reach
    let run = DeploymentRun(
      request: request, host: "bot-1", catalog: Fixtures.catalog(), client: client, sha256: Fixtures.digest,
      emit: { event in events.all.withLock { $0.append(event) } })
    return (await run.run(), await run.plan)
  }

  @Test func aMachineThatIsAsItShouldBeIsNotTouched() async throws {
    let host = ScriptedHost()
    await host.set { $0.reports = ["time": ["changes": "[]"], "firewall": ["changes": "[]"]] }
    let (summary, plan) = try await run(host)
    #expect(summary.exitStatus == 0 && summary.number == nil && plan?.isEmpty == true)
    #expect(summary.roundTrips == 2)
    let messages = await host.messages
    #expect(!messages.contains { $0.hasPrefix("open") || $0.hasPrefix("steps") })
  }

  @Test func aPlanChangesNothing() async throws {
    let host = ScriptedHost()
    await host.set { $0.reports = ["time": ["changes": Self.change], "firewall": ["changes": "[]"]] }
    let (summary, plan) = try await run(host, planOnly: true)
    #expect(summary.exitStatus == 2 && summary.number == nil)
    #expect(plan?.steps.first?.changes.map(\.subject) == ["file /etc/x"])
    #expect(await host.messages.allSatisfy { !$0.hasPrefix("open") })
  }

  @Test func whatCouldLockOutIsProvenAndDisarmed() async throws {
    let host = ScriptedHost(), events = DeploymentRunTests.Events(), proofs = Mutex(0)
    await host.set { $0.reports = ["time": ["changes": Self.change], "firewall": ["changes": Self.change]] }
    let (summary, _) = try await run(host, reach: { proofs.withLock { $0 += 1 } }, events: events)
    #expect(summary.exitStatus == 0 && summary.outcome == .committed)
    #expect(proofs.withLock { $0 } == 1)
    let started = events.names { if case .stepStarted(_, let step) = $0 { step } else { nil } }
    #expect(started == ["time", "firewall", "firewall-reach", "firewall-disarm"])
    #expect(await host.parameters["firewall-disarm"]?.contains("STEP='02-firewall'") == true)
  }

  @Test func aProofThatFailsUndoes() async throws {
    let host = ScriptedHost()
    await host.set { $0.reports = ["time": ["changes": Self.change], "firewall": ["changes": Self.change]] }
    let (summary, _) = try await run(
      host, reach: { throw OrchestrateError(.unreachable, "no answer", host: "bot-1", cause: "timed out") })
    #expect(summary.exitStatus == 3 && summary.outcome == .undone)
    #expect(summary.problem?.step == "firewall-reach")
    #expect(summary.problem?.cause?.contains("A new connection doesn't get in any more: no answer: timed out") == true)
  }
}

import Diagnostics
import Foundation
import Testing

@testable import SSH

extension Trait where Self == ConditionTrait {
  /// Needs OpenSSH's server. In CI (variable `CI`) a machine without it fails instead of skipping.
  static var needsSSHD: Self {
    .enabled(if: LocalSSHD.isAvailable || ProcessInfo.processInfo.environment["CI"] != nil, "needs /usr/sbin/sshd")
  }
}

@Suite(.needsSSHD, .timeLimit(.minutes(2)))
struct SessionTests {
  @Test func execKeepsStreamsApartAndTellsTheStatus() async throws {
    let sshd = try LocalSSHD()
    let session = try await sshd.connect()
    let result = try await session.run("echo out; echo err >&2; cat; exit 3", stdin: Array("in".utf8), deadline: .seconds(10))
    #expect(result.text == "out\nin")
    #expect(result.errorText == "err\n")
    #expect(result.exit == .status(3))
    #expect(await session.timings.roundTrips == 8)
    await session.close()
  }
}

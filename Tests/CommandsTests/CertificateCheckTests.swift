import Diagnostics
import Engine
import Testing

@testable import Commands

/// What `doctor` says of the certificates that a host's proxy shows.
@Suite struct CertificateCheckTests {
  @Test(arguments: [
    ("acme", "2026-10-01T00:00:00Z", "2026-12-30T00:00:00Z", DoctorReport.Check.State.passed, "ends in 39 days", ""),
    ("acme", "2026-09-10T00:00:00Z", "2026-12-09T00:00:00Z", .warning, "ends in 18 days", "journalctl -u certbot"),
    (
      "given", "2026-09-10T00:00:00Z", "2026-12-09T00:00:00Z", .warning, "ends in 18 days", "orchestrate bootstrap prod"
    ),
    ("acme", "2026-08-01T00:00:00Z", "2026-11-01T00:00:00Z", .failed, "has expired", "journalctl -u certbot"),
    ("acme", "", "", .failed, "nobody answers for a.example.com", "systemctl status nginx"),
  ])
  func isJudged(
    kind: String, begins: String, expires: String, state: DoctorReport.Check.State, words: String, remedy: String
  ) throws {
    let certificate = CertificateStatus(
      domain: "a.example.com", kind: kind, begins: begins.isEmpty ? nil : begins,
      expires: expires.isEmpty ? nil : expires)
    let now = try #require(Timestamp("2026-11-21T00:00:00Z"))
    let check = DoctorCommand.judge(certificate, environment: "prod", host: "bot-1", now: now)
    #expect(check.state == state && check.message.contains(words), "\(check)")
    #expect(remedy.isEmpty ? check.remedy == nil : check.remedy?.contains(remedy) == true, "\(check)")
  }

  /// Dates say nothing of a certificate that visitors refuse.
  @Test(arguments: [
    (CertificateStatus.Fault.temporary, "are shown a temporary one"), (.other, "are shown that of another name"),
  ])
  func oneThatVisitorsRefuse(fault: CertificateStatus.Fault, words: String) throws {
    let certificate = CertificateStatus(
      domain: "a.example.com", kind: "acme", begins: "2026-11-20T00:00:00Z", expires: "2027-02-20T00:00:00Z",
      fault: fault)
    let now = try #require(Timestamp("2026-11-21T00:00:00Z"))
    let check = DoctorCommand.judge(certificate, environment: "prod", host: "bot-1", now: now)
    #expect(check.state == .failed && check.message.contains(words), "\(check)")
    #expect(check.remedy?.contains("orchestrate bootstrap prod") == true)
  }
}

import Diagnostics
import Inventory
import Testing

@testable import Commands
@testable import SSH

@Suite struct HostKeyMessageTests {
  /// What README and `init` promise: whoever meets an unknown key is shown the line that would make it known.
  @Test func anUnknownKeyComesWithItsLine() {
    let line = "[203.0.113.10]:2222 ssh-ed25519 AAAA"
    let fault = SSHError(
      .hostKeyUnknown, "the host's key isn't known: SHA256:abc", detail: "looked in known_hosts",
      hostKey: SSHError.HostKey(fingerprint: "SHA256:abc", keyType: "ssh-ed25519", knownHostsLine: line))
    let error = HostConnector.explain(fault, host: HostEntry(name: "bot-1", address: "203.0.113.10"), user: "deploy")
    #expect(error.code == .hostKey)
    #expect(error.cause?.split(separator: "\n").last.map(String.init) == line)
    #expect(error.cause?.contains("looked in known_hosts") == true)
  }
}

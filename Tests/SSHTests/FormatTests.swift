import CLibSSH2
import Diagnostics
import Foundation
import Testing

@testable import SSH

@Suite struct FormatTests {
  @Test(arguments: 0..<70) func base64AgreesWithFoundation(count: Int) {
    let bytes = pattern(count, seed: UInt64(count))
    let expected = Data(bytes).base64EncodedString()
    #expect(Base64.encode(bytes) == expected)
    #expect(Base64.encode(bytes, padded: false) == expected.filter { $0 != "=" })
    #expect(Base64.decode(expected) == bytes)
    #expect(Base64.decode(expected.filter { $0 != "=" }) == bytes)
  }

  @Test(arguments: ["A", "AAA*", "AA=A", "é"]) func notBase64(text: String) { #expect(Base64.decode(text) == nil) }

  /// `ssh-keygen -lf` of this key.
  @Test func fingerprintIsWhatSSHKeygenPrints() throws {
    let blob = try #require(Base64.decode("AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsABgH5C9okWi0dh2l9GKJl"))
    #expect(fingerprint(of: blob) == "SHA256:vquJBo6EvVfnHbyPmuwuOg4XGi4Cmti6ZX2fnFN0Ti0")
  }

  @Test func mpintsAreMinimalAndPositive() {
    var writer = SSHWriter()
    for value: [UInt8] in [[0, 0], [0, 0, 0x7f], [0x80]] { writer.mpint(value) }
    #expect(writer.bytes == [0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 0, 0, 0, 2, 0, 0x80])
  }

  @Test func readerStopsAtTheEnd() {
    var reader = SSHReader([0, 0, 0, 9, 1, 2])
    #expect(reader.string() == nil)
    reader = SSHReader([0xff, 0xff, 0xff, 0xff])
    #expect(reader.string() == nil)
  }

  @Test(arguments: [
    (LIBSSH2_ERROR_SOCKET_RECV, SSHError.Code.connectionLost), (LIBSSH2_ERROR_SOCKET_DISCONNECT, .connectionLost),
    (LIBSSH2_ERROR_SOCKET_SEND, .connectionLost), (LIBSSH2_ERROR_TIMEOUT, .timeout),
    (LIBSSH2_ERROR_AUTHENTICATION_FAILED, .authenticationFailed), (LIBSSH2_ERROR_CHANNEL_FAILURE, .channelOpenFailed),
    (LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED, .channelOpenFailed), (LIBSSH2_ERROR_CHANNEL_CLOSED, .channelClosed),
    (LIBSSH2_ERROR_PROTO, .protocolFault), (LIBSSH2_ERROR_KEX_FAILURE, .protocolFault), (-1, .protocolFault),
  ])
  func errorsOfLibssh2(status: Int32, code: SSHError.Code) { #expect(SSHError.Code(libssh2: status) == code) }

  @Test func shellWords() {
    #expect(shellQuoted("it's $HOME") == #"'it'\''s $HOME'"#)
    #expect(shellQuoted("") == "''")
  }

  // MARK: Keys

  static let body = ["b3BlbnNzaC1rZXktdjEAAAAABG5vbmU=", "AAAA"]
  static let pem = "-----BEGIN OPENSSH PRIVATE KEY-----\n\(body[0])\n\(body[1])\n-----END OPENSSH PRIVATE KEY-----\n"

  @Test(arguments: [
    pem, pem.replacingOccurrences(of: "\n", with: "\r\n"), String(pem.dropLast()),
    pem.replacingOccurrences(of: "\n", with: #"\n"#), pem.replacingOccurrences(of: "\n", with: #"\r\n"#),
    pem.replacingOccurrences(of: "\n", with: " "), "\n\n  " + pem, pem.replacingOccurrences(of: "\n", with: "\n  "),
  ])
  func keyTextIsPutRight(text: String) {
    let normalised = PrivateKeyFile.normalise(Array(text.utf8))
    #expect(normalised?.label == "OPENSSH PRIVATE KEY")
    #expect(normalised?.body == Self.body.joined())
    #expect(normalised?.pem.hasSuffix("-----END OPENSSH PRIVATE KEY-----\n") == true)
  }

  @Test func headersOfAnEncryptedPEMFileAreKept() {
    let text =
      "-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,00\r\n\r\nAAAA\r\n-----END RSA PRIVATE KEY-----"
    let normalised = PrivateKeyFile.normalise(Array(text.utf8))
    #expect(
      normalised?.pem
        == "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
    )
  }

  @Test(arguments: [
    "", "ssh-ed25519 AAAA", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", pem, "-----BEGIN ",
  ])
  func notAKey(text: String) {
    #expect(throws: PrivateKeyFile.Fault.notAKey) { _ = try PrivateKeyFile(Array(text.utf8)) }
  }

  /// A vector of OpenBSD's bcrypt_pbkdf regression test.
  @Test func bcryptVector() {
    let derived = bcryptPBKDF(Array("password".utf8), salt: Array("salt".utf8), rounds: 4, count: 32)
    #expect(
      derived == [
        0x5b, 0xbf, 0x0c, 0xc2, 0x93, 0x58, 0x7f, 0x1c, 0x36, 0x35, 0x55, 0x5c, 0x27, 0x79, 0x65, 0x98, 0xd4, 0x7e,
        0x57, 0x90, 0x71,
        0xbf, 0x42, 0x7e, 0x9d, 0x8f, 0xbe, 0x84, 0x2a, 0xba, 0x34, 0xd9,
      ])
  }
}

@Suite struct OpenSSHConfigurationTests {
  @Test func everythingThatMatters() {
    let text = """
      host bot
      user deploy
      hostname 203.0.113.10
      port 2222
      identitiesonly yes
      hostkeyalias none
      identityfile ~/.ssh/%r-%h-%p
      identityfile /keys/%n%%x
      identityagent none
      userknownhostsfile /home/a/.ssh/known_hosts "/home/a/my hosts"
      globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
      proxyjump jump@198.51.100.1:2200,[2001:db8::1]:22,last
      """
    let parsed = OpenSSHConfiguration(host: "bot", output: text, home: "/home/a", localUser: "a")
    #expect(parsed.user == "deploy")
    #expect(parsed.hostName == "203.0.113.10")
    #expect(parsed.port == 2222)
    #expect(parsed.identitiesOnly)
    #expect(parsed.hostKeyAlias == nil)
    #expect(parsed.identityFiles == ["/home/a/.ssh/deploy-203.0.113.10-2222", "/keys/bot%x"])
    #expect(!parsed.usesAgent)
    #expect(
      parsed.knownHostsFiles == [
        "/home/a/.ssh/known_hosts", "/home/a/my hosts", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2",
      ])
    #expect(
      parsed.jumps == [
        .init(host: "198.51.100.1", user: "jump", port: 2200), .init(host: "2001:db8::1", user: nil, port: 22),
        .init(host: "last", user: nil, port: nil),
      ])
    let configuration = parsed.configuration()
    #expect(configuration.address == "203.0.113.10")
    #expect(configuration.identities == parsed.identityFiles.map { .file(path: $0) })
  }

  @Test func defaults() {
    let parsed = OpenSSHConfiguration(
      host: "bot", output: "hostname bot\r\nproxycommand nc %h %p\n", home: "/h", localUser: "me")
    #expect(parsed.user == "me")
    #expect(parsed.port == 22)
    #expect(parsed.usesAgent)
    #expect(parsed.agentSocket == nil)
    #expect(parsed.jumps.isEmpty)
    #expect(parsed.proxyCommand == "nc %h %p")
  }

  @Test(
    arguments: [
      ("a", "a", nil, nil), ("u@a", "a", "u", nil), ("ssh://u@a:22/", "a", "u", 22),
      ("2001:db8::1", "2001:db8::1", nil, nil),
    ] as [(String, String, String?, UInt16?)])
  func jumpForms(text: String, host: String, user: String?, port: UInt16?) {
    #expect(OpenSSHConfiguration.jumps(text) == [.init(host: host, user: user, port: port)])
  }

  @Test(arguments: ["", "a,", "a:x", "a:0", "a:65536", "[::1]:x", "u@"])
  func noJumpForms(text: String) { #expect(OpenSSHConfiguration.jumps(text) == nil) }

  /// What the ssh of this machine really prints.
  @Test(.enabled(if: FileManager.default.fileExists(atPath: "/usr/bin/ssh"))) func realOutput() throws {
    let scratch = try Scratch()
    try scratch.write(
      "config",
      "Host bot\n HostName 192.0.2.7\n User deploy\n Port 2022\n ProxyJump j1,u@j2:23\n IdentityFile ~/.ssh/%h_key\n HostKeyAlias alias\n"
    )
    let output = try tool("/usr/bin/ssh", ["-G", "-F", scratch.file("config"), "bot"])
    let parsed = OpenSSHConfiguration(host: "bot", output: output, home: "/home/a", localUser: "a")
    #expect(parsed.hostName == "192.0.2.7")
    #expect(parsed.user == "deploy")
    #expect(parsed.port == 2022)
    #expect(parsed.hostKeyAlias == "alias")
    #expect(parsed.identityFiles == ["/home/a/.ssh/192.0.2.7_key"])
    #expect(parsed.jumps == [.init(host: "j1", user: nil, port: nil), .init(host: "j2", user: "u", port: 23)])
    #expect(parsed.knownHostsFiles.count >= 2)
  }
}

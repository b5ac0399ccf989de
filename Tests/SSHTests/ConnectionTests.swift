import Diagnostics
import Foundation
import Synchronization
import Testing

@testable import SSH

/// How a connection comes about, and how it ends.
@Suite(.needsSSHD, .serialized, .timeLimit(.minutes(5)))
struct ConnectionTests {
  // MARK: Host keys

  @Test func unknownHostKeyIsRefusedWithItsFingerprint() async throws {
    try await withSSHD { sshd in
      let error = try #require(await fault { _ = try await SSHSession.connect(sshd.configuration(known: "")) })
      #expect(error.code == .hostKeyUnknown)
      let printed = try tool("/usr/bin/ssh-keygen", ["-lf", TestKeys.file("host_ed25519.pub")])
      #expect(error.hostKey?.fingerprint == printed.split(separator: " ")[1].description)
      // The line that it offers makes the host known.
      let line = try #require(error.hostKey?.knownHostsLine)
      try await SSHSession.connect(sshd.configuration(known: line + "\n")).close()
    }
  }

  @Test func changedHostKeyIsRefusedWithItsLine() async throws {
    try await withSSHD { sshd in
      let other = try TestKeys.read("id_stranger.pub")
      let configuration = try sshd.configuration(known: "# comment\n[127.0.0.1]:\(sshd.port) \(other)")
      let error = try #require(await fault { _ = try await SSHSession.connect(configuration) })
      #expect(error.code == .hostKeyChanged)
      #expect(error.hostKey?.knownAt == configuration.knownHostsFiles[0] + ":2")
    }
  }

  @Test func revokedHostKeyIsRefused() async throws {
    try await withSSHD { sshd in
      let known = try sshd.knownHosts(["ed25519"])
      let error = await fault {
        _ = try await SSHSession.connect(sshd.configuration(known: known + "@revoked " + known))
      }
      #expect(error?.code == .hostKeyRevoked)
    }
  }

  /// libssh2 would ask for another type than the one that is known.
  @Test(arguments: ["ed25519", "ecdsa"])
  func oneKnownTypeSuffices(type: String) async throws {
    try await withSSHD { sshd in
      try await SSHSession.connect(sshd.configuration(known: sshd.knownHosts([type]))).close()
    }
  }

  @Test(arguments: ["ed25519", "ecdsa"])
  func pinnedKeyOfAnyType(type: String) async throws {
    try await withSSHD { sshd in
      var configuration = try sshd.configuration(known: "")
      configuration.pinnedHostKey = try tool("/usr/bin/ssh-keygen", ["-lf", TestKeys.file("host_\(type).pub")])
        .split(separator: " ")[1].description
      try await SSHSession.connect(configuration).close()
      configuration.pinnedHostKey = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
      let error = await fault { [configuration] in _ = try await SSHSession.connect(configuration) }
      #expect(error?.code == .hostKeyChanged)
      #expect(error?.hostKey?.expected == configuration.pinnedHostKey)
    }
  }

  // MARK: Keys

  @Test(arguments: TestKeys.accepted, [true, false])
  func everyKindOfKey(name: String, withPublicFile: Bool) async throws {
    try await withSSHD { sshd in
      let copy = sshd.scratch.file(name)
      try FileManager.default.copyItem(atPath: TestKeys.file(name), toPath: copy)
      if withPublicFile {
        try FileManager.default.copyItem(atPath: TestKeys.file(name + ".pub"), toPath: copy + ".pub")
      }
      var configuration = try sshd.configuration()
      configuration.identities = [.file(path: copy)]
      configuration.passphrase = { _ in Secret(TestKeys.passphrase) }
      let session = try await SSHSession.connect(configuration)
      #expect(try await session.run("echo ok", deadline: .seconds(60)).text == "ok\n")
      await session.close()
    }
  }

  @Test func keyFromAVariable() async throws {
    try await withSSHD { sshd in
      let text = try TestKeys.read("id_ed25519")
      let forms = [
        text, text.replacingOccurrences(of: "\n", with: "\r\n"), text.trimmingCharacters(in: .newlines),
        text.replacingOccurrences(of: "\n", with: #"\n"#), text.replacingOccurrences(of: "\n", with: " "),
      ]
      for form in forms {
        var configuration = try sshd.configuration()
        configuration.identities = [.key(Secret(form), name: "ORCHESTRATE_SSH_KEY")]
        try await SSHSession.connect(configuration).close()
      }
    }
  }

  @Test func passphrases() async throws {
    try await withSSHD { sshd in
      var configuration = try sshd.configuration(key: "id_encrypted")
      await fails(.passphraseNeeded) { [configuration] in _ = try await SSHSession.connect(configuration) }
      configuration.passphrase = { _ in Secret("wrong") }
      await fails(.passphraseNeeded) { [configuration] in _ = try await SSHSession.connect(configuration) }
      // Nobody is asked for the passphrase of a key that the host doesn't want.
      configuration.identities = [.file(path: TestKeys.file("id_stranger_encrypted"))]
      configuration.passphrase = { _ in
        Issue.record("asked in vain")
        return nil
      }
      await fails(.authenticationFailed) { [configuration] in _ = try await SSHSession.connect(configuration) }
    }
  }

  /// As ssh(1): three times. And a person takes what time it takes: it isn't the host's.
  @Test func aPassphraseMayBeMistypedAndTakeItsTime() async throws {
    try await withSSHD { sshd in
      let answers = Mutex(["wrong", "worse", TestKeys.passphrase])
      var configuration = try sshd.configuration(key: "id_encrypted")
      configuration.connectTimeout = .seconds(2)
      configuration.passphrase = { _ in
        let answer = answers.withLock { $0.removeFirst() }
        if answer == TestKeys.passphrase { try? await Task.sleep(for: .seconds(3)) }
        return Secret(answer)
      }
      try await SSHSession.connect(configuration).close()
      #expect(answers.withLock { $0.isEmpty })
    }
  }

  @Test func oneKeyIsAskedForOnceAndOnePersonForOneThingAtATime() async throws {
    try await withSSHD { sshd in
      let asked = Mutex((names: [String](), now: 0, most: 0))
      let cache = SSHCache()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for number in 0..<6 {
          var configuration = try sshd.configuration(key: number < 3 ? "id_encrypted" : "id_encrypted_cbc")
          configuration.cache = cache
          configuration.passphrase = { name in
            asked.withLock {
              $0.names.append(name)
              $0.now += 1
              $0.most = max($0.most, $0.now)
            }
            for _ in 0..<100 { await Task.yield() }
            asked.withLock { $0.now -= 1 }
            return Secret(TestKeys.passphrase)
          }
          group.addTask { [configuration] in try await SSHSession.connect(configuration).close() }
        }
        try await group.waitForAll()
      }
      #expect(asked.withLock { $0.names.sorted() } == ["id_encrypted", "id_encrypted_cbc"].map(TestKeys.file))
      #expect(asked.withLock { $0.most } == 1)
    }
  }

  @Test func authenticationFailures() async throws {
    try await withSSHD { sshd in
      var configuration = try sshd.configuration(key: "id_stranger")
      await fails(.authenticationFailed) { [configuration] in _ = try await SSHSession.connect(configuration) }
      configuration = try sshd.configuration()
      configuration.user = "nosuchuser"
      await fails(.authenticationFailed) { [configuration] in _ = try await SSHSession.connect(configuration) }
      configuration = try sshd.configuration(key: "nosuchfile")
      await fails(.authenticationFailed) { [configuration] in _ = try await SSHSession.connect(configuration) }
      configuration.identities = [.key(Secret("not a key"), name: "VARIABLE")]
      let error = await fault { [configuration] in _ = try await SSHSession.connect(configuration) }
      #expect(error?.code == .keyUnreadable)
      #expect(error?.message.contains("VARIABLE") == true)
    }
  }

  @Test(arguments: ["id_ed25519", "id_rsa", "id_ecdsa521"])
  func agent(name: String) async throws {
    try await withSSHD { sshd in
      let socket = sshd.scratch.file("agent")
      let pid = try #require(spawn("/usr/bin/ssh-agent", ["-D", "-a", socket]))
      defer {
        kill(pid, SIGTERM)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
      }
      // The socket is there before it is listened to.
      var ready = false
      for _ in 0..<1000 where !ready {
        do {
          try tool("/usr/bin/ssh-add", ["-l"], environment: ["SSH_AUTH_SOCK": socket])
        } catch let failure as ToolFailure {
          ready = failure.text.contains("no identities")
        }
        if !ready { try await Task.sleep(for: .milliseconds(5)) }
      }
      // Strangers first: more of them than tries would be left.
      for key in ["id_stranger", name] {
        try tool("/usr/bin/ssh-add", ["-q", TestKeys.file(key)], environment: ["SSH_AUTH_SOCK": socket])
      }
      var configuration = try sshd.configuration()
      configuration.identities = []
      configuration.agent = true
      configuration.agentSocket = socket
      let session = try await SSHSession.connect(configuration)
      #expect(try await session.run("echo ok", deadline: .seconds(60)).text == "ok\n")
      await session.close()
      // Only what was named, the private half by the agent alone.
      let copy = sshd.scratch.file("only.pub")
      try FileManager.default.copyItem(atPath: TestKeys.file(name + ".pub"), toPath: copy)
      configuration.identitiesOnly = true
      configuration.identities = [.file(path: sshd.scratch.file("only"))]
      try await SSHSession.connect(configuration).close()
    }
  }

  // MARK: Ways there

  @Test func throughAJumpHost() async throws {
    try await withSSHD { near in
      try await withSSHD { far in
        var configuration = try far.configuration()
        configuration.jumps = [try near.configuration(key: "id_rsa")]
        let session = try await SSHSession.connect(configuration)
        let data = pattern(4 << 20)
        let result = try await session.run("cat; echo $SSH_CONNECTION >&2", stdin: data, deadline: .seconds(60))
        #expect(same(result.stdout, data))
        #expect(result.errorText.hasSuffix(" \(far.port)\n"))
        await session.close()
        configuration.port = try freePort()
        await fails(.unreachable) { [configuration] in _ = try await SSHSession.connect(configuration) }
        configuration.jumps[0].user = "nosuchuser"
        await fails(.authenticationFailed) { [configuration] in _ = try await SSHSession.connect(configuration) }
      }
    }
  }

  @Test func throughTwoJumpHosts() async throws {
    try await withSSHD { sshd in
      var configuration = try sshd.configuration()
      configuration.jumps = [try sshd.configuration(), try sshd.configuration()]
      let session = try await SSHSession.connect(configuration)
      #expect(try await session.run("echo ok", deadline: .seconds(60)).text == "ok\n")
      await session.close()
    }
  }

  @Test func nobodyThere() async throws {
    var configuration = SSHConfiguration(
      host: "nobody", address: "127.0.0.1", port: try freePort(), user: "x", agent: false)
    await fails(.unreachable) { [configuration] in _ = try await SSHSession.connect(configuration) }
    // Someone who accepts and says nothing.
    let (descriptor, port) = try listener()
    defer { close(descriptor) }
    configuration.port = port
    configuration.connectTimeout = .milliseconds(300)
    await fails(.timeout) { [configuration] in _ = try await SSHSession.connect(configuration) }
    configuration.connectTimeout = .seconds(30)
    let connecting = Task { [configuration] in await code { _ = try await SSHSession.connect(configuration) } }
    try await Task.sleep(for: .milliseconds(50))
    connecting.cancel()
    #expect(await connecting.value == .cancelled)
  }

  // MARK: The end

  @Test func cutConnectionIsToldToEverybody() async throws {
    try await withSSHD { sshd in
      let proxy = try TestProxy(to: sshd.port)
      defer { proxy.stop() }
      let session = try await SSHSession.connect(sshd.configuration(through: proxy.port))
      let channel = try await session.open("echo started; exec sleep 30")
      #expect(try await channel.read() == .stdout(Array("started\n".utf8)))
      async let read = code { _ = try await channel.read() }
      async let write = code { try await channel.write(pattern(8 << 20)) }
      async let exit = code { _ = try await channel.exit() }
      async let run = code { _ = try await session.run("sleep 30", deadline: .seconds(60)) }
      try await Task.sleep(for: .milliseconds(100))
      proxy.cut()
      let codes = await [read, write, exit, run]
      #expect(codes == Array(repeating: .connectionLost, count: 4))
      await fails(.connectionLost) { _ = try await session.open("true") }
      #expect(await session.fault?.code == .connectionLost)
    }
  }

  @Test func silentConnectionIsFoundOut() async throws {
    try await withSSHD { sshd in
      let proxy = try TestProxy(to: sshd.port)
      defer { proxy.stop() }
      var configuration = try sshd.configuration(through: proxy.port)
      configuration.keepaliveInterval = .seconds(1)
      configuration.keepaliveSilence = .seconds(3)
      let session = try await SSHSession.connect(configuration)
      let channel = try await session.open("exec sleep 60")
      // Longer than the allowed silence: a quiet command isn't a dead link.
      await fails(.timeout) { _ = try await channel.read(deadline: .seconds(5)) }
      proxy.goSilent()
      let start = ContinuousClock.now
      async let write = code { try await channel.write(pattern(8 << 20)) }
      await fails(.connectionLost) { _ = try await channel.read() }
      let written = await write
      #expect(written == .connectionLost)
      #expect(ContinuousClock.now - start < .seconds(10))
      await session.close()
    }
  }
}

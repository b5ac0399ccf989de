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

/// Bytes that don't repeat within a packet or a window.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
  var state = seed
  return [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
    let raw = UnsafeMutableRawBufferPointer(buffer)
    var position = 0
    while position < count {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      if position + 8 <= count {
        raw.storeBytes(of: state, toByteOffset: position, as: UInt64.self)
      } else {
        for i in position..<count { buffer[i] = UInt8(truncatingIfNeeded: state >> 40) }
      }
      position += 8
    }
    initialized = count
  }
}

/// Whether they are equal, without millions of bytes in the message if not.
func same(_ a: [UInt8], _ b: [UInt8]) -> Bool {
  if a == b { return true }
  Issue.record("\(a.count) bytes, not \(b.count), or others: \(String(decoding: a.prefix(300), as: UTF8.self))")
  return false
}

extension SSHChannel {
  /// Everything until the end.
  func readAll() async throws -> (stdout: [UInt8], stderr: [UInt8]) {
    var all: (stdout: [UInt8], stderr: [UInt8]) = ([], [])
    while let chunk = try await read() {
      switch chunk {
      case .stdout(let bytes): all.stdout += bytes
      case .stderr(let bytes): all.stderr += bytes
      }
    }
    return all
  }
}

/// The code of the SSHError that `body` throws; nil if it throws none.
func code(_ body: () async throws -> Void) async -> SSHError.Code? { await fault(body)?.code }

func fails(
  _ expected: SSHError.Code, sourceLocation: Testing.SourceLocation = #_sourceLocation, _ body: () async throws -> Void
) async {
  let error = await fault(body)
  #expect(error?.code == expected, "\(error?.description ?? "no error")", sourceLocation: sourceLocation)
}

func fault(_ body: () async throws -> Void) async -> SSHError? {
  do { try await body() } catch { return error as? SSHError }
  return nil
}

@Suite(.needsSSHD, .serialized, .timeLimit(.minutes(5)))
struct SessionTests {
  @Test func execKeepsStreamsApartAndTellsTheStatus() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      let result = try await session.run(
        "echo out; echo err >&2; cat; exit 3", stdin: Array("in".utf8), deadline: .seconds(60))
      #expect(result.text == "out\nin")
      #expect(result.errorText == "err\n")
      #expect(result.exit == .status(3))
      #expect(await session.timings.roundTrips == 6)
      #expect(await session.serverVersion?.hasPrefix("OpenSSH") == true)
      await session.close()
    }
  }

  @Test func exitsAreTold() async throws {
    let table: [(String, SSHExit)] = [
      ("true", .status(0)), ("false", .status(1)), ("exit 255", .status(255)),
      ("kill -KILL $$", .signal(name: "KILL", coreDumped: false, message: "")),
      ("kill -TERM $$", .signal(name: "TERM", coreDumped: false, message: "")),
      ("exec >&- 2>&-; sleep 0.3; exit 7", .status(7)),
    ]
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      for (command, exit) in table {
        #expect(try await session.run(command, deadline: .seconds(60)).exit == exit, "\(command)")
      }
      await session.close()
    }
  }

  @Test(arguments: ["", "RekeyLimit 1M"])
  func eightMiBBothWaysAtOnce(extra: String) async throws {
    try await withSSHD(extra: extra) { sshd in
      let session = try await sshd.connect()
      let channel = try await session.open("tee /dev/stderr")
      let data = pattern(8 << 20)
      async let output = channel.readAll()
      for start in stride(from: 0, to: data.count, by: 300_001) {
        try await channel.write(Array(data[start..<min(data.count, start + 300_001)]))
      }
      await channel.sendEOF()
      let (stdout, stderr) = try await output
      #expect(same(stdout, data))
      #expect(same(stderr, data))
      #expect(try await channel.exit() == .status(0))
      await session.close()
    }
  }

  @Test func channelsDontDisturbEachOther() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for number in 0..<8 {
          group.addTask {
            let data = pattern(1 << 20, seed: UInt64(number + 2))
            for _ in 0..<3 {
              let result = try await session.run("cat; exit \(number)", stdin: data, deadline: .seconds(60))
              #expect(same(result.stdout, data))
              #expect(result.exit == .status(number))
            }
          }
        }
        try await group.waitForAll()
      }
      await session.close()
    }
  }

  /// A wake-up that gets lost shows as a hang here.
  @Test func manySmallCommandsSideBySide() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for task in 0..<6 {
          group.addTask {
            for number in 0..<25 {
              let result = try await session.run("echo \(task) \(number)", deadline: .seconds(60))
              #expect(result.text == "\(task) \(number)\n")
            }
          }
        }
        try await group.waitForAll()
      }
      await session.close()
    }
  }

  @Test func conversationAnswersAtOnce() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      let channel = try await session.open("cat")
      var times: [Duration] = []
      for number in 0..<100 {
        let start = ContinuousClock.now
        let line = Array("line \(number)\n".utf8)
        try await channel.write(line)
        #expect(try await channel.read(deadline: .seconds(60)) == .stdout(line))
        times.append(ContinuousClock.now - start)
      }
      #expect(times.sorted()[50] < .milliseconds(38))  // a delayed acknowledgement each would be 40 ms
      await channel.sendEOF()
      #expect(try await channel.read() == nil)
      #expect(try await channel.exit() == .status(0))
      await session.close()
    }
  }

  @Test func cancellingLeavesTheSessionUsable() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      let channel = try await session.open("echo started; exec sleep 30")
      #expect(try await channel.read() == .stdout(Array("started\n".utf8)))
      let reading = Task { await code { _ = try await channel.read() } }
      let ending = Task { await code { _ = try await channel.exit() } }
      reading.cancel()
      ending.cancel()
      #expect(await reading.value == .cancelled)
      #expect(await ending.value == .cancelled)
      // Opening is cancelled half way, many times: whatever the host says to those must not reach the next one.
      for _ in 0..<20 {
        let opening = Task { await code { _ = try await session.open("true") } }
        await Task.yield()
        opening.cancel()
        _ = await opening.value
        #expect(try await session.run("echo ok", deadline: .seconds(60)).text == "ok\n")
      }
      await session.close()
    }
  }

  @Test func deadlinesLeaveTheSessionUsable() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      let start = ContinuousClock.now
      await fails(.timeout) { _ = try await session.run("exec sleep 30", deadline: .milliseconds(400)) }
      let channel = try await session.open("exec sleep 30")
      await fails(.timeout) { _ = try await channel.read(deadline: .milliseconds(100)) }
      await fails(.timeout) { _ = try await channel.exit(deadline: .milliseconds(100)) }
      await channel.close()
      await fails(.channelClosed) { _ = try await channel.read() }
      await fails(.channelClosed) { try await channel.write([1]) }
      #expect(try await session.run("echo ok", deadline: .seconds(60)).text == "ok\n")
      await session.close()
      await fails(.channelClosed) { _ = try await session.open("true") }
      #expect(ContinuousClock.now - start < .seconds(25))  // nothing waited for the sleeps
    }
  }

  @Test func inputOfACommandThatEndsEarly() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      let result = try await session.run("echo done; exit 4", stdin: pattern(8 << 20), deadline: .seconds(60))
      #expect(result.text == "done\n")
      #expect(result.exit == .status(4))
      let channel = try await session.open("exit 0")
      #expect(try await channel.exit() == .status(0))
      await fails(.channelClosed) { try await channel.write(pattern(8 << 20)) }
      await session.close()
    }
  }

  @Test func outputOverTheLimitIsDropped() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      let result = try await session.run("head -c 3000000 /dev/zero", deadline: .seconds(60), limit: 1000)
      #expect(result.stdout.count == 1000)
      #expect(result.truncated)
      #expect(result.exit == .status(0))
      await session.close()
    }
  }

  /// Somebody who doesn't read holds the remote writer up, and not our memory.
  @Test func slowReaderHoldsTheHostUp() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      let channel = try await session.open("head -c 33554432 /dev/zero; echo end >&2")
      var total = 0
      var most = 0
      while let chunk = try await channel.read() {
        total += chunk.bytes.count
        most = max(most, channel.state.incomingBytes)
        if total % 7 == 0 { _ = try await session.run("true", deadline: .seconds(60)) }
      }
      #expect(total == 33_554_432 + 4)
      #expect(most < 8 << 20)
      await session.close()
    }
  }

  @Test func filesGoUpAndDown() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      let data = pattern(3 << 20)
      let path = sshd.scratch.file("it's a file")
      try await session.upload(data, to: path, deadline: .seconds(60))
      #expect(same(FileManager.default.contents(atPath: path).map([UInt8].init) ?? [], data))
      #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == 0o600)
      let received = Received()
      try await session.download(path, deadline: .seconds(60)) { await received.append($0) }
      #expect(same(await received.bytes, data))
      await fails(.remoteFailure) { try await session.upload(data, to: "/no/such/folder/x", deadline: .seconds(60)) }
      await fails(.remoteFailure) { try await session.download("/no/such/file", deadline: .seconds(60)) { _ in } }
      await session.close()
    }
  }

  private actor Received {
    var bytes: [UInt8] = []
    func append(_ more: [UInt8]) { bytes += more }
  }

  @Test func terminal() async throws {
    try await withSSHD { sshd in
      let session = try await sshd.connect()
      let channel = try await session.shell(
        "stty size; read answer; stty size; exit 5", terminal: SSHTerminal(type: "vt100", columns: 91, rows: 33))
      #expect(try await channel.read(deadline: .seconds(60)) == .stdout(Array("33 91\r\n".utf8)))
      await channel.resize(columns: 100, rows: 40)
      try await channel.write(Array("\n".utf8))
      let (stdout, _) = try await channel.readAll()
      #expect(String(decoding: stdout, as: UTF8.self).contains("40 100"))
      #expect(try await channel.exit() == .status(5))
      await session.close()
    }
  }

  /// The channel that is asked for ahead is refused: whoever opens one is told, and the session lives.
  @Test func aHostThatGrantsNoChannel() async throws {
    try await withSSHD(extra: "MaxSessions 0") { sshd in
      let session = try await sshd.connect()
      for _ in 0..<2 { await fails(.channelOpenFailed) { _ = try await session.open("true") } }
      #expect(await session.fault == nil)
      await session.close()
    }
  }

  @Test func refusedChannel() async throws {
    try await withSSHD(extra: "MaxSessions 1") { sshd in
      let session = try await sshd.connect()
      let channel = try await session.open("cat")
      await fails(.channelOpenFailed) { _ = try await session.open("true") }
      await channel.sendEOF()
      #expect(try await channel.read() == nil)
      #expect(try await channel.exit() == .status(0))
      // sshd counts the old channel until it has cleaned up, a moment after both sides have closed it.
      var text: String?
      for _ in 0..<500 where text == nil {
        do { text = try await session.run("echo ok", deadline: .seconds(60)).text } catch let error as SSHError {
          #expect(error.code == .channelOpenFailed)
          try await Task.sleep(for: .milliseconds(10))
        }
      }
      #expect(text == "ok\n")
      await session.close()
    }
  }

  /// Dropped without `close`: nothing stays open.
  @Test func droppedSessionsAreFreed() async throws {
    try await withSSHD { sshd in
      weak var seen: SSHSession?
      try await {
        let session = try await sshd.connect()
        seen = session
        #expect(try await session.run("echo ok", deadline: .seconds(60)).text == "ok\n")
        _ = try await session.open("exec sleep 30")
      }()
      for _ in 0..<500 where seen != nil { try await Task.sleep(for: .milliseconds(10)) }
      #expect(seen == nil)
    }
  }
}

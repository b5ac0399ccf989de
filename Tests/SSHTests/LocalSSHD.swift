import Foundation
import SSH
import Testing

/// A folder that is removed with its owner.
final class Scratch: Sendable {
  let path: String

  init() throws {
    path = FileManager.default.temporaryDirectory.path + "/ssh-tests-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { path + "/" + name }
  func read(_ name: String) throws -> String { try String(contentsOfFile: file(name), encoding: .utf8) }
  func write(_ name: String, _ text: String) throws { try text.write(toFile: file(name), atomically: true, encoding: .utf8) }
}

/// Runs a local tool to its end.
@discardableResult
func tool(_ path: String, _ arguments: [String], environment: [String: String] = [:]) throws -> String {
  let process = Process()
  process.executableURL = URL(filePath: path)
  process.arguments = arguments
  process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
  let output = Pipe()
  process.standardOutput = output
  process.standardError = output
  process.standardInput = FileHandle.nullDevice
  try process.run()
  let data = output.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  let text = String(decoding: data, as: UTF8.self)
  guard process.terminationStatus == 0 else { throw ToolFailure(text: "\(path) \(arguments): \(text)") }
  return text
}

struct ToolFailure: Error { var text: String }

/// An sshd of our own on a free port of 127.0.0.1, with its own keys and configuration; ended by its pid.
final class LocalSSHD: @unchecked Sendable {
  let scratch: Scratch
  let port: UInt16
  private let process: Process
  let user = NSUserName()

  static let isAvailable = FileManager.default.fileExists(atPath: "/usr/sbin/sshd")

  /// The client's keys that it accepts, made beforehand: ed25519, ecdsa, rsa, and an encrypted one.
  init(hostKeys: [String] = ["ed25519", "ecdsa", "rsa"], extra: String = "") throws {
    scratch = try Scratch()
    for type in hostKeys { try Self.makeKey(scratch.file("host_" + type), type) }
    var authorized = ""
    for type in ["ed25519", "ecdsa", "rsa"] {
      try Self.makeKey(scratch.file("id_" + type), type)
      authorized += try scratch.read("id_\(type).pub")
    }
    try Self.makeKey(scratch.file("id_encrypted"), "ed25519", passphrase: "correct horse")
    authorized += try scratch.read("id_encrypted.pub")
    try scratch.write("authorized_keys", authorized)
    try? FileManager.default.createDirectory(atPath: "/run/sshd", withIntermediateDirectories: true)

    let hostKeyLines = hostKeys.map { [scratch] in "HostKey \(scratch.file("host_" + $0))" }.joined(separator: "\n")
    let log = scratch.file("sshd.log")
    var started: (Process, UInt16)?
    for _ in 0..<10 where started == nil {
      let port = try freePort()
      try scratch.write(
        "sshd_config",
        """
        Port \(port)
        ListenAddress 127.0.0.1
        \(hostKeyLines)
        AuthorizedKeysFile \(scratch.file("authorized_keys"))
        PidFile none
        StrictModes no
        UsePAM no
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        PermitRootLogin yes
        AllowTcpForwarding yes
        UseDNS no
        MaxStartups 100
        LogLevel ERROR
        \(extra)
        """)
      started = Self.start(config: scratch.file("sshd_config"), log: log, port: port).map { ($0, port) }
    }
    guard let started else { throw ToolFailure(text: "sshd didn't start: \((try? String(contentsOfFile: log, encoding: .utf8)) ?? "")") }
    (process, port) = started
  }

  deinit {
    process.terminate()
    process.waitUntilExit()
  }

  private static func start(config: String, log: String, port: UInt16) -> Process? {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/sbin/sshd")
    process.arguments = ["-D", "-f", config, "-E", log]
    process.standardInput = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return nil }
    while process.isRunning {
      if canConnect(port) { return process }
      usleep(5000)
    }
    return nil
  }

  static func makeKey(_ path: String, _ type: String, passphrase: String = "", arguments: [String] = []) throws {
    var command = ["-q", "-t", type, "-N", passphrase, "-C", "test-\(type)", "-f", path]
    if type == "rsa" { command += ["-b", "2048"] }
    if !passphrase.isEmpty { command += ["-a", "1"] }  // one round: the tests are a debug build
    try tool("/usr/bin/ssh-keygen", command + arguments)
  }

  /// known_hosts as ssh-keyscan would write it.
  func knownHosts(_ types: [String] = ["ed25519", "ecdsa", "rsa"]) throws -> String {
    try types.map { "[127.0.0.1]:\(port) " + (try scratch.read("host_\($0).pub")) }.joined()
  }

  func configuration(key: String = "id_ed25519") throws -> SSHConfiguration {
    try scratch.write("known_hosts", try knownHosts())
    return SSHConfiguration(
      host: "test", address: "127.0.0.1", port: port, user: user, identities: [.file(path: scratch.file(key))], agent: false,
      knownHostsFiles: [scratch.file("known_hosts")])
  }

  func connect(key: String = "id_ed25519") async throws -> SSHSession {
    try await SSHSession.connect(configuration(key: key))
  }
}

private func loopbackAddress(_ port: UInt16) -> sockaddr_in {
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
  return address
}

func streamSocket() -> Int32 {
  #if canImport(Glibc)
    socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  #else
    socket(AF_INET, SOCK_STREAM, 0)
  #endif
}

/// A listening socket on 127.0.0.1 and its port.
func listener(port: UInt16 = 0) throws -> (descriptor: Int32, port: UInt16) {
  let descriptor = streamSocket()
  var address = loopbackAddress(port)
  var length = socklen_t(MemoryLayout<sockaddr_in>.size)
  let bound = withUnsafeMutablePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
    }
  }
  guard bound, listen(descriptor, 64) == 0 else {
    close(descriptor)
    throw ToolFailure(text: "no free port")
  }
  return (descriptor, UInt16(bigEndian: address.sin_port))
}

func freePort() throws -> UInt16 {
  let (descriptor, port) = try listener()
  close(descriptor)
  return port
}

func connectLoopback(_ port: UInt16) -> Int32? {
  let descriptor = streamSocket()
  var address = loopbackAddress(port)
  let status = withUnsafeMutablePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Foundation.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
  }
  if status == 0 { return descriptor }
  close(descriptor)
  return nil
}

func canConnect(_ port: UInt16) -> Bool {
  guard let descriptor = connectLoopback(port) else { return false }
  close(descriptor)
  return true
}

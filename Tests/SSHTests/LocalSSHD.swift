import Foundation
import SSH
import Testing

/// A folder that is removed with its owner.
final class Scratch: Sendable {
  let path: String

  init() throws {
    path = FileManager.default.temporaryDirectory.path + "/ssh-tests-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { path + "/" + name }
  func read(_ name: String) throws -> String { try String(contentsOfFile: file(name), encoding: .utf8) }
  func write(_ name: String, _ text: String) throws {
    try text.write(toFile: file(name), atomically: true, encoding: .utf8)
  }
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

/// The keys that all tests share: made once, removed when the tests end.
enum TestKeys {
  nonisolated(unsafe) private static var folder: UnsafeMutablePointer<CChar>?

  static let path: String = {
    let path = FileManager.default.temporaryDirectory.path + "/ssh-keys-" + UUID().uuidString.prefix(8)
    try! FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    folder = strdup(path)
    atexit { try? FileManager.default.removeItem(atPath: String(cString: TestKeys.folder!)) }
    for type in ["ed25519", "ecdsa", "rsa"] {
      try! make(path + "/id_" + type, type)
      if type != "rsa" { try! make(path + "/host_" + type, type) }
    }
    try! copy("id_rsa", "host_rsa", [])
    try! make(path + "/id_ecdsa384", "ecdsa", arguments: ["-b", "384"])
    try! make(path + "/id_ecdsa521", "ecdsa", arguments: ["-b", "521"])
    try! copy("id_rsa", "id_rsa_pem", ["-m", "PEM", "-N", ""])
    try! copy("id_ecdsa", "id_ecdsa_pem", ["-m", "PEM", "-N", ""])
    try! copy("id_rsa", "id_rsa_pkcs8", ["-m", "PKCS8", "-N", passphrase])
    try! make(path + "/id_encrypted", "ed25519", passphrase: passphrase)
    try! copy("id_rsa", "id_encrypted_rsa", ["-a", "1", "-N", passphrase])
    try! make(path + "/id_encrypted_gcm", "ecdsa", passphrase: passphrase, arguments: ["-Z", "aes256-gcm@openssh.com"])
    try! make(path + "/id_encrypted_cbc", "ed25519", passphrase: passphrase, arguments: ["-Z", "aes128-cbc"])
    try! make(path + "/id_stranger", "ed25519")
    try! make(path + "/id_stranger_encrypted", "ed25519", passphrase: passphrase)
    func copy(_ name: String, _ new: String, _ change: [String]) throws {
      for suffix in ["", ".pub"] {
        try FileManager.default.copyItem(atPath: "\(path)/\(name)\(suffix)", toPath: "\(path)/\(new)\(suffix)")
      }
      if !change.isEmpty { try tool("/usr/bin/ssh-keygen", ["-q", "-p", "-P", "", "-f", "\(path)/\(new)"] + change) }
    }
    return path
  }()

  static let passphrase = "correct horse"
  static let accepted = [
    "id_ed25519", "id_ecdsa", "id_rsa", "id_ecdsa384", "id_ecdsa521", "id_rsa_pem", "id_ecdsa_pem", "id_rsa_pkcs8",
    "id_encrypted",
    "id_encrypted_rsa", "id_encrypted_gcm", "id_encrypted_cbc",
  ]

  static func file(_ name: String) -> String { path + "/" + name }
  static func read(_ name: String) throws -> String { try String(contentsOfFile: file(name), encoding: .utf8) }

  private static func make(_ path: String, _ type: String, passphrase: String = "", arguments: [String] = []) throws {
    var command = ["-q", "-t", type, "-N", passphrase, "-C", "test-\(type)", "-f", path] + arguments
    if type == "rsa" { command += ["-b", "2048"] }
    if !passphrase.isEmpty { command += ["-a", "1"] }  // one round: the tests are a debug build
    try tool("/usr/bin/ssh-keygen", command)
  }
}

/// Runs `body` with an sshd of our own on a free port of 127.0.0.1, with its own configuration; ended by its pid.
func withSSHD<T>(
  hostKeys: [String] = ["ed25519", "ecdsa", "rsa"], extra: String = "", _ body: (LocalSSHD) async throws -> T
) async throws -> T {
  let sshd = try LocalSSHD(hostKeys: hostKeys, extra: extra)
  defer { sshd.stop() }
  return try await body(sshd)
}

final class LocalSSHD: Sendable {
  let scratch: Scratch
  let port: UInt16
  let user = NSUserName()
  private let pid: pid_t

  static let isAvailable = FileManager.default.fileExists(atPath: "/usr/sbin/sshd")

  fileprivate init(hostKeys: [String], extra: String) throws {
    let scratch = try Scratch()
    self.scratch = scratch
    try scratch.write("authorized_keys", try TestKeys.accepted.map { try TestKeys.read($0 + ".pub") }.joined())
    try? FileManager.default.createDirectory(atPath: "/run/sshd", withIntermediateDirectories: true)
    let hostKeyLines = hostKeys.map { "HostKey " + TestKeys.file("host_" + $0) }.joined(separator: "\n")
    let log = scratch.file("sshd.log")
    var started: (pid_t, UInt16)?
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
        SetEnv HOME=\(scratch.path)
        \(extra)
        """)
      started = Self.start(["-D", "-f", scratch.file("sshd_config"), "-E", log], port: port).map { ($0, port) }
    }
    guard let started else {
      throw ToolFailure(text: "sshd didn't start: \((try? String(contentsOfFile: log, encoding: .utf8)) ?? "")")
    }
    (pid, port) = started
  }

  func stop() {
    kill(pid, SIGTERM)
    var status: Int32 = 0
    waitpid(pid, &status, 0)
  }

  private static func start(_ arguments: [String], port: UInt16) -> pid_t? {
    guard let pid = spawn("/usr/sbin/sshd", arguments) else { return nil }
    var status: Int32 = 0
    while waitpid(pid, &status, WNOHANG) == 0 {
      if canConnect(port) { return pid }
      usleep(5000)
    }
    return nil
  }

  /// known_hosts as ssh-keyscan would write it.
  func knownHosts(_ types: [String] = ["ed25519", "ecdsa", "rsa"]) throws -> String {
    try types.map { "[127.0.0.1]:\(port) " + (try TestKeys.read("host_\($0).pub")) }.joined()
  }

  /// A client's configuration that trusts this server. `through` is the port of a proxy in between.
  func configuration(key: String = "id_ed25519", through proxy: UInt16? = nil, known: String? = nil) throws
    -> SSHConfiguration
  {
    let file = scratch.file("known_hosts-" + UUID().uuidString.prefix(8))
    try (known ?? knownHosts().replacingOccurrences(of: ":\(port) ", with: ":\(proxy ?? port) "))
      .write(toFile: file, atomically: true, encoding: .utf8)
    var configuration = SSHConfiguration(
      host: "test", address: "127.0.0.1", port: proxy ?? port, user: user,
      identities: [.file(path: TestKeys.file(key))],
      agent: false, knownHostsFiles: [file])
    configuration.connectTimeout = .seconds(60)  // a machine may be busy
    return configuration
  }

  func connect(key: String = "id_ed25519") async throws -> SSHSession {
    try await SSHSession.connect(configuration(key: key))
  }
}

/// Starts a program with no standard input; its output is dropped.
func spawn(_ path: String, _ arguments: [String]) -> pid_t? {
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
  for descriptor in 3..<64 { posix_spawn_file_actions_addclose(&actions, Int32(descriptor)) }
  // The threads of a test block signals, and children inherit that: SIGTERM would never reach an agent.
  var attributes = posix_spawnattr_t()
  posix_spawnattr_init(&attributes)
  defer { posix_spawnattr_destroy(&attributes) }
  var none = sigset_t()
  sigemptyset(&none)
  posix_spawnattr_setsigmask(&attributes, &none)
  posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
  var argv: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
  defer { argv.forEach { free($0) } }
  var pid: pid_t = 0
  return posix_spawn(&pid, path, &actions, &attributes, &argv, environ) == 0 ? pid : nil
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
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      Foundation.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
    }
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

import Diagnostics
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// What sessions share that belong together: private keys that are open and known_hosts files that are read. A passphrase is asked for once and a key
/// derived once, however many hosts there are and however often one is connected to again; what a person answered
/// stands, also if it was wrong three times.
public final class SSHCache: Sendable {
  private struct Content {
    var openers: [[UInt8]: KeyOpener] = [:]
    var knownHosts: [[String]: (stamps: [FileStamp?], read: KnownHosts)] = [:]
  }
  private let content = Mutex(Content())
  let questions = QuestionQueue()

  public init() {}

  func opener(of text: [UInt8], name: String, else fresh: KeyOpener) -> KeyOpener {
    content.withLock {
      let key = Array(name.utf8) + [0] + text
      if let opener = $0.openers[key] { return opener }
      $0.openers[key] = fresh
      return fresh
    }
  }

  /// What the files hold, as long as they are the same; else what `read` finds.
  func knownHosts<Fault: Error>(_ files: [String], else read: () throws(Fault) -> KnownHosts) throws(Fault)
    -> KnownHosts
  {
    let stamps = files.map(FileStamp.init)
    if let known = content.withLock({ $0.knownHosts[files] }), known.stamps == stamps { return known.read }
    let fresh = try read()
    content.withLock { $0.knownHosts[files] = (stamps, fresh) }
    return fresh
  }
}

/// Which file it is, and in which state (stat(2)).
private struct FileStamp: Equatable {
  var device: UInt64
  var inode: UInt64
  var size: Int64
  var seconds: Int
  var nanoseconds: Int

  /// Nil: there is none.
  init?(_ path: String) {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    device = UInt64(truncatingIfNeeded: status.st_dev)
    inode = UInt64(status.st_ino)
    size = Int64(status.st_size)
    #if canImport(Darwin)
      let changed = status.st_ctimespec
    #else
      let changed = status.st_ctim
    #endif
    (seconds, nanoseconds) = (changed.tv_sec, changed.tv_nsec)
  }
}

/// Questions for the one person at the terminal, one after the other.
actor QuestionQueue {
  private var last: Task<Secret?, Never>?

  func ask(_ question: @escaping @Sendable () async -> Secret?) async -> Secret? {
    let before = last
    let task = Task {
      _ = await before?.value
      return await question()
    }
    last = task
    return await task.value
  }
}

/// Opens a private key once, asking for its passphrase if it has one.
actor KeyOpener {
  /// As often as ssh(1) asks.
  private static let attempts = 3

  let file: PrivateKeyFile
  let name: String
  let passphrase: (@Sendable (String) async -> Secret?)?
  let queue: QuestionQueue
  private var opening: Task<Result<PrivateKey, SSHError>, Never>?

  init(
    file: PrivateKeyFile, name: String, passphrase: (@Sendable (String) async -> Secret?)?, queue: QuestionQueue
  ) {
    self.file = file
    self.name = name
    self.passphrase = passphrase
    self.queue = queue
  }

  /// Whoever else waits for the same key gets the same answer.
  func open() async -> Result<PrivateKey, SSHError> {
    let task = opening ?? Task { await openNow() }
    opening = task
    return await task.value
  }

  private func openNow() async -> Result<PrivateKey, SSHError> {
    guard file.isEncrypted else { return await open(with: nil) }
    guard let passphrase else { return .failure(Self.describe(.passphrase, name)) }
    var result: Result<PrivateKey, SSHError> = .failure(Self.describe(.passphrase, name))
    for _ in 0..<Self.attempts {
      guard let secret = await queue.ask({ [name] in await passphrase(name) }) else { return result }
      result = await open(with: Array(secret.reveal().utf8))
      guard case .failure(let fault) = result, fault.code == .passphraseNeeded else { return result }
    }
    return result
  }

  private func open(with given: [UInt8]?) async -> Result<PrivateKey, SSHError> {
    let result = await offLoop { [file] in
      Result { () throws(PrivateKeyFile.Fault) in try file.open(passphrase: given) }
    }
    switch result {
    case .success(let key): return .success(key)
    case .failure(.passphrase) where given != nil:
      return .failure(SSHError(.passphraseNeeded, "the passphrase for the key \(name) is wrong"))
    case .failure(let fault): return .failure(Self.describe(fault, name))
    }
  }

  static func describe(_ fault: PrivateKeyFile.Fault, _ name: String) -> SSHError {
    switch fault {
    case .notAKey: SSHError(.keyUnreadable, "\(name) isn't a private key in OpenSSH's or PEM form")
    case .unsupported(let why): SSHError(.keyUnreadable, "the key \(name) can't be used: \(why)")
    case .passphrase: SSHError(.passphraseNeeded, "the key \(name) is encrypted, and its passphrase wasn't given")
    }
  }
}

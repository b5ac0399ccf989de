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
/// derived once, however many hosts there are and however often one is connected to again; what a person answered stands, also if it was wrong.
public final class SSHCache: Sendable {
  private struct Content {
    var openers: [[UInt8]: KeyOpener] = [:]
    var knownHosts: [[String]: (stamps: [FileStamp?], read: KnownHosts)] = [:]
  }
  private let content = Mutex(Content())

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

/// How long a person has been asked for passphrases: that time isn't the host's.
final class PersonClock: @unchecked Sendable {  // written by one task at a time, read roughly
  var seconds = 0.0
  var asking = false
}

/// Opens a private key once, asking for its passphrase if it has one.
actor KeyOpener {
  let file: PrivateKeyFile
  let name: String
  let passphrase: (@Sendable (String) async -> Secret?)?
  private var opening: Task<Result<PrivateKey, SSHError>, Never>?

  init(file: PrivateKeyFile, name: String, passphrase: (@Sendable (String) async -> Secret?)?) {
    self.file = file
    self.name = name
    self.passphrase = passphrase
  }

  /// - Parameter clock: stands while a person is asked, whoever it was that asked.
  func open(_ clock: PersonClock) async -> Result<PrivateKey, SSHError> {
    let task = opening ?? Task { await openNow() }
    opening = task
    guard file.isEncrypted else { return await task.value }
    let start = monotonicSeconds()
    clock.asking = true
    let result = await task.value
    clock.asking = false
    clock.seconds += monotonicSeconds() - start
    return result
  }

  private func openNow() async -> Result<PrivateKey, SSHError> {
    var given: [UInt8]?
    if file.isEncrypted {
      guard let secret = await passphrase?(name) else {
        return .failure(SSHError(.passphraseNeeded, "the key \(name) is encrypted, and its passphrase wasn't given"))
      }
      given = Array(secret.reveal().utf8)
    }
    let result = await offLoop { [file, given] in
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

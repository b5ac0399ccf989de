internal import Diagnostics
internal import Inventory

/// One deployment on one host, from the lock to the outcome: the client's half of the transaction.
///
/// The host decides and remembers; this half hands it steps, answers what only the client can answer, and tells what happens. It may
/// vanish at any instant (docs/reliability.md). `run` is called once; `interrupt` may be called from anywhere at any time.
public actor DeploymentRun {
  let request: DeploymentRequest
  let host: String
  let catalog: StepCatalog
  let client: any DeploymentClient
  let emit: @Sendable (DeploymentEvent) -> Void

  var attachment: Attachment?
  var log: AsyncThrowingStream<LogItem, any Error>.AsyncIterator?
  var logOffset = 0
  /// Of the deployment whose log is followed.
  var logNonce: String
  /// The first batch has come with the request for the lock, and is at work.
  var takenAhead = false
  /// The release that was current when the lock was granted; 0: none.
  var previousAtOpening = 0
  var beats: Task<Void, Never>?
  var logWatch: Task<Void, Never>?
  let begun: Double

  // What is known of the deployment.
  var number: Int?
  var preparation: Preparation
  /// Of the release before the running one, as they were at the last look.
  var previousFiles: Preparation.ReleaseFiles?
  /// Rollback and rotation: the steps, with the settings of the releases concerned.
  var stepsBack: [StepSpec] = []
  /// After authentication: exchanges that this side or the host had to wait for. What overlaps with a step's work isn't one: signs of life, the
  /// seal, replies to steps.
  var roundTrips = 0
  var interrupted: String?
  /// The lock has been asked for, and no answer has come yet.
  var queuing = false
  var detached = false
  /// Detach as soon as the host can go on alone.
  private var wantsDetach: Bool
  /// Counts the connections: what an older one still brings is dropped, since the new one begins where we were.
  var connection = 0
  var reconnection: Task<Void, any Error>?
  /// The connection was lost, and is given up.
  var abandoned: OrchestrateError?
  var clientStep: Task<ClientStepResult, Never>?
  /// "Abort or detach?", while it is open.
  var stopQuestion: Task<Void, Never>?
  /// Waits for the answer to the question of this number.
  var asking: CheckedContinuation<String?, Never>?
  var questions = 0
  var refusedAsClosed = false
  /// What bootstrap has found.
  public internal(set) var plan: Plan?
  /// The plan was empty: the deployment is closed without a change.
  var nothingToDo = false
  var reader: EventReader
  /// The release is committed, and its watch is followed.
  var isWatching = false
  /// A breach: what was read of the deployment up to then. `reader` follows the way back.
  var watched: EventReader?
  /// A person doesn't follow the watch any more.
  var hasLeftWatch = false
  /// Steps of the current batches by directory, for client-side steps.
  private var specs: [String: StepSpec] = [:]
  private var endedDirectories: Set<String> = []
  private var succeeded: Set<String> = []
  var fromVersion: String? { preparation.from }
  var toVersion: String?

  public init(
    request: DeploymentRequest, host: String, catalog: StepCatalog, client: any DeploymentClient,
    sha256: @escaping @Sendable ([UInt8]) -> String, emit: @escaping @Sendable (DeploymentEvent) -> Void
  ) {
    self.request = request
    self.host = host
    self.catalog = catalog
    self.client = client
    self.emit = emit
    reader = EventReader(host: host)
    logNonce = request.nonce
    wantsDetach = request.detach
    begun = client.uptime()
    var version = ""
    if case .deploy(let wanted) = request.kind { version = wanted }
    preparation = Preparation(request: request, host: host, version: version, sha256: sha256)
    toVersion = version.isEmpty ? nil : version
  }

  /// Carries the deployment out. Never throws: whatever happens is in the summary, which is also the last event.
  public func run() async -> DeploymentSummary {
    var summary: DeploymentSummary
    do {
      try await perform()
      summary = makeSummary(problem: problemOfOutcome())
    } catch let error as OrchestrateError {
      summary = makeSummary(problem: await settle(after: error))
    } catch let error as ConfigurationError {
      let text = error.diagnostics.map {
        ($0.location.map { "\($0): " } ?? "") + $0.message + ($0.help.map { " (\($0))" } ?? "")
      }
      summary = makeSummary(
        problem: await settle(
          after: OrchestrateError(
            .configuration, "the environment can't be made", cause: text.joined(separator: "\n"))))
    } catch {
      summary = makeSummary(problem: await settle(after: OrchestrateError(.internalFault, "\(error)", host: host)))
    }
    beats?.cancel()
    logWatch?.cancel()
    callOffStopQuestion()
    await stopQuestion?.value
    await attachment?.close()
    emit(.finished(summary))
    return summary
  }

  /// First kind of Ctrl-C: the running step ends, then the host undoes. Says so, since whoever interrupts may kill us before that is done (a cancelled CI
  /// job), and returns at once; `run` goes on to tell the outcome.
  public func interrupt(reason: String) async {
    if interrupted == nil, number != nil, reader.outcome == nil, !reader.committed, reader.undoText == nil {
      let environment = request.inventory.environment
      emit(.notice(host: host, text: "\(reason): \(abortText); orchestrate attach \(environment) shows it, too"))
    }
    await abort(reason: reason)
  }

  /// What becomes of an abort, in words.
  var abortText: String {
    let step = reader.step.map { "the step \($0) runs to its end, then " } ?? ""
    return "\(step)the host undoes: \(fromVersion.map { "\($0) stays" } ?? "nothing runs, as before")"
  }

  func abort(reason: String) async {
    if isWatching { return await leaveWatch() }
    guard interrupted == nil else { return }
    interrupted = reason
    answered(nil, question: questions)
    if queuing { await attachment?.close() }
    guard let number, let attachment, reader.outcome == nil, !reader.committed else { return }
    roundTrips += 1
    _ = try? await attachment.request("abort \(number) \(reason.utf8.count)", body: Array(reason.utf8))
  }

  /// Hands the decision to the host: it finishes without lease. False: it has ended already, or a step still needs the client.
  public func detach() async -> Bool {
    guard let number, let attachment, reader.outcome == nil,
      let reply = try? await attachment.request("detach \(number)"), reply.tag == "ok"
    else { return false }
    detached = true
    beats?.cancel()
    await attachment.close()
    return true
  }

  /// As `detach`, now or as soon as the host can go on alone.
  func detachWhenPossible() async {
    wantsDetach = true
    guard !(await detach()), !detached, reader.outcome == nil else { return }
    emit(.notice(host: host, text: "not detached yet: the host needs this machine for what is still ahead; after that"))
  }

  /// Once everything has been handed over.
  func detachIfWanted() async {
    if wantsDetach { await detachWhenPossible() }
  }

  // MARK: - Steps

  /// Sends a batch. The next `pump` sees it run.
  func send(_ batch: StepBatch, specs batchSpecs: [String: StepSpec], seal: Bool) async throws {
    guard let number else { return }
    specs.merge(batchSpecs) { $1 }
    if takenAhead {
      takenAhead = false
      if seal { try check(try await persist("seal \(number)"), "the end of the steps was refused") }
      return
    }
    let tar = batch.tar
    roundTrips += 1
    if !batch.isEmpty {
      try check(try await persist("steps \(number) \(tar.count)", body: tar), "the steps were refused")
    }
    if seal { try check(try await persist("seal \(number)"), "the end of the steps was refused") }
  }

  /// A request that outlives the connection: made again after a reconnection. The host takes the same message twice as once.
  /// But not for ever: a host that breaks off at this very message each time won't take it.
  func persist(_ line: String, body: [UInt8]? = nil) async throws -> Reply {
    var attempt = 0
    while true {
      attempt += 1
      if let abandoned { throw abandoned }
      let used = attachment
      do {
        guard let used else { throw OrchestrateError(.outcomeUnknown, "not connected", host: host) }
        return try await used.request(line, body: body)
      } catch {
        guard number == nil || attempt < Self.patience else { throw lostError(error) }
        try await reconnect(after: error, on: used)
      }
    }
  }
  static let patience = 5

  private func check(_ reply: Reply, _ what: String) throws {
    guard reply.tag != "ok" else { return }
    refusedAsClosed = reply.text.hasSuffix(" is not open.")
    throw OrchestrateError(.failed, what, host: host, cause: reply.text)
  }

  /// Follows the log until the host has done the given steps and waits for more (false), or the deployment is closed (true).
  ///
  /// - Parameter success: false also as soon as this step has succeeded; the host goes on with those behind it.
  func pump(through directories: [String] = [], untilSuccess success: String? = nil) async throws -> Bool {
    while true {
      if let success, succeeded.contains(success) { return false }
      guard let item = try await nextLogItem() else {
        if hasLeftWatch { throw leftWatchError }
        if detached { throw detachedError() }
        throw OrchestrateError(.outcomeUnknown, "the conversation with the host ended", host: host)
      }
      logOffset = item.end
      guard let end = try await take(item) else { continue }
      // The host may have begun to wait before it saw the last batch.
      if end || success == nil && directories.allSatisfy(endedDirectories.contains) { return end }
    }
  }

  private func nextLogItem() async throws -> LogItem? {
    while true {
      if let reconnection { try await reconnection.value }
      if let abandoned { throw abandoned }
      guard var iterator = log else { return nil }
      let mine = connection, used = attachment
      do {
        let item = try await iterator.next(isolation: #isolation)
        guard mine == connection else { continue }
        log = iterator
        return item
      } catch {
        guard mine == connection else { continue }
        if hasLeftWatch { throw leftWatchError }
        if detached { throw detachedError() }
        try await reconnect(after: error, on: used)
      }
    }
  }

  /// True: closed. False: the host waits for steps. Nil: go on.
  private func take(_ item: LogItem) async throws -> Bool? {
    for event in reader.read(item) { emit(event) }
    guard case .event(let event) = item.content else { return nil }
    preparation.take(fact: event)
    switch event.name {
    case "ended":
      guard let directory = event.step else { break }
      endedDirectories.insert(directory)
      if event.members["status"]?.intValue == 0 { succeeded.insert(directory) }
    case "waiting":
      guard let directory = event.step else { return false }
      try await performClientStep(directory)
    case "closed", "watched", "breached": return true
    default: break
    }
    // What is committed or being undone can't be aborted, and is soon done.
    if reader.committed || reader.undoText != nil { callOffStopQuestion() }
    return nil
  }

  private func performClientStep(_ directory: String) async throws {
    guard let number else { return }
    let name = StepBatch.name(of: directory), spec = specs[directory]
    guard spec != nil || name.hasSuffix(Self.reachSuffix) else { return }
    let client = client, context = preparation.context
    let work = Task {
      if let spec { await client.perform(spec, context: context) } else { await self.prove() }
    }
    clientStep = work
    let result = await work.value
    clientStep = nil
    if let abandoned { throw abandoned }
    if !result.succeeded { reader.append(result.message) }
    emit(.log(host: host, step: name, text: result.message))
    var facts = ""
    for (key, value) in result.facts.sorted(by: { $0.key < $1.key }) {
      facts += "\(JSONValue.string(key).text()):\(value.text())\n"
    }
    let index = directory.prefix { $0 != "-" }
    roundTrips += 1
    let reply = try await persist(
      "result \(number) \(index) \(result.succeeded ? 0 : 1) \(facts.utf8.count)", body: Array(facts.utf8))
    if reply.tag != "ok" {
      emit(.warning(host: host, text: "the host refused the result of \(name): \(reply.text)"))
    }
    if wantsDetach { _ = await detach() }
  }
}

extension DeploymentRequest {
  var isRun: Bool { if case .run = kind { true } else { false } }
  var isBootstrap: Bool { if case .bootstrap = kind { true } else { false } }
  var isRotation: Bool { if case .rotate = kind { true } else { false } }
  var isRollback: Bool { if case .rollback = kind { true } else { false } }
}

extension Reply {
  /// The text of a `file` reply; nil: there is no such file.
  var foundText: String? { tag == "file" ? text : nil }
}

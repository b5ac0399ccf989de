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
  private var log: AsyncThrowingStream<LogItem, any Error>.AsyncIterator?
  var logOffset = 0
  /// Of the deployment whose log is followed.
  var logNonce: String
  /// The first batch has come with the request for the lock, and is at work.
  var takenAhead = false
  /// The release that was current when the lock was granted; 0: none.
  private var previousAtOpening = 0
  private var beats: Task<Void, Never>?
  private var logWatch: Task<Void, Never>?
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
  private var queuing = false
  private var detached = false
  /// Detach as soon as the host can go on alone.
  private var wantsDetach: Bool
  /// Counts the connections: what an older one still brings is dropped, since the new one begins where we were.
  private var connection = 0
  private var reconnection: Task<Void, any Error>?
  /// The connection was lost, and is given up.
  var abandoned: OrchestrateError?
  private var clientStep: Task<ClientStepResult, Never>?
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

  // MARK: - Opening

  /// Connects, and asks for the facts and for what runs now.
  /// - Parameter beforehand: what is said first.
  func connect(_ beforehand: String...) async throws {
    let attachment = try await client.attach(
      asking: beforehand + Preparation.questions(preparation.paths, withPrevious: request.isRollback))
    self.attachment = attachment
    await attachment.expectLog(nonce: request.nonce)
    // The channel, and the command on it, which asks what is true now; then the lock.
    roundTrips += 2
    try await look(attachment)
  }

  /// Connects, and asks for the facts, for what runs now, and for the lock.
  func open() async throws {
    // To start a runner takes a while: it waits for the request, which only what runs there makes whole.
    try await connect("prepare \(lockTerms)")
    try preparation.requireDocker(catalog)
    try await choose()
    let before = preparation
    try await lock(with: stepsAhead())
    if !takenAhead {
      let number = preparation.context.number
      preparation = before
      preparation.context.number = number
    }
    if previousAtOpening != preparation.context.current?.number ?? 0, let attachment {
      // Somebody else's deployment ended between our look and our lock.
      roundTrips += 1
      try await look(attachment)
      try await choose()
    }
    emit(.opened(host: host, number: number ?? 0, from: fromVersion, to: toVersion ?? ""))
    if let interrupted { throw OrchestrateError(.failed, interrupted, host: host) }
  }

  /// What a command without a version is about; before the lock, so that its holder says so.
  private func choose() async throws {
    switch request.kind {
    case .rollback(let version): try await chooseTarget(version)
    case .rotate(let key): try chooseRotation(of: key)
    default: break
    }
  }

  private var lockTerms: String {
    "\(request.nonce) \(request.lease.components.seconds) \(request.lockWait.components.seconds)"
  }

  /// Asks for the lock, and begins to follow the deployment that it opens.
  /// - Parameter steps: its first ones.
  func lock(with steps: StepBatch? = nil) async throws {
    try stopIfInterrupted()
    guard let attachment else { return }
    roundTrips += 1
    let holder = Array(holderDocument().text().utf8)
    let tar = steps?.tar ?? []
    let context = preparation.context
    let ahead = steps == nil ? "" : " \(tar.count) \(context.number) \(context.current?.number ?? 0)"
    queuing = true
    defer { queuing = false }
    do {
      // Whoever waits for the lock, or meets what was left open, waits as long as the host gives signs of life.
      let reply = try await attachment.request(
        "open \(lockTerms) \(holder.count)\(ahead)", body: holder + tar, waiting: tellWaiting)
      queuing = false
      try await take(openReply: reply)
    } catch  where number == nil && queuing {
      let lease = request.lease.components.seconds
      let late = "nothing was changed; a lock that is granted now is given back by the host after \(lease) s"
      if let interrupted { throw OrchestrateError(.failed, interrupted, host: host, state: late) }
      throw OrchestrateError(
        .unreachable, "the connection was lost while the lock was asked for", host: host, cause: Self.describe(error),
        state: late, remedy: "orchestrate lock \(request.inventory.environment)")
    }
    log = attachment.log.makeAsyncIterator()
    startBeating()
    watchForLog(on: attachment)
  }

  /// Who holds the lock that we wait for, and how many come before us.
  private nonisolated var tellWaiting: @Sendable (Reply) -> Void {
    let emit = emit, host = host, limit = Double(request.lockWait.components.seconds)
    return { reply in
      guard !reply.body.isEmpty else { return }  // only a sign of life
      let holder = LockHolder(json: reply.text) ?? LockHolder(who: "another deployment")
      let place = (try? JSONValue(parsing: reply.text))?["place"]?.intValue
      // The end of a watch is waited for in any case.
      let seconds = (try? JSONValue(parsing: reply.text))?["seconds"]?.numberValue ?? 0
      emit(.waitingForLock(host: host, holder: holder, limit: max(limit, seconds), place: place))
    }
  }

  /// Steps that need nothing but what the look has told travel with the request for the lock. The host drops them if the deployment that it opens isn't
  /// the one that they were made for; what is wrong with them is told once there is one.
  private func stepsAhead() -> StepBatch? {
    guard let sequence = preparation.context.facts.integer("sequence") else { return nil }
    preparation.context.number = Int(sequence) + 1
    return (try? batchAhead()) ?? nil
  }

  /// What the host says before anything is asked of it; from then on its secrets are known.
  private func look(_ attachment: Attachment) async throws {
    let state = try await Preparation.hostState(
      attachment, paths: preparation.paths, host: host, withPrevious: request.isRollback)
    preparation.take(state, now: client.now())
    previousFiles = state.previous
    emit(.secrets(preparation.secretsOfHost(client)))
  }

  private func stopIfInterrupted() throws {
    guard let interrupted else { return }
    throw OrchestrateError(.failed, interrupted, host: host, state: "nothing was changed")
  }

  /// The log's first event is written by the time of the grant. Where it doesn't come, whoever shows the log on the host has died: a new
  /// connection brings another.
  private func watchForLog(on used: Attachment) {
    logWatch = Task { [weak self, host, client] in
      do { try await client.sleep(.seconds(30)) } catch { return }
      guard await !used.showsLog else { return }
      try? await self?.reconnect(
        after: OrchestrateError(.unreachable, "the host doesn't show the deployment's log", host: host), on: used)
    }
  }

  private func take(openReply reply: Reply) async throws {
    switch reply.tag {
    case "granted":
      guard let granted = Int(reply.text.split(whereSeparator: \.isWhitespace).first ?? "") else {
        throw OrchestrateError(.internalFault, "the host granted no number: \(reply.text)", host: host)
      }
      let words = reply.text.prefix { $0 != "\n" }.split(separator: " ")
      number = granted
      previousAtOpening = words.dropFirst().first.flatMap { Int($0) } ?? 0
      takenAhead = words.last == "taken"
      preparation.context.number = granted
      for line in reply.text.split(separator: "\n").dropFirst() {
        let words = line.split(separator: " ").map(String.init)
        guard words.count == 2, let closed = Int(words[0]) else { continue }
        if words[1] == "watch" {
          emit(.notice(host: host, text: "the watch over #\(closed) has ended: this deployment takes its place"))
          continue
        }
        emit(.recovered(host: host, number: closed, outcome: words[1]))
      }
    case "locked":
      throw lockedError(holder: reply.text)
    case "error" where reply.text.hasPrefix("stuck "):
      throw OrchestrateError(
        .rollbackFailed, "an earlier deployment can't be undone", host: host,
        cause: String(reply.text.dropFirst("stuck ".count)), state: "the host may be between two releases",
        remedy: "mend what its log names, then the same command again; \(stuckHint)")
    default:
      throw openError(reply.text)
    }
  }

  /// The first word says which fault it is.
  private func openError(_ text: String) -> OrchestrateError {
    let words = text.split(separator: " ", maxSplits: 1).map(String.init)
    var error = OrchestrateError(
      .failed, "the deployment couldn't be opened", host: host, cause: words.last, state: "nothing was changed",
      remedy: "orchestrate doctor \(request.inventory.environment)")
    switch words.first {
    case "identity":
      error.code = .configuration
      error.remedy = "give the environment a project: of its own in its inventory"
    case "current": error.remedy = nil  // it is in the text
    case "space": error.remedy = "orchestrate prune \(request.inventory.environment)"
    case "stuck":
      error.code = .rollbackFailed
      error.state = "an earlier undo failed again: the host may be between two releases"
      error.remedy = "look at the host, then try again: orchestrate history \(request.inventory.environment)"
    default: break
    }
    return error
  }

  private func lockedError(holder text: String) -> OrchestrateError {
    let value = try? JSONValue(parsing: text)
    func member(_ key: String) -> String? { value?[key]?.stringValue }
    var who = member("who") ?? "another deployment"
    if let command = member("command") { who += ", \(command)" }
    if let version = member("version") { who += " \(version)" }
    if let since = member("since") { who += ", since \(since)" }
    if let reason = member("reason") { who += " (\(reason))" }
    return OrchestrateError(
      .locked, "locked by \(who)", host: host, state: "nothing was changed",
      remedy: "orchestrate attach \(request.inventory.environment), or wait with --lock-wait 10m")
  }

  func holderDocument() -> JSONValue {
    let holder = request.holder
    var object = JSONObject()
    object["who"] = .string(holder.who)
    object["from"] = holder.from.map { .string($0) }
    object["reason"] = holder.reason.map { .string($0) }
    object["since"] = .string(holder.since ?? client.timestamp())
    object["command"] = .string(request.command)
    // A machine may be prepared from several environments.
    object["environment"] = .string(request.isBootstrap ? "bootstrap" : request.inventory.environment)
    object["app"] = .string(request.isBootstrap ? "bootstrap" : request.inventory.app)
    object["version"] = toVersion.map { .string($0) }
    object["from_version"] = fromVersion.map { .string($0) }
    let skipped = request.options.skip.filter { name in
      !request.playbook.steps.contains { $0.name == name && preparation.makesTheDatabase($0) }
    }
    object["skipped"] = skipped.isEmpty ? nil : .array(skipped.sorted().map { .string($0) })
    object["accept_data_loss"] = request.options.acceptDataLoss ? .bool(true) : nil
    object["k"] = .string(request.nonce)
    return .object(object)
  }

  func startBeating() {
    let interval = max(1, Double(request.lease.components.seconds) / 5)
    beats = Task { [weak self] in
      while !Task.isCancelled {
        guard let self, let (attachment, number) = await self.beatTarget() else { return }
        do {
          if try await attachment.request("beat \(number)").text == "dead" { await self.beatWasDead() }
        } catch {
          // Nobody may be reading the log now: a person is being asked, or a step runs on this machine. The new connection has beats of its own.
          guard !Task.isCancelled else { return }
          return _ = try? await self.reconnect(after: error, on: attachment)
        }
        do { try await self.client.sleep(.milliseconds(Int(interval * 1000))) } catch { return }
      }
    }
  }

  private func beatTarget() -> (Attachment, Int)? {
    guard reader.outcome == nil, let attachment, let number else { return nil }
    return (attachment, number)
  }

  /// A deployment that has just ended looks the same until its last line has arrived; systemd starts a runner again
  /// within a second.
  private func beatWasDead() async {
    guard (try? await client.sleep(.seconds(2))) != nil, let (attachment, number) = beatTarget(),
      let reply = try? await attachment.request("beat \(number)"), reply.text == "dead"
    else { return }
    if let state = try? await attachment.request("state \(number)"), state.text == "ended" {
      // The log tells how; whoever is being asked a question needn't answer it any more.
      refusedAsClosed = true
      return answered(nil, question: questions)
    }
    await runnerDied()
  }

  /// The runner is gone without an outcome (without systemd nothing starts it again): whoever notices closes what it left.
  private func runnerDied() async {
    guard reader.outcome == nil, let attachment else { return }
    emit(.warning(host: host, text: "the runner on the host died; what it left open is being closed"))
    _ = try? await attachment.request("recover \(request.nonce)r")
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

  // MARK: - Connection lost

  /// Whoever notices first that the connection which it used is lost makes another; the others wait for it.
  func reconnect(after error: any Error, on used: Attachment?) async throws {
    if let abandoned { throw abandoned }
    guard number != nil else { throw error }
    if reconnection == nil {
      guard used == nil || used === attachment, !detached, !hasLeftWatch else { return }
      reconnection = Task { try await connectAgain(after: error) }
    }
    try await reconnection?.value
  }

  private func connectAgain(after error: any Error) async throws {
    guard let number else { throw error }
    defer { reconnection = nil }
    connection += 1
    let lost = client.uptime()
    await attachment?.close()
    attachment = nil
    let limit = Double(request.lease.components.seconds) + 60
    var attempt = 0
    while client.uptime() - lost < limit {
      attempt += 1
      emit(.reconnecting(host: host, attempt: attempt, since: client.uptime() - lost))
      if let fresh = try? await client.attach(asking: []) {
        await fresh.expectLog(nonce: logNonce, offset: logOffset)
        if let reply = try? await fresh.request("follow \(number) \(logOffset)", deadline: .seconds(30)),
          reply.tag == "following"
        {
          attachment = fresh
          log = fresh.log.makeAsyncIterator()
          emit(.reconnected(host: host))
          if reply.text == "dead" { await runnerDied() }
          if let interrupted, !isWatching {
            _ = try? await fresh.request("abort \(number) \(interrupted.utf8.count)", body: Array(interrupted.utf8))
          }
          beats?.cancel()
          startBeating()
          return
        }
        await fresh.close()
      }
      try await client.sleep(.milliseconds(min(5000, 250 << min(attempt, 5))))
    }
    let lostForGood = lostError(error)
    abandoned = lostForGood
    clientStep?.cancel()
    answered(nil, question: questions)
    throw lostForGood
  }

  private func lostError(_ error: any Error) -> OrchestrateError {
    OrchestrateError(
      .outcomeUnknown, "the connection to the host was lost and couldn't be made again", host: host, step: reader.step,
      cause: Self.describe(error),
      state: reader.committed
        ? "the release is committed; the host does what is left by itself"
        : "the host undoes by itself \(request.lease.components.seconds) s after it last heard from here, once the running step has ended",
      remedy: "orchestrate attach \(request.inventory.environment)")
  }

  private func detachedError() -> OrchestrateError {
    OrchestrateError(
      .outcomeUnknown, "detached: the host goes on by itself", host: host,
      remedy: "orchestrate attach \(request.inventory.environment)")
  }

  static func describe(_ error: any Error) -> String {
    if let error = error as? OrchestrateError { return error.summary + (error.cause.map { ": \($0)" } ?? "") }
    return "\(error)"
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

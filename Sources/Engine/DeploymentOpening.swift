internal import Diagnostics
internal import Inventory

/// From the connection to the lock: what is asked of the host, and what its answers mean.
extension DeploymentRun {
  /// Connects, and asks for the facts and for what runs now.
  /// - Parameter beforehand: what is said first.
  func connect(_ beforehand: String...) async throws {
    let attachment = try await client.attach(
      asking: beforehand + Preparation.questions(preparation.paths, withPrevious: request.isRollback))
    self.attachment = attachment
    await attachment.expectLog(nonce: request.nonce)
    // The command, which asks what is true now (its channel was opened with the authentication); then the lock.
    roundTrips += 1
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
}

internal import Diagnostics
internal import Inventory

// What a person is asked in a deployment, and what happens meanwhile.

extension DeploymentRun {
  // MARK: - Abort or detach?

  /// The first Ctrl-C of a person at a terminal. The deployment goes on while the question stands; where there is no choice, it is an interruption.
  public func askToStop(reason: String) {
    if isWatching {
      Task { await leaveWatch() }
    } else if reader.committed {
      emit(
        .notice(
          host: host, text: "\(toVersion ?? "the release") is committed: nothing is undone any more; \(Self.secondTime)"
        ))
    } else if reader.undoText != nil {
      emit(.notice(host: host, text: "the host is undoing already; \(Self.secondTime)"))
    } else if number == nil || reader.outcome != nil || asking != nil || interrupted != nil {
      Task { await interrupt(reason: reason) }
    } else {
      stopQuestion = Task {
        await askAbortOrDetach(reason: reason)
        stopQuestion = nil
      }
    }
  }
  private static let secondTime = "Ctrl-C again leaves at once, and the host finishes by itself"

  private func askAbortOrDetach(reason: String) async {
    while reader.outcome == nil, !reader.committed, reader.undoText == nil {
      let environment = request.inventory.environment
      let question = DeploymentQuestion(
        id: "stop",
        text: """
          Interrupted; the deployment goes on until you choose. \(Self.secondTime).
            abort   \(abortText)
            detach  the host goes on without this client: orchestrate attach \(environment) shows how it ends
          Abort or detach?
          """, choices: ["abort", "detach"], timeout: 300)
      // A connection that is lost is told by whoever reads the log.
      guard let answer = try? await answer(to: question) else { return }
      if answer == "abort" { return await abort(reason: reason) }
      if answer == "detach" { return await detachWhenPossible() }
    }
  }

  func callOffStopQuestion() {
    if stopQuestion != nil { answered(nil, question: questions) }
  }

  // MARK: - Questions

  /// Asks a person. The lock is held meanwhile, so the question has an end; an interruption ends it, too. Nil: no answer.
  ///
  /// Throws where the deployment, or the connection to it, ended under the question.
  func answer(to question: DeploymentQuestion) async throws -> String? {
    let isStop = question.id == "stop"
    if !isStop, let stopQuestion { await stopQuestion.value }
    guard interrupted == nil else { return nil }
    emit(.asked(question))
    questions += 1
    let mark = questions
    let client = client
    let clock = question.timeout.map { seconds in
      Task { [weak self] in
        do { try await client.sleep(.seconds(seconds)) } catch { return }
        await self?.answered(nil, question: mark)
      }
    }
    defer { clock?.cancel() }
    let answer = await withCheckedContinuation { continuation in
      asking = continuation
      // A line that a person types can't be called off: a late one is of no use any more.
      Task { [weak self] in
        let answer = await client.ask(question)
        await self?.answered(answer, question: mark)
      }
    }
    emit(.answered(question: question.id, answer: answer ?? (isStop ? "" : "no")))
    if let abandoned { throw abandoned }
    if refusedAsClosed { throw OrchestrateError(.failed, "the deployment ended before an answer came", host: host) }
    if answer == nil, interrupted == nil, !isStop { emit(.notice(host: host, text: "no answer came: that is a no")) }
    return answer
  }

  func answered(_ answer: String?, question: Int) {
    guard question == questions, let asking else { return }
    self.asking = nil
    asking.resume(returning: answer)
  }
}

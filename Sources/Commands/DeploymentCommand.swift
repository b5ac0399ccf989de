internal import ArgumentParser
internal import Crypto
internal import Diagnostics
internal import Engine
internal import Inventory
internal import Steps
internal import Synchronization
internal import Views

/// What deploy, rollback, run, backup and prune have in common: load, connect, run, render, exit.
struct DeploymentCommand: Sendable {
  var global: GlobalOptions
  var write: WriteOptions
  var environment: String?
  var playbook: String
  var version: String?
  var set: [String: String] = [:]
  var flags: [String: String] = [:]
  var options = DeployOptions()
  /// Follow the watch behind the commit.
  var follow = true
  /// Bootstrap: the accounts by which the machine is entered, and whether only the plan is wanted.
  var accounts: [String] = []
  var planOnly = false
  /// `secrets rotate`: the new value.
  var rotation: RotationSource?

  /// - Parameters:
  ///   - kinds: of the playbook's steps those alone are read.
  ///   - narrow: makes another playbook of the one that was loaded (`backup`: its backup steps alone).
  func run(
    _ kind: DeploymentRequest.Kind, only kinds: Set<StepKindName>? = nil, narrow: ((Playbook) -> Playbook)? = nil
  )
    async throws
  {
    let summary = try await carryOut(kind, only: kinds, narrow: narrow)
    if summary.exitStatus != 0 { throw ExitCode(summary.exitStatus) }
  }

  /// The same, and tells how it ended.
  func carryOut(
    _ kind: DeploymentRequest.Kind, only kinds: Set<StepKindName>? = nil, narrow: ((Playbook) -> Playbook)? = nil
  )
    async throws -> DeploymentSummary
  {
    try await CommandContext.reporting { context, queue in
      try await carryOut(kind, only: kinds, narrow: narrow, context: context, queue: queue)
    }
  }

  private func carryOut(
    _ kind: DeploymentRequest.Kind, only kinds: Set<StepKindName>?, narrow: ((Playbook) -> Playbook)?,
    context: CommandContext, queue: OutputQueue
  ) async throws -> DeploymentSummary {
    let session = ProjectSession(global, context: context)
    var loaded = try session.load(
      environment: environment, playbook: playbook, version: version, set: set, only: kinds)
    if let narrow { loaded.playbook = narrow(loaded.playbook) }
    let host = try session.host(of: loaded.inventory)
    // The steps of these are those of the releases on the host.
    switch kind {
    case .rollback, .rotate: break
    default:
      try StepSelection(loaded.inventory, host: host.name, skip: options.skip).check(loaded.playbook.steps)
    }
    // A rollback brings the release's own env along: it needs no key.
    var vault: [String: String] = [:]
    switch kind {
    case .deploy, .rotate: vault = try session.vaultValues(loaded.inventory, root: loaded.project.root)
    default: break
    }
    var request = DeploymentRequest(
      kind: kind, inventory: loaded.inventory, playbook: loaded.playbook, playbookText: loaded.playbookText,
      holder: session.holder(reason: write.reason), nonce: SecureRandom.word(16).lowercased())
    request.options = options
    request.variables = loaded.variables
    request.projectFiles = try session.projectFiles(loaded)
    request.values = try session.values(for: loaded)
    request.follow = follow
    if case .deploy = kind, loaded.playbook.watch != nil {
      // The way back of a release that isn't well in its watch is that of `rollback`.
      let back = try session.load(environment: environment, playbook: "rollback", version: version, set: set)
      request.wayBack = back.playbook
      request.projectFiles.merge(try session.projectFiles(back)) { own, _ in own }
    }
    request.lease = write.lease.duration
    request.lockWait = write.lockWait?.duration ?? .zero
    request.assumeYes = write.yes
    request.isInteractive = context.isInteractive && global.format(context) != .json
    request.detach = write.detach
    request.planOnly = planOnly

    let screen = DeploymentScreen(global, context: context, queue: queue)
    let view = screen.view
    let connector = HostConnector(
      host, inventory: loaded.inventory, projectRoot: loaded.project.root, context: context, accounts: accounts,
      emit: { view.handle($0) })
    let client = LiveDeploymentClient(
      connector: connector, session: session, loaded: loaded, flags: flags, version: version ?? "", vault: vault,
      rotation: rotation)
    view.handle(
      .starting(
        DeploymentHeading(
          command: request.command, environment: loaded.inventory.environment, app: loaded.inventory.app, to: version,
          hosts: [host.name], steps: loaded.playbook.steps.map { .init(name: $0.name, kind: $0.kind.rawValue) })))
    for warning in loaded.warnings { view.handle(.warning(host: nil, text: warning.message)) }
    let run = DeploymentRun(
      request: request, host: host.name, catalog: .standard(loaded.playbook), client: client,
      sha256: { SHA256.hex($0) },
      emit: { view.handle($0) })
    let name = loaded.inventory.environment
    let policy = Mutex(InterruptPolicy())
    let asks = request.isInteractive && context.standardErrorIsTerminal
    let interrupts = Interrupts { kind in
      screen.leaveIfConcluded()
      switch policy.withLock({ $0.action(on: kind, canAsk: asks && hasForeground()) }) {
      case .ask: Task { await run.askToStop(reason: reason(of: kind)) }
      case .abort: Task { await run.interrupt(reason: reason(of: kind)) }
      case .leave:
        let vault =
          rotation?.forVault == nil ? "" : "; the vault is not written: should it be committed, rotate once more"
        screen.leave("left at once; the host undoes or finishes by itself: orchestrate attach \(name)\(vault)")
      case .nothing: break
      }
    }
    let summary = await run.run()
    // With our signals still: a reader that doesn't go on can be left, and one that goes away ends nothing.
    await screen.conclude(summary)
    interrupts.end()
    await connector.close()
    return summary
  }

  private func reason(of kind: Interrupts.Kind) -> String {
    switch kind {
    case .interrupt: "interrupted by Ctrl-C"
    case .terminate: "interrupted by SIGTERM"
    case .hangup: "interrupted: the terminal was closed"
    }
  }
}

extension SecureRandom {
  /// Text of [A-Za-z0-9]. A machine whose random source fails can't deploy anything: the process ends.
  static func word(_ length: Int) -> String {
    do { return try text(length) } catch { preconditionFailure("no random numbers: \(error.message)") }
  }
}

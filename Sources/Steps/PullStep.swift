import Diagnostics
public import Engine
public import Inventory

/// Fetches the images of the services that the deployment changes, and gives each a local tag that follows its content.
public struct PullStep: StepKind {
  public var settings: PullSettings

  public init(settings: PullSettings = PullSettings()) { self.settings = settings }

  public func plan(_ context: StepContext) -> [Change] {
    let images = effectiveConfig(context)?.images ?? context.images
    return images.keys.sorted().compactMap { service in
      guard let new = images[service] else { return nil }
      guard let old = context.current?.images[service] else {
        return Change(.create, "image \(service)", detail: ["+ \(describe(new))"])
      }
      guard old.digest != new.digest else { return nil }
      return Change(.update, "image \(service)", detail: ["~ \(describe(old)) → \(describe(new))"])
    }
  }

  public func payload(_ context: StepContext) throws -> StepPayload {
    guard context.steps.contains(where: { $0.kind == .env }) else {
      throw OrchestrateError(
        .configuration, "which images to pull isn't known: the playbook has no env step before pull", step: "pull",
        remedy: "add - env before - pull")
    }
    // The host reads what Compose has made there of the configuration: it needn't wait for us to do so.
    var parameters = [
      ("PULL_TIMEOUT", String(settings.timeout.components.seconds)), ("SERVER", ""), ("USERNAME", ""),
      ("KEPT", quotedWords(keptServices(context))),
    ]
    var files: [StepPayload.File] = []
    if let registry = context.inventory.registry {
      guard let password = context.registryPassword else {
        throw OrchestrateError(
          .configuration, "the password for the registry \(registry.server) isn't known", step: "pull",
          remedy: "set \(registry.password) in the environment or in the vault")
      }
      parameters[1].1 = registry.server
      parameters[2].1 = registry.username
      files.append(StepPayload.File("password", bytes: Array(password.reveal().utf8)))
    }
    parameters += MigrateProbeStep.ahead(context)
    // The script ends by itself at PULL_TIMEOUT, with a message; the host's deadline is the second line.
    return StepPayload(
      script: "pull", timeout: settings.timeout + .seconds(60), hasUndo: true, parameters: parameters, files: files,
      secrets: ["password"])  // also of a pull that never began
  }
}

/// The services whose images are asked for: those of the app, those named by `--include`, and those that the running
/// release doesn't have.
public func imagesToPull(_ context: StepContext, _ config: ComposeConfig) -> [(service: String, reference: String)] {
  let kept = Set(keptServices(context))
  return config.serviceNames.sorted().compactMap { service in
    guard !kept.contains(service), let image = config.image(of: service) else { return nil }
    return (service, image)
  }
}

/// `registry:5000/bot:v1.0.0 (sha256:0123456789ab)`
func describe(_ image: Release.Image) -> String { "\(image.reference) (\(image.digest.prefix(19)))" }

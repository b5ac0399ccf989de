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
    guard let config = context.config else {
      throw OrchestrateError(
        .configuration, "which images to pull isn't known: the playbook has no env step before pull", step: "pull",
        remedy: "add - env before - pull")
    }
    var lines = ""
    for (service, reference) in imagesToPull(context, config) {
      guard !(service + reference).contains(where: { $0.isWhitespace }) else {
        throw OrchestrateError(.configuration, "service \(service): “\(reference)” is no image reference", step: "pull")
      }
      lines += "\(service)\t\(reference)\n"
    }
    var parameters = [("PULL_TIMEOUT", String(settings.timeout.components.seconds)), ("SERVER", ""), ("USERNAME", "")]
    var files = [StepPayload.File("images", bytes: Array(lines.utf8))]
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
    // The script ends by itself at PULL_TIMEOUT, with a message; the host's deadline is the second line.
    return StepPayload(
      script: "pull", timeout: settings.timeout + .seconds(60), hasUndo: true, parameters: parameters, files: files)
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

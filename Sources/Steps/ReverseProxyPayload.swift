import Diagnostics
import Engine
import Inventory

/// What the step reverse-proxy is told (playbooks/steps/reverse-proxy.apply.sh).
extension HostStep {
  func parameters(of proxy: ReverseProxySettings, _ context: StepContext, user: String) -> [(
    name: String, value: String
  )] {
    // All of the playbook's: another site of this project is one that somebody has taken out.
    let sites = context.steps.compactMap { step -> String? in
      guard case .host(.reverseProxy(let other)) = step.settings else { return nil }
      return other.domain
    }
    var parameters = [
      ("DOMAIN", proxy.domain), ("ALIASES", proxy.aliases.joined(separator: " ")),
      ("SITES", sites.joined(separator: " ")), ("UPSTREAM", proxy.upstream), ("RATE", String(proxy.rateLimit)),
      ("BURST", String(proxy.rateLimit * 2)), ("HSTS", wholeSeconds(proxy.hsts)), ("BODY", String(proxy.maxBody)),
      ("TIMEOUT", wholeSeconds(proxy.timeout)), ("USER", user), ("PROJECT", context.inventory.project),
    ]
    switch proxy.certificate {
    case .acme(let server, let email, _):
      parameters += [("CERTIFICATE", "acme"), ("ACME_SERVER", server), ("EMAIL", email ?? "")]
    case .given: parameters.append(("CERTIFICATE", "given"))
    }
    return parameters.map { (name: $0.0, value: $0.1) }
  }

  func files(of proxy: ReverseProxySettings, _ context: StepContext) throws -> [StepPayload.File] {
    func file(_ name: String, _ path: String) throws -> StepPayload.File {
      guard let content = context.projectFiles[path] else {
        throw OrchestrateError(.configuration, "the project has no \(path)", step: self.name)
      }
      return StepPayload.File(name, bytes: content.bytes)
    }
    var files: [StepPayload.File] = []
    if let page = proxy.maintenance { files.append(try file("maintenance.html", page)) }
    switch proxy.certificate {
    case .acme(_, _, let authority): if let authority { files.append(try file("acme-ca.pem", authority)) }
    case .given(let path, let key):
      files.append(try file("certificate.pem", path))
      switch key {
      case .file(let path): files.append(try file("key.pem", path))
      case .value(let value):
        guard let secret = context.values[value] else {
          throw OrchestrateError(.internalFault, "nobody has looked for the value of \(value)", step: name)
        }
        // Behind `key: |` or from a variable, the last line break may be missing.
        let text = secret.reveal()
        files.append(StepPayload.File("key.pem", bytes: Array((text.hasSuffix("\n") ? text : text + "\n").utf8)))
      }
    }
    return files
  }
}

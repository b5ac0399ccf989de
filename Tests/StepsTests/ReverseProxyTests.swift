import Diagnostics
import Engine
import Inventory
import Testing

@testable import Steps

/// What travels to the host for the step reverse-proxy.
@Suite struct ReverseProxyTests {
  private func context(_ proxies: [ReverseProxySettings]) -> StepContext {
    var context = shopContext()
    context.host = HostEntry(name: "bot-1", address: "203.0.113.10", user: "deploy", roles: ["app", "web"])
    context.steps = proxies.map { StepSpec(name: $0.domain, settings: .host(.reverseProxy($0))) }
    return context
  }

  private func proxy(_ domain: String) -> ReverseProxySettings {
    var settings = ReverseProxySettings()
    settings.domain = domain
    return settings
  }

  @Test func acme() throws {
    var first = proxy("a.example.com")
    first.aliases = ["www.example.com"]
    first.certificate = .acme(server: "https://ca/dir", email: nil, authority: "files/ca.pem")
    first.maintenance = "files/page.html"
    var context = context([first, proxy("b.example.com")])
    context.projectFiles = [
      "files/ca.pem": file("files/ca.pem", "CA"), "files/page.html": file("files/page.html", "P"),
    ]
    let payload = try HostStep(name: "reverse-proxy", settings: .reverseProxy(first)).payload(context)
    let parameters = Dictionary(uniqueKeysWithValues: payload.parameters.map { ($0.name, $0.value) })
    #expect(parameters["DOMAIN"] == "a.example.com" && parameters["ALIASES"] == "www.example.com")
    #expect(parameters["SITES"] == "a.example.com b.example.com" && parameters["PROJECT"] == "shop")
    #expect(parameters["RATE"] == "50" && parameters["BURST"] == "100" && parameters["HSTS"] == "15552000")
    #expect(parameters["CERTIFICATE"] == "acme" && parameters["ACME_SERVER"] == "https://ca/dir")
    #expect(payload.files.map(\.path) == ["maintenance.html", "acme-ca.pem"])
    #expect(payload.hasUndo && payload.script == "reverse-proxy")
    // The key that was given before, or a former site's: the step removes it, and its undo keeps it.
    #expect(payload.secrets.contains("saved/000/content") && payload.secrets.contains("found"))
    first.server = .caddy
    let caddy = try HostStep(name: "reverse-proxy", settings: .reverseProxy(first)).payload(context)
    #expect(caddy.script == "reverse-proxy-caddy")
  }

  @Test func aGivenKeyTravelsAsASecretFileAlone() throws {
    var given = proxy("a.example.com")
    given.certificate = .given(file: "files/tls.pem", key: .value("TLS_KEY"))
    var context = context([given])
    context.projectFiles = ["files/tls.pem": file("files/tls.pem", "C")]
    let step = HostStep(name: "reverse-proxy", settings: .reverseProxy(given))
    #expect(throws: OrchestrateError.self) { try step.payload(context) }
    context.values = ["TLS_KEY": Secret("canary-key")]
    let payload = try step.payload(context)
    #expect(payload.files.map(\.path) == ["certificate.pem", "key.pem"])
    #expect(String(decoding: payload.files[1].bytes, as: UTF8.self) == "canary-key\n" && payload.files[1].mode == 0o600)
    let kept = ["wanted", "found", "saved/.new/content", "saved/000/content", "saved/restored-012/content"]
    for path in ["key.pem", "caddy/given/privkey.pem"] + kept { #expect(payload.secrets.contains(path), "\(path)") }
    #expect(!payload.parameters.contains { $0.value.contains("canary") })
  }
}

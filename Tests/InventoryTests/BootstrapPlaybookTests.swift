import Diagnostics
import Foundation
import Testing

@testable import Inventory

/// The playbook that prepares a machine: its steps' settings, and what is told of faults.
@Suite struct BootstrapPlaybookTests {
  private func sample(_ playbook: String) -> Sample {
    var sample = Sample()
    sample.files["/p/playbooks/bootstrap.yml"] = playbook
    sample.files["/p/files/bot.logrotate"] = "x\n"
    return sample
  }

  private func steps(_ playbook: String) throws -> [HostStepSettings] {
    try sample(playbook).load(playbook: "bootstrap", version: nil).playbook.steps.compactMap {
      if case .host(let settings) = $0.settings { settings } else { nil }
    }
  }

  @Test func everyKindIsRead() throws {
    let read = try steps(
      """
      steps:
        - packages: { install: [htop, libfoo1.2-dev] }
        - user: { keys: ["ssh-ed25519 AAAA ada"] }
        - directories
        - time: { zone: Europe/Berlin }
        - log-retention: { days: 30, size: 2GiB }
        - sysctl: { values: { net.core.somaxconn: 1024 } }
        - swap: { size: 512MiB }
        - docker: { log_driver: local, live_restore: false, address_pool: 10.201.0.0/16, repository: "https://packages.test/docker/", repository_key: "9DC8 5822 9FC7 DD38 854A  E2D8 8D81 803C 0ebf cd88" }
        - updates
        - systemd-unit
        - ssh-hardening: { port: 2222, root_login: true, revert: 30s }
        - firewall: { allow: [80/tcp, 51820/udp] }
        - file: { source: files/bot.logrotate, path: /etc/logrotate.d/bot, owner: bot, mode: "640", secret: true }

      """)
    var ssh = SSHHardeningSettings()
    (ssh.port, ssh.rootLogin, ssh.revert) = (2222, true, .seconds(30))
    var docker = DockerSettings()
    (docker.logDriver, docker.liveRestore, docker.addressPool) = (.local, false, "10.201.0.0/16")
    docker.repository = "https://packages.test/docker"
    docker.repositoryKey = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
    var file = FileSettings()
    (file.source, file.path, file.owner) = ("files/bot.logrotate", "/etc/logrotate.d/bot", "bot")
    (file.mode, file.isSecret) = ("0640", true)
    #expect(
      read == [
        .packages(install: ["htop", "libfoo1.2-dev"]), .user(keys: ["ssh-ed25519 AAAA ada"]), .directories,
        .time(zone: "Europe/Berlin"), .logRetention(days: 30, size: 2 << 30),
        .sysctl(values: ["net.core.somaxconn": "1024"]), .swap(size: 512 << 20), .docker(docker), .updates,
        .systemdUnit, .sshHardening(ssh), .firewall(allow: ["80/tcp", "51820/udp"], revert: .seconds(180)),
        .file(file),
      ])
    #expect(read.filter(\.isRisky).map(\.kind) == [.user, .sshHardening, .firewall])
  }

  @Test(arguments: [
    ("- packages: { install: [Htop] }", "4:27: error: `Htop` isn't the name of a Debian package"),
    ("- user: { keys: [AAAA] }", "4:20: error: this isn't a public key"),
    ("- ssh-hardening: { port: 70000 }", "4:28: error:"),
    ("- firewall: { allow: [80] }", "4:25: error:"),
    ("- firewall: { allow: [eighty/tcp] }", "4:25: error: `eighty/tcp` isn't a port [like 80/tcp or 51820/udp]"),
    ("- docker: { log_driver: syslog }", "4:27: error:"),
    (
      "- docker: { address_pool: 10.0.0.0 }",
      "4:29: error: `docker.address_pool`: `10.0.0.0` isn't an IPv4 network of 8 to 24 bits"
    ),
    ("- docker: { repository: docker.com }", "`docker.com` isn't the URL of a package repository"),
    ("- docker: { repository: \"https://a b/c\" }", "isn't the URL of a package repository"),
    ("- docker: { repository_key: 9DC8 }", "`9DC8` isn't the fingerprint of a key"),
    ("- sysctl: { values: { somaxconn: 1 } }", "4:25: error: `somaxconn` isn't the name of a kernel parameter"),
    ("- sysctl", "error: `sysctl.values` is missing"),
    ("- swap: { size: big }", "4:19: error:"),
    ("- time: { zone: ../x }", "4:19: error: `time.zone`: `../x` isn't a time zone"),
    ("- log-retention: { days: 1 }", "4:28: error:"),
    ("- file: { source: files/bot.logrotate, path: etc/x }", "`etc/x` isn't the absolute path of a file on the host"),
    (
      "- file: { source: files/bot.logrotat, path: /etc/x }",
      "there is no file files/bot.logrotat in the project folder"
    ),
    ("- file: { source: files/bot.logrotate, path: /x, mode: \"0999\" }", "`0999` isn't a file's permissions"),
    ("- firewal", "4:5: error: unknown step `firewal` [did you mean `firewall`?]"),
    ("- commit", "error: `commit` doesn't prepare a machine: it belongs in another playbook"),
  ])
  func faultsAreTold(step: String, expected: String) {
    let faults = sample("# mine\n\nsteps:\n  \(step)\n").faults(playbook: "bootstrap")
    #expect(faults.count == 1 && faults.contains { $0.contains(expected) }, "\(faults)")
  }

  /// The inventory's host has the role `web`.
  private func webSample(_ playbook: String) -> Sample {
    var web = sample(playbook)
    web.files["/p/inventories/prod.yml"] = Sample.inventory.replacing("[app, db]", with: "[app, db, web]")
    web.files["/p/files/tls.pem"] = "x\n"
    web.files["/p/files/both.pem"] = "-----BEGIN CERTIFICATE-----\nx\n-----BEGIN EC PRIVATE KEY-----\nx\n"
    web.files["/p/files/back-soon.html"] = "x\n"
    return web
  }

  @Test func theProxyIsRead() throws {
    let playbook = try webSample(
      """
      steps:
        - reverse-proxy: { domain: bot.example.com }
        - reverse-proxy:
            domain: shop.example.com
            aliases: [www.shop.example.com]
            upstream: "[::1]:9000"
            email: ada@example.com
            acme_server: https://ca.internal:9000/acme/acme/directory
            acme_ca: files/tls.pem
            rate_limit: 0
            hsts: 0s
            max_body: 1MiB
            timeout: 5m
            maintenance: files/back-soon.html
        - reverse-proxy: { domain: a.example.com, role: app, certificate: { file: files/tls.pem, key: TLS_KEY } }
        - reverse-proxy: { domain: b.example.com, server: caddy, certificate: { file: files/tls.pem, key_file: files/tls.pem } }
        - fail2ban: { retries: 3, within: 5m, ban: 1d, ignore: [198.51.100.7, 2001:db8::/32] }

      """
    ).load(playbook: "bootstrap", version: nil).playbook
    var first = ReverseProxySettings(), second = ReverseProxySettings(), third = ReverseProxySettings()
    first.domain = "bot.example.com"
    (second.domain, second.aliases, second.upstream) = ("shop.example.com", ["www.shop.example.com"], "[::1]:9000")
    second.certificate = .acme(
      server: "https://ca.internal:9000/acme/acme/directory", email: "ada@example.com", authority: "files/tls.pem")
    (second.rateLimit, second.hsts, second.maxBody, second.timeout) = (0, .zero, 1 << 20, .seconds(300))
    second.maintenance = "files/back-soon.html"
    (third.domain, third.certificate) = ("a.example.com", .given(file: "files/tls.pem", key: .value("TLS_KEY")))
    var fourth = third
    (fourth.domain, fourth.certificate) = (
      "b.example.com", .given(file: "files/tls.pem", key: .file("files/tls.pem"))
    )
    (fourth.server, fourth.rateLimit) = (.caddy, 0)
    var ban = Fail2banSettings()
    (ban.retries, ban.find, ban.ban, ban.ignore) = (
      3, .seconds(300), .seconds(86400), ["198.51.100.7", "2001:db8::/32"]
    )
    #expect(
      playbook.steps.map(\.settings) == [
        .host(.reverseProxy(first)), .host(.reverseProxy(second)), .host(.reverseProxy(third)),
        .host(.reverseProxy(fourth)), .host(.fail2ban(ban)),
      ])
    #expect(playbook.steps.map(\.role) == ["web", "web", "app", "web", nil])
  }

  @Test(arguments: [
    ("- reverse-proxy", "error: `reverse-proxy.domain` is missing"),
    ("- reverse-proxy: { domain: Bot.example.com }", "write a domain in small letters"),
    ("- reverse-proxy: { domain: localhost }", "`localhost` isn't a domain"),
    ("- reverse-proxy: { domain: 203.0.113.10 }", "isn't a domain"),
    ("- reverse-proxy: { domain: \"*.example.com\" }", "certificates for all names need DNS"),
    ("- reverse-proxy: { domain: a.example.com, aliases: [a.example.com] }", "stands there twice"),
    ("- reverse-proxy: { domain: a.example.com, upstream: app:8000 }", "`app:8000` isn't an IP address with a port"),
    ("- reverse-proxy: { domain: a.example.com, upstream: 127.0.0.1 }", "isn't an IP address with a port"),
    ("- reverse-proxy: { domain: a.example.com, acme_server: \"http://x/dir\" }", "begins with https://"),
    ("- reverse-proxy: { domain: a.example.com, email: nobody }", "isn't an e-mail address"),
    ("- reverse-proxy: { domain: a.example.com, certificate: none }", "expected acme or a mapping"),
    ("- reverse-proxy: { domain: a.example.com, certificate: { file: files/tls.pem } }", "the private key is missing"),
    (
      "- reverse-proxy: { domain: a.example.com, certificate: { file: files/tls.pem, key: A, key_file: files/tls.pem } }",
      "there is a `key` already"
    ),
    (
      "- reverse-proxy: { domain: a.example.com, certificate: { file: files/tls.pem, key: A }, email: a@b.example }",
      "no meaning beside a given certificate"
    ),
    ("- reverse-proxy: { domain: a.example.com, certificate: { file: files/none.pem, key: A } }", "there is no file"),
    ("- reverse-proxy: { domain: a.example.com }\n  - firewall", "stands before `firewall`, which opens the ports"),
    ("- fail2ban\n  - ssh-hardening", "stands before `ssh-hardening`, which may change sshd's port"),
    (
      "- reverse-proxy: { domain: a.example.com }\n  - reverse-proxy: { domain: b.example.com, aliases: [a.example.com] }",
      "a second `reverse-proxy` for a.example.com"
    ),
    ("- reverse-proxy: { domain: a.example.com, server: apache }", "expected one of nginx, caddy"),
    ("- reverse-proxy: { domain: a.example.com, server: caddy, rate_limit: 5 }", "knows no rate limit"),
    ("- fail2ban: { ignore: [office.example.com] }", "isn't an address or a network"),
    ("- fail2ban: { ignore: [10.0.0.0/40] }", "isn't an address or a network"),
    ("- fail2ban: { ignore: [\"::::\"] }", "isn't an address or a network"),
    ("- fail2ban: { ignore: [10.0.0.0/+8] }", "isn't an address or a network"),
    ("- fail2ban: { ignore: [\"１０.0.0.1\"] }", "isn't an address or a network"),
    ("- reverse-proxy: { domain: a.example.com, upstream: \"[1:2:3]:80\" }", "isn't an IP address with a port"),
    ("- reverse-proxy: { domain: a.example.com, upstream: \"127.0.0.1:８０\" }", "isn't an IP address with a port"),
    (
      "- reverse-proxy: { domain: a.example.com, certificate: { file: files/both.pem, key: A } }",
      "2:66: error: `reverse-proxy.certificate.file`"
    ),
    (
      "- reverse-proxy: { domain: a.example.com, certificate: { file: files/both.pem, key_file: files/both.pem } }",
      "files/both.pem holds a private key, and everybody on the host may read this file there [leave the certificates alone"
    ),
    ("- reverse-proxy: { domain: a.example.com, acme_ca: files/both.pem }", "holds a private key"),
  ])
  func faultsOfTheProxyAreTold(step: String, expected: String) {
    let faults = webSample("steps:\n  \(step)\n").faults(playbook: "bootstrap")
    #expect(faults.count == 1 && faults.contains { $0.contains(expected) }, "\(faults)")
  }

  @Test func theProxyWantsAHostForTheWeb() {
    #expect(
      sample("steps:\n  - reverse-proxy: { domain: a.example.com }\n").faults(playbook: "bootstrap") == [
        "playbooks/bootstrap.yml:2:5: error: `reverse-proxy` is for hosts with the role `web`, and the inventory has none [add it to a host: roles: [app, web]]"
      ])
  }

  /// Under another role its host needs `web` all the same, for the ports.
  @Test func theProxysHostHasTheRoleWeb() {
    var web = webSample("steps:\n  - reverse-proxy: { domain: a.example.com, role: app }\n")
    web.files["/p/inventories/prod.yml"] = Sample.inventory.replacing(
      "  bot-1: { address: 203.0.113.10, port: 22, user: deploy, roles: [app, db] }",
      with:
        "  bot-1: { address: 203.0.113.10, user: deploy, roles: [app, db] }\n  web-1: { address: 203.0.113.11, user: deploy, roles: [web] }"
    )
    #expect(
      web.faults(playbook: "bootstrap") == [
        "playbooks/bootstrap.yml:2:51: error: `reverse-proxy.role`: bot-1 hasn't the role `web`: `firewall` would leave its ports 80 and 443 shut [add it to the host: roles: [app, db, web]]"
      ])
  }

  @Test func addresses() {
    for text in ["::", "::1", "1::", "1::2", "1:2:3:4:5:6:7:8", "::ffff:192.0.2.1", "2001:DB8::", "1:2:3:4:5:6:7::"] {
      #expect(Names.isIPv6(text), "\(text)")
    }
    for text in [
      "", ":", ":::", "::::", "1:2:3", "1::2::3", ":1", ":1::", "1:", "::1:", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::",
      "12345::", "g::", "１::", "::1.2.3", "1.2.3.4::", "::1%eth0", "[::1]",
    ] {
      #expect(!Names.isIPv6(text), "\(text)")
    }
    for text in ["1.2.3.4", "0.0.0.0", "255.255.255.255"] { #expect(Names.isIPv4(text)) }
    for text in ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1..2.3", "１.2.3.4", "a.b.c.d", "+1.2.3.4"] {
      #expect(!Names.isIPv4(text), "\(text)")
    }
    #expect(Names.isAddress("fe80::1%eth0") && Names.isAddress("host-1.example.com") && !Names.isAddress("::::"))
  }

  @Test func itsStepsBelongInNoOtherPlaybook() {
    var sample = Sample()
    sample.files["/p/playbooks/deploy.yml"] = "steps: [release, firewall, health, commit]\n"
    #expect(
      sample.faults() == [
        "playbooks/deploy.yml:1:18: error: `firewall` prepares a machine: it belongs in playbooks/bootstrap.yml [orchestrate bootstrap runs it, as root]"
      ])
  }
}

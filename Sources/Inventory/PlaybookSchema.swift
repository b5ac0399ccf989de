public import ConfigSource

/// The keys of playbooks/NAME.yml; docs/playbooks.md is tested against them.
public enum PlaybookSchema {
  public static let playbook = KeyTable(
    "Playbook", [.init("watch", "duration"), .init("steps", "list of steps", required: true)])

  /// What every step takes beside its own keys.
  public static let common = KeyTable(
    "Every step", [.init("name", "name", default: "the kind"), .init("role", "role")])

  public static func keys(of kind: StepKindName) -> KeyTable {
    KeyTable(kind.rawValue, keyList(of: kind))
  }

  private static func keyList(of kind: StepKindName) -> [KeyTable.Key] {
    switch kind {
    case .preflight:
      [
        .init("disk_free", "size", default: "1GiB"), .init("memory_free", "size", default: "128MiB"),
        .init("memory_commit", "percentage", default: "80%"),
      ]
    case .release: [.init("files", "list of paths", default: "[]")]
    case .env, .commit: []
    case .pull: [.init("timeout", "duration", default: "10m")]
    case .backup:
      [
        .init("service", "service", default: "services.database"), .init("database", "name"), .init("user", "name"),
        .init("keep", "mapping", default: "{}"), .init("timeout", "duration", default: "30m"),
      ]
    case .migrate:
      [
        .init("service", "service"), .init("up", "list of texts"), .init("revision", "list of texts"),
        .init("down", "list of texts"), .init("rollback", "compatible, down or restore", default: "compatible"),
        .init("timeout", "duration", default: "10m"), .init("lock_timeout", "duration", default: "5s"),
      ]
    case .recreate:
      [.init("services", "list of services", default: "services.app"), .init("drain", "mapping", default: "{}")]
    case .health:
      [
        .init("service", "service"), .init("http", "URL"), .init("url", "URL"), .init("exec", "list of texts"),
        .init("expect", "mapping"), .init("within", "duration", default: "60s"),
        .init("stable", "duration", default: "5s"),
        .init("restarts", "whole number", default: "0"),
      ]
    case .run:
      [
        .init("script", "path", required: true), .init("undo", "path"), .init("timeout", "duration", default: "10m"),
      ]
    case .prune:
      [
        .init("releases", "whole number", default: "5"), .init("images", "true or false", default: "true"),
        .init("logs", "duration", default: "7d"),
      ]
    default: hostKeyList(of: kind)
    }
  }

  private static func hostKeyList(of kind: StepKindName) -> [KeyTable.Key] {
    switch kind {
    case .packages: [.init("install", "list of packages", default: "[]")]
    case .user: [.init("keys", "list of public keys")]
    case .sshHardening:
      [
        .init("port", "port"), .init("root_login", "true or false", default: "false"),
        .init("revert", "duration", default: "3m"),
      ]
    case .firewall: [.init("allow", "list of ports", default: "[]"), .init("revert", "duration", default: "3m")]
    case .docker:
      [
        .init("log_driver", "journald, local or json-file", default: "journald"),
        .init("live_restore", "true or false", default: "true"), .init("address_pool", "network"),
        .init("repository", "URL"), .init("repository_key", "fingerprint"),
      ]
    case .sysctl: [.init("values", "mapping", required: true)]
    case .swap: [.init("size", "size", required: true)]
    case .time: [.init("zone", "time zone", default: "Etc/UTC")]
    case .logRetention: [.init("days", "whole number", default: "14"), .init("size", "size", default: "1GiB")]
    case .file:
      [
        .init("source", "path", required: true), .init("path", "path on the host", required: true),
        .init("owner", "name", default: "root"), .init("group", "name", default: "root"),
        .init("mode", "permissions", default: "0644"), .init("secret", "true or false", default: "false"),
      ]
    case .reverseProxy:
      [
        .init("domain", "domain", required: true), .init("server", "nginx or caddy", default: "nginx"),
        .init("aliases", "list of domains", default: "[]"),
        .init("upstream", "address:port", default: "127.0.0.1:8000"),
        .init("certificate", "acme or mapping", default: "acme"), .init("email", "address"),
        .init("acme_server", "URL", default: "https://acme-v02.api.letsencrypt.org/directory"),
        .init("acme_ca", "path"), .init("rate_limit", "whole number", default: "50"),
        .init("hsts", "duration", default: "180d"), .init("max_body", "size", default: "16MiB"),
        .init("timeout", "duration", default: "60s"), .init("maintenance", "path"),
      ]
    case .fail2ban:
      [
        .init("retries", "whole number", default: "5"), .init("within", "duration", default: "10m"),
        .init("ban", "duration", default: "1h"), .init("ignore", "list of addresses", default: "[]"),
      ]
    default: []
    }
  }

  public static let keep = KeyTable(
    "backup.keep", [.init("last", "whole number", default: "7"), .init("days", "whole number", default: "7")])
  public static let drain = KeyTable(
    "recreate.drain", [.init("signal", "signal", default: "SIGTERM"), .init("timeout", "duration", default: "30s")])
  public static let expect = KeyTable(
    "health.expect", [.init("status", "HTTP status"), .init("json", "mapping or list")])
  public static let bounds = KeyTable(
    "health.expect.json",
    [
      .init("below", "number"), .init("above", "number"), .init("at_least", "number"), .init("at_most", "number"),
      .init("not", "text"),
    ])
  public static let givenCertificate = KeyTable(
    "reverse-proxy.certificate",
    [.init("file", "path", required: true), .init("key", "name of a value"), .init("key_file", "path")])

  public static let all =
    [playbook, common] + StepKindName.allCases.map(keys(of:)) + [keep, drain, expect, bounds, givenCertificate]
}

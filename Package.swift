// swift-tools-version: 6.2
import PackageDescription

let settings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .treatAllWarnings(as: .error),
]

/// A module of ours: dependencies are spelled by name, as in the picture in docs/architecture.md.
func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
  .testTarget(
    name: name, dependencies: dependencies, resources: resources, swiftSettings: settings)
}

/// What goes into the binary; ArchitectureTests holds this list against the folder. Names flatten, so a basename occurs once.
let embedded = [
  "builtin/bootstrap.yml",
  "builtin/deploy.yml",
  "builtin/rollback.yml",
  "builtin/rotate.yml",
  "host/alembic.awk",
  "host/app.service",
  "host/apt.sh",
  "host/attach.sh",
  "host/boot-units.sh",
  "host/boot.sh",
  "host/check.sh",
  "host/closing.sh",
  "host/containers.sh",
  "host/docker.sh",
  "host/facts.sh",
  "host/gate.sh",
  "host/hostlock.sh",
  "host/journal.sh",
  "host/json.awk",
  "host/lib.sh",
  "host/opening.sh",
  "host/probe.js",
  "host/probe.py",
  "host/probe.sh",
  "host/proxy.sh",
  "host/recover.service",
  "host/recovery.sh",
  "host/registry.sh",
  "host/releases.sh",
  "host/roles.sh",
  "host/runner.sh",
  "host/schema.sh",
  "host/sshd.sh",
  "host/stub.sh",
  "host/swap.sh",
  "host/switch.sh",
  "host/sysctl.sh",
  "host/system.sh",
  "host/ufw.sh",
  "host/undoing.sh",
  "host/units.sh",
  "host/upgrade.sh",
  "queries/backups.query.sh",
  "queries/certificates.query.sh",
  "queries/health.query.sh",
  "queries/plan.query.sh",
  "queries/registry.query.sh",
  "queries/scratch.query.sh",
  "queries/status.query.sh",
  "steps/backup.apply.sh",
  "steps/backup.undo.sh",
  "steps/commit.apply.sh",
  "steps/directories.apply.sh",
  "steps/directories.undo.sh",
  "steps/disarm.apply.sh",
  "steps/docker.apply.sh",
  "steps/docker.undo.sh",
  "steps/drain.apply.sh",
  "steps/drain.undo.sh",
  "steps/env.apply.sh",
  "steps/env.undo.sh",
  "steps/fail2ban.apply.sh",
  "steps/fail2ban.undo.sh",
  "steps/file.apply.sh",
  "steps/file.undo.sh",
  "steps/firewall.apply.sh",
  "steps/firewall.undo.sh",
  "steps/health.apply.sh",
  "steps/log-retention.apply.sh",
  "steps/log-retention.undo.sh",
  "steps/migrate-probe.apply.sh",
  "steps/migrate.apply.sh",
  "steps/migrate.undo.sh",
  "steps/packages.apply.sh",
  "steps/preflight.apply.sh",
  "steps/prune.apply.sh",
  "steps/pull.apply.sh",
  "steps/pull.undo.sh",
  "steps/recreate.apply.sh",
  "steps/recreate.undo.sh",
  "steps/release.apply.sh",
  "steps/release.undo.sh",
  "steps/reverse-proxy.apply.sh",
  "steps/reverse-proxy.undo.sh",
  "steps/role-probe.apply.sh",
  "steps/role.apply.sh",
  "steps/role.undo.sh",
  "steps/run.apply.sh",
  "steps/run.undo.sh",
  "steps/schema-probe.apply.sh",
  "steps/seal.apply.sh",
  "steps/seal.undo.sh",
  "steps/ssh-hardening.apply.sh",
  "steps/ssh-hardening.undo.sh",
  "steps/swap.apply.sh",
  "steps/swap.undo.sh",
  "steps/sysctl.apply.sh",
  "steps/sysctl.undo.sh",
  "steps/systemd-unit.apply.sh",
  "steps/systemd-unit.undo.sh",
  "steps/time.apply.sh",
  "steps/time.undo.sh",
  "steps/updates.apply.sh",
  "steps/updates.undo.sh",
  "steps/user.apply.sh",
  "steps/user.undo.sh",
  "templates/init.cloud-init.yml",
  "templates/init.compose.yml",
  "templates/init.env.template",
  "templates/init.inventory.yml",
  "templates/init.workflow.yml",
]

let package = Package(
  name: "orchestrate",
  platforms: [.macOS(.v15)],
  products: [.executable(name: "orchestrate", targets: ["orchestrate"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2"),
  ],
  targets: [
    .executableTarget(
      name: "orchestrate", dependencies: ["Commands"], swiftSettings: settings),
    module(
      "Commands",
      [
        "Views", "Steps", "Engine", "Inventory", "Vault", "SSH", "HTTP", "Crypto", "Playbooks", "Diagnostics",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Subprocess", package: "swift-subprocess"),
      ]),
    module("Views", ["Engine", "Diagnostics"]),
    module("Steps", ["Engine", "Inventory", "Playbooks", "Diagnostics"]),
    module("Engine", ["Inventory", "Playbooks", "Diagnostics"]),
    module("Inventory", ["ConfigSource", "Diagnostics"]),
    module("Vault", ["Crypto", "ConfigSource", "Diagnostics"]),
    module("ConfigSource", ["Diagnostics", .product(name: "Yams", package: "Yams")]),
    module("SSH", ["CLibSSH2", "COpenSSL", "Diagnostics"]),
    module("HTTP", ["CLibCurl", "Diagnostics"]),
    module("Crypto", ["COpenSSL", "Diagnostics"]),
    module("Diagnostics"),

    // The built-in playbooks, host scripts and templates, embedded in the binary.
    .target(
      name: "Playbooks", path: "playbooks",
      resources: embedded.map { .embedInCode($0) },
      swiftSettings: [.swiftLanguageMode(.v6)]),

    // One door per C library.
    .systemLibrary(
      name: "CLibSSH2", pkgConfig: "libssh2",
      providers: [.apt(["libssh2-1-dev"]), .brew(["libssh2"])]),
    .systemLibrary(
      name: "COpenSSL", pkgConfig: "libcrypto",
      providers: [.apt(["libssl-dev"]), .brew(["openssl@3"])]),
    .target(name: "CLibCurl", dependencies: ["CLibCurlSystem"]),
    .systemLibrary(
      name: "CLibCurlSystem", pkgConfig: "libcurl",
      providers: [.apt(["libcurl4-openssl-dev"]), .brew(["curl"])]),

    tests("DiagnosticsTests", ["Diagnostics"]),
    tests(
      "InventoryTests", ["Inventory", "ConfigSource", "Diagnostics"], resources: [.copy("Malformed")]),
    tests("SSHTests", ["SSH", "Diagnostics"]),
    tests("CryptoTests", ["Crypto"]),
    tests("VaultTests", ["Vault", "Crypto", "ConfigSource", "Diagnostics"]),
    tests("HTTPTests", ["HTTP"]),
    tests("EngineTests", ["Engine", "Inventory", "Diagnostics"]),
    tests("StepsTests", ["Steps", "Engine", "Inventory", "Diagnostics"]),
    tests("ViewsTests", ["Views", "Engine", "Diagnostics"]),
    tests(
      "CommandsTests",
      [
        "Commands", "Playbooks", "SSH", "Steps", "Engine", "Inventory", "Views", "Diagnostics",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    tests("ArchitectureTests", []),
  ]
)

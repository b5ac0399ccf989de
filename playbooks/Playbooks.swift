/// A file that travels to the host, or stands in for one that the user doesn't have.
public struct EmbeddedFile: Sendable {
  /// As it is called in the bundle on the host (`steps/backup.apply.sh`), or as a playbook (`deploy.yml`).
  public let path: String
  public let bytes: [UInt8]
}

public enum Playbooks {
  /// The built-in playbooks, by name.
  public static let builtin: [EmbeddedFile] = [
    EmbeddedFile(path: "bootstrap.yml", bytes: PackageResources.bootstrap_yml),
    EmbeddedFile(path: "deploy.yml", bytes: PackageResources.deploy_yml),
    EmbeddedFile(path: "rollback.yml", bytes: PackageResources.rollback_yml),
    EmbeddedFile(path: "rotate.yml", bytes: PackageResources.rotate_yml),
  ]

  /// The host's side: attach, runner, library and the steps' scripts. Sent once as a tar (docs/runner.md).
  public static let bundle: [EmbeddedFile] = [
    EmbeddedFile(path: "alembic.awk", bytes: PackageResources.alembic_awk),
    EmbeddedFile(path: "app.service", bytes: PackageResources.app_service),
    EmbeddedFile(path: "apt.sh", bytes: PackageResources.apt_sh),
    EmbeddedFile(path: "attach.sh", bytes: PackageResources.attach_sh),
    EmbeddedFile(path: "boot-units.sh", bytes: PackageResources.boot_units_sh),
    EmbeddedFile(path: "boot.sh", bytes: PackageResources.boot_sh),
    EmbeddedFile(path: "check.sh", bytes: PackageResources.check_sh),
    EmbeddedFile(path: "closing.sh", bytes: PackageResources.closing_sh),
    EmbeddedFile(path: "containers.sh", bytes: PackageResources.containers_sh),
    EmbeddedFile(path: "docker.sh", bytes: PackageResources.docker_sh),
    EmbeddedFile(path: "facts.sh", bytes: PackageResources.facts_sh),
    EmbeddedFile(path: "gate.sh", bytes: PackageResources.gate_sh),
    EmbeddedFile(path: "hostlock.sh", bytes: PackageResources.hostlock_sh),
    EmbeddedFile(path: "journal.sh", bytes: PackageResources.journal_sh),
    EmbeddedFile(path: "json.awk", bytes: PackageResources.json_awk),
    EmbeddedFile(path: "lib.sh", bytes: PackageResources.lib_sh),
    EmbeddedFile(path: "opening.sh", bytes: PackageResources.opening_sh),
    EmbeddedFile(path: "probe.js", bytes: PackageResources.probe_js),
    EmbeddedFile(path: "probe.py", bytes: PackageResources.probe_py),
    EmbeddedFile(path: "probe.sh", bytes: PackageResources.probe_sh),
    EmbeddedFile(path: "queries/backups.query.sh", bytes: PackageResources.backups_query_sh),
    EmbeddedFile(path: "queries/health.query.sh", bytes: PackageResources.health_query_sh),
    EmbeddedFile(path: "queries/plan.query.sh", bytes: PackageResources.plan_query_sh),
    EmbeddedFile(path: "queries/registry.query.sh", bytes: PackageResources.registry_query_sh),
    EmbeddedFile(path: "queries/scratch.query.sh", bytes: PackageResources.scratch_query_sh),
    EmbeddedFile(path: "queries/status.query.sh", bytes: PackageResources.status_query_sh),
    EmbeddedFile(path: "recover.service", bytes: PackageResources.recover_service),
    EmbeddedFile(path: "recovery.sh", bytes: PackageResources.recovery_sh),
    EmbeddedFile(path: "registry.sh", bytes: PackageResources.registry_sh),
    EmbeddedFile(path: "releases.sh", bytes: PackageResources.releases_sh),
    EmbeddedFile(path: "roles.sh", bytes: PackageResources.roles_sh),
    EmbeddedFile(path: "runner.sh", bytes: PackageResources.runner_sh),
    EmbeddedFile(path: "schema.sh", bytes: PackageResources.schema_sh),
    EmbeddedFile(path: "sshd.sh", bytes: PackageResources.sshd_sh),
    EmbeddedFile(path: "steps/backup.apply.sh", bytes: PackageResources.backup_apply_sh),
    EmbeddedFile(path: "steps/backup.undo.sh", bytes: PackageResources.backup_undo_sh),
    EmbeddedFile(path: "steps/commit.apply.sh", bytes: PackageResources.commit_apply_sh),
    EmbeddedFile(path: "steps/directories.apply.sh", bytes: PackageResources.directories_apply_sh),
    EmbeddedFile(path: "steps/directories.undo.sh", bytes: PackageResources.directories_undo_sh),
    EmbeddedFile(path: "steps/disarm.apply.sh", bytes: PackageResources.disarm_apply_sh),
    EmbeddedFile(path: "steps/docker.apply.sh", bytes: PackageResources.docker_apply_sh),
    EmbeddedFile(path: "steps/docker.undo.sh", bytes: PackageResources.docker_undo_sh),
    EmbeddedFile(path: "steps/drain.apply.sh", bytes: PackageResources.drain_apply_sh),
    EmbeddedFile(path: "steps/drain.undo.sh", bytes: PackageResources.drain_undo_sh),
    EmbeddedFile(path: "steps/env.apply.sh", bytes: PackageResources.env_apply_sh),
    EmbeddedFile(path: "steps/env.undo.sh", bytes: PackageResources.env_undo_sh),
    EmbeddedFile(path: "steps/file.apply.sh", bytes: PackageResources.file_apply_sh),
    EmbeddedFile(path: "steps/file.undo.sh", bytes: PackageResources.file_undo_sh),
    EmbeddedFile(path: "steps/firewall.apply.sh", bytes: PackageResources.firewall_apply_sh),
    EmbeddedFile(path: "steps/firewall.undo.sh", bytes: PackageResources.firewall_undo_sh),
    EmbeddedFile(path: "steps/health.apply.sh", bytes: PackageResources.health_apply_sh),
    EmbeddedFile(path: "steps/log-retention.apply.sh", bytes: PackageResources.log_retention_apply_sh),
    EmbeddedFile(path: "steps/log-retention.undo.sh", bytes: PackageResources.log_retention_undo_sh),
    EmbeddedFile(path: "steps/migrate-probe.apply.sh", bytes: PackageResources.migrate_probe_apply_sh),
    EmbeddedFile(path: "steps/migrate.apply.sh", bytes: PackageResources.migrate_apply_sh),
    EmbeddedFile(path: "steps/migrate.undo.sh", bytes: PackageResources.migrate_undo_sh),
    EmbeddedFile(path: "steps/packages.apply.sh", bytes: PackageResources.packages_apply_sh),
    EmbeddedFile(path: "steps/preflight.apply.sh", bytes: PackageResources.preflight_apply_sh),
    EmbeddedFile(path: "steps/prune.apply.sh", bytes: PackageResources.prune_apply_sh),
    EmbeddedFile(path: "steps/pull.apply.sh", bytes: PackageResources.pull_apply_sh),
    EmbeddedFile(path: "steps/pull.undo.sh", bytes: PackageResources.pull_undo_sh),
    EmbeddedFile(path: "steps/recreate.apply.sh", bytes: PackageResources.recreate_apply_sh),
    EmbeddedFile(path: "steps/recreate.undo.sh", bytes: PackageResources.recreate_undo_sh),
    EmbeddedFile(path: "steps/release.apply.sh", bytes: PackageResources.release_apply_sh),
    EmbeddedFile(path: "steps/release.undo.sh", bytes: PackageResources.release_undo_sh),
    EmbeddedFile(path: "steps/role-probe.apply.sh", bytes: PackageResources.role_probe_apply_sh),
    EmbeddedFile(path: "steps/role.apply.sh", bytes: PackageResources.role_apply_sh),
    EmbeddedFile(path: "steps/role.undo.sh", bytes: PackageResources.role_undo_sh),
    EmbeddedFile(path: "steps/run.apply.sh", bytes: PackageResources.run_apply_sh),
    EmbeddedFile(path: "steps/run.undo.sh", bytes: PackageResources.run_undo_sh),
    EmbeddedFile(path: "steps/schema-probe.apply.sh", bytes: PackageResources.schema_probe_apply_sh),
    EmbeddedFile(path: "steps/seal.apply.sh", bytes: PackageResources.seal_apply_sh),
    EmbeddedFile(path: "steps/seal.undo.sh", bytes: PackageResources.seal_undo_sh),
    EmbeddedFile(path: "steps/ssh-hardening.apply.sh", bytes: PackageResources.ssh_hardening_apply_sh),
    EmbeddedFile(path: "steps/ssh-hardening.undo.sh", bytes: PackageResources.ssh_hardening_undo_sh),
    EmbeddedFile(path: "steps/swap.apply.sh", bytes: PackageResources.swap_apply_sh),
    EmbeddedFile(path: "steps/swap.undo.sh", bytes: PackageResources.swap_undo_sh),
    EmbeddedFile(path: "steps/sysctl.apply.sh", bytes: PackageResources.sysctl_apply_sh),
    EmbeddedFile(path: "steps/sysctl.undo.sh", bytes: PackageResources.sysctl_undo_sh),
    EmbeddedFile(path: "steps/systemd-unit.apply.sh", bytes: PackageResources.systemd_unit_apply_sh),
    EmbeddedFile(path: "steps/systemd-unit.undo.sh", bytes: PackageResources.systemd_unit_undo_sh),
    EmbeddedFile(path: "steps/time.apply.sh", bytes: PackageResources.time_apply_sh),
    EmbeddedFile(path: "steps/time.undo.sh", bytes: PackageResources.time_undo_sh),
    EmbeddedFile(path: "steps/updates.apply.sh", bytes: PackageResources.updates_apply_sh),
    EmbeddedFile(path: "steps/updates.undo.sh", bytes: PackageResources.updates_undo_sh),
    EmbeddedFile(path: "steps/user.apply.sh", bytes: PackageResources.user_apply_sh),
    EmbeddedFile(path: "steps/user.undo.sh", bytes: PackageResources.user_undo_sh),
    EmbeddedFile(path: "swap.sh", bytes: PackageResources.swap_sh),
    EmbeddedFile(path: "switch.sh", bytes: PackageResources.switch_sh),
    EmbeddedFile(path: "sysctl.sh", bytes: PackageResources.sysctl_sh),
    EmbeddedFile(path: "system.sh", bytes: PackageResources.system_sh),
    EmbeddedFile(path: "ufw.sh", bytes: PackageResources.ufw_sh),
    EmbeddedFile(path: "undoing.sh", bytes: PackageResources.undoing_sh),
    EmbeddedFile(path: "units.sh", bytes: PackageResources.units_sh),
    EmbeddedFile(path: "upgrade.sh", bytes: PackageResources.upgrade_sh),
  ]

  /// The command line of the exec channel that begins the conversation.
  public static let stub = EmbeddedFile(path: "stub.sh", bytes: PackageResources.stub_sh)

  /// User data for a new machine; `@APP@` and `@KEY@` stand for the app's name and a public key.
  public static let cloudInit = EmbeddedFile(path: "cloud-init.yml", bytes: PackageResources.init_cloud_init_yml)

  /// What `orchestrate init` writes, by path in the project; `@APP@` stands for the app's name.
  public static let project: [EmbeddedFile] = [
    EmbeddedFile(path: "inventories/prod.yml", bytes: PackageResources.init_inventory_yml),
    EmbeddedFile(path: "compose.prod.yml", bytes: PackageResources.init_compose_yml),
    EmbeddedFile(path: "env.template", bytes: PackageResources.init_env_template),
    EmbeddedFile(path: ".github/workflows/deploy.yml", bytes: PackageResources.init_workflow_yml),
  ]
}

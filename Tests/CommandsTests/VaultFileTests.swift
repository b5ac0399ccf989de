import ArgumentParser
import Diagnostics
import Engine
import Foundation
import Inventory
import Testing
import Views

@testable import Commands

@Suite struct VaultFileTests {
  private func project(_ inventory: String = "", _ body: (ProjectSession, URL) async throws -> Void) async throws {
    let registry = "registry: { server: r.example.com, username: ada, password: REGISTRY_PASSWORD }"
    try await withProject(
      inventory: registry + "\n" + inventory,
      envTemplate: "LOG_LEVEL=INFO\nDSN=${DSN:?x}\nPORT=${PORT:-1}\nON=${ON:-}\nMODE=${MODE:-x}\n"
    ) { root in
      var context = CommandContext.process
      context.environment = ["HOME": root.path, "MODE": "variable"]
      context.output = Silence()
      context.workingDirectory = root.path
      var options = try GlobalOptions.parse([])
      options.project = root.path
      try await body(ProjectSession(options, context: context), root)
    }
  }

  private func run(_ session: ProjectSession, _ arguments: [String], input: String = "") async -> Int32 {
    var context = session.context
    context.standardInputIsTerminal = false
    context.readInput = { _ in Array(input.utf8) }
    return await CommandContext.$current.withValue(context) { await CommandLineTool.run(arguments: arguments) }
  }

  /// A value of the vault reaches the env file, is secret whatever its name, and stands behind the environment.
  @Test func theEnvFilesSource() async throws {
    try await project { session, root in
      #expect(await run(session, ["secrets", "keygen"]) == 0)
      for (name, value) in [
        ("DSN", "plain-looking"), ("PORT", "99"), ("MODE", "vault"), ("REGISTRY_PASSWORD", "pw"), ("a.b", "no"),
      ] {
        #expect(await run(session, ["secrets", "set", "prod", name], input: value) == 0)
      }
      let loaded = try session.load(environment: "prod", playbook: "deploy", version: "v1")
      let vault = try session.vaultValues(loaded.inventory, root: loaded.project.root)
      #expect(vault == ["DSN": "plain-looking", "PORT": "99", "MODE": "vault", "REGISTRY_PASSWORD": "pw"])
      let client = LiveDeploymentClient(
        connector: HostConnector(
          loaded.inventory.hosts[0], inventory: loaded.inventory, projectRoot: root.path, context: session.context),
        session: session, loaded: loaded, version: "v1", vault: vault)
      let values =
        try client.resolveEnv(host: "DSN=old\n", generated: nil, current: nil, hasVolumes: false, machine: nil)?.values
        ?? []
      #expect(
        values.map(\.description) == [
          "LOG_LEVEL=INFO (fixed)", "DSN=******** (vault)", "PORT=******** (vault)", "ON= (default)",
          "MODE=variable (environment)",
        ])
      #expect(values[1].value == "plain-looking" && values[2].value == "99")
      #expect(try client.registryPassword() == Secret("pw"))
      // What the vault has is hidden in logs, too, without a key.
      try FileManager.default.removeItem(at: root.appending(path: ".config"))
      let secrets = HostSecrets(session, inventory: loaded.inventory)
      #expect(Set(secrets.values(files: ["DSN=older\nLOG_LEVEL=INFO\n"]).map { $0.reveal() }) == ["older", "variable"])
    }
  }

  @Test(arguments: [
    ("", "inventories/prod.secrets.yml"), ("secrets: vault.yml", "inventories/vault.yml"),
    ("secrets: ../prod.secrets.yml", "prod.secrets.yml"), ("secrets: ./a/b.yml", "inventories/a/b.yml"),
  ])
  func whereItLies(line: String, path: String) async throws {
    try await project(line) { session, root in
      let loaded = try session.loader.inventory(environment: "prod")
      #expect(VaultFile(loaded.inventory, root: loaded.project.root, context: session.context).name == path)
    }
  }
}

private struct Silence: OutputSink {
  func write(_ text: String, to stream: Views.OutputStream) {}
}

@Suite struct PlaintextSpaceTests {
  static let mounts = """
    overlay / overlay rw 0 0
    tmpfs /dev tmpfs rw 0 0
    shm /dev/shm tmpfs rw 0 0
    /dev/sda1 /dev/shm/disk ext4 rw 0 0
    tmpfs /run/user/1000 tmpfs rw 0 0
    ramfs /mnt ramfs rw 0 0
    /dev/sdb /mnt ext4 rw 0 0
    """

  @Test(arguments: [
    ("/dev/shm", true), ("/dev/shm/x", true), ("/dev/shm/disk", false), ("/dev/shm/disks", true), ("/tmp", false),
    ("/", false),
    ("/run/user/1000", true), ("/run/user/10000", false), ("/mnt", false),
  ])
  func memory(path: String, expected: Bool) {
    #expect(PlaintextSpace.isInMemory(path, mounts: Self.mounts) == expected)
  }

  @Test func theFolderGoes() throws {
    let space = try PlaintextSpace(.process)
    let path = try space.write("a.yml", "x")
    #expect(try space.read("a.yml") == "x")
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    #expect(attributes[.posixPermissions] as? Int == 0o600)
    try FileManager.default.createDirectory(atPath: space.folder + "/below", withIntermediateDirectories: false)
    space.remove()
    space.remove()
    #expect(!FileManager.default.fileExists(atPath: space.folder))
  }
}

@Suite struct PrivateFileTests {
  @Test func replacesWholeAndKeepsModeAndLinks() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "orchestrate-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try PrivateFile.replace(folder + "/a", with: [1], mode: 0o644)
    #expect(try FileManager.default.attributesOfItem(atPath: folder + "/a")[.posixPermissions] as? Int == 0o644)
    try FileManager.default.setAttributes([.posixPermissions: 0o640], ofItemAtPath: folder + "/a")
    try FileManager.default.createSymbolicLink(atPath: folder + "/link", withDestinationPath: "a")
    try PrivateFile.replace(folder + "/link", with: [2, 3], mode: 0o600)
    #expect(FileManager.default.contents(atPath: folder + "/a") == Data([2, 3]))
    #expect(try FileManager.default.attributesOfItem(atPath: folder + "/a")[.posixPermissions] as? Int == 0o640)
    #expect(try FileManager.default.destinationOfSymbolicLink(atPath: folder + "/link") == "a")
    #expect(throws: PrivateFile.Fault.self) { try PrivateFile.create(folder + "/a", [4]) }
    #expect(throws: PrivateFile.Fault.self) { try PrivateFile.replace(folder + "/none/a", with: [4], mode: 0o644) }
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["a", "link"])
  }
}

import ArgumentParser
import Crypto
import Diagnostics
import Engine
import Foundation
import Inventory
import Testing

@testable import Commands

/// Env files across rotations: what a rollback writes.
@Suite struct PresentValuesTests {
  private static let template = "# @file\nDB_PASSWORD=${generate:32}\nTOKEN=${TOKEN:?x}\n"

  /// - Parameter replaced: values that rotations have replaced, by name.
  private func carried(
    _ older: String, _ present: String, replaced: [String: [String]], roles: (then: String, now: String)? = nil
  ) async throws -> Rotation {
    var found: Rotation?
    try await withProject(envTemplate: Self.template) { root in
      var options = try GlobalOptions.parse([])
      options.project = root.path
      let session = ProjectSession(options, context: .process)
      let inventory = try session.loader.inventory(environment: "prod").inventory
      var current = Release(number: 3, version: "v2", previous: 2, created: "", playbook: "")
      current.replaced = replaced.mapValues { $0.map { SHA256.hex(Array($0.utf8)) } }
      var target = Release(number: 1, version: "v1", previous: 0, created: "", playbook: "")
      if let roles { (target.roles, current.roles) = ([roles.then: "app"], [roles.now: "app"]) }
      let read = { (text: String) in try EnvFile.read(Array(text.utf8), file: "test") }
      found = PresentValues(HostSecrets(session, inventory: inventory)).carried(
        over: current, to: target, older: try read(older), present: try read(present))
    }
    return try #require(found)
  }

  private func text(_ rotation: Rotation) throws -> String {
    try EnvFile.render(rotation.values) + "\n" + EnvFile.renderFiles(rotation.values)
  }

  @Test func withoutARotationNothingIsAnother() async throws {
    let older = "TOKEN=token-older\nLEVEL=INFO\n"
    let found = try await carried(older, "TOKEN=token-newer\nLEVEL=DEBUG\n", replaced: ["TOKEN": ["another"]])
    #expect(
      found.after.isEmpty && found.note?.contains("TOKEN: rotated once, and v1 has a value that isn't known") == true)
    #expect(try text(found) == older + "\n")
    #expect(try await carried(older, "TOKEN=token-newer\nLEVEL=DEBUG\n", replaced: [:]).note == nil)
  }

  /// The running release makes another URL of it; the older one's keeps its form.
  @Test func whatIsMadeFromItHasThePresentValue() async throws {
    let url = "pg://x:password-a@db/x"
    let found = try await carried(
      "DB_PASSWORD=password-a\nURL=\(url)\nLEVEL=INFO\nCOPY=password-a\n",
      "DB_PASSWORD=password-c\nURL=pg://x:password-c@db/x?pool=5\nLEVEL=DEBUG\nCOPY=password-c\n",
      replaced: ["DB_PASSWORD": ["password-a", "password-b"], "URL": [url], "COPY": ["password-a"]])
    #expect(
      try text(found) == "DB_PASSWORD=password-c\nURL=pg://x:password-c@db/x\nLEVEL=INFO\nCOPY=password-c\n\n")
    #expect(found.changed == ["DB_PASSWORD", "URL", "COPY"])
    #expect(found.before["URL"]?.reveal() == url)
    #expect(found.values.filter(\.isSecret).map(\.name) == ["DB_PASSWORD", "URL", "COPY"])
  }

  /// It mounts the file that the running release has; where that has none, one of its own is made.
  @Test func aValueInAFile() async throws {
    let folder = "/opt/bot/secrets"
    let older = "DB_PASSWORD_FILE=\(folder)/DB_PASSWORD.01\nURL=pg://password-a@db\n\nDB_PASSWORD=password-a\n"
    let present = "DB_PASSWORD_FILE=\(folder)/DB_PASSWORD.02\n\nDB_PASSWORD=password-b\n"
    let found = try await carried(older, present, replaced: ["DB_PASSWORD": ["password-a"]])
    #expect(
      try text(found)
        == "DB_PASSWORD_FILE=\(folder)/DB_PASSWORD.02\nURL=pg://password-b@db\n\nDB_PASSWORD=password-b\n")
    #expect(found.changed == ["DB_PASSWORD", "URL"])
    let plain = try await carried(older, "DB_PASSWORD=password-b\n", replaced: ["DB_PASSWORD": ["password-a"]])
    let path = try #require(plain.values.first?.path)
    #expect(path.hasPrefix("\(folder)/DB_PASSWORD.") && path != "\(folder)/DB_PASSWORD.01")
    #expect(plain.values.first?.value == "password-b")
  }

  /// A short value stands in others by chance; what is made from one is taken whole, as from a value that only the vault has.
  @Test func whatCannotBeMadeAnewIsTakenWhole() async throws {
    let found = try await carried(
      "PIN=1234\nPORT=12345\nHOOK=https://h/1234\n", "PIN=5678\nPORT=12345\nHOOK=https://h/5678\n",
      replaced: ["PIN": ["1234"], "HOOK": ["https://h/1234"]])
    #expect(try text(found) == "PIN=5678\nPORT=12345\nHOOK=https://h/5678\n\n")
  }

  /// Weak first passwords are what people rotate, and they stand everywhere.
  @Test func aPasswordThatIsAnOrdinaryWord() async throws {
    let url = "postgres://bot:postgres@postgres:5432/bot"
    let older = "DB_PASSWORD=postgres\nPOSTGRES_USER=postgres\nURL=\(url)\nREAD_URL=\(url)/read\n"
    let found = try await carried(
      older,
      "DB_PASSWORD=secret-b\nPOSTGRES_USER=postgres\nURL=postgres://bot:secret-b@postgres:5432/bot\nREAD_URL=other\n",
      replaced: ["DB_PASSWORD": ["postgres"], "URL": [url], "READ_URL": ["unlike"]])
    #expect(
      try text(found) == "DB_PASSWORD=secret-b\nPOSTGRES_USER=postgres\nURL=postgres://bot:secret-b@postgres:5432/bot\n"
        + "READ_URL=\(url)/read\n\n")
    #expect(found.changed == ["DB_PASSWORD", "URL"] && found.note?.hasPrefix("READ_URL: rotated once") == true)
  }

  /// The role has the present password, whatever its name was.
  @Test func aRolesPasswordThatHasAnotherNameNow() async throws {
    let older = "DB_PASSWORD=password-a\nURL=pg://password-a@db\n"
    let present = "APP_DB_PASSWORD=password-b\nURL=pg://password-b@db\n"
    let replaced = ["DB_PASSWORD": ["password-a"], "URL": ["pg://password-a@db"]]
    let found = try await carried(older, present, replaced: replaced, roles: ("DB_PASSWORD", "APP_DB_PASSWORD"))
    #expect(try text(found) == "DB_PASSWORD=password-b\nURL=pg://password-b@db\n\n" && found.note == nil)
    // Without a role nobody knows: all that is made from it comes back with it.
    let lost = try await carried(older, present, replaced: replaced)
    #expect(try text(lost) == older + "\n" && lost.note?.hasPrefix("DB_PASSWORD: replaced by a rotation") == true)
  }

  @Test func aNameThatTheRunningReleaseHasNoMoreIsTold() async throws {
    let found = try await carried("TOKEN=token-older\n", "LEVEL=INFO\n", replaced: ["TOKEN": ["token-older"]])
    #expect(found.after.isEmpty && found.note?.contains("TOKEN: replaced by a rotation since v1 ran") == true)
  }
}

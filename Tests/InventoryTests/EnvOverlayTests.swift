import Diagnostics
import Inventory
import Testing

private func template(_ files: (String, String)...) throws -> EnvTemplate {
  try EnvTemplate(files: files.map { ($0.0, Array($0.1.utf8)) })
}

private func request(_ host: [String: String] = [:]) -> EnvRequest {
  EnvRequest(values: [.host: host], builtins: ["VERSION": "v1"], environment: "prod") {
    String(repeating: "g", count: $0)
  }
}

private func faults(_ body: () throws -> Void) -> [String] {
  do {
    try body()
    return []
  } catch let error as ConfigurationError {
    return error.diagnostics.map(render)
  } catch {
    return ["\(error)"]
  }
}

@Suite struct EnvOverlayTests {
  @Test func laterFilesOverrideByNameAndMayAdd() throws {
    let found = try template(
      ("env.template", "LOG_LEVEL=INFO\nAPI=https://a\nURL=${API}/x\n"), ("env.prod", "API=https://b\nMORE=${URL}\n"))
    let values = try found.resolve(request()).values
    #expect(
      values.map(\.description) == [
        "LOG_LEVEL=INFO (fixed)", "API=https://b (fixed)", "URL=https://b/x (composed)", "MORE=https://b/x (composed)",
      ])
  }

  /// Another value for a secret doesn't make it public.
  @Test func annotationsStay() throws {
    let found = try template(
      ("a", "# The key. @secret @keep @file @role market\n# @type base64\nX=${X}\n"), ("b", "X=aGk=\n"),
      ("c", "# @type url\nX=http://x\n"))
    let entry = try #require(found.entries.first)
    #expect(entry.isMarkedSecret && entry.isKept && entry.isFile && entry.role == "market" && entry.type == .url)
    #expect(entry.documentation == "The key.")
    #expect(entry.location.file == "c")
    let values = try found.resolve(request()).values
    #expect(values[0].isSecret && values[0].isFile)
  }

  @Test func faultsHaveTheirFileAndPlace() {
    let found = faults {
      _ = try template(
        ("env.template", "# @type port\nPORT=80\nA=${B}\nB=1\n"), ("env.prod", "PORT=http\nB=${A}\nB=2\nVERSION=1\n"))
    }
    #expect(
      found == [
        "env.template:3:3: error: these names refer to each other in a circle: A → B → A [give one of them a value of its own]",
        "env.prod:1:6: error: PORT: the value `http` doesn't fit its type: expected a port from 1 to 65535",
        "env.prod:3:1: error: B is defined twice [the first is on line 2]",
        "env.prod:4:1: error: VERSION is set by the deployment [refer to it as ${VERSION}, or choose another name]",
      ])
  }

  /// What an overlay overrides needn't fit any more.
  @Test func anOverriddenValueIsNotJudged() throws {
    #expect(try template(("a", "# @type int\nN=many\n"), ("b", "N=3\n")).resolve(request()).values[0].value == "3")
  }

  @Test(arguments: [
    ("# @file\nX=${X}\nX_FILE=/a\n", "t:3:1: error: X_FILE is the path of X, which is marked @file"),
    ("# @role\nX=${X}\n", "t:1:3: error: @role without a role"),
    ("# @role a @role b\nX=${X}\n", "t:1:11: error: a second @role for the same name"),
    ("# @flie\nX=${X}\n", "unknown annotation `@flie` [did you mean `@file`?]"),
  ])
  func annotationFaults(text: String, message: String) {
    let found = faults { _ = try template(("t", text)) }
    #expect(found.count == 1 && found[0].contains(message), "\(found)")
  }

  @Test func valuesInFilesAreWrittenAsPaths() throws {
    var values = try template(("t", "# @file\nKEY=${KEY}\nURL=x:y\n")).resolve(request(["KEY": "a\nb"])).values
    values[0].path = "/opt/p/secrets/KEY.12"
    #expect(try EnvFile.render(values) == "KEY_FILE=/opt/p/secrets/KEY.12\nURL=x:y\n")
    #expect(try EnvFile.renderFiles(values) == "KEY=\"a\\nb\"\n")
    let back = try EnvFile.read(Array((try EnvFile.render(values) + EnvFile.renderFiles(values)).utf8), file: ".env")
    #expect(back.map { "\($0.name)=\($0.value)" } == ["KEY_FILE=/opt/p/secrets/KEY.12", "URL=x:y", "KEY=a\nb"])
  }

  private static let inventory = """
    app: bot
    hosts: { h: { address: 127.0.0.1 } }
    services: { app: [bot] }
    env: { template: %@ }

    """

  @Test(arguments: [
    ("env.template", ["env.template"], ""), ("[env.template, env.prod]", ["env.template", "env.prod"], ""),
    (
      "[env.template, env.template]", [],
      "inventories/prod.yml:4:33: error: `env.template[1]`: env.template stands twice in the list"
    ),
    (
      "[env.template, env.prd]", [],
      "`env.template[1]`: there is no file env.prd in the project folder [did you mean `env.prod`?]"
    ),
    ("[]", [], "`env.template`: the list is empty"), ("[/etc/passwd]", [], "`env.template[0]`:"),
    ("{}", [], "expected a path"),
  ])
  func inventories(value: String, paths: [String], fault: String) throws {
    let files = FileSource.memory([
      "/p/inventories/prod.yml": Self.inventory.replacing("%@", with: value), "/p/compose.yml": "",
      "/p/env.template": "A=1\n", "/p/env.prod": "A=2\n",
    ])
    let loader = ProjectLoader(files: files, startDirectory: "/p")
    if fault.isEmpty {
      let inventory = try loader.inventory(environment: "prod").inventory
      #expect(inventory.env.templates == paths)
      #expect(try loader.template(of: inventory)?.resolve(request()).values[0].value == "\(paths.count)")
    } else {
      let found = faults { _ = try loader.inventory(environment: "prod") }
      #expect(found.count == 1 && found[0].contains(fault), "\(found)")
    }
  }
}

@Suite struct EnvRotationTests {
  private static let text = """
    USER=market
    # @role writer
    WRITER_PASSWORD=${WRITER_PASSWORD:?x}
    DB_PASSWORD=w-${generate:8}
    URL=pg://${USER}:${DB_PASSWORD}@db/${VERSION}
    DSN=${DSN:-${URL}}
    OTHER=${OTHER:-1}

    """

  @Test func whatIsMadeFromAName() throws {
    let found = try template(("t", Self.text))
    #expect(found.names(madeFrom: "DB_PASSWORD") == ["DB_PASSWORD", "URL", "DSN"])
    #expect(found.names(madeFrom: "OUTSIDE") == [])
    #expect(found.roles == ["WRITER_PASSWORD": "writer"])
    #expect(try found.newValue(of: "DB_PASSWORD") { String(repeating: "n", count: $0) } == "w-nnnnnnnn")
    #expect(try found.newValue(of: "OTHER") { String(repeating: "n", count: $0) } == nil)
  }

  @Test(arguments: [
    ("pg://market:old-old@db/v1", "DSN=pg://market:new@db/v1"), ("own", "DSN=own"),
  ])
  func onlyWhatIsMadeFromItChanges(dsn: String, expected: String) throws {
    let present = [
      "USER": "market", "DB_PASSWORD": "old-old", "URL": "pg://market:old-old@db/v0", "DSN": dsn, "OTHER": "5",
    ]
    let made = try template(("t", Self.text)).values(
      changing: "DB_PASSWORD", from: "old-old", to: "new", present: present, request: request())
    #expect(
      made.map { "\($0.name)=\($0.value)" } == ["DB_PASSWORD=new", "URL=pg://market:new@db/v1", expected])
    #expect(made.prefix(2).allSatisfy { $0.isSecret })
  }

  @Test func aValueHasToFitItsType() throws {
    let found = try template(("t", "# @type port\nP=${P}\n"))
    #expect(throws: ConfigurationError.self) {
      try found.values(changing: "P", from: "1", to: "x", present: ["P": "1"], request: request())
    }
  }
}

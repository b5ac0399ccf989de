import Diagnostics
import Engine
import Inventory
import Testing

@testable import Steps

/// As Compose prints the release's own file with a password; the kept services have their images there, not local tags.
private func composed(_ password: String, _ path: String = "/opt/shop/secrets/API_KEY.1", cache: String? = nil)
  -> String
{
  """
  {"name":"shop","networks":{"default":{"name":"shop_default"}},
   "secrets":{"api":{"name":"shop_api","file":"\(path)"},"other":{"name":"shop_other","file":"/etc/x"}},
   "services":{
    "bot":{"image":"registry/bot:v1","environment":{"URL":"pg://shop:\(password)@db/shop","PRICE":"5$$","MODE":"1"},
      "secrets":[{"source":"api","target":"/run/secrets/api"}]},
    "web":{"image":"registry/web:v1","environment":{"MODE":"1"},"secrets":[{"source":"other","target":"/run/secrets/other"}]},
    "redis":{"image":"redis:8","command":["sh","-c","requirepass \(cache ?? password)"]},
    "postgres":{"image":"postgres:17","environment":{"POSTGRES_USER":"shop","POSTGRES_PASSWORD":"\(password)"}}}}
  """
}

private func value(_ name: String, _ value: String, path: String? = nil, origin: EnvOrigin = .source(.host))
  -> ResolvedValue
{
  ResolvedValue(name: name, value: value, isSecret: true, origin: origin, isFile: path != nil, path: path)
}

/// What runs has the password `old-password`, and gets `new-$password`.
private func context(
  changing: [String: (String, String)] = ["DB_PASSWORD": ("old-password", "new-$password")], raw: String? = nil,
  running: String? = nil
) throws -> StepContext {
  var context = shopContext(version: "v1")
  context.inventory.services.app = ["bot", "web"]
  context.inventory.services.cache = "redis"
  var deployed = context
  deployed.config = ComposeConfig(try json(running ?? composed("old-password")))
  deployed.images = [
    "bot": image("bot", "1"), "web": image("web", "2"), "redis": image("redis", "8"),
    "postgres": image("postgres", "9"),
  ]
  deployed.env = [
    value("DB_PASSWORD", "old-password"), value("LEVEL", "1"),
    value("API_KEY", "k", path: "/opt/shop/secrets/API_KEY.1"),
  ]
  let effective = try #require(effectiveConfig(deployed))
  var current = SealStep(playbook: Playbook(name: "deploy", steps: [])).release(deployed, effective)
  current.number = 6
  current.previous = 4
  context.current = current
  context.currentConfig = effective.config
  context.images = current.images
  if changing["DB_PASSWORD"] != nil {
    context.roleChanges = [RoleChange(role: "shop", name: "DB_PASSWORD", verifier: Secret("v"))]
  }
  context.config = ComposeConfig(try json(raw ?? composed("new-$$password")))
  context.env = deployed.env!.map { old in
    guard let (_, new) = changing[old.name] else { return old }
    return value(old.name, new, path: old.path)
  }
  context.rotation = Rotation(
    key: changing.keys.first!, values: context.env!, before: changing.mapValues { Secret($0.0) },
    after: changing.mapValues { Secret($0.1) })
  return context
}

private func rotated(_ context: StepContext) -> (context: StepContext, rotated: RotatedConfig) {
  var context = context
  let rotated = rotatedConfig(context)
  context.rotation?.config = rotated.config
  context.options.include.formUnion(rotated.services)
  return (context, rotated)
}

@Suite struct RotationTests {
  @Test func onlyTheValueChangesAndTheDatabaseStays() throws {
    let (context, found) = rotated(try context())
    #expect(found.problems == [] && found.services == ["redis"])
    let running = try #require(context.currentConfig), new = try #require(effectiveConfig(context))
    #expect(new.problems == [])
    #expect(new.config.service("bot")?["environment"]?["URL"]?.stringValue == "pg://shop:new-$$password@db/shop")
    #expect(new.config.service("bot")?["image"] == running.service("bot")?["image"])
    #expect(new.config.service("redis")?["command"]?[2]?.stringValue == "requirepass new-$$password")
    #expect(new.config.service("postgres") == running.service("postgres"))
    #expect(new.config.service("web") == running.service("web"))
    #expect(new.images == context.current?.images)
    let changes = RecreateStep().plan(context)
    #expect(changes.map(\.subject) == ["service bot", "service redis"])
    #expect(!changes.map { $0.detail.joined() }.joined().contains("password@"))
  }

  /// What runs as an older compose file has it gets the value all the same; what only looks like it doesn't.
  @Test func aKeptServiceOfAnOlderComposeFile() throws {
    let raw = composed("new-$$password").replacing(#"["sh","-c","requirepass new-$$password"]"#, with: #"["redis"]"#)
    let (_, found) = rotated(try context(raw: raw))
    #expect(found.services == ["redis"])
    #expect(found.config.service("redis")?["command"]?[2]?.stringValue == "requirepass new-$$password")
    let short = try context(
      changing: ["LEVEL": ("1", "2")], raw: composed("old-password").replacing(#""MODE":"1""#, with: #""MODE":"2""#))
    let other = rotated(short).rotated
    #expect(other.config.service("bot")?["environment"]?["MODE"]?.stringValue == "2" && other.services == [])
  }

  /// Compose's hash doesn't know which file a secret is: a label does. The database mounts the old one further on.
  @Test func aValueInAFile() throws {
    let path = "/opt/shop/secrets/API_KEY.2"
    var before = try context(
      changing: ["API_KEY_FILE": ("/opt/shop/secrets/API_KEY.1", path)], raw: composed("old-password", path))
    before.env = before.env!.map { $0.name == "API_KEY" ? value("API_KEY", "k2", path: path) : $0 }
    before.rotation?.values = before.env!
    let (context, found) = rotated(before)
    #expect(found.problems == [] && found.services == [])
    #expect(context.rotation?.changed == ["API_KEY"])
    let running = try #require(context.currentConfig), new = try #require(effectiveConfig(context)).config
    #expect(new.root["secrets"]?["api"]?["file"]?.stringValue == path)
    #expect(
      new.service("bot")?["labels"]?["orchestrate.files"] != running.service("bot")?["labels"]?["orchestrate.files"])
    #expect(new.service("web") == running.service("web"))
    #expect(RecreateStep().plan(context).map(\.subject) == ["service bot"])
    let payload = try EnvStep().payload(context)
    #expect(payload.files.map(\.path) == ["env", "secrets", "files/API_KEY.2", "version.env", "check.json"])
    #expect(payload.files[0].bytes == Array("DB_PASSWORD=old-password\nLEVEL=1\nAPI_KEY_FILE=\(path)\n".utf8))
    #expect(payload.secrets.contains("files/API_KEY.2") && payload.secrets.contains("secrets"))
    #expect(payload.files[1].bytes == Array("API_KEY=k2\n".utf8) && payload.files[2].bytes == Array("k2".utf8))
  }

  /// The database keeps its file, so that the others' has a name that no compose file knows: it follows each further rotation all the same.
  @Test func aValueInAFileThatTheDatabaseMountsTooIsRotatedTwice() throws {
    func path(_ number: Int) -> String { "/opt/shop/secrets/API_KEY.\(number)" }
    func mounted(_ number: Int) -> String {
      let end = #""POSTGRES_PASSWORD":"old-password"}"#
      return composed("old-password", path(number)).replacing(
        end, with: end + #","secrets":[{"source":"api","target":"/run/secrets/api"}]"#)
    }
    func file(_ config: ComposeConfig, _ service: String) -> String? {
      let source = config.service(service)?[path: ["secrets", "0", "source"]]?.stringValue
      return source.flatMap { config.root["secrets"]?[$0]?["file"]?.stringValue }
    }
    var before = try context(changing: ["API_KEY_FILE": (path(1), path(2))], raw: mounted(2), running: mounted(1))
    for number in 2...4 {
      before.env = before.env!.map { $0.name == "API_KEY" ? value("API_KEY", "k\(number)", path: path(number)) : $0 }
      before.config = ComposeConfig(try json(mounted(number)))
      before.rotation = Rotation(
        key: "API_KEY", values: before.env!, before: ["API_KEY_FILE": Secret(path(number - 1))],
        after: ["API_KEY_FILE": Secret(path(number))])
      let (context, found) = rotated(before)
      #expect(found.problems == [] && found.services == [])
      let new = try #require(effectiveConfig(context)).config
      #expect(file(new, "bot") == path(number) && file(new, "postgres") == path(1))
      #expect(RecreateStep().plan(context).map(\.subject) == ["service bot"])
      before.currentConfig = new
      // A deploy of the same version makes the same of it.
      var deploy = before
      deploy.rotation = nil
      #expect(effectiveConfig(deploy)?.config == new)
    }
  }

  /// Nobody would get the new password: refused, unless the role is the one that the database's image makes, which may be nobody's.
  @Test func aRoleWhosePasswordNoServiceHas() throws {
    let url = #""URL":"pg://shop:"#
    func unused(_ password: String) -> String {
      composed(password, cache: "x").replacing(url + password + #"@db/shop""#, with: #""URL":"x""#)
    }
    let own = rotated(try context(raw: unused("new-$$password"), running: unused("old-password"))).rotated
    #expect(own.problems == [] && own.warnings.count == 1)
    #expect(own.warnings.first?.contains("whatever else logs in as shop") == true)
    var other = try context(changing: ["WRITER": ("writer-old-one", "writer-new-one")], raw: composed("old-password"))
    other.roleChanges = [RoleChange(role: "writer", name: "WRITER", verifier: Secret("v"))]
    #expect(rotated(other).rotated.problems.first?.contains("no service that runs has it") == true)
  }

  @Test func whatOnlyTheDatabaseUsesIsToldNotDone() throws {
    let text = #""POSTGRES_USER":"shop""#
    let only = try context(
      changing: ["API": ("api-key-old", "api-key-new")],
      raw: composed("old-password").replacing(text, with: text + #","API":"api-key-new""#),
      running: composed("old-password").replacing(text, with: text + #","API":"api-key-old""#))
    #expect(
      rotated(only).rotated.problems.first?.contains("only the database postgres uses API (environment.API)") == true)
    let also = try context(
      raw: composed("new-$$password").replacing(text, with: text + #","PGPASSWORD":"new-$$password""#),
      running: composed("old-password").replacing(text, with: text + #","PGPASSWORD":"old-password""#))
    let found = rotated(also).rotated
    #expect(found.problems == [] && found.warnings.count == 1 && found.warnings[0].contains("environment.PGPASSWORD"))
  }

  /// The role's password has to be a value that a rollback finds again.
  @Test func aPasswordThatIsPutTogetherInTheComposeFile() throws {
    let old = #""POSTGRES_PASSWORD":""#, text = old + "x-"
    var context = try context(
      raw: composed("new-$$password").replacing(old, with: text),
      running: composed("old-password").replacing(old, with: text))
    context.roleChanges = []
    #expect(
      rotated(context).rotated.problems.first?.contains("give it a name of its own in the template") == true)
  }

  /// A rollback from it goes where one from what ran would have gone.
  @Test func theReleaseOfARotation() throws {
    let (context, _) = rotated(try context())
    let old = try #require(context.current), effective = try #require(effectiveConfig(context))
    let release = SealStep(playbook: Playbook(name: "rotate", steps: [])).release(context, effective)
    #expect(release.number == 7 && release.version == "v1" && release.previous == old.previous)
    #expect(release.env["DB_PASSWORD"] == testHash(Array("new-$password".utf8)))
    #expect(release.env["LEVEL"] == old.env["LEVEL"])
    #expect(release.replaced == ["DB_PASSWORD": [old.env["DB_PASSWORD"]!]])
    #expect(release.roles == ["DB_PASSWORD": "shop"])
    #expect(release.playbook == old.playbook && release.images == old.images)
    let back = try Release(json: String(decoding: try release.json(), as: UTF8.self), host: "h")
    #expect(back == release)
    #expect(try ReleaseStep().payload(context).parameters.first?.value == "6")
  }

  // MARK: Going back

  /// After a rotation, to the release that it made another of.
  private func goingBack(
    _ changing: [String: (String, String)], raw: String, running: String, _ values: [ResolvedValue]
  )
    throws -> (context: StepContext, warnings: [String])
  {
    var rotating = try context(changing: changing, raw: raw, running: running)
    rotating.env = values
    rotating.rotation?.values = values
    let (context, _) = rotated(rotating)
    let effective = try #require(effectiveConfig(context))
    var back = context
    (back.rotation, back.config, back.env, back.roleChanges, back.options) = (nil, nil, nil, [], DeployOptions())
    (back.target, back.targetConfig) = (context.current, context.currentConfig)
    back.current = SealStep(playbook: Playbook(name: "rotate", steps: [])).release(context, effective)
    back.currentConfig = effective.config
    back.number = 8
    back.carriedOver = context.rotation
    let carried = carriedConfig(back)
    back.targetConfig = carried.config
    return (back, carried.warnings)
  }

  /// What was replaced is given up for good: the older release gets the present value, whatever its own env and configuration say.
  @Test func aRollbackKeepsWhatWasRotated() throws {
    let values = [
      value("DB_PASSWORD", "new-$password"), value("LEVEL", "1"),
      value("API_KEY", "k", path: "/opt/shop/secrets/API_KEY.1"),
    ]
    let (back, warnings) = try goingBack(
      ["DB_PASSWORD": ("old-password", "new-$password")], raw: composed("new-$$password"),
      running: composed("old-password"), values)
    #expect(warnings == [])
    let config = try #require(effectiveConfig(back)).config, running = try #require(back.currentConfig)
    // It stands only in the compose file's own text.
    #expect(config.service("bot")?["environment"]?["URL"]?.stringValue == "pg://shop:new-$$password@db/shop")
    #expect(config.service("redis") == running.service("redis"))
    #expect(config.service("postgres") == running.service("postgres"))
    #expect(!config.service("bot")!.text().contains("old-password"))
    let payload = try ReleaseStep().payload(back)
    #expect(payload.files.map(\.path) == ["env", "secrets", "effective.json", "images.yml", "release.json"])
    #expect(
      String(decoding: payload.files[0].bytes, as: UTF8.self)
        == "DB_PASSWORD='new-$password'\nLEVEL=1\nAPI_KEY_FILE=/opt/shop/secrets/API_KEY.1\n")
    #expect(Set(payload.secrets) == ["effective.json", "env", "secrets"])
    let release = try Release(json: String(decoding: payload.files[4].bytes, as: UTF8.self), host: "h")
    #expect(release.number == 8 && release.copyOf == 6 && release.roles == ["DB_PASSWORD": "shop"])
    #expect(release.env["DB_PASSWORD"] == testHash(Array("new-$password".utf8)))
    // A vault that is behind is still told so.
    #expect(release.replaced == ["DB_PASSWORD": [testHash(Array("old-password".utf8))]])
    let change = ReleaseStep().plan(back).first { $0.subject == "env DB_PASSWORD" }
    #expect(change?.detail == ["  DB_PASSWORD was rotated since v1 ran: the present value stays"])
  }

  @Test func aRollbackMountsThePresentFile() throws {
    let path = "/opt/shop/secrets/API_KEY.2"
    let values = [value("DB_PASSWORD", "old-password"), value("LEVEL", "1"), value("API_KEY", "k2", path: path)]
    let (back, warnings) = try goingBack(
      ["API_KEY_FILE": ("/opt/shop/secrets/API_KEY.1", path)], raw: composed("old-password", path),
      running: composed("old-password"), values)
    #expect(warnings == [])
    let config = try #require(effectiveConfig(back)).config
    #expect(config.root["secrets"]?["api"]?["file"]?.stringValue == path)
    #expect(config.service("bot") == back.currentConfig?.service("bot"))
    let payload = try ReleaseStep().payload(back)
    #expect(payload.files.prefix(3).map(\.path) == ["env", "secrets", "files/API_KEY.2"])
    #expect(payload.secrets.contains("files/API_KEY.2"))
  }

  /// A password that is a word of its own: only where it is the value is it replaced.
  @Test func aRollbackFromAnOrdinaryPassword() throws {
    func text(_ password: String) -> String {
      composed(password).replacing(#""PRICE":"5$$""#, with: #""HOST":"postgres","DB_PASSWORD":"\#(password)""#)
    }
    let values = [value("DB_PASSWORD", "new-password"), value("LEVEL", "1")]
    let (back, warnings) = try goingBack(
      ["DB_PASSWORD": ("postgres", "new-password")], raw: text("new-password"), running: text("postgres"), values)
    let bot = try #require(back.targetConfig?.service("bot"))
    #expect(bot["environment"]?["HOST"]?.stringValue == "postgres")
    #expect(bot["environment"]?["DB_PASSWORD"]?.stringValue == "new-password")
    #expect(warnings.count == 1 && warnings[0].contains("service bot may go back with an older value of DB_PASSWORD"))
    // A rotation is told by Compose what is made from it.
    #expect(back.currentConfig?.service("bot")?["environment"]?["HOST"]?.stringValue == "postgres")
    #expect(back.currentConfig?.service("bot")?["environment"]?["URL"]?.stringValue == "pg://shop:new-password@db/shop")
  }

  /// What no environment is made of is told, where it isn't replaced.
  @Test func aRollbackTellsWhereAnOlderValueStays() throws {
    func text(_ password: String) -> String {
      composed(password).replacing(
        #""image":"registry/bot:v1","#, with: #""image":"registry/bot:v1","domainname":"\#(password)","#)
    }
    let values = [value("DB_PASSWORD", "new-password"), value("LEVEL", "1")]
    let (_, warnings) = try goingBack(
      ["DB_PASSWORD": ("old-password", "new-password")], raw: text("new-password"), running: text("old-password"),
      values)
    #expect(warnings.count == 1 && warnings[0].hasPrefix("service bot may go back"))
  }

  /// Text in the compose file that the database mounts, too: the others' has a name that no compose file knows.
  @Test func anInlineConfigThatTheDatabaseMountsTooIsRotatedTwice() throws {
    func mounted(_ password: String) -> String {
      let mount = #","configs":[{"source":"conf","target":"/etc/conf"}]"#
      return composed("old-password").replacing(
        #""secrets":[{"source":"api""#, with: String(mount.dropFirst()) + #","secrets":[{"source":"api""#
      )
      .replacing(#""POSTGRES_PASSWORD":"old-password"}"#, with: #""POSTGRES_PASSWORD":"old-password"}"# + mount)
      .replacing(
        #""services":{"#, with: #""configs":{"conf":{"name":"shop_conf","content":"pw=\#(password)"}},"services":{"#)
    }
    func text(_ config: ComposeConfig, _ service: String) -> String? {
      let source = config.service(service)?[path: ["configs", "0", "source"]]?.stringValue
      return source.flatMap { config.root["configs"]?[$0]?["content"]?.stringValue }
    }
    var before = try context(
      changing: ["API": ("password-1", "password-2")], raw: mounted("password-2"), running: mounted("password-1"))
    for number in 2...4 {
      before.config = ComposeConfig(try json(mounted("password-\(number)")))
      before.rotation = Rotation(
        key: "API", values: before.env!, before: ["API": Secret("password-\(number - 1)")],
        after: ["API": Secret("password-\(number)")])
      let (context, found) = rotated(before)
      #expect(found.problems == [])
      let new = try #require(effectiveConfig(context)).config
      #expect(text(new, "bot") == "pw=password-\(number)" && text(new, "postgres") == "pw=password-1")
      #expect(RecreateStep().plan(context).map(\.subject) == ["service bot"])
      before.currentConfig = new
    }
  }

  /// A short value is replaced where its name stands beside it; elsewhere nobody can tell.
  @Test(arguments: [("LEVEL", 0), ("MODE", 2)]) func aShortValue(name: String, warned: Int) throws {
    func text(_ value: String) -> String {
      composed("old-password").replacing(#""MODE":"1""#, with: "\"\(name)\":\"\(value)\"")
    }
    let values = [value("DB_PASSWORD", "old-password"), value("LEVEL", "2")]
    let (back, warnings) = try goingBack(["LEVEL": ("1", "2")], raw: text("2"), running: text("1"), values)
    #expect(warnings.count == warned)
    #expect(back.targetConfig?.service("bot")?["environment"]?[name]?.stringValue == (warned == 0 ? "2" : "1"))
  }

  @Test(arguments: [
    (#""POSTGRES_PASSWORD":"old-password""#, ["DB_PASSWORD": "shop"]),
    (#""POSTGRES_PASSWORD":"x-old-password""#, [:]),
    (#""POSTGRES_PASSWORD_FILE":"/run/secrets/pw""#, ["API_KEY": "shop"]),
    (#""POSTGRES_PASSWORD_FILE":"/elsewhere""#, [:]), (#""X":"1""#, [:]),
  ])
  func whichValuesArePasswordsOfRoles(line: String, expected: [String: String]) throws {
    let config = composed("old-password").replacing(
      #""POSTGRES_PASSWORD":"old-password"}"#, with: line + #"},"secrets":[{"source":"api","target":"pw"}]"#)
    let values = [value("DB_PASSWORD", "old-password"), value("API_KEY", "k", path: "/opt/shop/secrets/API_KEY.1")]
    #expect(databaseRoles(ComposeConfig(try json(config)), shopContext().inventory, values) == expected)
  }

  /// A deploy changes no role: it is refused, with the command that does.
  @Test func aDeployWithAnotherPasswordIsRefused() throws {
    var deploy = try context()
    deploy.rotation = nil
    #expect(
      staleValues(deploy).count == 1
        && staleValues(deploy)[0].contains("orchestrate secrets rotate prod DB_PASSWORD changes both"))
    deploy.current?.roles = nil  // of an older version of the tool
    #expect(staleValues(deploy).count == 1)
    deploy.current?.replaced = ["DB_PASSWORD": [testHash(Array("new-$password".utf8)), "another"]]
    #expect(staleValues(deploy).count == 1 && staleValues(deploy)[0].contains("git pull"))
    deploy.env = [value("DB_PASSWORD", "old-password")]
    deploy.config = ComposeConfig(try json(composed("old-password")))
    #expect(staleValues(deploy) == [])
    // What was rotated has no line of its own: only what is made from it tells.
    deploy.current?.replaced = ["URL": [testHash(Array("pg://old".utf8))]]
    deploy.current?.env["URL"] = testHash(Array("pg://new".utf8))
    deploy.env = [value("URL", "pg://old", origin: .composed)]
    #expect(staleValues(deploy).count == 1 && staleValues(deploy)[0].hasPrefix("URL would be made from a value"))
    deploy.env = [value("URL", "pg://new", origin: .composed)]
    #expect(staleValues(deploy) == [])
    // A role that the template names.
    deploy.env = [value("WRITER", "b")]
    deploy.current?.env["WRITER"] = testHash(Array("a".utf8))
    deploy.current?.roles = ["WRITER": "writer"]
    deploy.templateRoles = ["WRITER": "writer"]
    #expect(staleValues(deploy).count == 1)
    // The annotation came with the new value, or went with it.
    deploy.current?.roles = [:]
    #expect(staleValues(deploy).count == 1)
    deploy.current?.roles = ["WRITER": "writer"]
    deploy.templateRoles = [:]
    #expect(staleValues(deploy).count == 1)
  }

  @Test func theRolesStep() throws {
    var context = try context()
    context.roleChanges = [
      RoleChange(role: "my shop", name: "DB_PASSWORD", verifier: Secret("SCRAM-SHA-256$1"), backTo: "v0")
    ]
    let payload = RoleStep().payload(context)
    #expect(payload.files[0].bytes == Array("SCRAM-SHA-256$1 my shop\n".utf8))
    #expect(payload.changes && payload.hasUndo && payload.secrets == ["roles", "verifiers"])
    #expect(payload.parameters.map { "\($0.name)=\($0.value)" } == ["DB_SERVICE=postgres"])
    let change = RoleStep().plan(context)[0]
    #expect(
      change.subject == "database role my shop"
        && change.detail.last?.contains("orchestrate secrets rotate prod DB_PASSWORD") == true)
    #expect(RoleProbeStep().payload(context).files[0].bytes == Array("- my shop\n".utf8))
  }
}

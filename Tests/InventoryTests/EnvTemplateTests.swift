import Diagnostics
import Inventory
import Testing

private let example = """
  LOG_LEVEL=INFO                                              # fixed
  # @type url
  TELEGRAM_API=${TELEGRAM_API:-https://api.telegram.org}      # optional, with a default
  # Ask @BotFather. @secret
  TELEGRAM_TOKEN=${TELEGRAM_TOKEN:?the bot's token}           # required: from the first source that has it
  DB_PASSWORD=${generate:32}                                  # made once on the host if no source has it, then kept
  DATABASE_URL=postgresql://market:${DB_PASSWORD}@postgres:5432/market

  """

private func template(_ text: String) throws -> EnvTemplate {
  try EnvTemplate(file: "env.template", bytes: Array(text.utf8))
}

private func request(
  _ values: [EnvSource: [String: String]] = [:], from: [EnvSource] = EnvSource.allCases, volume: Bool = false,
  defaulted: Set<String> = []
) -> EnvRequest {
  EnvRequest(
    from: from, values: values, builtins: ["VERSION": "v1.1.0"], defaultedOnHost: defaulted,
    databaseVolumeExists: volume,
    environment: "prod", generate: { String(repeating: "g", count: $0) })
}

private func resolve(_ text: String, _ request: EnvRequest) throws -> EnvResolution {
  try template(text).resolve(request)
}

/// `NAME=value (origin)`, with `!` before a secret.
private func show(_ resolution: EnvResolution) -> [String] {
  resolution.values.map { "\($0.isSecret ? "!" : "")\($0.name)=\($0.value) (\($0.origin))" }
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

@Suite struct EnvTemplateTests {
  @Test func theDesignsTemplate() throws {
    let parsed = try template(example)
    #expect(parsed.names == ["LOG_LEVEL", "TELEGRAM_API", "TELEGRAM_TOKEN", "DB_PASSWORD", "DATABASE_URL"])
    #expect(parsed.entries[1].type == .url)
    #expect(parsed.entries[2].isMarkedSecret)
    #expect(parsed.entries[2].documentation.hasPrefix("Ask @BotFather."))
    #expect(parsed.sourceNames == ["TELEGRAM_API", "TELEGRAM_TOKEN", "DB_PASSWORD"])
    let first = try parsed.resolve(request([.environment: ["TELEGRAM_TOKEN": "t0ken"]]))
    let made = String(repeating: "g", count: 32)
    #expect(
      show(first) == [
        "LOG_LEVEL=INFO (fixed)", "TELEGRAM_API=https://api.telegram.org (default)",
        "!TELEGRAM_TOKEN=t0ken (environment)",
        "!DB_PASSWORD=\(made) (generated)", "!DATABASE_URL=postgresql://market:\(made)@postgres:5432/market (composed)",
      ])
    #expect(first.generated == ["DB_PASSWORD"])
  }

  /// The first source in `from` that has a value wins; empty is no value.
  @Test(arguments: [
    (EnvSource.allCases, "flag"), ([.environment, .flags], "variable"), ([.vault], "vaulted"),
    ([.host, .vault], "hosted"),
  ])
  func precedence(from: [EnvSource], expected: String) throws {
    let values: [EnvSource: [String: String]] = [
      .flags: ["X": "flag"], .environment: ["X": "variable"], .vault: ["X": "vaulted"], .host: ["X": "hosted"],
    ]
    #expect(try resolve("X=${X}", request(values, from: from)).values[0].value == expected)
  }

  @Test func emptyVariablesAreNoValues() throws {
    let values: [EnvSource: [String: String]] = [.environment: ["X": ""], .host: ["X": "kept"]]
    #expect(show(try resolve("X=${X:?why}", request(values))) == ["X=kept (host)"])
    #expect(show(try resolve("X=${X-d}", request(values))) == ["X= (environment)"])
    #expect(show(try resolve("X=${X:-d}", request([.environment: ["X": ""]]))) == ["X=d (default)"])
  }

  @Test func generatedValuesAreKept() throws {
    let onHost = try resolve("DB_PASSWORD=${generate:32}", request([.host: ["DB_PASSWORD": "old"]], volume: true))
    #expect(show(onHost) == ["!DB_PASSWORD=old (host)"])
    #expect(onHost.generated.isEmpty)
    let afterFailedFirst = try resolve("DB_PASSWORD=${generate:32}", request([.generated: ["DB_PASSWORD": "made"]]))
    #expect(show(afterFailedFirst) == ["!DB_PASSWORD=made (generated)"])
    #expect(afterFailedFirst.generated.isEmpty)
    #expect(show(try resolve("KEY=p-${generate:8}", request())) == ["!KEY=p-gggggggg (generated)"])
    #expect(show(try resolve("A=${A:-${generate:8}}", request([.vault: ["A": "v"]]))) == ["!A=v (vault)"])
  }

  @Test(arguments: [
    "DB_PASSWORD=${generate:32}", "APP_POSTGRES_PASSWORD=${generate:32}", "# @keep\nMASTER=${generate:32}",
  ])
  func aDatabasesPasswordIsNeverMadeAnew(text: String) throws {
    let found = faults { _ = try resolve(text, request(volume: true)) }
    #expect(found.count == 1)
    #expect(found[0].contains("would lock the app out"))
    #expect(try resolve(text, request()).generated.count == 1)
    // Another password is another matter.
    #expect(try resolve("SESSION_SECRET=${generate:32}", request(volume: true)).generated == ["SESSION_SECRET"])
  }

  @Test func aDifferentPasswordForAnExistingVolumeIsWarnedAbout() throws {
    let values: [EnvSource: [String: String]] = [.vault: ["DB_PASSWORD": "new"], .host: ["DB_PASSWORD": "old"]]
    let result = try resolve("DB_PASSWORD=${generate:32}", request(values, volume: true))
    #expect(result.warnings.count == 1)
    #expect(!render(result.warnings[0]).contains("old\""))
  }

  /// A default that was changed in the template isn't held back by what the old one left on the host.
  @Test func newDefaultsReachTheHost() throws {
    let host: [EnvSource: [String: String]] = [.host: ["X": "old"]]
    #expect(show(try resolve("X=${X:-new}", request(host, defaulted: ["X"]))) == ["X=new (default)"])
    #expect(show(try resolve("X=${X:-new}", request(host))) == ["X=old (host)"])
  }

  @Test func secretsAreContagious() throws {
    let text = "A=${PLAIN}\nB=x${A}\nC=${GITHUB_TOKEN}\nD=1\nE=${D}${F}\nF=${V}"
    let values: [EnvSource: [String: String]] = [
      .environment: ["PLAIN": "p", "GITHUB_TOKEN": "t"], .vault: ["V": "v"],
    ]
    #expect(
      show(try resolve(text, request(values))) == [
        "A=p (environment)", "B=xp (composed)", "!C=t (environment)", "D=1 (fixed)", "!E=1v (composed)", "!F=v (vault)",
      ])
    #expect("\(try resolve(text, request(values)).values[2])" == "C=******** (environment)")
  }

  @Test(arguments: [
    ("A='it\\'s $X ${Y} \\n'", "it's $X ${Y} \\n"), ("A=\"a\\nb\"  # c", "a\nb"), ("A=\"\\$X \\\\ \\\"\"", "$X \\ \""),
    ("A=a#b", "a#b"),
    ("A=a #b", "a"), ("A=  a b  ", "a b"), ("export A=1", "1"), ("A=", ""), ("A=''# c", ""), ("A=a$$b", "a$b"),
    ("A=${VERSION}-x", "v1.1.0-x"),
    ("A=5$", "5$"), ("A=${B:-x}${B:-}y", "xy"), ("A=$VERSION/x", "v1.1.0/x"), ("A=${B:-${C:-deep}}", "deep"),
    ("A=C:\\new", "C:\\new"),
    ("A='two\nlines'", "two\nlines"),
  ])
  func quotesAreReadAsByCompose(text: String, value: String) throws {
    let template = try template(text)
    guard value.contains("\n") else {
      #expect(try template.resolve(request()).values[0].value == value)
      return
    }
    // A line break is refused, but was read.
    #expect(faults { _ = try template.resolve(request()) }.first?.contains("line break") == true)
  }

  @Test func allFaultsAtOnceByNameAndNoValue() throws {
    let text = """
      # @type int
      WORKERS=${WORKERS}
      # @secret @type url
      HOOK=${HOOK}
      TOKEN=${TOKEN:?ask the bot's father}
      MODE=${LOG_LEVLE}
      LOG_LEVEL=INFO
      # @type enum(debug, info)
      LEVEL=${LEVEL}
      """
    let values: [EnvSource: [String: String]] = [
      .environment: ["WORKERS": "four", "HOOK": "canary-7", "LEVEL": "loud"]
    ]
    let found = faults { _ = try resolve(text, request(values)) }
    #expect(
      found == [
        "env.template:2:9: error: WORKERS (from the environment): expected a whole number, found `four`",
        "env.template:4:6: error: HOOK (from the environment): expected a URL like https://example.com, found something else; its value isn't shown",
        "env.template:5:7: error: TOKEN has no value: ask the bot's father [set it: the environment variable TOKEN, or `orchestrate secrets set prod TOKEN`]",
        "env.template:6:6: error: LOG_LEVLE has no value [did you mean `${LOG_LEVEL}`? Else set it: the environment variable LOG_LEVLE, or `orchestrate secrets set prod LOG_LEVLE`, or --set LOG_LEVLE=…]",
        "env.template:9:7: error: LEVEL (from the environment): expected one of debug, info, found `loud`",
      ])
    #expect(!found.joined().contains("canary"))
  }

  @Test(arguments: [
    ("url", "https://a.b/c", true), ("url", "a.b", false), ("url", "http://", false),
    ("url", "redis://:p@h:6379/0", true), ("int", "-5", true),
    ("int", "5x", false), ("bool", "TRUE", true), ("bool", "2", false), ("port", "65535", true), ("port", "0", false),
    ("duration", "1h30m", true),
    ("duration", "5", false), ("enum(a, b)", "b", true), ("enum(a,b)", "c", false),
    ("regex([a-z]+(x|y))", "abcx", true),
    ("regex([a-z]+)", "abc1", false), ("base64", "aGk=", true), ("base64", "aGk", false), ("string", "", true),
    ("pem", "-----BEGIN K-----\nabc\n-----END K-----", true), ("pem", "abc", false),
  ])
  func types(type: String, value: String, fits: Bool) {
    let found = faults { _ = try resolve("# @type \(type)\nX=${X-}", request([.vault: ["X": value]])) }
    #expect(found.isEmpty == fits, "\(found)")
    #expect(value.isEmpty || !found.joined().contains("found `\(value)`"), "came from the vault")
  }
}

@Suite struct EnvFileTests {
  /// Each line is what Compose 2.26.1 reads back as the value (measured with `config`).
  @Test(arguments: [
    ("plain_./:@%+,=-9", "X=plain_./:@%+,=-9"), ("", "X="), ("a b", "X='a b'"), ("a$b", "X='a$b'"),
    ("it's", "X='it\\'s'"), ("a#b", "X='a#b'"),
    ("\"q\"", "X='\"q\"'"), ("back\\", "X=\"back\\\\\""), ("a\\'b", "X=\"a\\\\'b\""), ("\\$\"", "X=\"\\\\\\$\\\"\""),
    ("ü€😀", "X='ü€😀'"),
    ("tab\there", "X='tab\there'"), ("${X}", "X='${X}'"), ("`id`", "X='`id`'"),
  ])
  func writesAndReadsBack(value: String, line: String) throws {
    #expect(try EnvFile.line(name: "X", value: value) == line)
    let back = try EnvFile.read(Array((line + "\nY=1\n").utf8), file: ".env")
    #expect(back.map(\.name) == ["X", "Y"])
    #expect(back[0].value == value)
  }

  @Test func severalLinesOnlyAsPEM() throws {
    let value = "-----BEGIN K-----\nabc\n-----END K-----"
    #expect(throws: EnvFile.UnwritableValue.self) { try EnvFile.line(name: "X", value: value) }
    let line = try EnvFile.line(name: "X", value: value, multiline: true)
    #expect(line == "X=\"-----BEGIN K-----\\nabc\\n-----END K-----\"")
    #expect(try EnvFile.read(Array(line.utf8), file: ".env")[0].value == value)
    #expect(throws: EnvFile.UnwritableValue.self) { try EnvFile.line(name: "X", value: "a\0b", multiline: true) }
  }

  @Test func everyValueSurvives() throws {
    var generator = SplitMix(state: 7)
    let alphabet = Array("ab'\"\\$#{} =\t;|&<>()*?~!`é%\n")
    for _ in 0..<3000 {
      let value = String(
        (0..<Int.random(in: 0...8, using: &generator)).map { _ in alphabet.randomElement(using: &generator)! })
      let line = try EnvFile.line(name: "X", value: value, multiline: true)
      let back = try EnvFile.read(Array("A=1\n\(line)\nB=2\n".utf8), file: ".env")
      #expect(back.map(\.value) == ["1", value, "2"], "\(line)")
    }
  }

  @Test func rendersInOrderAndAlwaysAlike() throws {
    let values = try resolve("B=2\nA=x y\n# @secret\nC=${V}", request([.vault: ["V": "s$"]])).values
    #expect(try EnvFile.render(values) == "B=2\nA='x y'\nC='s$'\n")
    #expect(try EnvFile.render([]) == "")
  }

  /// What a broken file holds may be a password: no message repeats a piece of it.
  @Test(arguments: [
    "PW=canary${canary", "PW=x$canary", "PW=\"canary", "PW='canary' canary", "PW=${canary!x}", "x-canary=1",
    "PW=${canary:+x}", "canary",
    "PW=a\\$canary", "PW=${CANARY:?canary}", "MII+vQ/BADANcanary==",
  ])
  func messagesNeverShowValues(text: String) {
    let found = faults { _ = try EnvFile.read(Array(text.utf8), file: ".env") }
    #expect(!found.joined().lowercased().contains("canary") && !found.joined().contains("MII"), "\(found)")
    #expect(!found.isEmpty)
  }

  @Test func ordinaryFiles() throws {
    let text = "\u{FEFF}# comment\r\nexport A=1\r\n\r\nB = two words # c\r\nC=\"x ${A} y\"\r\nD=${E:-d}\r\nA=3\r\n"
    let values = try EnvFile.read(Array(text.utf8), file: ".env")
    #expect(values.map { "\($0.name)=\($0.value)" } == ["A=3", "B=two words", "C=x 1 y", "D=d"])
  }
}

/// A small seeded generator (splitmix64), so that a failing round can be repeated.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

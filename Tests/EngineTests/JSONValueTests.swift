import Engine
import Testing

@Suite struct JSONValueTests {
  @Test func readsWhatItWrites() throws {
    let text = #"{"a":[1,-2.5e3,true,null,"\"\\\n\u0001é😀"],"b":{"c":""}}"#
    let value = try JSONValue(parsing: text)
    #expect(try JSONValue(parsing: value.text()) == value)
    #expect(value[path: ["a", "4"]]?.stringValue == "\"\\\n\u{1}é😀")
    #expect(value[path: ["b", "c"]]?.stringValue == "")
  }

  @Test func surrogatePairsJoin() throws {
    #expect(try JSONValue(parsing: #""\ud83d\ude00""#).stringValue == "😀")
  }

  @Test func theLastOfADuplicateCounts() throws {
    #expect(try JSONValue(parsing: #"{"status":"bad","status":"ok"}"#)["status"]?.stringValue == "ok")
  }

  @Test(arguments: [
    "", "{", "[1,]", "{\"a\"}", "tru", "01", "1.", "\"\u{1}\"", #""\x""#, #""\ud83d""#, "{} {}", "nul", "-", "[1 2]",
    String(repeating: "[", count: 600),
  ])
  func refusesWhatIsNotJSON(text: String) {
    #expect(throws: JSONSyntaxError.self) { try JSONValue(parsing: text) }
  }
}

import Diagnostics
import Testing

@Suite struct SuggestionTests {
  @Test(arguments: [("recraete", "recreate"), ("Health", "health"), ("databse", "database")])
  func nearest(mistyped: String, meant: String) {
    #expect(nearestName(to: mistyped, among: ["recreate", "health", "database"]) == meant)
  }

  @Test func nothingIsNear() {
    #expect(nearestName(to: "kubernetes", among: ["recreate", "health"]) == nil)
  }

  @Test func aSecretNeverShowsItself() {
    let secret = Secret("hunter2")
    #expect(!"\(secret) \(String(reflecting: secret)) \([secret])".contains("hunter2"))
    #expect(secret.reveal() == "hunter2")
  }
}

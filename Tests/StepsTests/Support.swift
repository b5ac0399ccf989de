import Engine
import Inventory

/// Not SHA-256, but as good for telling contents apart: FNV-1a, as 64 hex digits.
func testHash(_ bytes: [UInt8]) -> String {
  var hash: UInt64 = 0xcbf2_9ce4_8422_2325
  for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
  let hex = String(hash, radix: 16)
  return String(repeating: String(repeating: "0", count: 16 - hex.count) + hex, count: 4)
}

func json(_ text: String) throws -> JSONValue { try JSONValue(parsing: text) }

func image(_ service: String, _ digit: Character, reference: String? = nil) -> Release.Image {
  let digest = "sha256:" + String(repeating: digit, count: 64)
  return Release.Image(
    reference: reference ?? "registry:5000/\(service):v\(digit)", digest: digest, id: digest,
    tag: "orchestrate/shop/\(service):" + String(repeating: digit, count: 12))
}

/// The project `shop`: bot is the app's, postgres the database.
func shopContext(number: Int = 7, version: String = "v2", facts: [String: String] = [:]) -> StepContext {
  var inventory = Inventory(environment: "prod", app: "shop")
  inventory.services.app = ["bot"]
  inventory.services.database = "postgres"
  return StepContext(inventory: inventory, version: version, number: number, facts: HostFacts(facts), sha256: testHash)
}

func file(_ path: String, _ text: String, mode: Int = 0o644) -> StepPayload.File {
  StepPayload.File(path, mode: mode, bytes: Array(text.utf8))
}

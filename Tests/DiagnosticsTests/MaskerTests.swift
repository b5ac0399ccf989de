import Foundation
import Testing

@testable import Diagnostics

private let secret = "s3cr3t/Pass+w0rd$=\"x'y z"

@Suite struct MaskerTests {
  static let printed: [(how: String, text: String)] = [
    ("as it is", secret),
    ("shell, single quotes", #"s3cr3t/Pass+w0rd$="x'\''y z"#),
    ("shell, dash's set -x", #"s3cr3t/Pass+w0rd$="x'"'"'y z"#),
    ("shell, double quotes", #"s3cr3t/Pass+w0rd\$=\"x'y z"#),
    ("shell, printf %q", #"s3cr3t/Pass+w0rd\$\=\"x\'y\ z"#),
    ("Python's repr", #"s3cr3t/Pass+w0rd$="x\'y z"#),
    ("JSON", #"s3cr3t/Pass+w0rd$=\"x'y z"#),
    ("JSON with escaped solidus", #"s3cr3t\/Pass+w0rd$=\"x'y z"#),
    ("docker compose config", "s3cr3t/Pass+w0rd$$=\"x'y z"),
    ("encodeURIComponent", "s3cr3t%2FPass%2Bw0rd%24%3D%22x'y%20z"),
    ("RFC 3986", "s3cr3t%2FPass%2Bw0rd%24%3D%22x%27y%20z"),
    ("RFC 3986, lowercase", "s3cr3t%2fPass%2bw0rd%24%3d%22x%27y%20z"),
    ("Python's quote", "s3cr3t/Pass%2Bw0rd%24%3D%22x%27y%20z"),
    ("a form", "s3cr3t%2FPass%2Bw0rd%24%3D%22x%27y+z"),
  ]

  @Test(arguments: printed.indices) func forms(index: Int) {
    let masker = Masker([Secret(secret)])
    #expect(
      masker.mask("before \(Self.printed[index].text) after") == "before ******** after", "\(Self.printed[index].how)")
  }

  /// At each position in a longer text, base64 of either alphabet shows nothing of the secret: what is left of its characters
  /// depends on its neighbours.
  @Test(arguments: 0..<7, [0, 1, 2, 3, 4]) func base64(before: Int, after: Int) {
    let value = "correct-horse?battery>staple~~"
    let masker = Masker([Secret(value)])
    let whole = String(repeating: "a", count: before) + value + String(repeating: "b", count: after)
    for urlSafe in [false, true] {
      var encoded = Data(whole.utf8).base64EncodedString()
      if urlSafe {
        encoded = encoded.replacingOccurrences(of: "+", with: "-").replacingOccurrences(of: "/", with: "_")
      }
      let masked = masker.mask("x: \(encoded)!")
      #expect(masked.contains("********"))
      let rest = masked.dropFirst(3).split(separator: "********", omittingEmptySubsequences: false)
      #expect(rest.count == 2)
      // Before: the neighbours' characters and at most the one that is shared; after: likewise, and padding.
      #expect(rest[0].count <= (8 * before + 5) / 6)
      #expect(rest[1].count <= (8 * after + 5) / 6 + 4)
    }
  }

  @Test func base64OfALineAsEchoWritesIt() {
    for value in ["secret1", "secret12", "secret123"] {
      let encoded = Data((value + "\n").utf8).base64EncodedString()
      #expect(Masker([Secret(value)]).mask(encoded) == "********")
    }
  }

  @Test func shortValuesAreLeftAlone() {
    let masker = Masker([Secret("on"), Secret("12345"), Secret(""), Secret("123456")])
    #expect(masker.mask("on 12345 x 123456") == "on 12345 x ********")
    #expect(Masker().mask("anything") == "anything")
  }

  @Test func everyLineOfAKeyIsMasked() {
    let masker = Masker([Secret("-----BEGIN KEY-----\nabcdefgh\r\nijklmnop\nxy\n")])
    #expect(masker.mask("1 abcdefgh\n2 ijklmnop\n3 xy") == "1 ********\n2 ********\n3 xy")
    #expect(!masker.mask(#"{"key":"-----BEGIN KEY-----\nabcdefgh\r\nijklmnop\nxy\n"}"#).contains("abcdefgh"))
  }

  /// Of two secrets that overlap in a text, nothing of either is left.
  @Test func overlaps() {
    let masker = Masker([Secret("abcdef-123456"), Secret("123456-uvwxyz"), Secret("abcdef-123456-long")])
    #expect(masker.mask("<abcdef-123456-uvwxyz>") == "<********>")
    #expect(masker.mask("<abcdef-123456-longer>") == "<********er>")
    #expect(masker.mask("abcdef-123456abcdef-123456") == "****************")
    #expect(Masker([Secret("aaaaaa")]).mask("xaaaaaaaaaay") == "x********y")
  }

  @Test func secretsMayBeAdded() {
    let masker = Masker([Secret("first-one")])
    masker.add([Secret("second-one")])
    #expect(masker.mask("first-one second-one") == "******** ********")
  }

  @Test func bytesThatAreNoTextSurvive() {
    let masker = Masker([Secret("secret1")])
    #expect(masker.mask([0xff, 0] + Array("secret1".utf8) + [0xc3]) == [0xff, 0] + Array("********".utf8) + [0xc3])
  }
}

@Suite struct MaskingStreamTests {
  static let text =
    "one hunter2-hunter2 two\nthree hunter2-hunter2hunter2-hunter2\n"
    + Data("xhunter2-hunter2y".utf8).base64EncodedString()
    + "\nhunter2-hunter\nhunter2-hunter2-tail-of-two\nhunter2-hunter2"

  private func pieces(_ text: [UInt8], at cuts: [Int], _ masker: Masker) -> [UInt8] {
    var stream = MaskingStream(masker)
    var out: [UInt8] = []
    var start = 0
    for cut in cuts + [text.count] {
      out += stream.feed(Array(text[start..<cut]))
      start = cut
    }
    return out + stream.flush()
  }

  /// Cut anywhere, the stream shows what the whole text would.
  @Test func everySplitPosition() {
    let masker = Masker([Secret("hunter2-hunter2"), Secret("hunter2-tail-of-two")])
    let text = Array(Self.text.utf8)
    let expected = masker.mask(text)
    let shown = String(decoding: expected, as: UTF8.self)
    #expect(!shown.contains("hunter2-hunter2") && !shown.contains("tail") && shown.contains("hunter2-hunter\n"))
    for cut in 0...text.count {
      #expect(pieces(text, at: [cut], masker) == expected, "cut at \(cut)")
    }
    for cut in stride(from: 0, to: text.count, by: 3) {
      for second in stride(from: cut, to: text.count, by: 5) {
        #expect(pieces(text, at: [cut, second], masker) == expected, "cut at \(cut) and \(second)")
      }
    }
    #expect(pieces(text, at: Array(1..<text.count), masker) == expected, "byte by byte")
  }

  @Test func overlappingRunsAcrossPieces() {
    let masker = Masker([Secret("aaaaaaa")])
    let text = Array(("x" + String(repeating: "a", count: 500) + "y").utf8)
    for size in [1, 2, 3, 7, 100] {
      #expect(pieces(text, at: Array(stride(from: size, to: text.count, by: size)), masker) == Array("x********y".utf8))
    }
  }

  @Test func holdsBackNoMoreThanItMust() {
    var stream = MaskingStream(Masker([Secret("hunter2-hunter2")]))
    #expect(String(decoding: stream.feed(Array("a line\nhun".utf8)), as: UTF8.self) == "a line\n")
    #expect(String(decoding: stream.feed(Array("gry\n".utf8)), as: UTF8.self) == "hungry\n")
    var open = MaskingStream(Masker())
    #expect(String(decoding: open.feed(Array("prompt> ".utf8)), as: UTF8.self) == "prompt> ")
  }

  /// A step that prints a lot must not make the client slow: a bound that a quadratic or per-secret scan would miss by far.
  @Test func isFast() {
    let masker = Masker((0..<50).map { Secret("secret-number-\($0)-of-many") })
    let block = Array(
      String(repeating: "some ordinary line of a build log, 64 characters and a bit more\n", count: 500).utf8)
    var stream = MaskingStream(masker)
    let start = ContinuousClock.now
    var count = 0
    for _ in 0..<8 { count += stream.feed(block).count }
    #expect(count == block.count * 8)
    #expect(ContinuousClock.now - start < .seconds(10), "256 KiB in a debug build")
  }
}

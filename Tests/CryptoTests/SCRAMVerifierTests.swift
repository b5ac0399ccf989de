import Testing

@testable import Crypto

@Suite struct SCRAMVerifierTests {
  /// The password and the salt of RFC 7677's example; the keys by Python's hashlib and hmac.
  @Test func theRFCsExample() throws {
    let salt = try #require(Base64.decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    #expect(
      SCRAMVerifier.make(password: "pencil", salt: salt)
        == "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
  }

  @Test(arguments: ["", "grün", "a\nb", "a\u{7f}"]) func whatSASLprepWouldChangeIsRefused(password: String) {
    #expect(SCRAMVerifier.make(password: password, salt: [1, 2, 3]) == nil)
  }
}

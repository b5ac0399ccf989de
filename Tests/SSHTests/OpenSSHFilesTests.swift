import Testing

@testable import SSH

@Suite struct OpenSSHFilesTests {
  private func decides(system: String, user: String? = nil, included: String? = nil) throws -> Bool {
    let scratch = try Scratch()
    try scratch.write("ssh_config", system)
    if let included { try scratch.write("10-more.conf", included) }
    if let user {
      try tool("/bin/mkdir", [scratch.file(".ssh")])
      try scratch.write(".ssh/config", user)
    }
    return OpenSSHFiles(home: scratch.path, system: scratch.file("ssh_config")).mayDecide
  }

  /// As Debian delivers it.
  private static let delivered =
    "# comment\nInclude *.conf\n\nHost *\n#   ForwardAgent no\n    SendEnv LANG LC_*\n    HashKnownHosts yes\n"

  @Test func filesAsDeliveredDecideNothing() throws {
    #expect(try !decides(system: Self.delivered))
    #expect(try !decides(system: Self.delivered, included: "Host *\n\tGSSAPIAuthentication yes\n"))
  }

  @Test(arguments: [
    "User deploy", "\tport=2222\n", "Match all", "Host bot\n  HostName 192.0.2.1", "PROXYJUMP bastion", "Include ~/x",
    "Include /x/%u", "Include '/x'",
    "UserKnownHostsFile /x",
    "IdentityAgent none",
  ])
  func whatConcernsAConnectionIsAsked(line: String) throws {
    #expect(try decides(system: Self.delivered + line))
    #expect(try decides(system: Self.delivered, included: line))
  }

  @Test func filesOfOnesOwnAreAlwaysAsked() throws { #expect(try decides(system: Self.delivered, user: "")) }

  @Test func filesThatStandElsewhereAreAsked() {
    #expect(OpenSSHFiles(home: "/nonexistent", system: "/nonexistent/ssh_config").mayDecide)
  }

  @Test func anIncludeOfItselfEnds() throws { #expect(try decides(system: "Include ssh_config\n")) }

  /// The defaults that stand for `ssh -G`'s are its own, as far as they are read.
  @Test func defaultsAreThoseOfSSHItself() throws {
    let output = try tool("/usr/bin/ssh", ["-F", "none", "-G", "192.0.2.7"])
    let home = try #require(LocalHome.path)
    let asked = OpenSSHConfiguration(host: "192.0.2.7", output: output, home: home, localUser: LocalHome.user)
    var known = OpenSSHConfiguration(defaultsFor: "192.0.2.7", home: home, localUser: LocalHome.user)
    // Kinds that libssh2 has no use for.
    known.identityFiles += asked.identityFiles.filter {
      !known.identityFiles.contains($0) && ($0.hasSuffix("xmss") || $0.hasSuffix("dsa"))
    }
    #expect(known == asked)
  }
}

private enum LocalHome {
  static let user = (try? tool("/usr/bin/id", ["-un"]))?.split(separator: "\n").first.map(String.init) ?? "root"
  static let path = (try? tool("/usr/bin/getent", ["passwd", user]))?.split(
    separator: ":", omittingEmptySubsequences: false
  ).dropFirst(5).first
    .map(String.init)
}

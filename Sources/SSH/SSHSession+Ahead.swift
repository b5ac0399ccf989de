import CLibSSH2

/// What is asked before the answer to something else has arrived. The host takes messages in order, so that a request may follow the one that it
/// depends on in the same flight (RFC 4252, section 4, and RFC 4253, section 10, ask for no pause): the key is offered with the request for the service,
/// and the first channel opened with the signature. Eight round trips to a command's start become six. libssh2 keeps the state of each of these operations
/// apart, and packets of the others until they are asked for.
extension SSHSession {
  enum FirstChannel {
    /// On a jump host, or it was taken.
    case unwanted
    case wanted
    /// libssh2 waits for the answer: the same call again goes on with it.
    case asked
    case opened(ChannelState)
  }

  /// What is left of the handshake: the answer to the request for the service. To be called before whatever else reads: once it waits, libssh2 looks for
  /// that answer only in what it reads itself (_libssh2_packet_require).
  func continueHandshake() throws(SSHError) {
    guard isShakingHands, let raw else { return }
    let status = libssh2_session_handshake(raw, max(0, wire.descriptor))
    isShakingHands = status == LIBSSH2_ERROR_EAGAIN
    if status != 0, !isShakingHands { throw fault(Int(status), "the request for authentication") }
  }

  func finishHandshake(until deadline: Double) async throws(SSHError) {
    while isShakingHands {
      try continueHandshake()
      settle()
      if isShakingHands { try await parkOrThrow(until: deadline, "the request for authentication") }
    }
  }

  /// Asks for the first channel, or goes on with that. Only behind a signature that has been sent.
  func askAhead() {
    switch firstChannel {
    case .unwanted, .opened: return
    case .wanted:
      wire.confirmedChannel = nil
      firstChannel = .asked
    case .asked: break
    }
    guard let raw else { return }
    if let channel = Self.openSession(raw) {
      firstChannel = .opened(ChannelState(channel, number: wire.confirmedChannel))
    } else if libssh2_session_last_errno(raw) != LIBSSH2_ERROR_EAGAIN {
      firstChannel = .unwanted  // refused: whoever wants one asks again, and is told why
    }
  }

  static func openSession(_ raw: OpaquePointer) -> OpaquePointer? {
    libssh2_channel_open_ex(raw, "session", 7, window, packet, nil, 0)
  }
}

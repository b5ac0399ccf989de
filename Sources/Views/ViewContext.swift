public import Diagnostics

/// What a view needs from outside. Everything is injected, so that a view in a test sees a clock and a terminal of the
/// test's.
public struct ViewContext: Sendable {
  public var output: any OutputSink
  public var masker: Masker
  /// Milliseconds of a clock that only goes forward.
  public var uptime: @Sendable () -> Int64
  public var now: @Sendable () -> Timestamp
  /// Columns and rows of the terminal, asked for at each redraw: windows change their size.
  public var terminalSize: @Sendable () -> (columns: Int, rows: Int)
  public var colour: Bool
  /// Show every line of every step, and facts (`-v`).
  public var verbose: Bool
  /// Show where the time went (`--timings`).
  public var timings: Bool
  /// What was written last isn't on the screen yet: another picture of it would only come later still.
  public var isBehind: @Sendable () -> Bool

  public init(
    output: any OutputSink, masker: Masker, uptime: @escaping @Sendable () -> Int64,
    now: @escaping @Sendable () -> Timestamp,
    terminalSize: @escaping @Sendable () -> (columns: Int, rows: Int) = { (80, 24) },
    colour: Bool = false, verbose: Bool = false, timings: Bool = false,
    isBehind: @escaping @Sendable () -> Bool = { false }
  ) {
    self.output = output
    self.masker = masker
    self.uptime = uptime
    self.now = now
    self.terminalSize = terminalSize
    self.colour = colour
    self.verbose = verbose
    self.timings = timings
    self.isBehind = isBehind
  }

  var style: Style { Style(colour: colour) }

  /// A line from a host or from a user's file, as it may be shown: masked, without control characters.
  func shown(_ text: String) -> String { printable(masker.mask(text)) }
}

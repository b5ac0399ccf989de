/// What the limits of a release's containers add up to, against the machine that they run on. docs/memory.md.
public struct MemoryCommitment: Sendable, Equatable, Codable {
  public struct Service: Sendable, Equatable, Codable {
    public var service: String
    /// Bytes for one of its containers; nil: it may take what there is.
    public var limit: Int64?
    public var containers: Int

    public init(service: String, limit: Int64?, containers: Int = 1) {
      self.service = service
      self.limit = limit
      self.containers = containers
    }

    /// Of all its containers; more than there are numbers for is the largest.
    public var promised: Int64 {
      let (product, isTooMuch) = (limit ?? 0).multipliedReportingOverflow(by: Int64(containers))
      return isTooMuch ? .max : product
    }
  }

  /// Bytes: the smaller of MemTotal and the root control group's limit.
  public var machine: Int64
  /// Bytes, `others` included.
  public var promised: Int64
  /// Bytes: to running containers of other projects on the machine.
  public var others: Int64
  /// Of the machine, rounded up.
  public var percent: Int
  /// What preflight allows, in percent.
  public var allowed: Int
  /// The largest first.
  public var services: [Service]

  public init(machine: Int64, allowed: Int, services: [Service], others: Int64 = 0) {
    self.machine = machine
    self.allowed = allowed
    self.others = others
    self.services = services.sorted { ($1.promised, $0.service) < ($0.promised, $1.service) }
    promised = services.reduce(others) { sum, service in
      let (sum, isTooMuch) = sum.addingReportingOverflow(service.promised)
      return isTooMuch ? .max : sum
    }
    percent = Self.percent(promised, of: machine)
  }

  /// Rounded up; of absurd parts roughly.
  private static func percent(_ part: Int64, of whole: Int64) -> Int {
    guard whole > 0 else { return 0 }
    let (product, isTooMuch) = part.multipliedReportingOverflow(by: 100)
    let (sum, isStillTooMuch) = product.addingReportingOverflow(whole - 1)
    if !isTooMuch, !isStillTooMuch { return Int(sum / whole) }
    let (roughly, isAbsurd) = (part / whole).multipliedReportingOverflow(by: 100)
    return isAbsurd ? .max : Int(roughly)
  }

  public var isOver: Bool { percent > allowed }
}

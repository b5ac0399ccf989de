import ConfigSource

extension Duration {
  /// `10s`, `5m`, `1h30m`, as in inventories and playbooks; nil: it isn't one.
  public init?(notation text: String) {
    guard let duration = try? Quantity.duration(text) else { return nil }
    self = duration
  }
}

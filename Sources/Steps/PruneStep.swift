public import Engine
public import Inventory

/// Removes what no release that is kept needs. Runs after the commit and can't fail the deployment.
public struct PruneStep: StepKind {
  public var settings: PruneSettings

  public init(settings: PruneSettings = PruneSettings()) { self.settings = settings }

  /// Judged from preflight's facts `releases` (`[{"number":3,"previous":2,"committed":true,"version":"v1"}]`).
  public func plan(_ context: StepContext) -> [Change] {
    let known = context.reported.values.lazy.compactMap { $0["releases"]?.arrayValue }.first ?? []
    var releases: [KnownRelease] = known.compactMap(KnownRelease.init)
    let next = context.number > 0 ? context.number : (releases.map(\.number).max() ?? 0) + 1
    releases.removeAll { $0.number == next }
    let previous = context.target?.previous ?? context.current?.number ?? 0
    releases.append(KnownRelease(number: next, previous: previous, committed: true, version: context.version))
    let kept = keptReleases(releases, current: next, count: settings.releases)
    return releases.filter { !kept.contains($0.number) }.sorted { $0.number < $1.number }.map {
      Change(
        .delete, "release \($0.number)",
        detail: ["- release \($0.number)" + ($0.version.isEmpty ? "" : " (\($0.version))")])
    }
  }

  public func payload(_ context: StepContext) -> StepPayload {
    StepPayload(
      script: "prune", timeout: .seconds(120),
      parameters: [
        ("RELEASES", String(max(1, settings.releases))), ("IMAGES", settings.images ? "1" : "0"),
        ("LOGS_SECONDS", String(settings.logs.components.seconds)),
      ])
  }
}

struct KnownRelease: Equatable {
  var number: Int
  var previous: Int
  var committed: Bool
  var version: String

  init(number: Int, previous: Int, committed: Bool, version: String = "") {
    self.number = number
    self.previous = previous
    self.committed = committed
    self.version = version
  }

  init?(_ value: JSONValue) {
    guard let number = value["number"]?.intValue else { return nil }
    self.init(
      number: number, previous: value["previous"]?.intValue ?? 0, committed: value["committed"]?.boolValue ?? false,
      version: value["version"]?.stringValue ?? "")
  }
}

/// The current release, the one that a rollback goes to, and the newest that passed their gate, `count` in all or
/// more. The same rule as in
/// prune.apply.sh.
func keptReleases(_ releases: [KnownRelease], current: Int, count: Int) -> Set<Int> {
  var kept: Set<Int> = [current]
  if let previous = releases.first(where: { $0.number == current })?.previous, previous > 0 { kept.insert(previous) }
  for release in releases.filter(\.committed).sorted(by: { $0.number > $1.number }) {
    if kept.contains(release.number) { continue }
    if kept.count >= count { break }
    kept.insert(release.number)
  }
  return kept
}

internal import Engine

/// Commands of the remote shell, as text: pure, so that their quoting is tested without a host.
enum RemoteCommands {
  /// Finds the running container of a service and hands it to what follows as `$1`; 255 where there is none.
  private static func onContainer(project: String, service: String, _ rest: String) -> String {
    let script = """
      c=$(docker ps -q --filter "label=com.docker.compose.project=$1" --filter "label=com.docker.compose.service=$2" --filter label=com.docker.compose.oneoff=False | head -n 1)
      [ -n "$c" ] || { echo "orchestrate: no container of the service $2 is running" >&2; exit 255; }
      shift 2
      \(rest)
      """
    return "sh -c \(shellQuoted(script)) orchestrate \(shellQuoted(project)) \(shellQuoted(service))"
  }

  /// A command in the container of a service.
  static func exec(project: String, service: String, command: [String], terminal: Bool) -> String {
    onContainer(project: project, service: service, "exec docker exec -i \(terminal ? "-t " : "")\"$c\" \"$@\"")
      + command.map { " " + shellQuoted($0) }.joined()
  }

  /// The logs of one service, or of all: first what was kept of containers that were replaced, then the running ones.
  ///
  /// - Parameter since: as `docker logs --since` reads it: `10m`, `2026-11-21T03:00:00`.
  static func logs(project: String, service: String?, follow: Bool, since: String?, lines: Int?) -> String {
    let script = #"""
      p=$1 s=$2 f=$3 since=$4 n=$5
      saved=/var/lib/orchestrate/$p/logs
      if [ -z "$since" ] && [ -z "$n" ] && [ -d "$saved" ]; then
        for d in "$saved"/*/; do
          d=${d%/} name=${d##*/}
          [ -z "$s" ] || [ "$name" = "$s" ] || continue
          for l in "$d"/*.log; do [ -f "$l" ] && sed "s/^/$name | /" "$l"; done
        done
      fi
      set -- docker logs
      [ -z "$since" ] || set -- "$@" --since "$since"
      [ -z "$n" ] || set -- "$@" --tail "$n"
      [ "$f" = 0 ] || set -- "$@" --follow
      found=0
      for c in $(docker ps -aq --filter "label=com.docker.compose.project=$p" ${s:+--filter "label=com.docker.compose.service=$s"} --filter label=com.docker.compose.oneoff=False); do
        found=1
        name=$(docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}}' "$c")
        if [ -n "$s" ]; then "$@" "$c" 2>&1; else "$@" "$c" 2>&1 | sed "s/^/$name | /"; fi &
      done
      [ "$found" = 1 ] || { echo "orchestrate: no container${s:+ of the service $s}" >&2; exit 1; }
      wait
      """#
    let arguments = [project, service ?? "", follow ? "1" : "0", since ?? "", lines.map(String.init) ?? ""]
    return "sh -c \(shellQuoted(script)) orchestrate" + arguments.map { " " + shellQuoted($0) }.joined()
  }
}

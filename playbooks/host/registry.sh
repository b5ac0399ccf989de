# Log-in to the image registry. Sourced by the pull and by the doctor's question.
# shellcheck shell=sh

# SERVER USERNAME SECONDS: the password is read from stdin; it lands in DOCKER_CONFIG, which the caller has made in memory. Says why not and ends.
registry_login() {
  # What the user's own configuration says about the engine's address still counts.
  if [ -z "${DOCKER_HOST-}" ] && grep -qs currentContext "${HOME:-/}/.docker/config.json"; then
    DOCKER_HOST=$(env -u DOCKER_CONFIG docker context inspect --format '{{.Endpoints.docker.Host}}')
    export DOCKER_HOST
  fi
  _status=0
  timeout --foreground -k 5 "$3" docker login --username "$2" --password-stdin "$1" >"$DOCKER_CONFIG/login.out" 2>&1 || _status=$?
  [ "$_status" -ne 0 ] || return 0
  grep -v -e '^WARNING' -e '^Configure a credential helper' -e '^https://docs' -e '^$' "$DOCKER_CONFIG/login.out" >&2 || : # nothing left to show
  [ "$_status" -ne 124 ] || die "The registry $1 does not answer within $3 s."
  grep -qiE 'unauthorized|401|denied' "$DOCKER_CONFIG/login.out" &&
    die "The registry $1 refuses user $2: wrong name or password."
  die "Cannot log in to the registry $1 (above)."
}

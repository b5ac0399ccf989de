#!/bin/bash
# The host's half of peer-deploy.sh; runs in the folder that was sent.
set -euo pipefail

app=$1 version=$2 within=$3 stable=$4 registry=$5 registry_user=$6
root=/opt/$app
# shellcheck source=script/bench.d/peer-host-lib.sh
. ./peer-host-lib.sh

step lock
if [ ! -d "$root" ]; then
  sudo -n install -d -o "$(id -un)" -g "$(id -gn)" -m 750 "$root"
fi
mkdir -p "$root/releases" "$root/backups" "$root/shared"
take_lock
previous=''
[ ! -e "$root/current" ] || previous=$root/releases/$(basename "$(readlink "$root/current")")

step preflight
docker version --format '{{.Server.Version}}' >/dev/null
[ "$(df --output=avail -B1 "$root" | tail -n 1)" -gt $((1 << 30)) ] || die "less than 1 GiB is free"
[ "$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)" -gt $((256 << 10)) ] || die "less than 256 MiB of memory are available"

step release
number=$(($(find "$root/releases" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n | tail -n 1) + 1))
release=$root/releases/$number
mkdir "$release"
cp compose.yml "$release/compose.yml"
# Mounted files lie outside the releases, so that Redis isn't recreated by a deploy of the bot.
cp -R files/. "$root/shared/"
chmod -R go+rX "$root/shared"
printf '%s\n' "${previous##*/}" >"$release/previous"

step env
# The template's values: fixed ones as they are, then what was given, what the host has, and what is made once.
value() {
  local name=$1 found
  found=$(sed -n "s/^$name=//p" settings | tail -n 1)
  if [ -z "$found" ] && [ -n "$previous" ]; then found=$(sed -n "s/^$name=//p" "$previous/.env"); fi
  printf '%s' "$found"
}
{
  printf 'VERSION=%s\n' "$version"
  while IFS= read -r line; do
    case $line in
      '' | '#'*) continue ;;
      *"=\${generate:"*)
        name=${line%%=*}
        made=$(value "$name")
        [ -n "$made" ] || made=$(openssl rand -hex 16)
        printf '%s=%s\n' "$name" "$made"
        ;;
      *":-"*)
        name=${line%%=*} default=${line#*:-}
        given=$(value "$name")
        printf '%s=%s\n' "$name" "${given:-${default%\}}}"
        ;;
      *":?"*)
        name=${line%%=*}
        given=$(value "$name")
        [ -n "$given" ] || die "the env file needs a value for $name"
        printf '%s=%s\n' "$name" "$given"
        ;;
      *) printf '%s\n' "$line" ;;
    esac
  done <env.template
} >"$release/.env"
compose "$release" config --quiet
sync "$release/.env" "$release/compose.yml" "$release"

step pull
if [ -n "$registry" ]; then
  export DOCKER_CONFIG=$PWD/docker
  mkdir -p "$DOCKER_CONFIG"
  ln -s "$HOME/.docker/cli-plugins" "$DOCKER_CONFIG/cli-plugins" 2>/dev/null || : # there may be none
  docker login --username "$registry_user" --password-stdin "$registry" <registry-password >/dev/null 2>&1 \
    || die "the registry refused the log-in"
fi
compose "$release" pull --quiet

if [ -z "$previous" ]; then
  step database
  compose "$release" up -d --no-build --pull never postgres redis
  waited=0
  until docker exec "$(container postgres)" pg_isready -q -h 127.0.0.1 -U market -d market; do
    waited=$((waited + 1))
    [ "$waited" -lt 600 ] || die "PostgreSQL did not start"
    sleep 0.1
  done
else
  step backup
  database=$(container postgres)
  backup=$root/backups/$(date -u +%Y%m%dT%H%M%SZ)-$version-$number.dump
  docker exec "$database" pg_dump -Fc -Z zstd:1 -U market market </dev/null | tee "$backup.part" | sha256sum >"$backup.sum"
  sync "$backup.part"
  # A cut archive passes --list: it must be read to its end. And what lies on the disk must be what was dumped.
  docker exec -i "$database" pg_restore -f /dev/null <"$backup.part"
  sum=$(cut -d' ' -f1 "$backup.sum")
  [ "$(sha256sum <"$backup.part" | cut -d' ' -f1)" = "$sum" ] || die "the backup on the disk isn't what was dumped"
  printf '{"file":"%s","size":%s,"sha256":"%s","verified":true}\n' "$(basename "$backup")" "$(stat -c %s "$backup.part")" \
    "$sum" >"$backup.json"
  rm "$backup.sum"
  mv "$backup.part" "$backup"
  sync "$root/backups"
fi

step migrate
trap restore_previous EXIT
# Alembic's own table tells the revision in a tenth of the time that a container of the bot takes.
revision() {
  docker exec "$(container postgres)" psql -XAtq -U market -d market -c "SELECT version_num FROM alembic_version" 2>/dev/null \
    || printf 'none\n' # before the first migration there is no such table
}
before=$(revision)
compose "$release" run --rm --no-deps -T --name "$app-migrate-$number" -e PGOPTIONS='-c lock_timeout=5s' bot \
  alembic upgrade head >"$release/migrate.log" 2>&1 \
  || { cat "$release/migrate.log" >&2; die "the migration failed; the schema was at $before, now $(revision)"; }
printf '{"before":"%s","after":"%s"}\n' "$before" "$(revision)" >"$release/schema.json"

step recreate
compose "$release" up -d --no-deps --no-build --pull never bot

step health
gate "$within" "$stable"

step commit
switch_to "$release"
trap - EXIT
finish

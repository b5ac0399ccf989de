# shellcheck shell=bash
# The client's half of the peer scripts: options, and one ssh connection that carries everything. Sourced by peer-deploy.sh
# and peer-rollback.sh.

peer_usage() {
  cat >&2 <<END
usage: $(basename "$0") --project DIR --host HOST --key FILE --known-hosts FILE [OPTIONS] VERSION
  --port N (22)  --user NAME (deploy)  --app NAME (market-bot)  --stable SECONDS (5)  --within SECONDS (60)
  --registry SERVER --registry-user NAME --registry-password-file FILE
  --set NAME=VALUE   a value for the env file (several times)
END
  exit 64
}

# shellcheck disable=SC2034 # the scripts that source this read them
peer_options() {
  project='' host='' port=22 user=deploy key='' known_hosts='' app=market-bot stable=5 within=60 version=''
  registry='' registry_user='' registry_password_file='' settings=()
  while [ $# -gt 0 ]; do
    case $1 in
      --project) project=$2; shift ;;
      --host) host=$2; shift ;;
      --port) port=$2; shift ;;
      --user) user=$2; shift ;;
      --key) key=$2; shift ;;
      --known-hosts) known_hosts=$2; shift ;;
      --app) app=$2; shift ;;
      --stable) stable=$2; shift ;;
      --within) within=$2; shift ;;
      --registry) registry=$2; shift ;;
      --registry-user) registry_user=$2; shift ;;
      --registry-password-file) registry_password_file=$2; shift ;;
      --set) settings+=("$2"); shift ;;
      -*) peer_usage ;;
      *) version=$1 ;;
    esac
    shift
  done
}

# peer_run STAGE SCRIPT ARGUMENT...: sends the folder STAGE and runs SCRIPT of it on the host, in one connection.
peer_run() {
  local stage=$1
  shift
  local command
  # The remote shell takes the parameters quoted; secrets are in files of the stage.
  command=$(printf '%q ' "$@")
  # shellcheck disable=SC2029 # expanded here on purpose
  tar -C "$stage" -cf - . | ssh -F none -T -i "$key" -p "$port" -o IdentitiesOnly=yes -o BatchMode=yes \
    -o UserKnownHostsFile="$known_hosts" -o StrictHostKeyChecking=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3 \
    -o KexAlgorithms=curve25519-sha256 "$user@$host" \
    "umask 077 && stage=\$(mktemp -d) && trap 'rm -rf \"\$stage\"' EXIT && tar -C \"\$stage\" -xf - && cd \"\$stage\" && bash $command"
}

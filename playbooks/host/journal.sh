# shellcheck shell=sh disable=SC2015,SC2016,SC2034,SC2154,SC2164 # as in runner.sh, which sets -e; and what the parts share with each other
# The runner's journal and log, and what it reads of a deployment's directory. Sourced by runner.sh, after lib.sh.

# EVENT MEMBERS [late]: into the journal, fsynced (`late`: by the next event's fsync), and only then told.
record() {
  event_line "$1" "$2"
  mend_journal || return 1
  printf '%s\n' "$line" >>journal.jsonl || {
    torn=1
    return 1
  }
  [ "${3-}" = late ] || sync -d journal.jsonl || return 1
  tell
}

# Half a line that a full disk has left is cut before anything is written behind it.
mend_journal() {
  [ -z "$torn" ] || cut_torn journal.jsonl || return 1
  torn=
}

# A full disk must not stop an undo: the log goes without the line.
tell() { printf '\n\001%s\n' "$line" >>log || :; }

# FILE: cuts the end of it after a crash or a full disk: a last line without its newline, or not whole, was never written. Fails, and
# leaves FILE as it is, if there is no space for that.
cut_torn() {
  [ -s "$1" ] || return 0
  _last=$(tail -n 1 "$1" && echo .) || return 1 # the dot keeps the newline
  case $_last in
    "{"*"}
.") ;;
    *)
      write_atomically "$1" sed '$d' "$1" || return 1 # whoever calls us may have set -e off
      cut_torn "$1"
      ;;
  esac
}

# EVENT: the steps of its lines in the journal, in order.
journal_steps() { sed -n "s/^{\"event\":\"$1\",.*\"step\":\"\\([^\"]*\\)\".*/\\1/p" journal.jsonl; }

# Numbers of the deployments that nobody closed, or whose undo got stuck; newest first. Half a line, torn by a crash, closes nothing.
open_numbers() {
  for _journal in deployments/[1-9]*/journal.jsonl; do
    [ ! -e "$_journal" ] || echo "$_journal"
  done | xargs -r awk '
    FNR == 1 { files[++n] = FILENAME; state[n] = "open" }
    /^{"event":"closed",.*}$/ { state[n] = /"outcome":"stuck"/ ? "stuck" : "closed" }
    END { for (i = 1; i <= n; i++) if (state[i] != "closed") { split(files[i], part, "/"); print part[2] } }
  ' | sort -rn
}

# NUMBER: whether its undo got stuck. A line that isn't whole doesn't count: take_up cuts it.
is_stuck() {
  case $(grep "$closed_line" "deployments/$1/journal.jsonl" | tail -n 1) in *'"outcome":"stuck"'*) ;; *) return 1 ;; esac
}

# NUMBER: makes it the deployment that this process works on.
load() {
  N=$1
  ORCH_N=$1
  ORCH_DEPLOYMENT=$ORCH_STATE/deployments/$1
  ORCH_RELEASE=$ORCH_OPT/releases/$1
  first_line "$ORCH_DEPLOYMENT/previous"
  ORCH_PREVIOUS=$REPLY
  first_line "$ORCH_DEPLOYMENT/bundle"
  ORCH_BUNDLE=$base/bundle/$REPLY
  [ -d "$ORCH_BUNDLE" ] || ORCH_BUNDLE=$own_bundle
  first_line "$ORCH_DEPLOYMENT/key"
  _key=${REPLY%% *}
  _epoch=${REPLY#* }
  export ORCH_BUNDLE ORCH_PROJECT ORCH_N ORCH_STATE ORCH_OPT ORCH_DEPLOYMENT ORCH_PREVIOUS ORCH_RELEASE
  cd "$ORCH_DEPLOYMENT"
}

# Number of the release that `current` names, or empty.
current_release() {
  REPLY=
  [ ! -L "$ORCH_OPT/current" ] || REPLY=$(readlink "$ORCH_OPT/current")
  REPLY=${REPLY##*/}
}

# STEP: its meta, over the defaults.
load_meta() {
  KIND='' NAME='' TIMEOUT=60 UNDO_TIMEOUT='' SIDE=host CHANGES=0 UNDO=0 AFTER=0 SECRETS=''
  # shellcheck source=/dev/null
  . "./$1/meta"
  : "$KIND $NAME $UNDO $AFTER" # for the client and for attach
}

# The units that close an interrupted deployment of PROJECT at boot and then start its current release (host/boot-units.sh); the deploying USER's.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/boot-units.sh
. "$ORCH_BUNDLE/boot-units.sh"
USER='' PROJECT='' STATE=/var/lib/orchestrate OPT=/opt
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
case $USER in '' | *[!A-Za-z0-9._-]* | -*) die "Not a user's name: $USER" ;; esac
case $PROJECT in '' | *[!a-z0-9-]* | -*) die "Not a project's name: $PROJECT" ;; esac
units=/etc/systemd/system
unit_names "$STATE"
reload=

# KIND NAME: the template, and its instance for the project.
unit() {
  _unit=$2@$PROJECT.service
  _text=$(render_unit "$1" "$USER" "$STATE" "$OPT")
  ensure_file "$units/$2@.service" root:root 0644 <<EOT
$_text
EOT
  [ "$changed" = 0 ] || reload=1
  : >"$ORCH_STEP/links"
  for _masked in "$units" /run/systemd/system; do
    [ "$(readlink "$_masked/$_unit" 2>/dev/null)" != /dev/null ] || echo "- masked $_masked/$_unit" >>"$ORCH_STEP/links"
  done
  # shellcheck disable=SC2013 # words, on purpose
  for _target in $(sed -n 's/^WantedBy=//p' "$ORCH_BUNDLE/$1.service"); do
    [ -L "$units/$_target.wants/$_unit" ] || echo "+ wanted by $_target" >>"$ORCH_STEP/links"
  done
  if [ -s "$ORCH_STEP/links" ]; then
    checking || keep_links "$_unit"
    change update "service $_unit" "$ORCH_STEP/links"
    checking || {
      ! grep -q '^- ' "$ORCH_STEP/links" || {
        systemctl --quiet unmask "$_unit"
        systemctl --quiet unmask --runtime "$_unit"
      }
      systemctl --quiet enable "$_unit"
    }
  fi
  rm -f "$ORCH_STEP/links"
}

# UNIT: what the undo takes away and puts back, on disk before it is done: "add LINK", "mask LINK".
keep_links() {
  {
    [ ! -e "$ORCH_STEP/old-links" ] || cat "$ORCH_STEP/old-links"
    sed -n -e "s|^+ wanted by \(.*\)|add $units/\1.wants/$1|p" -e 's|^- masked \(.*\)|mask \1|p' "$ORCH_STEP/links"
  } | write_atomically "$ORCH_STEP/old-links"
}

unit recover "$recover_unit"
[ -z "$app_unit" ] || unit app "$app_unit"
if [ -n "$reload" ] && [ -d /run/systemd/system ] && ! checking; then systemctl daemon-reload; fi
tell_changes

# Kernel settings, for good and now: /etc/sysctl.d/60-orchestrate.conf and what the kernel has.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
# shellcheck source=playbooks/host/sysctl.sh
. "$ORCH_BUNDLE/sysctl.sh"
file=/etc/sysctl.d/60-orchestrate.conf

# key<tab>value, as they are asked for; the last one of a key counts.
LC_ALL=C awk '
  /^[ \t]*([#;].*)?$/ { next }
  { at = index($0, "="); key = substr($0, 1, at - 1); value = substr($0, at + 1)
    gsub(/^[ \t]+|[ \t]+$/, "", key); gsub(/^[ \t]+|[ \t\r]+$/, "", value); gsub(/[ \t]+/, " ", value)
    if (at == 0 || key !~ /^[A-Za-z0-9_][A-Za-z0-9_.\/-]*$/ || key ~ /\.\.|\/\// || value == "") { print NR; bad = 1; exit }
    if (!(key in seen)) keys[++n] = key
    seen[key] = value }
  END { if (bad) exit 1; for (i = 1; i <= n; i++) print keys[i] "\t" seen[keys[i]] }' values >wanted.values ||
  die "Line $(tail -n 1 wanted.values) of the values isn't key=value. Nothing was changed."

find_container
tab=$(printf '\t')
# What this kernel doesn't know is an error before the first change, not a line that the boot skips. A container sees but its network's part.
: >live.wanted
while IFS=$tab read -r key value; do
  case $key in
    net[./]*) ;;
    *) if [ -n "$container" ]; then
      say "This machine is a container ($container): $key is the machine's, and stays as it is there. It is only written to $file."
      continue
    fi ;;
  esac
  sysctl_path "$key"
  path=$REPLY
  if sysctl_value "$path"; then
    printf '%s\t%s\t%s\n' "$path" "$value" "$REPLY" >>live.wanted
  elif [ -n "$container" ]; then
    say "This machine is a container ($container), which has no $key of its own. It is only written to $file."
  else
    die "The kernel has no setting $key (a module that isn't loaded?). Nothing was changed."
  fi
done <wanted.values

{
  echo '# Written by orchestrate bootstrap (step sysctl).'
  sed 's/\t/ = /' wanted.values
} >content
ensure_directory /etc/sysctl.d root:root 0755
ensure_file "$file" root:root 0644 <content

# A file that the boot reads later wins.
for other in /etc/sysctl.d/*.conf /run/sysctl.d/*.conf /usr/lib/sysctl.d/*.conf; do
  if [ ! -f "$other" ] || ! expr "x${other##*/}" '>' "x${file##*/}" >/dev/null; then continue; fi
  LC_ALL=C awk -v file="$other" '
    FNR == NR { split($0, w, "\t"); gsub(/\//, ".", w[1]); wanted[w[1]] = w[2]; next }
    /^[ \t]*([#;].*)?$/ { next }
    { at = index($0, "="); key = substr($0, 1, at - 1); value = substr($0, at + 1)
      gsub(/^[ \t-]+|[ \t]+$/, "", key); gsub(/^[ \t]+|[ \t]+$/, "", value); gsub(/[ \t]+/, " ", value); gsub(/\//, ".", key)
      if (key in wanted && wanted[key] != value) print "Warning: " file " sets " key " = " value ", which wins at the next boot." }' wanted.values "$other"
done

while IFS=$tab read -r path value found; do
  [ "$found" != "$value" ] || continue
  printf '%s\n' "- $found" "+ $value" >detail
  change update "kernel setting ${path#/proc/sys/}" detail
  ! checking || continue
  remember "sysctl.$(printf '%s' "${path#/proc/sys/}" | tr / :)" "$found"
  # One write(2): the kernel takes a value whole.
  printf '%s' "$value" | dd of="$path" bs=4096 conv=notrunc status=none 2>dd.err || die "The kernel refuses ${path#/proc/sys/} = $value: $(tail -n 1 dd.err)"
  sysctl_value "$path"
  [ "$REPLY" = "$value" ] || die "The kernel made $REPLY of ${path#/proc/sys/} = $value: ask for that."
done <live.wanted
tell_changes

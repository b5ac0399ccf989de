# The history that the files of Alembic's versions/ tell by themselves, newest first, as `alembic history` prints it. Only what is written out
# plainly counts (a name, one or no name before it, no branches); anything else is exit status 1: then Alembic itself has to be asked.
# https://alembic.sqlalchemy.org/en/latest/tutorial.html#create-a-migration-script

function fail() { failed = 1; exit 1 }

# The text of a Python literal: a quoted name, or "" for None.
function literal(text,   quote, rest) {
  sub(/^[^=]*=[ \t]*/, "", text)
  if (text ~ /^None[ \t\r]*(#.*)?$/) return ""
  quote = substr(text, 1, 1)
  if (quote != "\"" && quote != "'") fail()
  rest = substr(text, 2)
  if (!index(rest, quote)) fail()
  text = substr(rest, 1, index(rest, quote) - 1)
  if (substr(rest, length(text) + 2) !~ /^[ \t\r]*(#.*)?$/ || text !~ /^[A-Za-z0-9_.-]+$/) fail()
  return text
}

FNR == 1 { files++; doc = "before" }

# The first line of the module's documentation.
doc == "before" && !/^[ \t\r]*(#.*)?$/ {
  if (match($0, /^[rRuU]?("""|\047\047\047)/)) {
    end = substr($0, RLENGTH - 2, 3)
    doc = "inside"
    $0 = substr($0, RLENGTH + 1)
  } else doc = "none"
}
doc == "inside" {
  line = $0
  closed = index(line, end)
  if (closed) line = substr(line, 1, closed - 1)
  gsub(/^[ \t]+|[ \t\r]+$/, "", line)
  if (line != "" && !(files in title)) title[files] = line
  if (closed) doc = "none"
  next
}

/^revision[ \t]*(:[^=]*)?=/ { if (files in name) fail(); name[files] = literal($0) }
/^down_revision[ \t]*(:[^=]*)?=/ { if (files in before) fail(); before[files] = literal($0) }
/^(branch_labels|depends_on)[ \t]*(:[^=]*)?=/ { if (literal($0) != "") fail() }

END {
  if (failed || !files) exit 1
  for (i = 1; i <= files; i++) {
    if (!(i in name) || !(i in before) || name[i] == "" || (name[i] in file) || (before[i] in after)) exit 1
    file[name[i]] = i
    after[before[i]] = name[i]
  }
  for (i = 1; i <= files; i++) if (!(name[i] in after)) { heads++; head = name[i] }
  if (heads != 1 || !("" in after)) exit 1
  for (at = head; at != ""; at = before[i]) {
    if (!(at in file)) exit 1
    i = file[at]
    lines++
    text = text (before[i] == "" ? "<base>" : before[i]) " -> " at (at == head ? " (head)" : "") ", " title[i] "\n"
  }
  if (lines != files) exit 1
  printf "%s", text
}

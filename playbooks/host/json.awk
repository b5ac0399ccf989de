# A JSON parser (RFC 8259) in POSIX awk: mawk, busybox awk, gawk. Run it with LC_ALL=C, so that a character is a byte.
#
#   awk -f json.awk              one document on stdin
#   awk -v each=line -f json.awk each line is a document; its path begins with the line's number
#   awk -v each=file -f json.awk FILE…   each file is a document; its path begins with the file's name
#
# Prints a line per value, in the document's order:   path TAB type TAB value
# path   member names and array indices (from 0) from the root, joined by \037; the root's is empty
# type   object, array (value: number of members), string, number (as written), bool (true, false), null
# In names and strings \\ \n \t \r are written so, other control characters as \u00xx: a line stays a line, a field a field.
# Of a member that occurs twice the last counts: the lines of the earlier one are dropped.
# Exit status 1 on the first fault, with its line and column on stderr; then nothing is printed of that document. A lone surrogate is a
# fault, and so is nesting deeper than 512. Bytes above 127 pass as they are.

BEGIN {
  SEP = "\037"
  for (i = 128; i < 256; i++) byte[i] = sprintf("%c", i)
  for (i = 0; i < 16; i++) hex[substr("0123456789abcdef", i + 1, 1)] = hex[substr("0123456789ABCDEF", i + 1, 1)] = i
  failed = 0
  prefix = ""
  reset()
}

each == "line" {
  prefix = FNR
  reset()
}
each == "file" && FNR == 1 {
  if (NR > 1) finish()
  prefix = escaped(FILENAME)
  reset()
}
{
  parse_line($0)
  started = 1
}
each == "line" { finish() }

END {
  if (failed) exit 1
  if (each != "line" && (each != "file" || started)) finish()
  if (failed) exit 1
}

# depth: open containers; want: what may come next (value, first: value or end, key, key1: key or end, colon, comma, end).
function reset() {
  depth = 0
  want = "value"
  count = 0
  split("", out)
  split("", dead)
  split("", member_first)
  split("", member_last)
  here[0] = prefix
}

function fault(text) {
  if (!failed) print "json: line " FNR ", column " (consumed + 1) ": " text | "cat 1>&2"
  failed = 1
  exit 1
}

function finish() {
  if (failed) return
  if (want != "end") fault("the document ends too early")
  for (i = 1; i <= count; i++) if (!(i in dead)) print out[i]
}

# The rest of the line lies in `buffer` (a window, refilled from `line`), so that long lines aren't copied for each token.
function refill(wanted) {
  while (length(buffer) < wanted && next_byte <= line_length) {
    buffer = buffer substr(line, next_byte, 2048)
    next_byte += 2048
  }
}

function advance(n) {
  buffer = substr(buffer, n + 1)
  consumed += n
}

function parse_line(text,   c) {
  line = text
  line_length = length(text)
  next_byte = 1
  buffer = ""
  consumed = 0
  for (;;) {
    refill(512)
    if (match(buffer, /^[ \t\r]+/)) {
      advance(RLENGTH)
      continue
    }
    if (buffer == "") return
    c = substr(buffer, 1, 1)
    if (want == "end") fault("text after the end of the document")
    if (c == "\"") {
      if (want == "key" || want == "key1") take_key(take_string())
      else if (want == "value" || want == "first") put("string", take_string())
      else unexpected()
    } else if (c == "{" || c == "[") {
      if (want != "value" && want != "first") unexpected()
      open_container(c)
      advance(1)
    } else if (c == "}" || c == "]") {
      close_container(c)
      advance(1)
    } else if (c == ",") {
      if (want != "comma") unexpected()
      if (kind[depth] == "object") want = "key"
      else {
        want = "value"
        here[depth] = below(base[depth], members[depth])
      }
      advance(1)
    } else if (c == ":") {
      if (want != "colon") unexpected()
      want = "value"
      advance(1)
    } else {
      if (want != "value" && want != "first") unexpected()
      take_word()
    }
  }
}

function unexpected() {
  if (want == "key") fault("expected a member name")
  if (want == "key1") fault("expected a member name or }")
  if (want == "colon") fault("expected ':'")
  if (want == "comma") fault("expected ',' or the end of the " kind[depth])
  fault("expected a value")
}

function take_word(   n) {
  if (match(buffer, /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/)) {
    n = RLENGTH
    while (n == length(buffer) && next_byte <= line_length) {
      refill(n + 512)
      match(buffer, /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/)
      n = RLENGTH
    }
    if (substr(buffer, n + 1, 1) ~ /[0-9A-Za-z.+-]/) fault("not a number")
    put("number", substr(buffer, 1, n))
    advance(n)
  } else if (match(buffer, /^(true|false|null)/)) {
    n = RLENGTH
    if (substr(buffer, n + 1, 1) ~ /[0-9A-Za-z_]/) fault("expected a value")
    put(substr(buffer, 1, 1) == "n" ? "null" : "bool", substr(buffer, 1, n))
    advance(n)
  } else fault("expected a value")
}

# The string that begins at the buffer's quote, decoded and escaped for the output.
function take_string(   text, c, code, low) {
  advance(1)
  text = ""
  for (;;) {
    refill(512)
    if (match(buffer, /["\\\001-\037]/)) {
      text = text substr(buffer, 1, RSTART - 1)
      c = substr(buffer, RSTART, 1)
      advance(RSTART - 1)
    } else if (next_byte <= line_length) {
      text = text buffer
      advance(length(buffer))
      continue
    } else fault("a string without an end")
    if (c == "\"") {
      advance(1)
      return text
    }
    if (c != "\\") fault("a control character in a string")
    refill(16)
    c = substr(buffer, 2, 1)
    if (c == "\"" || c == "/") text = text c
    else if (c == "\\" || c == "n" || c == "t" || c == "r") text = text "\\" c
    else if (c == "b") text = text "\\u0008"
    else if (c == "f") text = text "\\u000c"
    else if (c == "u") {
      code = four_hex(3)
      if (code >= 56320 && code <= 57343) fault("half a surrogate pair")
      if (code >= 55296 && code <= 56319) {
        if (substr(buffer, 7, 2) != "\\u") fault("half a surrogate pair")
        low = four_hex(9)
        if (low < 56320 || low > 57343) fault("half a surrogate pair")
        code = 65536 + (code - 55296) * 1024 + (low - 56320)
        advance(6)
      }
      text = text character(code)
      advance(4)
    } else fault("an unknown escape")
    advance(2)
  }
}

function four_hex(from,   i, c, code) {
  code = 0
  for (i = 0; i < 4; i++) {
    c = substr(buffer, from + i, 1)
    if (c == "" || !(c in hex)) fault("expected four hex digits")
    code = code * 16 + hex[c]
  }
  return code
}

# UTF-8 (RFC 3629); control characters as the output writes them.
function character(code) {
  if (code == 9) return "\\t"
  if (code == 10) return "\\n"
  if (code == 13) return "\\r"
  if (code == 92) return "\\\\"
  if (code < 32) return sprintf("\\u%04x", code)
  if (code < 128) return sprintf("%c", code)
  if (code < 2048) return byte[192 + int(code / 64)] byte[128 + code % 64]
  if (code < 65536) return byte[224 + int(code / 4096)] byte[128 + int(code / 64) % 64] byte[128 + code % 64]
  return byte[240 + int(code / 262144)] byte[128 + int(code / 4096) % 64] byte[128 + int(code / 64) % 64] byte[128 + code % 64]
}

# For file names: they aren't JSON.
function escaped(text) {
  gsub(/\\/, "\\\\", text)
  gsub(/\t/, "\\t", text)
  return text
}

function below(path, name) { return path == "" && depth == 1 && prefix == "" ? name "" : path SEP name }

function take_key(name,   path, i) {
  path = below(base[depth], name)
  if (path in member_first) {
    for (i = member_first[path]; i <= member_last[path]; i++) dead[i] = 1
    members[depth]--
    forget(path)
  }
  members[depth]++
  here[depth] = path
  member_first[path] = count + 1
  want = "colon"
}

# Members of a dropped object may occur again without being twice.
function forget(path,   name) {
  for (name in member_first) if (index(name, path SEP) == 1) {
    delete member_last[name]
    delete member_first[name]
  }
}

function put(type, value) {
  out[++count] = here[depth] "\t" type "\t" value
  done()
}

function open_container(c) {
  if (depth >= 512) fault("nested too deeply")
  out[++count] = here[depth]
  depth++
  start[depth] = count
  base[depth] = here[depth - 1]
  members[depth] = 0
  kind[depth] = c == "{" ? "object" : "array"
  want = c == "{" ? "key1" : "first"
  here[depth] = c == "{" ? "" : below(base[depth], 0)
}

function close_container(c) {
  if (depth == 0) unexpected()
  if (kind[depth] != (c == "}" ? "object" : "array")) fault("expected the end of the " kind[depth])
  if (want != "comma" && want != "key1" && want != "first") unexpected()
  out[start[depth]] = out[start[depth]] "\t" kind[depth] "\t" members[depth]
  depth--
  done()
}

# A value is complete.
function done() {
  if (depth == 0) {
    want = "end"
    return
  }
  if (kind[depth] == "object") member_last[here[depth]] = count
  else members[depth]++
  want = "comma"
}

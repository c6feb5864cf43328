#!/bin/sh
# Lines that ship, room by room: sources without tests, conformance suites, fakes, benches and examples; what stands behind a
# file's own `#[cfg(test)] mod tests {` doesn't count. First number: all such lines; second: without blank lines and comments.
#
#   scripts/lines.sh [COMMIT] [ROOM...]     default: the working tree, and the rooms below
set -eu
cd "$(dirname "$0")/.."
at=${1:-}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- actors/runtime backends/bus backends/state backends/jobs backends/nats
list() { if [ -n "$at" ]; then git ls-tree -r --name-only "$at" "${1#./}/src"; else git ls-files "$1/src"; fi; }
text() { if [ -n "$at" ]; then git show "$at:$1"; else cat "$1"; fi; }
all=0 code=0
for room; do
  numbers=$(for file in $(list "$room" | grep '\.rs$' | grep -v -e '/tests/' -e 'tests\.rs$' -e '_tests\.rs$' -e '/conformance' -e '/testing' -e '/faulty\.rs$' -e '/slow\.rs$'); do
      text "$file" | awk '/^#\[cfg\(test\)\]/ { held = $0; next } held != "" { if ($0 ~ /^mod [a-z_]+ \{/) exit; print held; held = "" } { print }'
    done | awk '{ all++ } !/^[ \t]*(\/\/.*)?$/ { code++ } END { print all + 0, code + 0 }')
  echo "$room $numbers"
  all=$((all + ${numbers% *})); code=$((code + ${numbers#* }))
done
echo "sum $all $code"

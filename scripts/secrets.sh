#!/bin/sh
# Looks for the secrets that tests plant in what a test run wrote (integration/src/secrets.rs). Usage: secrets.sh DIR
set -eu
said=$1
mark=planted-5ecret
[ -n "$(ls -A "$said" 2>/dev/null)" ] || { echo "secrets: nothing is kept in $said, so nothing is shown"; exit 1; }
# does the grep find one? in a place of its own, with a secret amid other bytes
control=$(mktemp -d)
trap 'rm -rf "$control"' EXIT
printf 'a line\n\000\377level=INFO password=%s-control\n' "$mark" > "$control/said"
grep -rlaF "$mark" "$control" >/dev/null || { echo "secrets: the grep does not find a planted leak"; exit 1; }
if [ -s "$said/leaks" ]; then
  echo "secrets: planted secrets were left in files:"; cat "$said/leaks"; exit 1
fi
if grep -rnaF "$mark" "$said"; then
  echo "secrets: planted secrets were said (above)"; exit 1
fi
echo "secrets: none of the planted ones in what $(ls "$said" | wc -l) test processes' daemons and verbs said and left"

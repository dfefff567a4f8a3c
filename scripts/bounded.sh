#!/usr/bin/env bash
# Runs a command with all its output in a file, shows the lines that matter, and on failure the end of the output.
# So a log of CI stays readable however much the tests print.
set -uo pipefail

log="$(mktemp -t fleet-tests.XXXXXX)"
trap 'rm -f "$log"' EXIT

"$@" >"$log" 2>&1 &
child=$!
trap 'kill "$child" 2>/dev/null' INT TERM
# One line per test binary while it runs.
tail --pid="$child" -n +1 -f "$log" 2>/dev/null |
  grep --line-buffered -E '^(     Running|   Doc-tests|test result:|error(\[|:)|warning: unused)' || true
wait "$child"
code=$?

if [ "$code" -ne 0 ]; then
  echo "--- failed with exit code $code; failures, then the last lines ---"
  grep -nE '^(test .* \.\.\. FAILED|---- .* stdout ----|thread .* panicked|error(\[|:))' "$log" | head -n 100
  tail -n 200 "$log" | cut -c -400
fi

count() { sed -nE "s/^test result:.* ([0-9]+) $1;.*/\\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'; }
echo "$(count passed) passed, $(count failed) failed"
exit "$code"

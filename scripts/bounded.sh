#!/usr/bin/env bash
# Runs a command with all its output in a file, shows the lines that matter, and on failure the end of the output.
# So a log of CI stays readable however much the tests print.
set -uo pipefail

log="$(mktemp -t fleet-tests.XXXXXX)"
trap 'rm -f "$log"' EXIT

"$@" >"$log" 2>&1 &
child=$!
trap 'kill "$child" 2>/dev/null' INT TERM
# One line per test binary while it runs, and how much was shown.
tail --pid="$child" -n +1 -f "$log" 2>/dev/null |
  grep --line-buffered -E '^(     Running|   Doc-tests|test result:|error(\[|:)|warning: unused)|^[^ ].*(nothing lost|none lost|no invariant broken|sequences from seed|places|calls)$' || true
wait "$child"
code=$?

if [ "$code" -ne 0 ]; then
  echo "--- failed with exit code $code; the end of what each failed test said, then the last lines ---"
  grep -nE '^(test .* \.\.\. FAILED|error(\[|:))' "$log" | head -n 100
  # A property test says the same again and again while it makes its case smaller: the end is what counts.
  awk -v most=60 '
    function flush(   i) {
      if (name == "") return
      print name
      for (i = (n > most ? n - most + 1 : 1); i <= n; i++) print line[i]
      name = ""; n = 0
    }
    # What those that passed had to say stands under "successes:".
    /^failures:$/ { flush(); failed = 1; next }
    /^(successes:|test result:)/ { flush(); failed = 0; next }
    failed && /^---- .* stdout ----$/ { flush(); name = $0; next }
    name != "" { line[++n] = substr($0, 1, 400) }
    END { flush() }
  ' "$log" | head -n 2000
  tail -n 60 "$log" | cut -c -400
fi

count() { sed -nE "s/^test result:.* ([0-9]+) $1;.*/\\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'; }
echo "$(count passed) passed, $(count failed) failed"
exit "$code"

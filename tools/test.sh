#!/usr/bin/env bash
# Everything that has to hold, in the order that fails fastest. Called by ./x test after the installing.
#
# The whole output of the tests goes to .slipway/test.log; the screen shows the results, every `skipped:` line, and the
# full story of what failed. With CI=true a skip that installing or fetching should have prevented is a failure.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$SLIPWAY_ROOT"
mkdir -p "$SLIPWAY_STATE"
log=$SLIPWAY_STATE/test.log

tools/lint.sh

section "build"
cargo build --quiet --workspace --locked
section "test guest (cargo xtask guest)"
cargo xtask guest
section "real files from public packages (cargo xtask samples)"
cargo xtask samples

section "tests, fuzz corpora, stories"
echo "SLIPWAY_SAMPLES=$SLIPWAY_SAMPLES"
# Keeps the runner's own lines and what failed; drops what passing tests printed, except why they skipped.
filter='
  /^successes:$/,/^(failures:|test result:.*)$/ {
    /skipped: / { s/.*skipped: /skipped: /; b }
    /^(failures:|test result:.*)$/! d
  }
  /^test .* \.\.\. ok$/ d
  /^$/ d'
failed=0
cargo test --workspace --locked --no-fail-fast "$@" -- --show-output 2>&1 | tee "$log" | sed -uE "$filter" || failed=1

section "summary"
# A test may only be skipped for what this project cannot install: hardware, and real files that no public package holds.
sed -n 's/.*\(skipped: .*\)/\1/p' "$log" | sort | uniq -c | sort -rn >"$SLIPWAY_STATE/skipped.txt"
skipped=$(wc -l <"$SLIPWAY_STATE/skipped.txt")
if [ -s "$SLIPWAY_STATE/skipped.txt" ]; then
  cat "$SLIPWAY_STATE/skipped.txt"
  if [ "${CI:-}" = true ] && grep -vE 'skipped: .*(KVM|no public package|root|file system)' "$SLIPWAY_STATE/skipped.txt" >/dev/null; then
    echo "test: in CI nothing may be skipped for want of something that can be installed" >&2
    failed=1
  fi
else
  echo "nothing skipped"
fi
awk -v s="$skipped" '/^test result:/ { for (i = 1; i < NF; i++) { if ($(i+1) == "passed;") p += $i; if ($(i+1) == "failed;") f += $i } }
     END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$log"
[ "$failed" = 0 ] || { echo "test: FAILED (whole output: $log)" >&2; exit 1; }
echo "test: all of it holds"

#!/usr/bin/env bash
# fuzz.sh [TARGET|all] [SECONDS] - libFuzzer on one target, or on each in turn. New finds go to fuzz/artifacts.
#
# The corpus that grows while fuzzing lives in .slipway/fuzz/corpus; the seeds in fuzz/corpus are only read. To keep what was
# learned:  tools/fuzz.sh --keep TARGET  minimises the grown corpus into the seeds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$SLIPWAY_ROOT"
# The fuzzer's instrumentation is behind unstable flags; this lets the stable compiler take them.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$SLIPWAY_STATE/fuzz/target}
readonly MAX_SEED=65536   # bytes; what a seed in the repository may be large
host=$(rustc -vV | sed -n 's/^host: //p')

keep() {
  local grown=$SLIPWAY_STATE/fuzz/corpus/$1 merged=$SLIPWAY_STATE/fuzz/merged/$1
  rm -rf "$merged"; mkdir -p "$merged" "fuzz/corpus/$1" "$grown"
  cargo fuzz run --fuzz-dir fuzz --target "$host" "$1" "$merged" "fuzz/corpus/$1" "$grown" -- -set_cover_merge=1 -use_counters=0 -max_len=$MAX_SEED
  # Merged ones are named by hash; seeds made by hand have other names and stay.
  find "fuzz/corpus/$1" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
  cp -n "$merged"/* "fuzz/corpus/$1"/ 2>/dev/null || true
  echo "$1: $(find "fuzz/corpus/$1" -type f | wc -l) seeds"
}
fuzz() {
  mkdir -p "$SLIPWAY_STATE/fuzz/corpus/$1" "fuzz/corpus/$1"
  section "fuzz $1 for $2 s"
  cargo fuzz run --fuzz-dir fuzz --target "$host" "$1" "$SLIPWAY_STATE/fuzz/corpus/$1" "fuzz/corpus/$1" -- \
    -max_total_time="$2" -max_len=$MAX_SEED -timeout=20 -rss_limit_mb=2048 -print_final_stats=1
}

if [ "${1:-}" = --keep ]; then keep "${2:?target}"; exit; fi
target=${1:-all} seconds=${2:-60}
if [ "$target" != all ]; then fuzz "$target" "$seconds"; exit; fi
for file in fuzz/fuzz_targets/*.rs; do fuzz "$(basename "$file" .rs)" "$seconds"; done

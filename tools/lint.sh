#!/usr/bin/env bash
# The checks that read the source and start nothing: format, lints, house rules, licences.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$SLIPWAY_ROOT"

section "format"
cargo fmt --all --check
section "house rules (cargo xtask tidy)"
cargo xtask tidy
section "licences, bans, sources (cargo deny)"
cargo deny --log-level warn check bans licenses sources
section "clippy"
cargo clippy --quiet --workspace --all-targets --locked -- -D warnings

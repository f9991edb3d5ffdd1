# Where the scripts keep what they fetch and build. Sourced by ./x and by every script in tools/; sets variables only.
#
#   SLIPWAY_STATE           all of it; ignored by git, safe to delete
#   SLIPWAY_PYTHON          a Python that has the independent readers (tests/requirements.txt)
#   SLIPWAY_GUEST           kernels, initrds and disks of the tiny test guests (`cargo xtask guest`)
#   SLIPWAY_SAMPLES_PUBLIC  real Hyper-V files from public packages (`cargo xtask samples`)
#   SLIPWAY_SAMPLES         more real files, in the same layout; defaults to the public ones
SLIPWAY_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SLIPWAY_STATE=${SLIPWAY_STATE:-$SLIPWAY_ROOT/.slipway}
SLIPWAY_VENV=$SLIPWAY_STATE/venv
export SLIPWAY_ROOT SLIPWAY_STATE SLIPWAY_VENV
export SLIPWAY_PYTHON=${SLIPWAY_PYTHON:-$SLIPWAY_VENV/bin/python}
export SLIPWAY_GUEST=${SLIPWAY_GUEST:-$SLIPWAY_STATE/guest}
export SLIPWAY_SAMPLES_PUBLIC=${SLIPWAY_SAMPLES_PUBLIC:-$SLIPWAY_STATE/samples}
export SLIPWAY_SAMPLES=${SLIPWAY_SAMPLES:-$SLIPWAY_SAMPLES_PUBLIC}
# mkfs, sfdisk and friends live in sbin, which an ordinary user's PATH leaves out on Debian; cargo's own tools may be
# missing from a PATH that a non-login shell set up.
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

if [ -t 1 ]; then BOLD=$'\e[1m' PLAIN=$'\e[0m'; else BOLD='' PLAIN=''; fi
section() { printf '\n%s== %s%s\n' "$BOLD" "$*" "$PLAIN"; }

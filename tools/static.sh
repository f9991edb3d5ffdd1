#!/usr/bin/env bash
# static.sh [--out DIR] - slipway as one file that needs nothing of the system it runs on: for looking at packages and
# disks on any Linux with this processor, a rescue system or a NAS. Prints its path.
#
# It is the whole program, daemon and client too: `inspect` needs the domain's rules, which need the store, so leaving
# the daemon out would save only the HTTP edge and cost a second set of features to test. Linked with glibc's static
# libraries, which libc6-dev has, so that no toolchain has to be fetched.
#
# Before it prints its path it proves two things: no loader and no library is asked for, and in a root with nothing else
# than a package in it, not even /dev, the program inspects and verifies the package and writes a disk.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$SLIPWAY_ROOT"

die() { echo "static: $*" >&2; exit 1; }
out=$SLIPWAY_STATE/static
if [ "${1:-}" = --out ]; then out=${2:?a folder}; shift 2; fi
[ $# -eq 0 ] || die "no option '$1' (there is --out DIR)"

target=$SLIPWAY_STATE/static/target
# The target is named so that the flags are for the program alone: build scripts and macros stay as they are.
# Random bytes come from the system call (Linux 3.17): without a loader the usual way ends at /dev/urandom, which a bare
# root has not got.
RUSTFLAGS="-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\" --remap-path-prefix=$SLIPWAY_ROOT=/usr/src/slipway --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/usr/src/cargo" \
  CARGO_TARGET_DIR=$target cargo build --quiet --release --locked --package slipway --target x86_64-unknown-linux-gnu
mkdir -p "$out"
program=$out/slipway-static
strip -o "$program.partial" "$target/x86_64-unknown-linux-gnu/release/slipway"

if readelf --program-headers --wide "$program.partial" | grep -E '^ +INTERP' >/dev/null; then die "it asks for a loader"; fi
if readelf --dynamic --wide "$program.partial" | grep -F '(NEEDED)' >/dev/null; then die "it asks for libraries"; fi

# A root with the program and a package: entered as root, or as a user in a namespace where that is allowed.
config=993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx
cargo xtask samples "vmcx/$config" >/dev/null
empty=$(mktemp -d "$out/root.XXXXXX")
trap 'rm -rf "$empty" "$out/last.log"' EXIT
disk="package/Virtual Hard Disks/Default Generation 2.vhdx"
mkdir -p "$empty/${disk%/*}" "$empty/package/Virtual Machines"
cp "$program.partial" "$empty/slipway"
cp "$SLIPWAY_SAMPLES_PUBLIC/vmcx/$config" "$empty/package/Virtual Machines/"
head -c 3000000 /dev/urandom >"$empty/disk.raw"
truncate -s 8M "$empty/disk.raw"
# What it says is kept for the case that it fails.
alone() {
  local enter=()
  [ "$(id -u)" = 0 ] || enter=("$(command -v unshare)" --user --map-root-user)
  env -i "${enter[@]}" "$(command -v chroot)" "$empty" /slipway "$@" >"$out/last.log" 2>&1 || {
    cat "$out/last.log" >&2
    die "in a root of its own this fails: slipway $*"
  }
}
says() { grep -F -- "$1" "$out/last.log" >/dev/null || die "it does not say $1: $(cat "$out/last.log")"; }
alone --quiet disk convert disk.raw "$disk"
alone disk check "$disk"
alone disk hash "$disk"
says "$(sha256sum <"$empty/disk.raw" | cut -d' ' -f1)"
alone config dump "package/Virtual Machines/$config" --json
says '"Default Generation 2"'
alone inspect package
says 'verdict: ready'
alone verify package
alone explain in-use

mv -f "$program.partial" "$program"
echo "$program"

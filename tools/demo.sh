#!/usr/bin/env bash
# demo.sh [--generation 1|2] [--installed] - a machine that Hyper-V configured comes up here, works, leaves as a Hyper-V package, and
# comes back. Called by ./x demo after the installing.
#
# Everything happens in a temporary folder with a daemon of its own; nothing on this host is changed, and it is all gone
# afterwards (SLIPWAY_KEEP=1 leaves the folder). The configuration is a real one, made by Hyper-V, from a public package and
# checked by hash. The disk is a small Linux, built on the spot, because a stranger's disk cannot be given away.
#
# --installed shows the same with the slipway in PATH and the daemon that already runs, and builds and fetches nothing:
# so the package is tried. Its machines are deleted afterwards.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$SLIPWAY_ROOT"

generation=2 installed=''
while [ $# -gt 0 ]; do
  case "$1" in
    --generation) generation=${2:?1 or 2}; shift 2 ;;
    --generation=*) generation=${1#*=}; shift ;;
    --installed) installed=1; shift ;;
    *) echo "demo: no option '$1' (there are --generation 1|2 and --installed)" >&2; exit 2 ;;
  esac
done
case "$generation" in
  1) config=xml/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml ;;
  2) config=vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx ;;
  *) echo "demo: --generation is 1 or 2" >&2; exit 2 ;;
esac
readonly NAME="Default Generation $generation"

if [ -t 1 ]; then DIM=$'\e[2m' BOLD=$'\e[1m' PLAIN=$'\e[0m'; else DIM='' BOLD='' PLAIN=''; fi
number=0
step() { number=$((number + 1)); printf '\n%s%d. %s%s\n' "$BOLD" "$number" "$1" "$PLAIN"; shift; [ $# -eq 0 ] || printf '   %s\n' "$@"; }
# A word as one would type it, with the temporary folder left out.
word() { case "$1" in *[!A-Za-z0-9_./=,:+-]*|'') printf " '%s'" "$1" ;; *) printf ' %s' "$1" ;; esac; }
shown() { local w; printf '   %s$ slipway' "$DIM"; for w; do word "$w"; done; printf '%s\n' "$PLAIN"; }
indent() { sed "s/^/     /; s#$home/##g"; }
# Shows the command, runs it, shows what it says.
run() { shown "$@"; (cd "$home" && "$slipway" "$@" 2>&1 </dev/null) | indent; }
# The same for a command whose answer is looked at: the last line of the guest's console that holds $1.
ask() { # TEXT LINE SECONDS
  local text=$1 line=$2 seconds=$3
  shown machine console "$machine" --send "$line" --wait-for "$text"
  (cd "$home" && "$slipway" -q machine console "$machine" --send "$line" --wait-for "$text" --timeout "$seconds" </dev/null >/dev/null) ||
    fail "the guest did not answer '$line'"
  answer=$(said "$text")
  printf '     guest: %s\n' "$answer"
}
# What the guest said: the last console line with that text, without the terminal's colours.
said() { (cd "$home" && "$slipway" -q machine console "$machine" --log </dev/null) | tr -d '\r' | sed 's/\x1b\[[0-9;=]*[A-Za-z]//g' | grep -aF -- "$1" | tail -1; }
wait_ready() {
  shown machine console "$machine" --wait-for GUEST-READY
  (cd "$home" && "$slipway" -q machine console "$machine" --wait-for GUEST-READY --timeout 150 </dev/null >/dev/null) ||
    fail "the guest did not come up; its console said: $(said '' || true)"
  printf '     guest: %s\n' "$(said GUEST-READY)"
}
fail() { echo; echo "demo: $*" >&2; [ -s "$home/daemon.log" ] && { echo "--- the daemon's log" >&2; tail -20 "$home/daemon.log" >&2; }; exit 1; }

if [ -n "$installed" ]; then
  slipway=slipway
else
  section "preparing (built and fetched once)"
  cargo build --quiet --locked --package slipway
  slipway=${CARGO_TARGET_DIR:-$SLIPWAY_ROOT/target}/debug/slipway
  cargo xtask guest | sed -n 1p
  cargo xtask samples "$config"
fi
began=$SECONDS

home=$(mktemp -d "${TMPDIR:-/tmp}/slipway-demo.XXXXXX")
daemon=
machine=$NAME
clean_up() {
  local code=$?
  trap - EXIT INT TERM
  # Guests outlive their daemon on purpose, so they are ended first.
  for m in "$NAME" "$NAME again"; do
    (cd "$home" && "$slipway" -q machine stop "$m") >/dev/null 2>&1 </dev/null || true
    [ -z "$installed" ] || "$slipway" -q machine delete --yes "$m" >/dev/null 2>&1 </dev/null || true
  done
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  if [ -n "${SLIPWAY_KEEP:-}" ]; then echo "kept: $home"; else rm -rf "$home"; fi
  exit $code
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
[ -n "$installed" ] || export SLIPWAY_SOCKET=$home/slipway.sock SLIPWAY_DATA=$home/data

section "a Hyper-V machine, generation $generation, moves to this host and back"

step "A package as Hyper-V exports it" \
  "The configuration was written by Hyper-V. The disk is a tiny Linux without one virtio driver, as a VHDX."
package="exported/$NAME"
mkdir -p "$home/$package/Virtual Machines" "$home/$package/Virtual Hard Disks"
cp "$SLIPWAY_SAMPLES_PUBLIC/$config" "$home/$package/Virtual Machines/"
cp --sparse=always "$SLIPWAY_GUEST/boot-plain.raw" "$home/linux.raw"
truncate -s 256M "$home/linux.raw"      # room for the guest to work in
run disk convert linux.raw "$package/Virtual Hard Disks/$NAME.vhdx"
(cd "$home/$package" && find . -type f | sort | sed 's#^\./#     #')

step "What is in it, and what would not fit here?" "Read without a daemon, without root; nothing is changed."
run inspect "$package"

if [ -n "$installed" ]; then
  step "The daemon runs"
else
  step "A daemon, for this demo only"
  shown serve --data data --socket slipway.sock
  mkfifo "$home/ready"
  (cd "$home" && exec "$slipway" serve --data data --socket slipway.sock --ready-file "$home/ready.file" </dev/null >daemon.log 2>&1) &
  daemon=$!
  for _ in $(seq 600); do
    [ -e "$home/ready.file" ] && break
    kill -0 "$daemon" 2>/dev/null || fail "the daemon ended"
    read -r -t 0.1 <>"$home/ready" || true
  done
  [ -e "$home/ready.file" ] || fail "the daemon is not ready after a minute"
fi
run doctor

step "The import, rehearsed" "Every finding has an id, what it concerns, and the command that fixes it."
run import "$package" --dry-run

step "The import"
run import "$package"
run machine list

step "It runs" "No driver was put into it: it gets the hardware that an unprepared guest can boot."
run machine start "$NAME"
wait_ready

step "It works: the guest writes 16 MiB of a pattern to its disk"
disk=$(said GUEST-READY | grep -oE '(sd|hd|vd)a' | head -1)
disk=/dev/${disk:-sda}
# 256 blocks of 64 KiB at 128 MiB, far behind its file system. What they must hash to can be worked out here as well.
expected=$(yes seed-demo | head -c $((256 * 65536)) | sha256sum | cut -d' ' -f1) || true
ask PAT-OK "pat $disk demo 2048 256" 60
ask "SUM " "sum $disk 2048 256" 60
case "$answer" in *"$expected"*) ;; *) fail "the guest reads another pattern than it wrote: $answer, not $expected" ;; esac
run machine stop "$NAME"

step "It leaves as a Hyper-V package" "VHDX written by Slipway, the configuration's unknown keys as they came, a manifest last."
run export "$NAME" leaving
(cd "$home/leaving" && find . -type f | sort | sed 's#^\./#     #')

step "Every byte of the package is proven from its manifest"
run verify leaving

step "It comes back, beside the first, under a new id"
run import leaving --new-id --name "$NAME again"
run machine list

step "The guest that came back finds what it wrote before it left"
machine="$NAME again"
run machine start "$machine"
wait_ready
ask "SUM " "sum $disk 2048 256" 60
case "$answer" in *"$expected"*) ;; *) fail "the pattern did not survive: $answer, not $expected" ;; esac
printf '     the same %s… that this host works out for the pattern\n' "${expected:0:16}"
run machine stop "$machine"

printf '\n%sDone in %d seconds.%s The machine came in from Hyper-V'"'"'s own configuration, ran, left as a Hyper-V package and came back.\n' \
  "$BOLD" $((SECONDS - began)) "$PLAIN"
echo "Proven here: our own round trip, and that independent readers accept what we write (./x test). Not proven: that Windows"
echo "imports the package in step 8. If you have a Hyper-V host, please try and tell us."

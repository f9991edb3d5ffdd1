#!/usr/bin/env bash
# demo.sh [--generation 1|2] [--installed] [--record] - a machine that Hyper-V configured comes up here, works, leaves as a
# Hyper-V package, and comes back. Called by ./x demo after the installing.
#
# Everything happens in a temporary folder with a daemon of its own; nothing on this host is changed, and it is all gone
# afterwards (SLIPWAY_KEEP=1 leaves the folder). The configuration is a real one, made by Hyper-V, from a public package and
# checked by hash. The disk is a small Linux, built on the spot, because a stranger's disk cannot be given away.
#
# --installed shows the same with the slipway in PATH and the daemon that already runs, and builds and fetches nothing:
# so the package is tried. Its machines are deleted afterwards.
#
# --record runs it in a pseudo-terminal, keeps what it prints in docs/demo.cast and draws docs/demo.svg from that.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$SLIPWAY_ROOT"

case " $* " in *" --record "*)
  words=()
  for word; do [ "$word" = --record ] || words+=("$word"); done
  python3 tools/record.py record docs/demo.cast --after '== a Hyper-V machine' --title './x demo' -- tools/demo.sh "${words[@]}"
  python3 tools/record.py render docs/demo.cast docs/demo.svg
  echo "recorded: docs/demo.cast, docs/demo.svg"
  exit ;;
esac

generation=2 installed=''
while [ $# -gt 0 ]; do
  case "$1" in
    --generation) generation=${2:?1 or 2}; shift 2 ;;
    --generation=*) generation=${1#*=}; shift ;;
    --installed) installed=1; shift ;;
    *) echo "demo: no option '$1' (there are --generation 1|2, --installed and --record)" >&2; exit 2 ;;
  esac
done
case "$generation" in
  1) config=xml/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml ;;
  2) config=vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx ;;
  *) echo "demo: --generation is 1 or 2" >&2; exit 2 ;;
esac
# Hyper-V calls it "Default Generation 1" or "2"; here it is called so that a story can be told of it.
readonly DISK="Default Generation $generation.vhdx"
# On a daemon that others use, names that are nobody else's: the machines are deleted afterwards.
if [ -n "$installed" ]; then FIRST=slipway-demo SECOND=slipway-demo-again; else FIRST=web SECOND=web-again; fi
readonly FIRST SECOND

if [ -t 1 ]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' TYPED=$'\e[36m' GUEST=$'\e[32m' PLAIN=$'\e[0m'
  width=$(tput cols 2>/dev/null || echo 80)
else
  BOLD='' DIM='' TYPED='' GUEST='' PLAIN='' width=0
fi
number=0
# A heading, and what a stranger should know before the commands.
step() {
  number=$((number + 1))
  printf '\n%s%d. %s%s\n' "$BOLD" "$number" "$1" "$PLAIN"
  shift
  [ $# -eq 0 ] || printf "   $DIM%s$PLAIN\n" "$@"
}
# A word as one would type it, with the temporary folder left out.
word() { case "$1" in '&') printf ' &' ;; *[!A-Za-z0-9_./=,:+-]*|'') printf " '%s'" "$1" ;; *) printf ' %s' "$1" ;; esac; }
shown() { local w; printf '   %s$ slipway' "$TYPED"; for w; do word "$w"; done; printf '%s\n' "$PLAIN"; }
# What a command says, set in a little, and its long lines folded at spaces where a terminal would cut words.
indent() {
  sed "s#$home/##g" | awk -v width="$width" '{
    match($0, /^ */); hang = RLENGTH + (RLENGTH ? 11 : 2); line = "     " $0
    while (width > 40 && length(line) > width) {
      cut = width; while (cut > hang + 10 && substr(line, cut + 1, 1) != " ") cut--
      print substr(line, 1, cut); line = substr(line, cut + 1); sub(/^ */, "", line)
      line = sprintf("%" (hang + 5) "s", "") line
    }
    print line; fflush() }'
}
# Shows the command, runs it, shows what it says.
run() { shown "$@"; (cd "$home" && "$slipway" "$@" 2>&1 </dev/null) | indent; }
# The files of a folder.
files() { (cd "$home/$1" && find . -type f | sort | sed 's#^\./#     #'); }
# The same for a command whose answer is looked at: the last line of the guest's console that holds $1.
ask() { # TEXT LINE SECONDS
  local text=$1 line=$2 seconds=$3
  shown machine console "$machine" --send "$line" --wait-for "$text"
  (cd "$home" && "$slipway" -q machine console "$machine" --send "$line" --wait-for "$text" --timeout "$seconds" </dev/null >/dev/null) ||
    fail "the guest did not answer '$line'"
  answer=$(said "$text")
  guest "$answer"
}
guest() { printf '%s' "$GUEST"; echo "guest: $1" | indent; printf '%s' "$PLAIN"; }
# What the guest said: the last console line with that text, without the terminal's colours.
said() { (cd "$home" && "$slipway" -q machine console "$machine" --log </dev/null) | tr -d '\r' | sed 's/\x1b\[[0-9;=]*[A-Za-z]//g' | grep -aF -- "$1" | tail -1; }
wait_ready() {
  shown machine console "$machine" --wait-for GUEST-READY
  (cd "$home" && "$slipway" -q machine console "$machine" --wait-for GUEST-READY --timeout 150 </dev/null >/dev/null) ||
    fail "the guest did not come up; its console said: $(said '' || true)"
  guest "$(said GUEST-READY)"
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
machine=$FIRST
clean_up() {
  local code=$?
  trap - EXIT INT TERM
  # Guests outlive their daemon on purpose, so they are ended first.
  for m in "$FIRST" "$SECOND"; do
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
  "The configuration was written by Hyper-V. The disk is a tiny Linux without one virtio driver."
package=exported
mkdir -p "$home/$package/Virtual Machines" "$home/$package/Virtual Hard Disks"
cp "$SLIPWAY_SAMPLES_PUBLIC/$config" "$home/$package/Virtual Machines/"
cp --sparse=always "$SLIPWAY_GUEST/boot-plain.raw" "$home/linux.raw"
truncate -s 256M "$home/linux.raw"      # room for the guest to work in
(cd "$home" && "$slipway" -q disk convert linux.raw "$package/Virtual Hard Disks/$DISK" </dev/null >/dev/null)
files "$package"

step "What is in it, and what would not fit here?" "Read without a daemon, without root; nothing is changed."
run inspect "$package"

step "The import, rehearsed by the daemon" "Every finding has an id, and the command that fixes it where there is one."
if [ -z "$installed" ]; then
  shown serve --data data --socket slipway.sock '&'
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
run import "$package" --name "$FIRST" --dry-run

step "The import"
run -q import "$package" --name "$FIRST"

step "It runs" "No driver was put into it: it gets hardware that an unprepared guest can boot."
run machine start "$FIRST"
wait_ready

step "It works: the guest writes 16 MiB of a pattern to its disk"
disk=$(said GUEST-READY | grep -oE '(sd|hd|vd)a' | head -1)
disk=/dev/${disk:-sda}
# 256 blocks of 64 KiB at 128 MiB, far behind its file system. What they must hash to can be worked out here as well.
expected=$(yes seed-demo | head -c $((256 * 65536)) | sha256sum | cut -d' ' -f1) || true
ask PAT-OK "pat $disk demo 2048 256" 60
ask "SUM " "sum $disk 2048 256" 60
case "$answer" in *"$expected"*) ;; *) fail "the guest reads another pattern than it wrote: $answer, not $expected" ;; esac
run machine stop "$FIRST"

step "It leaves as a Hyper-V package" "VHDX written by Slipway, unknown keys of the configuration as they came, a manifest last."
run -q export "$FIRST" leaving
files leaving

step "Every byte of the package is proven from its manifest"
run verify leaving

step "It comes back, beside the first, under a new id"
run -q import leaving --new-id --name "$SECOND"
run machine list

step "The guest that came back finds what it wrote before it left"
machine=$SECOND
run machine start "$machine"
wait_ready
ask "SUM " "sum $disk 2048 256" 60
case "$answer" in *"$expected"*) ;; *) fail "the pattern did not survive: $answer, not $expected" ;; esac
printf '     the same %s… that this host works out for the pattern\n' "${expected:0:16}"
run machine stop "$machine"

printf '\n%sDone in %d seconds.%s In from Hyper-V'"'"'s own configuration, at work, out as a package, and back.\n' \
  "$BOLD" $((SECONDS - began)) "$PLAIN"
echo "Proven here: our own round trip; ./x test: that independent readers accept what we write."
echo "Not proven: that Windows imports the package of step 7. If you have a Hyper-V host, please tell us."

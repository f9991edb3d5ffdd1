#!/usr/bin/env bash
# Installs what is missing on a Debian 12 or 13 that has Rust: QEMU 9 or newer with firmware and TPM from one suite,
# what the test guest is built with, the independent readers (Python), and cargo-deny.
#
#   tools/install.sh [demo|lint|fuzz|bench|deb-test]     without an argument: what `./x test` needs
#
# Looks before it installs: when everything is there it starts no package manager and takes well under a second.
# Needs root, or sudo, only when a Debian package is missing. Works without a terminal and without standard input.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$SLIPWAY_ROOT"

readonly FOR=${1:-test}
readonly QEMU_MAJOR=9                # block status over NBD with several in-flight requests, mapped-ram, swtpm chardev
readonly CARGO_DENY=0.20.2
readonly CARGO_FUZZ=0.13.2

say() { printf 'install: %s\n' "$*"; }
die() { printf 'install: %s\n' "$*" >&2; exit 1; }

command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs), then run this again"

# ---------------------------------------------------------------------------------------------- Debian packages

codename=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}") || codename=
# Empty when the package is not installed.
version_of() { dpkg-query -W -f='${db:Status-Status} ${Version}\n' "$1" 2>/dev/null | awk '$1 == "installed" {print $2}' || true; }
major_of() { echo "$1" | sed -E 's/^[0-9]+://; s/^([0-9]+).*/\1/'; }

# QEMU, its firmware and its TPM; the same suite for all that this list pulls in.
qemu_packages="qemu-system-x86 qemu-utils ovmf swtpm swtpm-tools seabios"
# What tools/make_guest.sh and the tests call.
guest_packages="mtools dosfstools fdisk e2fsprogs cpio kmod gzip xz-utils bzip2 busybox-static"
packages="$guest_packages gcc libc6-dev ca-certificates git"
case "$FOR" in
  test)  packages="$packages xfsprogs btrfs-progs ntfs-3g cryptsetup-bin shellcheck sblim-wbemcli curl wsl uuid-runtime libxml2-utils" ;;
  deb-test) packages="$packages debootstrap util-linux procps" ;;
  fuzz)  packages="$packages g++" ;;
  bench) packages="$packages fio time" ;;
esac

need_python_packages() {
  # The interpreter that is first in PATH will do if it can make virtual environments and compile extensions.
  python3 - 2>/dev/null <<'PY' && return 1
import ensurepip, os, sysconfig, sys, venv
sys.exit(0 if os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")) else 1)
PY
  return 0
}

missing=
qemu_missing=
if command -v dpkg-query >/dev/null; then
  for p in $packages; do [ -n "$(version_of "$p")" ] || missing="$missing $p"; done
  if [ "$FOR" != lint ]; then
    for p in $qemu_packages; do [ -n "$(version_of "$p")" ] || qemu_missing="$qemu_missing $p"; done
    system=$(version_of qemu-system-x86) utils=$(version_of qemu-utils)
    [ -n "$system" ] && [ "$(major_of "$system")" -lt "$QEMU_MAJOR" ] && qemu_missing=" $qemu_packages"
    [ -n "$utils" ] && [ "$(major_of "$utils")" -lt "$QEMU_MAJOR" ] && qemu_missing=" $qemu_packages"
    # A qemu-img of another build than the emulator reads other features than the emulator writes.
    [ -n "$system" ] && [ -n "$utils" ] && [ "$system" != "$utils" ] && qemu_missing=" $qemu_packages"
  fi
  python_packages=
  if [ "$FOR" != lint ] && [ ! -x "$SLIPWAY_VENV/bin/python" ] && need_python_packages; then
    for p in python3 python3-venv python3-dev; do [ -n "$(version_of "$p")" ] || python_packages="$python_packages $p"; done
  fi
  missing="$missing$python_packages"
else
  for c in qemu-system-x86_64 qemu-img swtpm mcopy mkfs.vfat sfdisk mke2fs cpio xz python3 cc; do
    command -v "$c" >/dev/null || missing="$missing $c"
  done
  [ -z "$missing" ] || die "this is not Debian, so nothing is installed for you; missing programs:$missing"
fi

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then
    if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
  else die "must be root (or have sudo) to install:$missing$qemu_missing"; fi
}
# What apt says is long and nobody's story: it goes to a file, and to the screen only when apt fails.
apt() {
  mkdir -p "$SLIPWAY_STATE"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" \
    </dev/null >"$SLIPWAY_STATE/apt.log" 2>&1
}
# A source of somebody else's that does not answer must not stop us: only ours have to be readable, and if they are
# not, the install that follows says which package could not be found.
refreshed=
refresh() { [ -n "$refreshed" ] || { say "reading package lists"; apt update || say "some package sources did not answer; going on"; refreshed=1; }; }

# The mirror that this machine already uses for its own release.
mirror() { apt-get indextargets --format '$(SITE) $(RELEASE) $(CODENAME)' | awk -v c="$codename" '!n && ($2 == c || $3 == c) {print $1; n = 1}'; }

enable_backports() {
  local suite=$codename-backports site
  apt-get indextargets --format '$(RELEASE) $(CODENAME)' | grep -- "$suite" >/dev/null && return
  site=$(mirror)
  [ -n "$site" ] || die "no package source for Debian $codename found in /etc/apt"
  say "enabling $suite in /etc/apt/sources.list.d/slipway-backports.list"
  echo "deb $site $suite main" | as_root tee /etc/apt/sources.list.d/slipway-backports.list >/dev/null
  refreshed=
}

if [ -n "$qemu_missing" ]; then
  from=
  case "$codename" in
    bookworm) enable_backports; from="-t bookworm-backports" ;;
    trixie) ;;
    *) say "Debian '$codename' is not one this was tried on (bookworm, trixie)" ;;
  esac
  refresh
  # A newer qemu-utils alone means that its suite was enabled once: take the emulator from where that one came.
  say "installing$qemu_missing"
  # shellcheck disable=SC2086
  apt install --no-install-recommends $from $qemu_missing || { cat "$SLIPWAY_STATE/apt.log" >&2; die "could not install QEMU"; }
  system=$(version_of qemu-system-x86) utils=$(version_of qemu-utils)
  [ "$(major_of "$system")" -ge "$QEMU_MAJOR" ] || die "QEMU $QEMU_MAJOR or newer is needed, got $system"
  [ "$system" = "$utils" ] || die "qemu-system-x86 is $system but qemu-utils is $utils: remove one and run this again"
fi
if [ -n "$missing" ]; then
  refresh
  say "installing$missing"
  # shellcheck disable=SC2086
  apt install --no-install-recommends $missing || { cat "$SLIPWAY_STATE/apt.log" >&2; die "could not install:$missing"; }
fi

[ "$FOR" = lint ] || command -v qemu-system-x86_64 >/dev/null || die "qemu-system-x86_64 is not in PATH"
# The guest's own parts are downloaded, not installed; for that the lists must have been read once on this machine.
if [ "$FOR" != lint ] && ! apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1; then refresh; fi

# ------------------------------------------------------------------------------------------- independent readers

want=$(cksum <tests/requirements.txt)
if [ "$FOR" != lint ] && { [ ! -x "$SLIPWAY_VENV/bin/python" ] || [ "$(cat "$SLIPWAY_VENV/.stamp" 2>/dev/null)" != "$want" ]; }; then
  say "Python readers for the tests, in ${SLIPWAY_VENV#"$SLIPWAY_ROOT"/}"
  python=python3
  need_python_packages && python=/usr/bin/python3
  rm -rf "$SLIPWAY_VENV"
  "$python" -m venv "$SLIPWAY_VENV"
  "$SLIPWAY_VENV/bin/pip" install -q --disable-pip-version-check --no-input -r tests/requirements.txt </dev/null
  echo "$want" >"$SLIPWAY_VENV/.stamp"
fi

# --------------------------------------------------------------------------------------------------- cargo tools

cargo_tool() { # NAME VERSION: NAME is also the binary's
  "$1" --version 2>/dev/null | grep -q -- " $2\$" && return
  say "$1 $2 (compiled once, some minutes)"
  CARGO_TARGET_DIR=$SLIPWAY_STATE/build cargo install -q --locked "$1" --version "$2" --force </dev/null
  rm -rf "$SLIPWAY_STATE/build"
}
case "$FOR" in
  test|lint) cargo_tool cargo-deny "$CARGO_DENY" ;;
  fuzz) cargo_tool cargo-fuzz "$CARGO_FUZZ" ;;
esac

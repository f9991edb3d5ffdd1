#!/usr/bin/env bash
# deb_test.sh [--binary FILE] [SUITE...] - the package on a fresh Debian with a real systemd: bookworm and trixie unless told.
#
# A root made by debootstrap is booted as a container: systemd as process 1 in namespaces and a control group of its
# own, without network. In it tools/deb_test_steps.sh installs the package with its dependencies and goes through what
# an operator would: the demo, restarts, a kill, an upgrade with a guest running, a user's own daemon, removal, a reboot
# of the host with a guest running, purge.
#
# Needs root, debootstrap, and the network once: the root with all downloads is kept in .slipway/deb and reused. The
# mirror is the one that this machine's apt uses. With --binary that program is packed, else a release is built.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$SLIPWAY_ROOT"

die() { echo "deb-test: $*" >&2; exit 1; }
say() { echo "deb-test: $*"; }
binary=
[ "${1:-}" != --binary ] || { binary=${2:?a file}; shift 2; }
suites=("${@:-bookworm}")
[ $# -gt 0 ] || suites=(bookworm trixie)
[ "$(id -u)" = 0 ] || die "must be root: it makes namespaces and control groups"
command -v debootstrap >/dev/null || die "debootstrap is not installed: apt install debootstrap"
state=$SLIPWAY_STATE/deb
mkdir -p "$state"

# What apt on this machine knows about its mirror and how it reaches it.
site() { apt-get indextargets --format '$(SITE) $(ORIGIN) $(LABEL)' | awk '!n && $2 == "Debian" && $3 == "Debian" {print $1; n = 1}'; }
proxy=$(apt-config shell p Acquire::http::Proxy | sed -n "s/^p='\(.*\)'$/\1/p")
[ -z "$proxy" ] || export http_proxy=$proxy

# ------------------------------------------------------------------------------------------------- a fresh Debian

# What a small server has that this test needs: systemd, the buses, what makes `systemctl --user` work.
readonly INCLUDE=systemd-sysv,dbus,dbus-user-session,libpam-systemd

# base SUITE PACKAGE: makes base-SUITE.tar, where it is missing or the package asks for something else than it was made for.
base() {
  local suite=$1 package=$2 tar=$state/base-$1.tar root=$state/base-$1 mirror wants
  wants="$INCLUDE $(dpkg-deb --field "$package" Depends)"
  if [ -f "$tar" ] && [ "$(cat "$tar.for" 2>/dev/null)" = "$wants" ]; then return; fi
  mirror=$(site)
  [ -n "$mirror" ] || die "apt on this machine reads no Debian mirror"
  say "making a fresh $suite (debootstrap, and the downloads of what the package needs)"
  rm -rf "$root" "$tar"
  debootstrap --variant=minbase --include=$INCLUDE "$suite" "$root" "$mirror" >"$state/debootstrap-$suite.log" 2>&1 ||
    die "debootstrap failed: $state/debootstrap-$suite.log"
  apt-config dump | grep -E '^Acquire::(Check|https?::Proxy|Retries)' >"$root/etc/apt/apt.conf.d/90mirror" || true
  [ "$suite" != bookworm ] || echo "deb $mirror bookworm-backports main" >"$root/etc/apt/sources.list.d/backports.list"
  cp "$package" "$root/root/slipway.deb"
  # Downloaded here, where the network is; installed inside, where it is not.
  # shellcheck disable=SC2046
  { chroot "$root" apt-get -q update &&
    chroot "$root" apt-get -q -y --no-install-recommends --download-only $(release "$suite") install /root/slipway.deb; } \
    </dev/null >"$state/download-$suite.log" 2>&1 || die "the package's dependencies cannot be had: $state/download-$suite.log"
  rm "$root/root/slipway.deb"
  tar -C "$root" --one-file-system -cf "$tar.partial" .
  mv "$tar.partial" "$tar"
  echo "$wants" >"$tar.for"
  rm -rf "$root"
}
# QEMU 9 is in Debian 12's backports, which apt takes from only when told.
release() { [ "$1" != bookworm ] || echo "-t bookworm-backports"; }

# --------------------------------------------------------------------------------------------------- its machine

container='' group='' root=
leave() {
  # The namespaces go with their process 1, and all in them.
  [ -z "$container" ] || { kill -KILL "$container" 2>/dev/null || true; wait "$container" 2>/dev/null || true; }
  # A group is empty a moment after its last process is.
  [ -z "$group" ] || for _ in $(seq 50); do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
    read -r -t 0.1 <>"$state/pause" || true
  done
  container='' group=''
}
clean_up() {
  local code=$?
  trap - EXIT
  leave
  [ -z "$root" ] || [ -n "${SLIPWAY_KEEP:-}" ] || rm -rf "$root"
  [ $code = 0 ] || exit $code
}
trap clean_up EXIT
[ -p "$state/pause" ] || mkfifo "$state/pause"

# Process 1's way from here into the root: run by bash in new namespaces, with the root's path.
readonly INTO='
  set -e
  mount --make-rprivate /
  mount --bind "$1" "$1"
  cd "$1"
  mount -t proc proc proc
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=755 tmpfs dev
  for d in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${d%:*}" c 1 "${d#*:}"; done
  mknod -m 666 dev/tty c 5 0
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
  mount -t tmpfs -o mode=1777 tmpfs dev/shm
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  for n in stdin:0 stdout:1 stderr:2; do ln -s "/proc/self/fd/${n#*:}" "dev/${n%:*}"; done
  hostname slipway-test
  mkdir -p .outside
  pivot_root . .outside
  umount -l /.outside
  rmdir /.outside
  # A container loads no modules into its host; without the right to, systemd does not try.
  exec env -i container=slipway-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_module /lib/systemd/systemd --log-target=console </dev/null
'

inside() { nsenter --target "$first" --mount --uts --ipc --net --pid --cgroup env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb DEBIAN_FRONTEND=noninteractive "$@"; }

steps() { # PART SUITE
  inside RELEASE="$(release "$2")" /srv/slipway-test/tools/deb_test_steps.sh "$1" </dev/null || {
    inside journalctl --no-pager -u slipway -u slipway-guests -n 60 >&2 || true
    die "$2: FAILED (the container's console: $state/console.log)"
  }
}

boot() { # ROOT: sets container and first, the ids of unshare and of process 1
  local unified
  unified=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)
  [ -n "$unified" ] || die "this host has no control groups of version 2"
  group=$unified/slipway-deb-test.$$
  mkdir "$group"
  bash -c 'echo $$ >"$1/cgroup.procs" && exec unshare --fork --kill-child --pid --mount --uts --ipc --net --cgroup bash -c "$2" into "$3"' \
    boot "$group" "$INTO" "$1" >"$state/console.log" 2>&1 &
  container=$!
  first=
  for _ in $(seq 1200); do
    kill -0 "$container" 2>/dev/null || die "the container ended: $state/console.log"
    [ -n "$first" ] || first=$(pgrep -P "$container" || true)
    if [ -n "$first" ] && inside systemctl is-system-running --wait >/dev/null 2>&1; then return; fi
    read -r -t 0.1 <>"$state/pause" || true
  done
  inside systemctl --no-pager list-jobs >&2 || true
  inside systemctl --no-pager --failed >&2 || true
  die "systemd does not come up: $state/console.log"
}

until_down() {
  local _
  for _ in $(seq 3000); do
    kill -0 "$container" 2>/dev/null || { wait "$container" || true; return; }
    read -r -t 0.1 <>"$state/pause" || true
  done
  inside systemctl --no-pager list-jobs >&2 || true
  die "systemd does not come down within 5 minutes: $state/console.log"
}

# ------------------------------------------------------------------------------------------------------ the test

[ -n "$binary" ] || section "build"
old=$(tools/deb.sh ${binary:+--binary "$binary"} | tail -1)
version=$(dpkg-deb --field "$old" Version)
new=$(tools/deb.sh --binary "${binary:-$state/target/release/slipway}" --version "$version+next" | tail -1)
cargo xtask guest | sed -n 1p
cargo xtask samples xml/B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml vmcx/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx

for suite in "${suites[@]}"; do
  section "the package on a fresh Debian $suite"
  began=$SECONDS
  base "$suite" "$old"
  root=$(mktemp -d "$state/root-$suite.XXXXXX")
  chmod 755 "$root"
  tar -C "$root" -xf "$state/base-$suite.tar"
  # Slow and safe writing is for systems that are kept.
  echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
  there=$root/srv/slipway-test
  mkdir -p "$there/tools" "$there/guest"
  cp "$old" "$there/old.deb"
  cp "$new" "$there/new.deb"
  cp tools/deb_test_steps.sh tools/demo.sh tools/env.sh "$there/tools/"
  cp --sparse=always "$SLIPWAY_GUEST"/boot*.raw "$there/guest/"
  cp -r "$SLIPWAY_SAMPLES_PUBLIC" "$there/samples"
  boot "$root"
  steps installed "$suite"
  # The host's own way down and up again: slipway-guests saves the guest before systemd ends its scope.
  # The bus may be gone before it has answered; whether it comes down is what counts.
  inside systemctl poweroff 2>/dev/null || true
  until_down
  leave
  boot "$root"
  steps rebooted "$suite"
  clean_up
  trap clean_up EXIT
  say "$suite: all of it holds ($((SECONDS - began)) s)"
done

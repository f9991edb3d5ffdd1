#!/usr/bin/env bash
# deb_test_steps.sh installed|rebooted - what an operator does with the package, from installation to purge, told inside
# the container that tools/deb_test.sh boots: systemd is process 1, there is no network, and nothing is lost if it all
# goes wrong. The host is rebooted between the two parts, with a guest running.
#
# /srv/slipway-test holds old.deb and new.deb (the same program under two versions), tools/, guest/ and samples/.
set -euo pipefail
cd /srv/slipway-test
export SLIPWAY_STATE=/srv/slipway-test SLIPWAY_GUEST=/srv/slipway-test/guest SLIPWAY_SAMPLES_PUBLIC=/srv/slipway-test/samples

part=${1:?installed or rebooted}
number=0
[ "$part" = installed ] || number=11
step() { number=$((number + 1)); printf '%2d. %s\n' "$number" "$1"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
# What commands print is kept for the one that fails.
quiet() { "$@" >/tmp/last.log 2>&1 || { cat /tmp/last.log >&2; fail "$*"; }; }
pid_of() { cat "/run/slipway/slipway.guests/$1/$2.pid"; }
# Waits for a condition: half a minute, looking ten times a second.
[ -p /tmp/pause ] || mkfifo -m 600 /tmp/pause
until_true() { # WHAT COMMAND...
  local what=$1 _; shift
  for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; read -r -t 0.1 <>/tmp/pause || true; done
  fail "not within 30 s: $what"
}
group_of() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }
gone() { ! [ -e "/proc/$1" ]; }
daemon() { systemctl show --property=MainPID --value slipway; }
another_daemon() { [ "$(daemon)" != 0 ] && [ "$(daemon)" != "$1" ] && slipway machine list; }

# Is the guest the same process as before, managed, and has it kept what it wrote?
alive() { # MACHINE ID PID
  [ "$(pid_of "$2" qemu)" = "$3" ] && [ -e "/proc/$3" ] || fail "the guest did not survive"
  slipway machine list | grep -E "^$1 .*running" >/dev/null || fail "$1 is not managed any more: $(slipway machine list)"
  [ "$(systemctl is-active "slipway-$2.scope")" = active ] || fail "its scope is $(systemctl is-active "slipway-$2.scope")"
  slipway -q machine console "$1" --send 'sum /dev/sda 2048 256' --wait-for 'SUM ' --timeout 90 >/tmp/sum.log
  grep -a "$SUM" /tmp/sum.log >/dev/null || fail "the guest lost what it wrote: $(cat /tmp/sum.log)"
}

id_of() { slipway --json machine show "$1" | sed -n 's/^ *"id": "\([0-9a-f-]*\)".*/\1/p' | head -1; }
# What the guest's 16 MiB of the pattern hash to.
SUM=$(yes seed-web | head -c $((256 * 65536)) | sha256sum | cut -d' ' -f1) || true

if [ "$part" = rebooted ]; then
  step "after the reboot the guest goes on where it was"
  id=$(id_of web)
  until_true "web runs again" eval 'slipway machine list | grep "^web .*running"'
  alive web "$id" "$(pid_of "$id" qemu)"
  [ "$(cat /var/lib/booted)" = "$(slipway -q machine console web --send 'cat /proc/sys/kernel/random/boot_id' --wait-for=-4 --timeout 90 | grep -aoE '[0-9a-f-]{36}' | tail -1)" ] ||
    fail "the guest was booted anew: it should have been saved"
  qemu=$(pid_of "$id" qemu) tpm=$(pid_of "$id" tpm)
  quiet slipway machine stop web
  until_true "QEMU and swtpm are gone" eval "gone $qemu && gone $tpm"

  step "purged without a guest it leaves the machines' data, the group, and nothing else"
  dpkg -P slipway >/tmp/remove.log 2>&1 || { cat /tmp/remove.log >&2; fail "dpkg -P"; }
  grep -F "run on" /tmp/remove.log && fail "it speaks of guests"
  grep -F "kept in /var/lib/slipway" /tmp/remove.log >/dev/null || fail "it does not say what it keeps: $(cat /tmp/remove.log)"
  [ -d /var/lib/slipway/machines ] && [ -s /var/lib/disk.raw ] || fail "machines' data are gone"
  left=$(find /etc /usr /var /run/systemd -xdev \( -name '*slipway*' -o -lname '*slipway*' \) -not -path '/var/lib/slipway*' -not -path '/var/log/*' -not -path '/var/cache/apt/*')
  [ -z "$left" ] || fail "left behind: $left"
  [ -z "$(dpkg --audit)" ] || fail "dpkg finds: $(dpkg --audit)"
  [ -z "$(systemctl --failed --no-legend)" ] || fail "units failed: $(systemctl --failed --no-legend)"
  exit 0
fi

step "installs with all that it needs, and starts under its unit"
# shellcheck disable=SC2086
quiet apt-get -y --no-install-recommends $RELEASE install ./old.deb
for unit in slipway slipway-guests; do
  [ "$(systemctl is-enabled $unit)" = enabled ] || fail "$unit is not enabled"
  [ "$(systemctl is-active $unit)" = active ] || fail "$unit is $(systemctl is-active $unit)"
done
getent group slipway >/dev/null || fail "there is no group slipway"
[ "$(stat -c '%U:%G %a' /run/slipway/slipway.sock)" = "root:slipway 660" ] || fail "the socket is $(stat -c '%U:%G %a' /run/slipway/slipway.sock)"
# Emulation is slow, not wrong; without a bridge there is none. Nothing else may be amiss on a fresh system.
slipway doctor | tee /tmp/doctor.log | grep -E '^(warn|fail)' | grep -vE '^warn +(kvm|bridge) ' && fail "doctor finds something: $(cat /tmp/doctor.log)"
grep -E '^ok +scopes' /tmp/doctor.log >/dev/null || fail "no word about scopes: $(cat /tmp/doctor.log)"

step "runs the demo with the installed program and its daemon"
quiet tools/demo.sh --installed

step "a guest with a TPM is in a scope of its own, whole"
cp --sparse=always guest/boot-plain.raw /var/lib/disk.raw
truncate -s 256M /var/lib/disk.raw
quiet slipway machine define web --generation 2 --memory 512 --tpm --disk /var/lib/disk.raw
quiet slipway machine start web
id=$(id_of web)
qemu=$(pid_of "$id" qemu) tpm=$(pid_of "$id" tpm)
scope=/machine.slice/machine-slipway.slice/slipway-$id.scope
for pid in "$qemu" "$tpm"; do [ "$(group_of "$pid")" = "$scope" ] || fail "$pid is in $(group_of "$pid")"; done
quiet slipway machine console web --wait-for GUEST-READY --timeout 180
quiet slipway machine console web --send 'pat /dev/sda web 2048 256' --wait-for PAT-OK --timeout 90
alive web "$id" "$qemu"

step "it outlives a restart of the daemon"
before=$(daemon)
quiet systemctl restart slipway
[ "$(daemon)" != "$before" ] || fail "the same daemon"
alive web "$id" "$qemu"

step "it outlives kill -9 of everything in the daemon's unit"
before=$(daemon)
quiet systemctl kill --signal=KILL slipway
until_true "systemd restarts the daemon" another_daemon "$before"
alive web "$id" "$qemu"

step "it outlives an upgrade, and the new daemon manages it"
before=$(daemon)
quiet dpkg -i new.deb
[ "$(daemon)" != "$before" ] && [ "$(systemctl is-active slipway)" = active ] || fail "no new daemon"
alive web "$id" "$qemu"
quiet dpkg -i new.deb
alive web "$id" "$qemu"

step "without a bus guests run without a scope, which is said; later they get theirs"
quiet slipway machine define plain --generation 1 --memory 64
quiet systemctl stop dbus.socket dbus.service
quiet slipway machine start plain
slipway doctor | grep -E '^warn +scopes' >/dev/null || fail "doctor says nothing: $(slipway doctor)"
journalctl -u slipway | grep 'no scope of its own' >/dev/null || fail "the journal says nothing"
plain=$(id_of plain)
[ "$(group_of "$(pid_of "$plain" qemu)")" = /system.slice/slipway.service ] || fail "it is in $(group_of "$(pid_of "$plain" qemu)")"
quiet systemctl start dbus.socket
# logind does not come to the new bus by itself on every release, and a later step needs it.
quiet systemctl restart systemd-logind
quiet systemctl restart slipway
[ "$(systemctl is-active "slipway-$plain.scope")" = active ] || fail "the next daemon did not move it"
alive web "$id" "$qemu"

step "a stopped guest leaves no scope, and the next start gets one again"
quiet slipway machine stop plain
quiet slipway machine start plain
[ "$(systemctl is-active "slipway-$plain.scope")" = active ] || fail "no scope at the second start"
quiet slipway machine stop plain
until_true "the scope is gone" eval '! systemctl list-units --all --no-legend "slipway-$plain.scope" | grep .'
quiet slipway machine delete --yes plain

step "a user's own daemon gives scopes as well"
quiet useradd --create-home --shell /bin/bash ann
quiet loginctl enable-linger ann
ann() { runuser -u ann -- env HOME=/home/ann XDG_RUNTIME_DIR=/run/user/"$(id -u ann)" "$@"; }
until_true "ann's manager" ann systemctl --user is-system-running --wait
quiet ann systemctl --user start slipway
quiet ann slipway machine define mine --generation 1 --memory 64
quiet ann slipway machine start mine
mine=$(ann slipway --json machine show mine | sed -n 's/^ *"id": "\([0-9a-f-]*\)".*/\1/p' | head -1)
pid=$(cat /run/user/"$(id -u ann)"/slipway/slipway.guests/"$mine"/qemu.pid)
case "$(group_of "$pid")" in */user@*.service/machine.slice/machine-slipway.slice/slipway-"$mine".scope) ;; *) fail "it is in $(group_of "$pid")" ;; esac
quiet ann systemctl --user kill --signal=KILL slipway
until_true "her daemon is back" ann slipway machine list
ann slipway machine list | grep -E '^mine .*running' >/dev/null || fail "her guest: $(ann slipway machine list)"
quiet ann slipway machine stop mine
quiet ann systemctl --user stop slipway
quiet loginctl disable-linger ann

step "removal stops the daemon, ends no guest, and says so"
dpkg -r slipway >/tmp/remove.log 2>&1 || { cat /tmp/remove.log >&2; fail "dpkg -r"; }
grep "systemctl stop slipway-$id.scope .* web\$" /tmp/remove.log >/dev/null || fail "it did not say so: $(cat /tmp/remove.log)"
[ -e "/proc/$qemu" ] || fail "the guest is gone"
for unit in slipway slipway-guests; do
  [ "$(systemctl is-active $unit)" = inactive ] || fail "$unit is $(systemctl is-active $unit)"
done
[ ! -e /usr/bin/slipway ] || fail "the program is there"

step "installed again, it has its guest back"
quiet dpkg -i new.deb
for unit in slipway slipway-guests; do
  [ "$(systemctl is-active $unit)" = active ] || fail "$unit is $(systemctl is-active $unit)"
done
alive web "$id" "$qemu"
quiet slipway machine set web --start-action restart --stop-action save
slipway -q machine console web --send 'cat /proc/sys/kernel/random/boot_id' --wait-for=-4 --timeout 90 | grep -aoE '[0-9a-f-]{36}' | tail -1 >/var/lib/booted
[ -s /var/lib/booted ] || fail "the guest does not tell its boot's id"

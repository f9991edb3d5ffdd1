#!/usr/bin/env bash
# make_guest.sh OUTDIR - tiny Linux guests made of Debian packages only: no root, no loop mounts, no chroot, no network
# but apt's. The same packages give the same bytes.
#
#   boot.raw         cloud kernel; virtio, IDE (ata_piix), NVMe. MBR + FAT: BIOS (syslinux) and UEFI (EFI/BOOT, shim, Secure Boot)
#   boot-plain.raw   stock kernel and not one virtio module: AHCI, IDE, e1000, e1000e, rtl8139 only. Otherwise as boot.raw
#   boot-debian.raw  as boot-plain.raw, but GPT and its loader only in EFI/debian: no firmware finds it without a boot entry
#   vmlinuz initrd.img, vmlinuz-plain initrd-plain.img    the same two for -kernel/-initrd
#   ext4.raw         256 MiB ext4 data disk, for freezing
#
# On ttyS0 the guest prints "GUEST-READY up=<seconds> efi=<0|1> sb=<..> tpm=<..> clk=<..> disks=<..> net=<..> hyp=<..>",
# then a root shell without echo. It runs the guest agent when the channel exists. In the shell:
#   pat DEV SEED OFF_64K COUNT_64K   writes "seed-SEED\n" over and over, O_DIRECT + fsync; prints "PAT-OK ..."
#   sum DEV OFF_64K COUNT_64K        prints "SUM <sha256> ..." of that range
#   net                              DHCP on the first NIC; prints "NET-UP <address>" or "NET-DOWN"
#   get URL                          prints "GET-OK <sha256> <bytes>" or "GET-FAILED"
#   die                              the kernel panics, and tells the host through pvpanic
set -euo pipefail
out=${1:?usage: make_guest.sh OUTDIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/.work
rm -rf "$work"
mkdir -p "$out/pkg" "$work/x"
cd "$work"
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C TZ=UTC
export SOURCE_DATE_EPOCH=1700000000 E2FSPROGS_FAKE_TIME=1700000000   # FAT and ext4 both store times
die() { echo "make_guest: $*" >&2; exit 1; }
for c in apt-get dpkg-deb depmod modprobe cpio gzip xz mkfs.vfat mcopy mmd sfdisk mke2fs truncate; do
  command -v $c >/dev/null || die "$c is missing; ./x install brings it"
done

# ------------------------------------------------------------------------------------------------ packages
kernel_of() { apt-cache depends "$1" | awk '/Depends: linux-image-/{print $2; exit}'; }
cloud=$(kernel_of linux-image-cloud-amd64) stock=$(kernel_of linux-image-amd64)
[ -n "$cloud" ] && [ -n "$stock" ] || die "apt knows no kernel packages: run apt-get update once"
# The agent's own libraries come along, so that the host need not have them (libc it has).
agent_libs=$(apt-cache depends qemu-guest-agent | awk '/^  Depends: lib/{print $2}' | grep -vx libc6 || true)
( cd "$out/pkg"
  for p in $cloud $stock busybox-static qemu-guest-agent $agent_libs shim-signed grub-efi-amd64-signed syslinux syslinux-common; do
    ls "${p}"_*.deb >/dev/null 2>&1 || apt-get -qq -o APT::Sandbox::User=root download "$p" || die "cannot download the package $p"
  done )
for p in $cloud $stock busybox-static qemu-guest-agent $agent_libs shim-signed grub-efi-amd64-signed syslinux syslinux-common; do
  case $p in linux-image-*) dest=k-$p ;; *) dest=x ;; esac
  mkdir -p "$dest"
  # newest first, should an older download lie beside it
  dpkg-deb -x "$(ls -t "$out/pkg/${p}"_*.deb | head -1)" "$dest"
  [ -e "$dest/lib" ] || ln -s usr/lib "$dest/lib"     # merged /usr, Debian 13
done
first() { for f in "$@"; do [ -e "$f" ] && { echo "$f"; return; }; done; die "none of these is in its package: $*"; }
busybox=$(first x/bin/busybox x/usr/bin/busybox)
agent=$(first x/usr/sbin/qemu-ga x/usr/bin/qemu-ga)

# ------------------------------------------------------------------------------------------ scripts of the guest
mkdir scripts
cat > scripts/pat <<'X'
#!/bin/busybox sh
yes "seed-$2" | dd of=$1 bs=65536 seek=$3 count=$4 iflag=fullblock oflag=direct conv=fsync 2>/dev/null && echo PAT-OK $* || echo PAT-FAILED $*
X
cat > scripts/sum <<'X'
#!/bin/busybox sh
echo SUM $(dd if=$1 bs=65536 skip=$2 count=$3 iflag=direct 2>/dev/null | sha256sum | cut -d' ' -f1) $*
X
cat > scripts/net <<'X'
#!/bin/busybox sh
for n in $(ls /sys/class/net); do
  [ $n = lo ] && continue
  ip link set $n up
  if udhcpc -i $n -n -q -t 8 -T 1 -s /bin/lease >/dev/null 2>&1; then echo NET-UP $(ip -4 -o addr show dev $n | awk '{print $4}'); exit 0; fi
done
echo NET-DOWN
X
cat > scripts/lease <<'X'
#!/bin/busybox sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface
ip addr add $ip/${mask:-24} dev $interface
[ -n "$router" ] && ip route add default via ${router%% *}
exit 0
X
cat > scripts/get <<'X'
#!/bin/busybox sh
if timeout 15 wget -q -O /tmp/got "$1"; then echo GET-OK $(sha256sum </tmp/got | cut -d' ' -f1) $(wc -c </tmp/got); else echo GET-FAILED; fi
X
cat > scripts/die <<'X'
#!/bin/busybox sh
echo c > /proc/sysrq-trigger
X
cat > scripts/init <<'X'
#!/bin/busybox sh
export PATH=/bin:/sbin HOME=/ PS1=
/bin/busybox --install -s /bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev; mount -t tmpfs t /run
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -onlcr 2>/dev/null
echo 3 > /proc/sys/kernel/printk
while read m; do insmod /lib/m/$m 2>/dev/null; done < /lib/m/order
n=0; while [ $n -lt 80 ] && ! grep -qE ' (vd|sd|nvme)' /proc/partitions; do usleep 25000; n=$((n+1)); grep -q nowait /proc/cmdline && break; done
efi=0; sb=-; [ -d /sys/firmware/efi ] && { efi=1; mount -t efivarfs e /sys/firmware/efi/efivars; sb=$(od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-* 2>/dev/null | awk '{print $5}'); }
p=$(grep -l org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name 2>/dev/null)
[ -n "$p" ] && qemu-ga -m virtio-serial -p /dev/$(basename $(dirname $p)) -t /run -f /run/ga.pid -d >/dev/null 2>&1
[ -b /dev/vdb ] && mount -t ext4 /dev/vdb /mnt 2>/dev/null
ip link set lo up
# The power button, when the machine has one, and not the keyboard: a shutdown that was asked for ends in a machine that is off.
( for e in /sys/class/input/event*; do grep -q 'Power Button' $e/device/name && { dd if=/dev/input/${e##*/} of=/dev/null bs=24 count=1 2>/dev/null; sync; poweroff -f; } & done ) 2>/dev/null
echo "GUEST-READY up=$(cut -d' ' -f1 /proc/uptime) efi=$efi sb=$sb tpm=$(ls /dev/tpm0 2>/dev/null) clk=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource) disks=$(awk 'NR>2{printf "%s:%s,",$4,$3}' /proc/partitions) net=$(ls /sys/class/net|tr '\n' ',') hyp=$(dmesg|sed -n 's/.*Hypervisor detected: //p')"
while :; do setsid cttyhack sh </dev/ttyS0 >/dev/ttyS0 2>&1 || sh; done
X
chmod +x scripts/*

# ---------------------------------------------------------------------------------------------------- kernels
# initrd NAME PACKAGE MODULE...: vmlinuz$NAME and initrd$NAME.img with those modules and all that they need.
initrd() {
  local name=$1 package=$2; shift 2
  local tree=k-$package version=${package#linux-image-} r=r$name f m
  cp "$tree/boot/vmlinuz-$version" "vmlinuz$name"
  depmod -b "$tree" "$version"
  mkdir -p $r/{bin,proc,sys,dev,run,tmp,mnt,etc/qemu,lib/m,var/run}
  cp "$busybox" $r/bin/busybox
  cp "$agent" $r/bin/qemu-ga
  cp scripts/{pat,sum,net,lease,get,die} $r/bin/
  cp scripts/init $r/init
  # A static busybox looks names up through NSS; anything but "files" would make it load a libc module and crash.
  printf '%s: files\n' passwd group hosts services protocols networks > $r/etc/nsswitch.conf
  echo '127.0.0.1 localhost' > $r/etc/hosts
  local libs=$work/x/usr/lib/x86_64-linux-gnu:$work/x/lib/x86_64-linux-gnu
  LD_LIBRARY_PATH=$libs ldd "$agent" | grep -q 'not found' && die "the guest agent needs a library that is nowhere: $(ldd "$agent" | grep 'not found')"
  LD_LIBRARY_PATH=$libs ldd "$agent" | grep -o '/[^ ]*' | sort -u | while read -r f; do
    # keep the path of the loader, put everything else where it looks
    case $f in /lib64/*) m=$f ;; *) m=/lib/x86_64-linux-gnu/$(basename "$f") ;; esac
    mkdir -p "$r$(dirname "$m")"; cp -L "$f" "$r$m"
  done
  : > $r/lib/m/order
  for m in "$@"; do modprobe -d "$work/$tree" -S "$version" --show-depends "$m" 2>/dev/null | awk '/^insmod/{print $2}'; done |
    awk '!s[$0]++' | while read -r f; do
      m=$(basename "$f")
      case $m in *.xz) m=${m%.xz}; xz -dc "$f" > "$r/lib/m/$m" ;; *) cp "$f" "$r/lib/m/$m" ;; esac
      echo "$m" >> $r/lib/m/order
    done
  find $r -exec touch -h -d @$SOURCE_DATE_EPOCH {} +
  ( cd $r; find . | sort | cpio -o -H newc --reproducible -R 0:0 --quiet ) | gzip -1n > "initrd$name.img"
}
common="sd_mod sr_mod ata_piix vfat nls_cp437 nls_ascii efivarfs tpm_crb tpm_tis button evdev af_packet pvpanic-mmio"
# shellcheck disable=SC2086
initrd '' "$cloud" virtio_pci virtio_blk virtio_scsi virtio_console virtio_net virtio_balloon $common ext4 nvme \
  hv_storvsc hv_netvsc hv_utils vsock vmw_vsock_virtio_transport 8021q
# shellcheck disable=SC2086
initrd -plain "$stock" ahci $common e1000 e1000e 8139cp 8139too
grep -q virtio r-plain/lib/m/order && die "the plain guest must hold no virtio module"
for r in r r-plain; do grep -qx pvpanic-mmio.ko $r/lib/m/order || die "the kernel of $r has no module pvpanic-mmio"; done
for m in ahci.ko ata_piix.ko e1000.ko e1000e.ko; do grep -qx $m r-plain/lib/m/order || die "the stock kernel has no module $m"; done

# ------------------------------------------------------------------------------------------------------- disks
args="console=ttyS0 quiet panic=5"
printf 'SERIAL 0 115200\nDEFAULT l\nPROMPT 0\nTIMEOUT 1\nLABEL l\n KERNEL /vmlinuz\n APPEND initrd=/initrd.img %s\n' "$args" > syslinux.cfg
printf 'set timeout=0\nsearch --no-floppy --file --set=root /vmlinuz\nlinux /vmlinuz %s\ninitrd /initrd.img\nboot\n' "$args" > grub.cfg
shim=x/usr/lib/shim/shimx64.efi.signed
grub=x/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed

fat() { # NAME: fat.img of 94 MiB with that guest's kernel, without a loader
  rm -f fat.img; truncate -s 94M fat.img
  mkfs.vfat --invariant -F 32 -n SLIPWAY -i 51AB0001 fat.img >/dev/null
  cp "vmlinuz$1" vmlinuz-on-disk; cp "initrd$1.img" initrd-on-disk
  touch -d @$SOURCE_DATE_EPOCH vmlinuz-on-disk initrd-on-disk syslinux.cfg grub.cfg
  mmd -i fat.img ::/EFI ::/EFI/debian
  mcopy -m -i fat.img vmlinuz-on-disk ::/vmlinuz
  mcopy -m -i fat.img initrd-on-disk ::/initrd.img
  mcopy -m -i fat.img grub.cfg ::/EFI/debian/grub.cfg
}
anywhere() { # NAME IMAGE: MBR, boots BIOS and UEFI
  fat "$1"
  mmd -i fat.img ::/EFI/BOOT
  mcopy -m -i fat.img syslinux.cfg ::/
  mcopy -m -i fat.img $shim ::/EFI/BOOT/BOOTX64.EFI
  mcopy -m -i fat.img $grub ::/EFI/BOOT/grubx64.efi
  MTOOLS_SKIP_CHECK=1 x/usr/bin/syslinux --install fat.img
  truncate -s 96M "$2"
  printf 'label: dos\nlabel-id: 0x51ab0001\nstart=2048, size=192512, type=ef, bootable\n' | sfdisk -q "$2"
  dd if=x/usr/lib/syslinux/mbr/mbr.bin of="$2" bs=440 count=1 conv=notrunc status=none
  dd if=fat.img of="$2" bs=1M seek=1 conv=notrunc,sparse status=none
}
entry_only() { # NAME IMAGE: GPT, UEFI, loader only in EFI/debian
  fat "$1"
  mcopy -m -i fat.img $shim ::/EFI/debian/shimx64.efi
  mcopy -m -i fat.img $grub ::/EFI/debian/grubx64.efi
  truncate -s 96M "$2"
  printf 'label: gpt\nlabel-id: 51AB0001-0000-4000-8000-000000000001\nstart=2048, size=192512, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=51AB0001-0000-4000-8000-000000000002, name="EFI"\n' | sfdisk -q "$2"
  dd if=fat.img of="$2" bs=1M seek=1 conv=notrunc,sparse status=none
}
anywhere '' boot.raw
anywhere -plain boot-plain.raw
entry_only -plain boot-debian.raw
truncate -s 256M ext4.raw
mke2fs -q -F -t ext4 -U 00000000-0000-4000-8000-000000000001 -E hash_seed=00000000-0000-4000-8000-000000000002 ext4.raw

for f in vmlinuz initrd.img vmlinuz-plain initrd-plain.img boot.raw boot-plain.raw boot-debian.raw ext4.raw; do
  mv -f "$f" "$out/$f"
done
cd "$out"
rm -rf "$work"
ls -ls -- *.raw vmlinuz* initrd*

#!/usr/bin/env bash
# deb.sh [--binary FILE] [--out DIR] [--version V] - the Debian package, for Debian 12 and 13 on amd64.
#
# Puts the binary, units, completions and man pages together and calls dpkg-deb; prints the package's path. Without
# --binary it builds a release of its own. The same commit gives the same bytes: the time is the commit's, the paths of
# this machine are taken out of the binary, and nothing depends on which Debian tools are installed besides dpkg-deb.
# A package runs on the release it was built on and on newer ones, so those for others to use are built on Debian 12.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$SLIPWAY_ROOT"

die() { echo "deb: $*" >&2; exit 1; }
binary='' out=$SLIPWAY_STATE/deb version=''
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || die "$1 needs a value"
  case "$1" in
    --binary) binary=$2 ;;
    --out) out=$2 ;;
    --version) version=$2 ;;
    *) die "no option '$1' (there are --binary, --out, --version)" ;;
  esac
  shift 2
done

debian=packaging/debian
upstream=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
changed=$(sed -n '1s/^slipway (\([^)]*\)).*/\1/p' $debian/changelog)
[ "${changed%-*}" = "$upstream" ] || die "$debian/changelog is about $changed, Cargo.toml about $upstream"
version=${version:-$changed}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

if [ -z "$binary" ]; then
  # A target folder of its own: other flags than the developer's would make both build everything again.
  target=$SLIPWAY_STATE/deb/target
  RUSTFLAGS="--remap-path-prefix=$SLIPWAY_ROOT=/usr/src/slipway --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/usr/src/cargo" \
    CARGO_TARGET_DIR=$target cargo build --quiet --release --locked --package slipway
  binary=$target/release/slipway
fi
[ -x "$binary" ] || die "$binary is no program"

umask 022
mkdir -p "$out"
root=$(mktemp -d "$out/root.XXXXXX")
chmod 755 "$root"
trap 'rm -rf "$root"' EXIT
put() { install -D -m "$1" "$2" "$root/$3"; }       # MODE FILE PATH
packed() { mkdir -p "$root/${1%/*}"; gzip -9n >"$root/$1"; }   # PATH, from stdin

put 755 "$binary" usr/bin/slipway
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/slipway"
for unit in packaging/*.service packaging/*.timer; do
  [ "$unit" = packaging/slipway-user.service ] || put 644 "$unit" "usr/lib/systemd/system/${unit##*/}"
done
put 644 packaging/slipway-user.service usr/lib/systemd/user/slipway.service
put 644 packaging/slipway.sysusers usr/lib/sysusers.d/slipway.conf
put 644 packaging/config.toml etc/slipway/config.toml

completions() { mkdir -p "$root/${2%/*}"; "$binary" completions "$1" >"$root/$2"; }   # SHELL PATH
completions bash usr/share/bash-completion/completions/slipway
completions zsh usr/share/zsh/vendor-completions/_slipway
completions fish usr/share/fish/vendor_completions.d/slipway.fish
"$binary" --quiet man "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*

doc=usr/share/doc/slipway
packed $doc/changelog.gz <CHANGELOG.md
packed $doc/changelog.Debian.gz <$debian/changelog
put 644 $debian/lintian-overrides usr/share/lintian/overrides/slipway
cargo xtask notices | packed $doc/third-party.txt.gz
# The licence's text as a field of the copyright file: indented, and a dot where a line is empty.
mit=$(tail -n +3 LICENSE-MIT | sed 's/^$/./; s/^/ /')
awk -v mit="$mit" '$0 == "@MIT@" {print mit; next} {print}' $debian/copyright >"$root/$doc/copyright"

# What the binary needs of the C library, by the newest of its versioned symbols: what dpkg-shlibdeps reads from the
# same symbols through Debian's tables, without needing them.
newest() { readelf --dyn-syms --wide "$binary" | grep -oE "@$1_[0-9.]+" | sed "s/@$1_//" | sort -Vu | tail -1; }
for library in $(readelf --dynamic --wide "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
  case "$library" in
    libc.so.6 | libm.so.6 | ld-linux-x86-64.so.2) ;;
    libgcc_s.so.1) gcc=", libgcc-s1 (>= $(newest GCC))" ;;
    *) die "$binary needs $library, and no rule here says which package has it" ;;
  esac
done
libraries="libc6 (>= $(newest GLIBC))${gcc:-}"

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do install -m 755 $debian/$script "$root/DEBIAN/$script"; done
size=$(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%s\n' | awk '{n += int(($1 + 1023) / 1024)} END {print n}')
sed -e "s/@VERSION@/$version/" -e "s/@LIBRARIES@/$libraries/" -e "s/@SIZE@/$size/" $debian/control >"$root/DEBIAN/control"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
if [ -d "$root/etc" ]; then
  (cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
fi

find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
package=$out/slipway_${version}_amd64.deb
# One thread and a fixed compressor: bytes that depend on neither the machine nor the release of dpkg.
dpkg-deb --root-owner-group -Zxz --threads-max=1 --build "$root" "$package.partial" >/dev/null
mv -f "$package.partial" "$package"
echo "$package"

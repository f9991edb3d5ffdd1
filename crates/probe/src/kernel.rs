//! Linux kernels on a disk, and which of the drivers that matter for booting elsewhere each of them has.
//!
//! A kernel's configuration lies beside it (`/boot/config-RELEASE`, on a boot partition of its own at the top) and says
//! of each driver whether it is built in, a module, or absent. Where there is none the kernel's own header tells its
//! release, and a few flavours are known by that. What is *in* an initramfs is not looked at: that a driver is a module
//! does not prove that it is there when the root file system is wanted.
//!
//! Sources: Kconfig's file format; the x86 boot protocol (`Documentation/arch/x86/boot.rst`); Debian's configurations of
//! its kernels 6.1 and 6.12.

use std::cmp::Ordering;

use crate::bytes::{has, le16, text};
use crate::disk::ReadAt;
use crate::error::ProbeError;
use crate::report::{Content, Driver, DriverState, Kernel, KernelSource, Note, Partition};
use crate::volume::{Budget, Files, VolumeError};
use crate::{ext, fat, limits};

/// How much of a kernel is read to tell its release: the header and the text it points to.
const HEADER: usize = 64 << 10;
/// Longest release that is believed.
const MAX_RELEASE: usize = 128;

/// Options that are a driver; any of them will do.
const OPTIONS: &[(Driver, &[&str])] = &[
    (Driver::ScsiDisk, &["CONFIG_BLK_DEV_SD"]),
    (Driver::Ahci, &["CONFIG_SATA_AHCI"]),
    (Driver::Piix, &["CONFIG_ATA_PIIX", "CONFIG_BLK_DEV_PIIX"]),
    (Driver::Nvme, &["CONFIG_BLK_DEV_NVME"]),
    (Driver::VirtioPci, &["CONFIG_VIRTIO_PCI"]),
    (Driver::VirtioBlk, &["CONFIG_VIRTIO_BLK"]),
    (Driver::VirtioScsi, &["CONFIG_SCSI_VIRTIO"]),
    (Driver::VirtioNet, &["CONFIG_VIRTIO_NET"]),
    (Driver::E1000, &["CONFIG_E1000"]),
    (Driver::E1000e, &["CONFIG_E1000E"]),
    (Driver::Rtl8139, &["CONFIG_8139CP", "CONFIG_8139TOO"]),
];

/// Flavours whose configuration is known, by the end of their release: Debian's kernel for clouds.
const FLAVOURS: &[(&str, &[(Driver, DriverState)])] = &[(
    "-cloud-amd64",
    &[
        (Driver::ScsiDisk, DriverState::Module),
        (Driver::Piix, DriverState::Module),
        (Driver::Nvme, DriverState::BuiltIn),
        (Driver::VirtioPci, DriverState::Module),
        (Driver::VirtioBlk, DriverState::Module),
        (Driver::VirtioScsi, DriverState::Module),
        (Driver::VirtioNet, DriverState::Module),
    ],
)];

/// The kernels on a disk, newest first.
pub(crate) fn find(
    disk: &dyn ReadAt,
    partitions: &[Partition],
    budget: &Budget,
    notes: &mut Vec<Note>,
) -> Result<Vec<Kernel>, ProbeError> {
    let mut kernels = Vec::new();
    for (position, partition) in partitions.iter().enumerate() {
        let (offset, length) = (partition.offset, partition.length);
        let found = match partition.content {
            Content::Fat => fat::Volume::open(disk, offset, length, budget)
                .and_then(|volume| volume.map_or(Ok(Vec::new()), |v| on_volume(&v, position))),
            Content::Ext => ext::Volume::open(disk, offset, length, budget)
                .and_then(|volume| volume.map_or(Ok(Vec::new()), |v| on_volume(&v, position))),
            _ => continue,
        };
        match found {
            Ok(found) => kernels.extend(found),
            Err(VolumeError::Disk(error)) => return Err(error),
            Err(error) => {
                let at = if let VolumeError::Damaged { offset, .. } = &error { *offset } else { offset };
                notes.push(Note::new("boot-unreadable", at, error.to_string()));
            }
        }
    }
    kernels.sort_by(|a, b| newest_first(&a.release, &b.release));
    kernels.truncate(limits::MAX_KERNELS);
    Ok(kernels)
}

/// The kernels at the top of a volume and in its `boot`.
fn on_volume<F: Files>(volume: &F, partition: usize) -> Result<Vec<Kernel>, VolumeError> {
    let top = volume.top()?;
    let mut kernels = in_directory(volume, &top, "/", partition)?;
    if let Some(boot) = top.iter().find(|e| F::name(e) == "boot" && F::is_directory(e)) {
        kernels.extend(in_directory(volume, &volume.inside(boot)?, "/boot/", partition)?);
    }
    Ok(kernels)
}

fn in_directory<F: Files>(
    volume: &F,
    entries: &[F::Entry],
    directory: &str,
    partition: usize,
) -> Result<Vec<Kernel>, VolumeError> {
    let mut kernels: Vec<Kernel> = Vec::new();
    for entry in entries {
        let Some(release) = F::name(entry).strip_prefix("config-").filter(|r| is_release(r)) else {
            continue;
        };
        if kernels.len() >= limits::MAX_KERNELS {
            break;
        }
        // One byte more, so that a file cut short does not pass for one without those options.
        let bytes = volume.head(entry, limits::MAX_KERNEL_CONFIG + 1)?;
        if bytes.len() > limits::MAX_KERNEL_CONFIG {
            continue;
        }
        if let Some(drivers) = configured(&bytes) {
            let path = format!("{directory}config-{release}");
            let (release, source) = (release.to_owned(), KernelSource::Configuration);
            kernels.push(Kernel { partition, path, release, source, drivers });
        }
    }
    // A kernel without a configuration beside it.
    for entry in entries {
        let name = F::name(entry);
        if !name.to_ascii_lowercase().starts_with("vmlinuz") || kernels.len() >= limits::MAX_KERNELS {
            continue;
        }
        let known = name.get("vmlinuz-".len()..).is_some_and(|r| kernels.iter().any(|k| k.release == r));
        if known || F::is_directory(entry) {
            continue;
        }
        let Some(release) = release_of(&volume.head(entry, HEADER)?) else { continue };
        let flavour = FLAVOURS.iter().find(|(end, _)| release.ends_with(end));
        if let Some((_, drivers)) = flavour.filter(|_| kernels.iter().all(|k| k.release != release)) {
            let path = format!("{directory}{name}");
            let drivers = drivers.to_vec();
            kernels.push(Kernel { partition, path, release, source: KernelSource::Flavour, drivers });
        }
    }
    Ok(kernels)
}

fn is_release(text: &str) -> bool {
    text.len() <= MAX_RELEASE
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+~".contains(c))
}

/// The drivers that a configuration names; `None` when it is none of an x86-64 kernel.
fn configured(bytes: &[u8]) -> Option<Vec<(Driver, DriverState)>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let state = |option: &str| {
        text.lines().find_map(|line| match line.strip_prefix(option)?.trim_end() {
            "=y" => Some(DriverState::BuiltIn),
            "=m" => Some(DriverState::Module),
            _ => None,
        })
    };
    state("CONFIG_X86_64")?;
    let drivers = OPTIONS.iter().filter_map(|(driver, options)| {
        let best = options.iter().filter_map(|option| state(option)).max()?;
        Some((*driver, best))
    });
    Some(drivers.collect())
}

/// The release in a bzImage's header: the first word of the text at the offset that it names.
fn release_of(image: &[u8]) -> Option<String> {
    if !has(image, 0x1fe, &[0x55, 0xaa]) || !has(image, 0x202, b"HdrS") {
        return None;
    }
    let at = usize::from(le16(image, 0x20e)?) + 0x200;
    let line = text(image.get(at..)?.get(..MAX_RELEASE * 2).unwrap_or_default())?;
    line.split_whitespace().next().filter(|release| is_release(release)).map(str::to_owned)
}

/// Orders releases as people count: runs of digits by their value, everything else by its letters.
fn newest_first(a: &str, b: &str) -> Ordering {
    let mut pieces = (pieces(a), pieces(b));
    loop {
        let order = match (pieces.0.next(), pieces.1.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => b.cmp(&a),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// A piece of a release: a number sorts above text, as `6.1.1` above `6.1-rc1`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Piece<'a> {
    Text(&'a str),
    Number(u64),
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['.', '-', '+', '~', '_']);
        let digits = rest.starts_with(|c: char| c.is_ascii_digit());
        let end = rest.find(|c: char| c.is_ascii_digit() != digits || !c.is_ascii_alphanumeric());
        let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        match (piece.is_empty(), digits) {
            (true, _) => None,
            (false, true) => Some(Piece::Number(piece.parse().unwrap_or(u64::MAX))),
            (false, false) => Some(Piece::Text(piece)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_sort_as_people_count() {
        let mut all =
            ["6.1.0-9-amd64", "6.1.0-38-amd64", "5.14.0-570.el9.x86_64", "6.12.1", "6.1.0-38-cloud-amd64"];
        all.sort_by(|a, b| newest_first(a, b));
        assert_eq!(all[0], "6.12.1");
        assert_eq!(&all[3..], ["6.1.0-9-amd64", "5.14.0-570.el9.x86_64"]);
    }

    #[test]
    fn a_configuration_says_what_is_there() {
        let text = "# x86\nCONFIG_X86_64=y\nCONFIG_BLK_DEV_NVME=y\nCONFIG_ATA_PIIX=m\n# CONFIG_SATA_AHCI is not set\nCONFIG_E1000E_HWTS=y\nCONFIG_8139TOO=m\n";
        let drivers = configured(text.as_bytes()).unwrap();
        let state = |driver| drivers.iter().find(|(d, _)| *d == driver).map(|(_, state)| *state);
        assert_eq!(state(Driver::Nvme), Some(DriverState::BuiltIn));
        assert_eq!(state(Driver::Piix), Some(DriverState::Module));
        assert_eq!(state(Driver::Rtl8139), Some(DriverState::Module));
        assert_eq!((state(Driver::Ahci), state(Driver::E1000e)), (None, None));
        assert_eq!(configured(b"CONFIG_ARM64=y\n"), None);
    }

    #[test]
    fn a_kernel_tells_its_release() {
        let mut image = vec![0; 0x300];
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x80;
        image[0x280..0x2a0].copy_from_slice(b"6.1.0-38-cloud-amd64 (debian) #1");
        assert_eq!(release_of(&image), None, "the text runs into the end");
        image.resize(0x800, 0);
        assert_eq!(release_of(&image).as_deref(), Some("6.1.0-38-cloud-amd64"));
    }
}

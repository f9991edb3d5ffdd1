//! What a simulated guest does to its disks: the pattern and the sum that our real test guest can do, on raw files.
//!
//! Everything else leaves the disks alone: a simulated guest writes only what somebody tells it to on its console.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::shell::BLOCK;
use crate::spec::{DiskBus, DiskSpec, GuestSpec, ImageFormat};

/// Disks by the names that Linux gives them, in the order of the specification.
pub(super) fn names(spec: &GuestSpec) -> Vec<String> {
    let letter = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap_or(0));
    let (mut scsi, mut virtio, mut nvme) = (0, 0, 0);
    let next = |counter: &mut usize| {
        *counter += 1;
        *counter - 1
    };
    spec.disks
        .iter()
        .map(|disk| match disk.bus {
            DiskBus::Nvme => format!("nvme{}n1", next(&mut nvme)),
            DiskBus::VirtioBlk => format!("vd{}", letter(next(&mut virtio))),
            DiskBus::Ide | DiskBus::Ahci | DiskBus::VirtioScsi => {
                // sdz is followed by sdaa.
                let n = next(&mut scsi);
                let high = if n < 26 { String::new() } else { letter(n / 26 - 1).to_string() };
                format!("sd{high}{}", letter(n))
            }
        })
        .collect()
}

/// Size in bytes of what the guest sees of a disk, where it can be told from the file alone.
pub(super) fn size(disk: &DiskSpec) -> u64 {
    match disk.layers.first() {
        Some(leaf) if leaf.format == ImageFormat::Raw => leaf.path.metadata().map_or(0, |m| m.len()),
        _ => 0,
    }
}

fn open(disk: &DiskSpec, write: bool) -> io::Result<File> {
    let unsupported = |why: &str| Err(io::Error::new(io::ErrorKind::Unsupported, why));
    let Some(leaf) = disk.layers.first() else { return unsupported("it has no file") };
    if disk.layers.len() > 1 || leaf.format != ImageFormat::Raw {
        return unsupported("a simulated guest reads and writes raw disks only");
    }
    if write && disk.is_read_only() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    OpenOptions::new().read(true).write(write).open(&leaf.path)
}

/// Writes `seed-SEED` line by line over `count` blocks.
pub(super) fn write_pattern(disk: &DiskSpec, seed: &str, offset: u64, count: u64) -> io::Result<()> {
    let file = open(disk, true)?;
    within(disk, offset, count)?;
    let line = format!("seed-{seed}\n");
    let mut stream = line.bytes().cycle();
    for block in offset..offset + count {
        let bytes: Vec<u8> = stream.by_ref().take(BLOCK as usize).collect();
        file.write_all_at(&bytes, block * BLOCK)?;
    }
    file.sync_data()
}

/// SHA-256 of `count` blocks, in hexadecimal.
pub(super) fn sum(disk: &DiskSpec, offset: u64, count: u64) -> io::Result<String> {
    let file = open(disk, false)?;
    within(disk, offset, count)?;
    let mut hash = Sha256::new();
    let mut bytes = vec![0; BLOCK as usize];
    for block in offset..offset + count {
        file.read_exact_at(&mut bytes, block * BLOCK)?;
        hash.update(&bytes);
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn within(disk: &DiskSpec, offset: u64, count: u64) -> io::Result<()> {
    if (offset + count) * BLOCK <= size(disk) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the disk"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Chipset, LayerSpec};

    fn disk(path: &std::path::Path, bus: DiskBus, format: ImageFormat) -> DiskSpec {
        DiskSpec {
            id: "d".into(),
            layers: vec![LayerSpec { path: path.into(), format, read_only: false }],
            bus,
            slot: 0,
            logical_sector: 512,
            physical_sector: 512,
            read_only: false,
            serial: None,
            boot_index: None,
        }
    }

    #[test]
    fn the_pattern_is_the_real_guests_and_stays_within_the_disk() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a.raw");
        File::create(&path).unwrap().set_len(4 * BLOCK).unwrap();
        let disk = disk(&path, DiskBus::Ide, ImageFormat::Raw);
        write_pattern(&disk, "demo", 1, 2).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let expected: Vec<u8> = b"seed-demo\n".iter().copied().cycle().take(2 * BLOCK as usize).collect();
        assert!(bytes[..BLOCK as usize].iter().all(|b| *b == 0));
        assert_eq!(bytes[BLOCK as usize..3 * BLOCK as usize], expected);
        let hash: String = Sha256::digest(&expected).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(sum(&disk, 1, 2).unwrap(), hash);
        assert!(write_pattern(&disk, "x", 3, 2).is_err() && sum(&disk, 4, 1).is_err());
        let qcow2 = self::disk(&path, DiskBus::Ide, ImageFormat::Qcow2);
        assert_eq!(sum(&qcow2, 0, 1).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn disks_are_called_what_linux_calls_them() {
        let mut spec = GuestSpec::new(uuid::Uuid::nil(), "a", "/run/a", Chipset::Q35);
        for bus in [DiskBus::Ahci, DiskBus::VirtioBlk, DiskBus::Nvme, DiskBus::Ahci] {
            spec.disks.push(disk(std::path::Path::new("/d"), bus, ImageFormat::Raw));
        }
        spec.disks.extend((0..26).map(|_| disk("/d".as_ref(), DiskBus::VirtioScsi, ImageFormat::Raw)));
        let names = names(&spec);
        assert_eq!(names[..4], ["sda", "vda", "nvme0n1", "sdb"]);
        assert_eq!(names[27..], ["sdz", "sdaa", "sdab"]);
    }
}

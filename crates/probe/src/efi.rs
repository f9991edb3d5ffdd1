//! EFI boot loaders on a disk's FAT volumes.
//!
//! Every FAT volume with an `\EFI` directory counts, whatever its partition's type: firmware offers only system
//! partitions, but OVMF mounts any FAT, and wrong types are common on MBR disks.

use crate::bytes::{has, le16, le32};
use crate::disk::ReadAt;
use crate::error::ProbeError;
use crate::fat::{Directory, Entry, Volume};
use crate::limits;
use crate::report::{Architecture, Content, EfiLoader, LoaderKind, Note, Partition, PartitionKind};
use crate::volume::{Budget, VolumeError};

/// How much of a loader is read to tell its processor.
const HEADER: usize = 4096;
const FALLBACK: &str = "BOOTX64.EFI";

pub(crate) fn find_loaders(
    disk: &dyn ReadAt,
    partitions: &[Partition],
    budget: &Budget,
    notes: &mut Vec<Note>,
) -> Result<Vec<EfiLoader>, ProbeError> {
    let mut loaders = Vec::new();
    for (position, partition) in partitions.iter().enumerate() {
        if partition.content != Content::Fat {
            if partition.kind == PartitionKind::EfiSystem {
                let what = partition.content.name();
                notes.push(Note::new(
                    "esp-not-fat",
                    partition.offset,
                    format!("the EFI system partition {} holds no FAT volume ({what})", partition.index),
                ));
            }
            continue;
        }
        let mut search = Search { position, offset: partition.offset, loaders: Vec::new(), notes };
        match search.volume(disk, partition, budget) {
            Ok(()) => {}
            Err(VolumeError::Disk(error)) => return Err(error),
            Err(error) => search.note("fat-unreadable", &error),
        }
        let mut found = search.loaders;
        found.sort_by_key(|loader| loader.kind.rank());
        found.truncate(limits::MAX_LOADERS.saturating_sub(loaders.len()));
        loaders.extend(found);
    }
    Ok(loaders)
}

struct Search<'a> {
    position: usize,
    offset: u64,
    loaders: Vec<EfiLoader>,
    notes: &'a mut Vec<Note>,
}

impl Search<'_> {
    fn note(&mut self, id: &'static str, error: &VolumeError) {
        let offset = match error {
            VolumeError::Damaged { offset, .. } => *offset,
            _ => self.offset,
        };
        self.notes.push(Note::new(id, offset, error.to_string()));
    }

    fn checked(&mut self, directory: Directory) -> Vec<Entry> {
        if let Some(damage) = &directory.damage {
            self.note("fat-damaged", damage);
        }
        directory.entries
    }

    fn volume(
        &mut self,
        disk: &dyn ReadAt,
        partition: &Partition,
        budget: &Budget,
    ) -> Result<(), VolumeError> {
        let Some(volume) = Volume::open(disk, partition.offset, partition.length, budget)? else {
            return Ok(());
        };
        let root = volume.root()?;
        let root = self.checked(root);
        let Some(efi) =
            root.iter().find(|entry| entry.is_directory && entry.name.eq_ignore_ascii_case("EFI"))
        else {
            return Ok(());
        };
        let vendors = volume.directory(efi)?;
        let vendors = self.checked(vendors);
        let vendors = vendors.iter().filter(|entry| entry.is_directory);
        for vendor in vendors.take(limits::MAX_EFI_DIRECTORIES) {
            let path = format!("\\{}\\{}", efi.name, vendor.name);
            let entries = volume.directory(vendor)?;
            let entries = self.checked(entries);
            if vendor.name.eq_ignore_ascii_case("BOOT") {
                self.fallback(&volume, &path, &entries)?;
            } else {
                self.named(&volume, &path, &entries)?;
            }
            // Windows alone goes one deeper: \EFI\Microsoft\Boot.
            let deeper =
                entries.iter().find(|entry| entry.is_directory && entry.name.eq_ignore_ascii_case("Boot"));
            if let Some(deeper) = deeper.filter(|_| vendor.name.eq_ignore_ascii_case("Microsoft")) {
                let path = format!("{path}\\{}", deeper.name);
                let entries = volume.directory(deeper)?;
                let entries = self.checked(entries);
                self.named(&volume, &path, &entries)?;
            }
        }
        Ok(())
    }

    fn fallback(&mut self, volume: &Volume<'_>, path: &str, entries: &[Entry]) -> Result<(), VolumeError> {
        let before = self.loaders.len();
        for entry in entries.iter().filter(|entry| !entry.is_directory && is_fallback(&entry.name)) {
            self.push(volume, path, entry, LoaderKind::Fallback, entry.name.eq_ignore_ascii_case(FALLBACK))?;
        }
        // What lies beside a fallback loader is its second stage; alone, it is better than nothing.
        if self.loaders.len() == before { self.named(volume, path, entries) } else { Ok(()) }
    }

    fn named(&mut self, volume: &Volume<'_>, path: &str, entries: &[Entry]) -> Result<(), VolumeError> {
        for entry in entries.iter().filter(|entry| !entry.is_directory) {
            if let Some(kind) = known(&entry.name) {
                self.push(volume, path, entry, kind, false)?;
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        volume: &Volume<'_>,
        path: &str,
        entry: &Entry,
        kind: LoaderKind,
        fallback: bool,
    ) -> Result<(), VolumeError> {
        if self.loaders.len() >= limits::MAX_LOADERS || entry.size == 0 {
            return Ok(());
        }
        let architecture = architecture(&volume.read_file(entry, HEADER)?);
        self.loaders.push(EfiLoader {
            partition: self.position,
            path: format!("{path}\\{}", entry.name),
            fallback,
            kind,
            architecture,
            size: entry.size,
        });
        Ok(())
    }
}

fn is_fallback(name: &str) -> bool {
    ["BOOTX64.EFI", "BOOTIA32.EFI", "BOOTAA64.EFI"].into_iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn known(name: &str) -> Option<LoaderKind> {
    const NAMES: &[(&str, LoaderKind)] = &[
        ("shimx64.efi", LoaderKind::Shim),
        ("shim.efi", LoaderKind::Shim),
        ("shimia32.efi", LoaderKind::Shim),
        ("shimaa64.efi", LoaderKind::Shim),
        ("grubx64.efi", LoaderKind::Grub),
        ("grub.efi", LoaderKind::Grub),
        ("grubia32.efi", LoaderKind::Grub),
        ("grubaa64.efi", LoaderKind::Grub),
        ("bootmgfw.efi", LoaderKind::WindowsBootManager),
        ("systemd-bootx64.efi", LoaderKind::SystemdBoot),
        ("systemd-bootia32.efi", LoaderKind::SystemdBoot),
        ("systemd-bootaa64.efi", LoaderKind::SystemdBoot),
        ("refind_x64.efi", LoaderKind::Refind),
        ("elilo.efi", LoaderKind::Other),
        ("loader.efi", LoaderKind::Other),
        ("limine.efi", LoaderKind::Other),
        ("cloverx64.efi", LoaderKind::Other),
    ];
    NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|&(_, kind)| kind)
}

/// The machine field of a PE header.
fn architecture(head: &[u8]) -> Architecture {
    let machine = || {
        let at = has(head, 0, b"MZ").then(|| le32(head, 0x3c))?? as usize;
        has(head, at, b"PE\0\0").then(|| le16(head, at.checked_add(4)?))?
    };
    match machine() {
        Some(0x8664) => Architecture::X64,
        Some(0x014c) => Architecture::Ia32,
        Some(0xaa64) => Architecture::Arm64,
        _ => Architecture::Unknown,
    }
}

//! What is on a disk: partitions, file systems, encryption, boot files, and what guest that makes likely.
//!
//! ```text
//!   dyn ReadAt ──► table (GPT, MBR) ──► Partition ──► content (signatures) ──┬─► fat ───┬─► efi (boot loaders)
//!       │                                                   │                └─► ext ───┴─► kernel (drivers)
//!       └──► bios (boot code, active partition) ────────────┴──────────────────────────────► guest ──► DiskReport
//! ```
//!
//! Everything is read-only and over one small trait, [`ReadAt`], so that a raw file, a VHDX chain or an NBD export are
//! probed by the same code. The disk is hostile input: no number from it is used before it was compared with a constant
//! of [`limits`], and no content makes [`probe`] fail. What looks damaged becomes a [`Note`]; only a read that the disk
//! itself refuses, or a sector size nobody has, is an error.
//!
//! What this crate leaves to others: opening images, deciding on hardware or boot entries from what was found, and
//! anything inside a file system other than FAT and ext.
//!
//! Sources: the UEFI specification 2.10, chapters 5 (GPT), 10.3 (device paths) and 13.3 (FAT); Microsoft's FAT
//! specification (`fatgen103`); the kernel's description of ext4; the `magic` numbers as libblkid documents them.

#![forbid(unsafe_code)]

mod bios;
mod bytes;
mod content;
mod disk;
mod efi;
mod error;
pub mod ext;
pub mod fat;
mod guest;
mod kernel;
pub mod limits;
mod report;
mod table;
mod volume;

pub use disk::{FileDisk, ReadAt};
pub use error::{ProbeError, ProbeErrorKind};
pub use report::{
    Architecture, BiosBoot, BootCode, Content, DiskId, DiskReport, Driver, DriverState, EfiLoader,
    GuestGuess, Kernel, KernelSource, LoaderKind, Note, Partition, PartitionKind, Table, TypeId,
};
pub use volume::{Budget, VolumeError};

/// Sector sizes a disk can have, in bytes.
const SECTOR_SIZES: [u32; 2] = [512, 4096];

/// Looks at a whole disk of `sector_size`-byte logical sectors (512 or 4096).
///
/// A partition table written for the other sector size is found too, with a note: a disk copied between 512 and 4096
/// keeps its content and stops booting, and that is worth telling.
///
/// # Errors
/// [`ProbeErrorKind::Read`] when the disk refuses a read, [`ProbeErrorKind::SectorSize`] for a sector size other than
/// 512 and 4096. Never because of what the disk holds.
pub fn probe(disk: &dyn ReadAt, sector_size: u32) -> Result<DiskReport, ProbeError> {
    if !SECTOR_SIZES.contains(&sector_size) {
        return Err(ProbeError::sector_size(sector_size));
    }
    let mut notes = Vec::new();
    let found = table::read(disk, sector_size, &mut notes)?;
    let mut partitions = found.partitions;
    for partition in &mut partitions {
        let what = content::identify(disk, partition.offset, partition.length)?;
        partition.content = what.content;
        partition.version = what.version;
        partition.label = what.label;
    }
    let bios = bios::judge(disk, found.table, &partitions, found.active)?;
    let budget = Budget::default();
    let efi_loaders = efi::find_loaders(disk, &partitions, &budget, &mut notes)?;
    let kernels = kernel::find(disk, &partitions, &budget, &mut notes)?;
    let (guest, guest_reason) = guest::guess(&partitions, &efi_loaders, &bios);
    Ok(DiskReport {
        size: disk.size(),
        sector_size: found.sector_size,
        table: found.table,
        disk_id: found.disk_id,
        partitions,
        bios_bootable: bios.bootable,
        bios,
        efi_loaders,
        guest,
        guest_reason,
        kernels,
        notes,
    })
}

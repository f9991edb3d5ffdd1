//! Whether a BIOS would get as far as a boot loader. Told from the first sector, the table, and the active partition's
//! first sector; what the loader then finds is not looked at.

use crate::bytes::{all_zero, contains, has};
use crate::disk::{ReadAt, read_up_to};
use crate::error::ProbeError;
use crate::report::{BiosBoot, BootCode, Partition, PartitionKind, Table};

/// Bytes of a boot sector.
const SECTOR: usize = 512;
/// Where an MBR's code ends and its signature and table begin.
const MBR_CODE: usize = 440;

pub(crate) fn judge(
    disk: &dyn ReadAt,
    table: Table,
    partitions: &[Partition],
    active: Option<u32>,
) -> Result<BiosBoot, ProbeError> {
    let sector = read_up_to(disk, 0, SECTOR, u64::MAX)?;
    let signature = has(&sector, 510, &[0x55, 0xaa]);
    let code = match table {
        Table::None => classify(sector.get(..510).unwrap_or_default()),
        Table::Mbr | Table::Gpt => classify(sector.get(..MBR_CODE).unwrap_or_default()),
    };
    let verdict = |bootable, reason: &str| {
        Ok(BiosBoot { bootable, signature, code, active, reason: reason.to_owned() })
    };
    if !signature {
        return verdict(false, "the first sector has no boot signature (55 AA)");
    }
    match code {
        BootCode::None => return verdict(false, "the first sector holds no boot code"),
        BootCode::Stub => return verdict(false, "the boot code only says that the disk does not boot"),
        _ => {}
    }
    match (table, code) {
        (Table::None, _) => verdict(true, "the file system's first sector holds boot code"),
        (Table::Mbr, BootCode::Grub) => verdict(true, "GRUB is in the master boot record"),
        (Table::Mbr, _) => match partitions.iter().find(|partition| Some(partition.index) == active) {
            Some(partition) => {
                let vbr = read_up_to(disk, partition.offset, SECTOR, u64::MAX)?;
                if !has(&vbr, 510, &[0x55, 0xaa]) {
                    return verdict(false, "the active partition has no boot sector");
                }
                verdict(true, "the master boot record has code and a partition is active")
            }
            None if matches!(code, BootCode::Windows | BootCode::Syslinux) => {
                verdict(false, "the boot code wants an active partition, and none is")
            }
            None => verdict(true, "the master boot record has code of its own"),
        },
        (Table::Gpt, _) => {
            let bios_boot = partitions.iter().any(|partition| partition.kind == PartitionKind::BiosBoot);
            match code {
                BootCode::Grub if bios_boot => {
                    verdict(true, "GRUB is in the first sector, its core in a BIOS boot partition")
                }
                // Without such a partition GRUB embeds nowhere on GPT and depends on block lists.
                BootCode::Grub => verdict(true, "GRUB is in the first sector"),
                BootCode::Windows => verdict(false, "Windows' boot code does not boot from a GPT"),
                _ if active.is_some() || bios_boot => {
                    verdict(true, "the first sector has code and a partition is marked for a BIOS")
                }
                _ => verdict(false, "no partition is marked for a BIOS"),
            }
        }
    }
}

fn classify(code: &[u8]) -> BootCode {
    /// How the code of Windows 2000 and later begins, whatever the language of its messages.
    const WINDOWS: [&[u8]; 2] = [
        &[0x33, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x8e, 0xc0],
        &[0x33, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb],
    ];
    // A boot sector of a file system begins with its parameters; only what follows them is code.
    let is_volume = matches!(code, [0xeb, _, 0x90, ..] | [0xe9, ..]);
    let zero_from = if is_volume { 90 } else { 0 };
    if code.get(zero_from..).is_none_or(all_zero) {
        BootCode::None
    } else if contains(code, b"This is not a bootable disk") {
        BootCode::Stub
    } else if contains(code, b"GRUB") {
        BootCode::Grub
    } else if has(code, 3, b"SYSLINUX")
        || has(code, 3, b"EXTLINUX")
        || contains(code, b"Operating system load error")
    {
        BootCode::Syslinux
    } else if WINDOWS.into_iter().any(|start| code.starts_with(start))
        || [b"Invalid partition table".as_slice(), b"BOOTMGR", b"NTLDR"]
            .into_iter()
            .any(|text| contains(code, text))
    {
        BootCode::Windows
    } else {
        BootCode::Other
    }
}

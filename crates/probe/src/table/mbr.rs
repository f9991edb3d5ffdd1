//! One boot record with its four entries: the first sector of a disk, or one link of the chain of logical partitions.

use crate::bytes::le32;
use crate::report::PartitionKind;

/// Bytes of a boot record, whatever the sector size.
pub(super) const SIZE: usize = 512;
const SIGNATURE_AT: usize = 440;
const ENTRIES_AT: usize = 446;
const ENTRY_SIZE: usize = 16;
const PROTECTIVE: u8 = 0xee;

/// A boot record whose entries can be entries.
pub(super) struct Mbr {
    pub(super) signature: u32,
    /// The entries in use.
    pub(super) entries: Vec<Entry>,
}

pub(super) struct Entry {
    /// 1 to 4.
    pub(super) number: u32,
    pub(super) active: bool,
    pub(super) type_byte: u8,
    pub(super) first_lba: u32,
    pub(super) sectors: u32,
}

impl Mbr {
    /// `None` when the bytes are no boot record, or the place of the table holds something else, such as a file
    /// system's boot code.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        if sector.get(510..512)? != [0x55, 0xaa] {
            return None;
        }
        let mut entries = Vec::new();
        for number in 1..=4_u32 {
            let at = ENTRIES_AT + (number as usize - 1) * ENTRY_SIZE;
            let entry = sector.get(at..at + ENTRY_SIZE)?;
            if entry[0] & 0x7f != 0 {
                return None;
            }
            let entry = Entry {
                number,
                active: entry[0] == 0x80,
                type_byte: entry[4],
                first_lba: le32(entry, 8)?,
                sectors: le32(entry, 12)?,
            };
            if entry.type_byte != 0 && entry.sectors != 0 {
                entries.push(entry);
            }
        }
        Some(Self { signature: le32(sector, SIGNATURE_AT)?, entries })
    }

    /// Whether the record only guards a GPT, or shares its disk with one.
    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.type_byte == PROTECTIVE)
    }
}

impl Entry {
    pub(super) fn is_extended(&self) -> bool {
        matches!(self.type_byte, 0x05 | 0x0f | 0x85)
    }
}

/// What a type byte says.
pub(super) fn kind(type_byte: u8) -> PartitionKind {
    match type_byte {
        0xef => PartitionKind::EfiSystem,
        0x01 | 0x04 | 0x06 | 0x07 | 0x0b | 0x0c | 0x0e => PartitionKind::BasicData,
        0x27 => PartitionKind::WindowsRecovery,
        0x42 => PartitionKind::WindowsDynamic,
        0x82 => PartitionKind::LinuxSwap,
        0x83 => PartitionKind::Linux,
        0x8e => PartitionKind::LinuxLvm,
        0xfd => PartitionKind::LinuxRaid,
        _ => PartitionKind::Other,
    }
}

//! The partition table: which one holds, and its partitions as values.
//!
//! A GPT counts only behind a protective MBR, or where the MBR names nothing, as firmware and Linux see it. Its backup
//! stands in for a damaged primary. Nothing here looks into partitions.

mod gpt;
mod mbr;

use std::collections::HashSet;

use crate::disk::{ReadAt, read_up_to};
use crate::error::ProbeError;
use crate::report::{Content, DiskId, Note, Partition, PartitionKind, Table, TypeId};
use crate::{SECTOR_SIZES, content, limits};

/// A partition table.
pub(crate) struct Found {
    pub(crate) table: Table,
    pub(crate) sector_size: u32,
    pub(crate) disk_id: Option<DiskId>,
    pub(crate) partitions: Vec<Partition>,
    /// Number of the first partition marked for a BIOS.
    pub(crate) active: Option<u32>,
}

pub(crate) fn read(disk: &dyn ReadAt, sector_size: u32, notes: &mut Vec<Note>) -> Result<Found, ProbeError> {
    let sector0 = read_up_to(disk, 0, mbr::SIZE, u64::MAX)?;
    let mbr = mbr::Mbr::parse(&sector0);
    let protective = mbr.as_ref().is_some_and(mbr::Mbr::is_protective);
    let names_something = mbr.as_ref().is_some_and(|mbr| !mbr.entries.is_empty());
    if protective || !names_something {
        let other = SECTOR_SIZES.into_iter().filter(|&size| size != sector_size);
        for size in [sector_size].into_iter().chain(other) {
            if let Some(gpt) = gpt::read(disk, size, notes)? {
                if size != sector_size {
                    notes.push(Note::new(
                        "sector-size",
                        u64::from(size),
                        format!(
                            "the partition table was written for sectors of {size} bytes, the disk has {sector_size}: \
                             firmware and guest will not find it"
                        ),
                    ));
                }
                if !protective {
                    notes.push(Note::new(
                        "gpt-no-protective-mbr",
                        0,
                        "no protective MBR stands before the GPT: some firmware and systems will ignore it",
                    ));
                }
                return Ok(from_gpt(gpt, size, disk.size(), notes));
            }
        }
    }
    if protective {
        notes.push(Note::new(
            "gpt-damaged",
            u64::from(sector_size),
            "a protective MBR announces a GPT, but neither copy of it is intact",
        ));
        return Ok(Found {
            table: Table::Gpt,
            sector_size,
            disk_id: None,
            partitions: Vec::new(),
            active: None,
        });
    }
    let from_mbr = match mbr {
        Some(mbr) => Some(from_mbr(disk, &mbr, sector_size, notes)?),
        None => None,
    };
    let from_mbr = match from_mbr {
        Some(found) if !found.partitions.is_empty() => return Ok(found),
        empty => empty,
    };
    // No table that names anything: perhaps a file system without one.
    let whole = content::identify(disk, 0, disk.size())?;
    if !matches!(whole.content, Content::Empty | Content::Unknown) {
        let partition = Partition::new(0, 0, disk.size(), PartitionKind::WholeDisk, TypeId::None);
        return Ok(Found { partitions: vec![partition], ..none(sector_size) });
    }
    Ok(from_mbr.unwrap_or_else(|| none(sector_size)))
}

fn none(sector_size: u32) -> Found {
    Found { table: Table::None, sector_size, disk_id: None, partitions: Vec::new(), active: None }
}

impl Partition {
    fn new(index: u32, offset: u64, length: u64, kind: PartitionKind, type_id: TypeId) -> Self {
        Self {
            index,
            offset,
            length,
            kind,
            type_id,
            partition_id: None,
            name: None,
            active: false,
            content: Content::Unknown,
            version: None,
            label: None,
        }
    }
}

fn from_gpt(gpt: gpt::Gpt, sector_size: u32, disk_size: u64, notes: &mut Vec<Note>) -> Found {
    let mut partitions = Vec::new();
    for entry in gpt.entries {
        let sector = u64::from(sector_size);
        let extent = entry.last_lba.checked_sub(entry.first_lba).and_then(|sectors| {
            let length = sectors.checked_add(1)?.checked_mul(sector)?;
            let offset = entry.first_lba.checked_mul(sector)?;
            offset.checked_add(length)?;
            Some((offset, length))
        });
        let Some((offset, length)) = extent.filter(|&(offset, _)| offset < disk_size) else {
            notes.push(Note::new(
                "partition-outside",
                gpt.table_offset,
                format!(
                    "GPT partition {} lies outside the disk or ends before it begins; left out",
                    entry.number
                ),
            ));
            continue;
        };
        if !admit(&partitions, entry.number, offset, length, disk_size, notes) {
            break;
        }
        let kind = gpt::kind(entry.type_guid);
        partitions.push(Partition {
            partition_id: Some(entry.partition_guid),
            name: entry.name,
            active: entry.legacy_bootable,
            ..Partition::new(entry.number, offset, length, kind, TypeId::Gpt(entry.type_guid))
        });
    }
    let active = partitions.iter().find(|partition| partition.active).map(|partition| partition.index);
    Found { table: Table::Gpt, sector_size, disk_id: Some(DiskId::Gpt(gpt.disk_guid)), partitions, active }
}

/// Notes a partition that runs over the disk's end, and refuses one too many.
fn admit(
    before: &[Partition],
    number: u32,
    offset: u64,
    length: u64,
    disk_size: u64,
    notes: &mut Vec<Note>,
) -> bool {
    if before.len() >= limits::MAX_PARTITIONS {
        notes.push(Note::new(
            "too-many-partitions",
            offset,
            format!("more than {} partitions; the rest is left out", limits::MAX_PARTITIONS),
        ));
        return false;
    }
    if length > disk_size - offset {
        notes.push(Note::new(
            "partition-past-end",
            offset,
            format!("partition {number} ends {} bytes past the disk", length - (disk_size - offset)),
        ));
    }
    true
}

fn from_mbr(
    disk: &dyn ReadAt,
    mbr: &mbr::Mbr,
    sector_size: u32,
    notes: &mut Vec<Note>,
) -> Result<Found, ProbeError> {
    let sector = u64::from(sector_size);
    let mut partitions = Vec::new();
    let mut extended = None;
    for entry in &mbr.entries {
        let offset = u64::from(entry.first_lba) * sector;
        if offset >= disk.size() {
            notes.push(Note::new(
                "partition-outside",
                0,
                format!("MBR partition {} begins past the disk's end; left out", entry.number),
            ));
            continue;
        }
        if entry.is_extended() {
            extended.get_or_insert(entry.first_lba);
            continue;
        }
        push_mbr(&mut partitions, entry, entry.number, offset, sector, disk.size(), notes);
    }
    if let Some(start) = extended {
        read_logical(disk, start, sector, &mut partitions, notes)?;
    }
    let active = partitions.iter().find(|partition| partition.active).map(|partition| partition.index);
    Ok(Found {
        table: Table::Mbr,
        sector_size,
        disk_id: Some(DiskId::Mbr(mbr.signature)),
        partitions,
        active,
    })
}

fn push_mbr(
    partitions: &mut Vec<Partition>,
    entry: &mbr::Entry,
    number: u32,
    offset: u64,
    sector: u64,
    disk_size: u64,
    notes: &mut Vec<Note>,
) -> bool {
    let length = u64::from(entry.sectors) * sector;
    if !admit(partitions, number, offset, length, disk_size, notes) {
        return false;
    }
    partitions.push(Partition {
        active: entry.active,
        ..Partition::new(number, offset, length, mbr::kind(entry.type_byte), TypeId::Mbr(entry.type_byte))
    });
    true
}

/// Follows the chain of extended boot records: each names one logical partition, relative to itself, and the next
/// record, relative to the first.
fn read_logical(
    disk: &dyn ReadAt,
    extended_start: u32,
    sector: u64,
    partitions: &mut Vec<Partition>,
    notes: &mut Vec<Note>,
) -> Result<(), ProbeError> {
    let start = u64::from(extended_start);
    let mut record = start;
    let mut seen = HashSet::new();
    let mut number = 5;
    while seen.len() < limits::MAX_LOGICAL_PARTITIONS {
        let at = record * sector;
        let bytes = read_up_to(disk, at, mbr::SIZE, u64::MAX)?;
        let Some(ebr) = mbr::Mbr::parse(&bytes) else {
            notes.push(Note::new(
                "ebr-damaged",
                at,
                "the chain of logical partitions ends in a sector that is no boot record",
            ));
            return Ok(());
        };
        seen.insert(record);
        let mut next = None;
        for entry in ebr.entries.iter().take(2) {
            if entry.is_extended() {
                next.get_or_insert(start + u64::from(entry.first_lba));
                continue;
            }
            let offset = (record + u64::from(entry.first_lba)) * sector;
            if offset >= disk.size() {
                notes.push(Note::new(
                    "partition-outside",
                    at,
                    format!("logical partition {number} begins past the disk's end; left out"),
                ));
            } else if !push_mbr(partitions, entry, number, offset, sector, disk.size(), notes) {
                return Ok(());
            }
            number += 1;
        }
        match next {
            None => return Ok(()),
            Some(next) if seen.contains(&next) => {
                notes.push(Note::new("ebr-loop", at, "the chain of logical partitions runs in a circle"));
                return Ok(());
            }
            Some(next) => record = next,
        }
    }
    notes.push(Note::new(
        "too-many-partitions",
        record * sector,
        format!("more than {} logical partitions; the rest is left out", limits::MAX_LOGICAL_PARTITIONS),
    ));
    Ok(())
}

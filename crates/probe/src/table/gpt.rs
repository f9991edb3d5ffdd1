//! The GUID partition table: header and entry array, each under its CRC, twice on the disk.

use uuid::{Uuid, uuid};

use crate::bytes::{all_zero, guid, has, le32, le64, text16};
use crate::disk::{ReadAt, read_up_to};
use crate::error::ProbeError;
use crate::limits;
use crate::report::{Note, PartitionKind};

const SIGNATURE: &[u8] = b"EFI PART";
/// Smallest header; a larger one has reserved bytes behind, which the CRC covers.
const MIN_HEADER: usize = 92;
const MIN_ENTRY: u32 = 128;
const CRC_AT: usize = 16;
const ATTRIBUTE_LEGACY_BOOTABLE: u64 = 1 << 2;

/// An intact table.
pub(super) struct Gpt {
    pub(super) disk_guid: Uuid,
    /// Where the entry array lies, in bytes.
    pub(super) table_offset: u64,
    /// The entries in use.
    pub(super) entries: Vec<Entry>,
}

pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) type_guid: Uuid,
    pub(super) partition_guid: Uuid,
    pub(super) first_lba: u64,
    /// Inclusive.
    pub(super) last_lba: u64,
    pub(super) legacy_bootable: bool,
    pub(super) name: Option<String>,
}

struct Header {
    alternate_lba: u64,
    disk_guid: Uuid,
    entries_lba: u64,
    entry_count: u32,
    entry_size: u32,
    entries_crc: u32,
}

/// What one copy turned out to be.
enum Copy {
    Absent,
    Damaged { at: u64, what: &'static str, alternate_lba: Option<u64> },
    Good { gpt: Gpt, alternate_lba: u64 },
}

/// Reads the primary table for sectors of `sector_size` bytes, or the backup where the primary is damaged.
pub(super) fn read(
    disk: &dyn ReadAt,
    sector_size: u32,
    notes: &mut Vec<Note>,
) -> Result<Option<Gpt>, ProbeError> {
    let sector = u64::from(sector_size);
    let Some(last_lba) = (disk.size() / sector).checked_sub(1).filter(|&last| last >= 1) else {
        return Ok(None);
    };
    let (damage, pointed_at) = match read_copy(disk, sector, 1)? {
        Copy::Good { gpt, alternate_lba } => {
            check_backup(disk, sector, last_lba, alternate_lba, notes)?;
            return Ok(Some(gpt));
        }
        Copy::Damaged { at, what, alternate_lba } => (Some((at, what)), alternate_lba),
        Copy::Absent => (None, None),
    };
    // The backup belongs into the last sector; on a disk that grew it stays where the primary points.
    for lba in [Some(last_lba), pointed_at.filter(|&lba| lba > 1 && lba < last_lba)].into_iter().flatten() {
        if let Copy::Good { gpt, .. } = read_copy(disk, sector, lba)? {
            let (at, what) = damage.unwrap_or((sector, "the header is missing"));
            notes.push(Note::new(
                "gpt-backup-used",
                at,
                format!("the primary GPT is damaged ({what}); its backup at sector {lba} is used"),
            ));
            return Ok(Some(gpt));
        }
    }
    if let Some((at, what)) = damage {
        notes.push(Note::new("gpt-crc", at, format!("the GPT is damaged ({what}) and has no intact backup")));
    }
    Ok(None)
}

/// Tells about a backup that is not where it belongs, or not intact.
fn check_backup(
    disk: &dyn ReadAt,
    sector: u64,
    last_lba: u64,
    alternate_lba: u64,
    notes: &mut Vec<Note>,
) -> Result<(), ProbeError> {
    let at = alternate_lba.saturating_mul(sector);
    if alternate_lba > last_lba {
        notes.push(Note::new(
            "gpt-backup-outside",
            sector,
            "the backup GPT lies past the disk's end: the disk is cut short",
        ));
        return Ok(());
    }
    match read_copy(disk, sector, alternate_lba)? {
        Copy::Good { .. } if alternate_lba == last_lba => {}
        Copy::Good { .. } => notes.push(Note::new(
            "gpt-backup-not-at-end",
            at,
            "the backup GPT is not in the last sector: the disk grew after it was partitioned",
        )),
        Copy::Absent => notes.push(Note::new("gpt-backup-missing", at, "the backup GPT is missing")),
        Copy::Damaged { at, what, .. } => {
            notes.push(Note::new("gpt-backup-damaged", at, format!("the backup GPT is damaged ({what})")));
        }
    }
    Ok(())
}

fn read_copy(disk: &dyn ReadAt, sector: u64, lba: u64) -> Result<Copy, ProbeError> {
    let Some(at) = lba.checked_mul(sector) else { return Ok(Copy::Absent) };
    // A sector at most, and so 4096 bytes at most.
    let bytes = read_up_to(disk, at, usize::try_from(sector).unwrap_or(MIN_HEADER), u64::MAX)?;
    if !has(&bytes, 0, SIGNATURE) {
        return Ok(Copy::Absent);
    }
    let header = match parse_header(&bytes, lba) {
        Ok(header) => header,
        Err(what) => return Ok(Copy::Damaged { at, what, alternate_lba: le64(&bytes, 32) }),
    };
    let damaged = |what| Ok(Copy::Damaged { at, what, alternate_lba: Some(header.alternate_lba) });
    let length = u64::from(header.entry_count) * u64::from(header.entry_size);
    if header.entry_count > limits::MAX_GPT_ENTRIES
        || !(MIN_ENTRY..=limits::MAX_GPT_ENTRY_SIZE).contains(&header.entry_size)
        || length > limits::MAX_GPT_TABLE
    {
        return damaged("its entry array is beyond all measure");
    }
    let Some(table_offset) = header.entries_lba.checked_mul(sector) else {
        return damaged("its entry array lies outside the disk");
    };
    // Bounded just above.
    let table = read_up_to(disk, table_offset, usize::try_from(length).unwrap_or(0), u64::MAX)?;
    if table.len() as u64 != length {
        return damaged("its entry array lies outside the disk");
    }
    if crc32fast::hash(&table) != header.entries_crc {
        return damaged("the checksum of its entry array is wrong");
    }
    let entries = parse_entries(&table, header.entry_size);
    let gpt = Gpt { disk_guid: header.disk_guid, table_offset, entries };
    Ok(Copy::Good { gpt, alternate_lba: header.alternate_lba })
}

fn parse_header(sector: &[u8], lba: u64) -> Result<Header, &'static str> {
    const SHORT: &str = "its header is cut short";
    let size = le32(sector, 12).ok_or(SHORT)? as usize;
    let mut header = sector
        .get(..size)
        .filter(|header| header.len() >= MIN_HEADER)
        .ok_or("its header size is wrong")?
        .to_vec();
    let crc = le32(&header, CRC_AT).ok_or(SHORT)?;
    header[CRC_AT..CRC_AT + 4].fill(0);
    if crc32fast::hash(&header) != crc {
        return Err("the checksum of its header is wrong");
    }
    if le64(&header, 24) != Some(lba) {
        return Err("its header belongs to another sector");
    }
    let parse = || {
        Some(Header {
            alternate_lba: le64(&header, 32)?,
            disk_guid: guid(&header, 56)?,
            entries_lba: le64(&header, 72)?,
            entry_count: le32(&header, 80)?,
            entry_size: le32(&header, 84)?,
            entries_crc: le32(&header, 88)?,
        })
    };
    parse().ok_or(SHORT)
}

fn parse_entries(table: &[u8], entry_size: u32) -> Vec<Entry> {
    let parse = |(number, entry): (u32, &[u8])| {
        if all_zero(entry.get(..16)?) {
            return None;
        }
        Some(Entry {
            number,
            type_guid: guid(entry, 0)?,
            partition_guid: guid(entry, 16)?,
            first_lba: le64(entry, 32)?,
            last_lba: le64(entry, 40)?,
            legacy_bootable: le64(entry, 48)? & ATTRIBUTE_LEGACY_BOOTABLE != 0,
            name: text16(entry.get(56..128)?),
        })
    };
    (1..).zip(table.chunks_exact(entry_size as usize)).filter_map(parse).collect()
}

/// What a type GUID says. The Linux ones are those of the Discoverable Partitions Specification.
pub(super) fn kind(type_guid: Uuid) -> PartitionKind {
    const KINDS: &[(Uuid, PartitionKind)] = &[
        (uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), PartitionKind::EfiSystem),
        (uuid!("21686148-6449-6e6f-744e-656564454649"), PartitionKind::BiosBoot),
        (uuid!("e3c9e316-0b5c-4db8-817d-f92df00215ae"), PartitionKind::MicrosoftReserved),
        (uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"), PartitionKind::BasicData),
        (uuid!("de94bba4-06d1-4d40-a16a-bfd50179d6ac"), PartitionKind::WindowsRecovery),
        (uuid!("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"), PartitionKind::WindowsDynamic),
        (uuid!("af9b60a0-1431-4f62-bc68-3311714a69ad"), PartitionKind::WindowsDynamic),
        (uuid!("e75caf8f-f680-4cee-afa3-b001e56efc2d"), PartitionKind::StorageSpaces),
        (uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"), PartitionKind::Linux),
        (uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"), PartitionKind::Linux), // root, x86-64
        (uuid!("8484680c-9521-48c6-9c11-b0720656f69e"), PartitionKind::Linux), // /usr, x86-64
        (uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172"), PartitionKind::Linux), // extended boot loader
        (uuid!("933ac7e1-2eb4-4f13-b844-0e14e2aef915"), PartitionKind::Linux), // /home
        (uuid!("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"), PartitionKind::Linux), // /srv
        (uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d"), PartitionKind::Linux), // /var
        (uuid!("ca7d7ccb-63ed-4c53-861c-1742536059cc"), PartitionKind::Linux), // LUKS
        (uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"), PartitionKind::LinuxSwap),
        (uuid!("e6d6d379-f507-44c2-a23c-238f2a3df928"), PartitionKind::LinuxLvm),
        (uuid!("a19d880f-05fc-4d3b-a006-743f0f84911e"), PartitionKind::LinuxRaid),
    ];
    KINDS.iter().find(|(guid, _)| *guid == type_guid).map_or(PartitionKind::Other, |&(_, kind)| kind)
}

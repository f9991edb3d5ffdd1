//! The metadata region: what the virtual disk is, and how the file is cut into blocks.
//!
//! [`Metadata`] holds bounded values only. The parent locator inside it is taken apart by `locator`.

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use crate::error::Fault;
use crate::format::{
    Guid, ITEM_DISK_ID, ITEM_FILE_PARAMETERS, ITEM_LOGICAL_SECTOR, ITEM_PARENT_LOCATOR, ITEM_PHYSICAL_SECTOR,
    ITEM_VIRTUAL_SIZE, MAX_METADATA, METADATA_SIGNATURE, METADATA_TABLE_LENGTH, MetadataEntry,
    MetadataTableHeader, file_parameter, metadata_flag,
};
use crate::info::{DiskKind, ParentRef};
use crate::limits::{MAX_LOCATOR_LENGTH, MAX_VHDX_SIZE, MIB};
use crate::locator;
use crate::region::Region;
use crate::storage::Storage;

/// Smallest and largest legal block.
pub(crate) const BLOCK_SIZES: std::ops::RangeInclusive<u32> = (1 << 20)..=(256 << 20);

/// What the metadata says, bounded.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    pub(crate) kind: DiskKind,
    pub(crate) block_size: u32,
    pub(crate) virtual_size: u64,
    pub(crate) logical_sector_size: u32,
    pub(crate) physical_sector_size: u32,
    pub(crate) disk_id: Uuid,
    /// Present exactly when the kind is differencing.
    pub(crate) parent: Option<ParentRef>,
}

/// The table's entries, bounded to the region.
pub(crate) fn entries(storage: &dyn Storage, region: Region) -> Result<Vec<MetadataEntry>, Fault> {
    let base = region.offset;
    if (region.length as usize) < METADATA_TABLE_LENGTH {
        return Err(Fault::invalid(
            "metadata region",
            base,
            format!("{} bytes hold no table", region.length),
        ));
    }
    let mut table = vec![0; METADATA_TABLE_LENGTH];
    storage.read_at(&mut table, base).map_err(|source| Fault::io("the metadata table", base, source))?;
    let (header, rest) = MetadataTableHeader::ref_from_prefix(&table)
        .map_err(|_| Fault::Truncated { what: "the metadata table", offset: base })?;
    if header.signature != METADATA_SIGNATURE {
        return Err(Fault::invalid("metadata table", base, "the signature is not \"metadata\""));
    }
    let count = header.count.get();
    if count > MAX_METADATA {
        return Err(Fault::invalid(
            "metadata table",
            base,
            format!("{count} entries, at most {MAX_METADATA}"),
        ));
    }
    <[MetadataEntry]>::ref_from_prefix_with_elems(rest, usize::from(count))
        .map(|(entries, _)| entries.to_vec())
        .map_err(|_| Fault::Truncated { what: "the metadata table", offset: base })
}

/// File offset of entry `index`.
pub(crate) fn entry_offset(region: Region, index: usize) -> u64 {
    region.offset + size_of::<MetadataTableHeader>() as u64 + index as u64 * size_of::<MetadataEntry>() as u64
}

/// An item's bytes and where they are.
fn item(
    storage: &dyn Storage,
    region: Region,
    entry: &MetadataEntry,
    at: u64,
    max: u32,
) -> Result<(Vec<u8>, u64), Fault> {
    let (start, length) = (entry.offset.get(), entry.length.get());
    if length > max {
        return Err(Fault::invalid(
            "metadata entry",
            at,
            format!("the item has {length} bytes, at most {max}"),
        ));
    }
    let inside = start.checked_add(length).is_some_and(|end| end <= region.length);
    if !inside || (start as usize) < METADATA_TABLE_LENGTH {
        return Err(Fault::invalid("metadata entry", at, format!("an item of {length} bytes at {start}")));
    }
    let offset = region.offset + u64::from(start);
    let mut bytes = vec![0; length as usize];
    storage.read_at(&mut bytes, offset).map_err(|source| Fault::io("a metadata item", offset, source))?;
    Ok((bytes, offset))
}

fn fixed<const N: usize>(bytes: &[u8], what: &'static str, offset: u64) -> Result<[u8; N], Fault> {
    bytes
        .try_into()
        .map_err(|_| Fault::invalid(what, offset, format!("{} bytes instead of {N}", bytes.len())))
}

/// Reads and judges everything.
pub(crate) fn read(storage: &dyn Storage, region: Region) -> Result<Metadata, Fault> {
    let mut parameters = None;
    let mut virtual_size = None;
    let mut disk_id = None;
    let mut logical = None;
    let mut physical = None;
    let mut parent = None;
    for (index, entry) in entries(storage, region)?.iter().enumerate() {
        let at = entry_offset(region, index);
        let flags = entry.flags.get();
        let known = [
            ITEM_FILE_PARAMETERS,
            ITEM_VIRTUAL_SIZE,
            ITEM_DISK_ID,
            ITEM_LOGICAL_SECTOR,
            ITEM_PHYSICAL_SECTOR,
            ITEM_PARENT_LOCATOR,
        ]
        .contains(&entry.id);
        if flags & metadata_flag::USER != 0 || !known {
            if flags & metadata_flag::REQUIRED != 0 {
                let problem = format!("unknown required item {}", entry.id.to_uuid());
                return Err(Fault::unsupported("metadata entry", at, problem));
            }
            continue;
        }
        let (bytes, offset) = item(storage, region, entry, at, MAX_LOCATOR_LENGTH)?;
        let again = match entry.id {
            ITEM_FILE_PARAMETERS => parameters
                .replace((u64::from_le_bytes(fixed(&bytes, "file parameters", offset)?), offset))
                .is_some(),
            ITEM_VIRTUAL_SIZE => virtual_size
                .replace((u64::from_le_bytes(fixed(&bytes, "virtual disk size", offset)?), offset))
                .is_some(),
            ITEM_DISK_ID => disk_id.replace(Uuid::from_bytes_le(fixed(&bytes, "disk id", offset)?)).is_some(),
            ITEM_LOGICAL_SECTOR => logical
                .replace((u32::from_le_bytes(fixed(&bytes, "logical sector size", offset)?), offset))
                .is_some(),
            ITEM_PHYSICAL_SECTOR => physical
                .replace((u32::from_le_bytes(fixed(&bytes, "physical sector size", offset)?), offset))
                .is_some(),
            _ => parent.replace((bytes, offset)).is_some(),
        };
        if again {
            return Err(Fault::invalid("metadata entry", at, "the item is listed twice"));
        }
    }

    let missing = |what: &str| Fault::invalid("metadata table", region.offset, format!("no {what}"));
    let (parameters, parameters_at) = parameters.ok_or_else(|| missing("file parameters"))?;
    let (virtual_size, size_at) = virtual_size.ok_or_else(|| missing("virtual disk size"))?;
    let disk_id = disk_id.ok_or_else(|| missing("disk id (page 83 data)"))?;
    let (logical, logical_at) = logical.ok_or_else(|| missing("logical sector size"))?;
    // Some makers leave it out; it is advice to the guest, not layout.
    let (physical, physical_at) = physical.unwrap_or((4096, 0));

    let block_size = (parameters & 0xffff_ffff) as u32;
    let flags = (parameters >> 32) as u32;
    if !BLOCK_SIZES.contains(&block_size) || !block_size.is_power_of_two() {
        let problem = format!("block size {block_size} is not a power of two from 1 to 256 MiB");
        return Err(Fault::invalid("file parameters", parameters_at, problem));
    }
    for (size, at, what) in
        [(logical, logical_at, "logical sector size"), (physical, physical_at, "physical sector size")]
    {
        if size != 512 && size != 4096 {
            return Err(Fault::invalid(what, at, format!("{size} is neither 512 nor 4096")));
        }
    }
    if virtual_size > MAX_VHDX_SIZE {
        return Err(Fault::invalid(
            "virtual disk size",
            size_at,
            format!("{virtual_size} is more than 64 TiB"),
        ));
    }
    if virtual_size % u64::from(logical) != 0 {
        let problem = format!("{virtual_size} is no multiple of the logical sector size {logical}");
        return Err(Fault::invalid("virtual disk size", size_at, problem));
    }
    let kind = if flags & file_parameter::HAS_PARENT != 0 {
        DiskKind::Differencing
    } else if flags & file_parameter::LEAVE_ALLOCATED != 0 {
        DiskKind::Fixed
    } else {
        DiskKind::Dynamic
    };
    let parent = match (kind, parent) {
        (DiskKind::Differencing, Some((bytes, offset))) => {
            Some(locator::parse(&bytes, offset)?.parent(offset)?)
        }
        (DiskKind::Differencing, None) => return Err(missing("parent locator, but the disk has a parent")),
        _ => None,
    };
    Ok(Metadata {
        kind,
        block_size,
        virtual_size,
        logical_sector_size: logical,
        physical_sector_size: physical,
        disk_id,
        parent,
    })
}

/// The first bytes of a metadata region (table and items) of a disk without parent.
pub(crate) fn encode(metadata: &Metadata) -> Vec<u8> {
    let flags = match metadata.kind {
        DiskKind::Fixed => file_parameter::LEAVE_ALLOCATED,
        DiskKind::Dynamic => 0,
        DiskKind::Differencing => file_parameter::HAS_PARENT,
    };
    let disk = metadata_flag::REQUIRED | metadata_flag::VIRTUAL_DISK;
    let parameters = u64::from(metadata.block_size) | u64::from(flags) << 32;
    // Items and their order as Windows writes them.
    let items: [(Guid, u32, Vec<u8>); 5] = [
        (ITEM_FILE_PARAMETERS, metadata_flag::REQUIRED, parameters.to_le_bytes().to_vec()),
        (ITEM_VIRTUAL_SIZE, disk, metadata.virtual_size.to_le_bytes().to_vec()),
        (ITEM_LOGICAL_SECTOR, disk, metadata.logical_sector_size.to_le_bytes().to_vec()),
        (ITEM_PHYSICAL_SECTOR, disk, metadata.physical_sector_size.to_le_bytes().to_vec()),
        (ITEM_DISK_ID, disk, metadata.disk_id.to_bytes_le().to_vec()),
    ];
    let header = MetadataTableHeader {
        signature: METADATA_SIGNATURE,
        reserved: 0.into(),
        count: (items.len() as u16).into(),
        reserved2: [0.into(); 5],
    };
    let mut table = header.as_bytes().to_vec();
    let mut data = Vec::new();
    for (id, flags, bytes) in items {
        let entry = MetadataEntry {
            id,
            offset: ((METADATA_TABLE_LENGTH + data.len()) as u32).into(),
            length: (bytes.len() as u32).into(),
            flags: flags.into(),
            reserved: 0.into(),
        };
        table.extend_from_slice(entry.as_bytes());
        data.extend_from_slice(&bytes);
    }
    table.resize(METADATA_TABLE_LENGTH, 0);
    table.extend_from_slice(&data);
    table
}

/// Length of the metadata region we make, as Windows does.
pub(crate) const REGION_LENGTH: u32 = MIB as u32;

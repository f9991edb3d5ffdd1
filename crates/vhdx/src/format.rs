//! The VHDX structures as they lie in the file: layout, constants and checksums, no meaning.
//!
//! Everything is little-endian and was checked against [MS-VHDX] and against files that Windows wrote. Types here are
//! untrusted: `header`, `region`, `metadata`, `bat` and `log` turn them into values whose numbers have been bounded.
//! Reader, checker and writer share these definitions.

use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A GUID in Microsoft's mixed-endian byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub(crate) struct Guid([u8; 16]);

impl Guid {
    /// All zero: "none".
    pub(crate) const NIL: Self = Self([0; 16]);

    pub(crate) const fn from_uuid(id: Uuid) -> Self {
        Self(id.to_bytes_le())
    }

    pub(crate) const fn to_uuid(self) -> Uuid {
        Uuid::from_bytes_le(self.0)
    }
}

const fn guid(text: &'static str) -> Guid {
    match Uuid::try_parse(text) {
        Ok(id) => Guid::from_uuid(id),
        // Evaluated at compile time only: a typo below does not build.
        #[expect(clippy::panic, reason = "constant evaluation: never reached at run time")]
        Err(_) => panic!("not a GUID"),
    }
}

/// Where the fixed structures lie ([MS-VHDX] 2.2).
pub(crate) mod place {
    /// File type identifier.
    pub(crate) const IDENTIFIER: u64 = 0;
    /// The two headers.
    pub(crate) const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
    /// The two region tables.
    pub(crate) const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
    /// End of the header section: regions, log and blocks start at or after it.
    pub(crate) const HEADER_SECTION_END: u64 = 1 << 20;
}

/// File type identifier, at offset 0.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct FileIdentifier {
    /// `vhdxfile`.
    pub(crate) signature: [u8; 8],
    /// UTF-16LE, ended by NUL when shorter.
    pub(crate) creator: [U16; 256],
}
const _: () = assert!(size_of::<FileIdentifier>() == 520);

/// Signature of [`FileIdentifier`].
pub(crate) const IDENTIFIER_SIGNATURE: [u8; 8] = *b"vhdxfile";

/// Header ([MS-VHDX] 2.2.2); the structure proper, the rest of its 4 KiB is reserved and part of the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    /// `head`.
    pub(crate) signature: [u8; 4],
    /// CRC-32C over 4 KiB with this field zero.
    pub(crate) checksum: U32,
    /// The valid header with the greater number is current.
    pub(crate) sequence: U64,
    /// Changes at the first modification after an open.
    pub(crate) file_write: Guid,
    /// Changes with the first change of visible content.
    pub(crate) data_write: Guid,
    /// Which log entries count; zero: the log is empty.
    pub(crate) log: Guid,
    /// 0.
    pub(crate) log_version: U16,
    /// 1.
    pub(crate) version: U16,
    /// Bytes, a multiple of 1 MiB.
    pub(crate) log_length: U32,
    /// File offset, a multiple of 1 MiB.
    pub(crate) log_offset: U64,
}
const _: () = assert!(size_of::<RawHeader>() == 80);

/// Bytes of a header with its reserved tail.
pub(crate) const HEADER_LENGTH: usize = 4096;
/// Signature of [`RawHeader`].
pub(crate) const HEADER_SIGNATURE: [u8; 4] = *b"head";
/// The only format version.
pub(crate) const VERSION: u16 = 1;
/// The only log version.
pub(crate) const LOG_VERSION: u16 = 0;

/// Start of a region table ([MS-VHDX] 2.2.3).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RegionTableHeader {
    /// `regi`.
    pub(crate) signature: [u8; 4],
    /// CRC-32C over 64 KiB with this field zero.
    pub(crate) checksum: U32,
    /// At most [`MAX_REGIONS`].
    pub(crate) count: U32,
    /// 0.
    pub(crate) reserved: U32,
}
const _: () = assert!(size_of::<RegionTableHeader>() == 16);

/// Entry of a region table.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RegionEntry {
    /// What kind of region.
    pub(crate) id: Guid,
    /// File offset, a multiple of 1 MiB.
    pub(crate) offset: U64,
    /// Bytes, a multiple of 1 MiB.
    pub(crate) length: U32,
    /// Bit 0: who does not know the region must not open the file.
    pub(crate) required: U32,
}
const _: () = assert!(size_of::<RegionEntry>() == 32);

/// Bytes of a region table.
pub(crate) const REGION_TABLE_LENGTH: usize = 64 << 10;
/// Signature of [`RegionTableHeader`].
pub(crate) const REGION_SIGNATURE: [u8; 4] = *b"regi";
/// Most entries a table holds.
pub(crate) const MAX_REGIONS: u32 = 2047;
/// The block allocation table.
pub(crate) const REGION_BAT: Guid = guid("2dc27766-f623-4200-9d64-115e9bfd4a08");
/// The metadata.
pub(crate) const REGION_METADATA: Guid = guid("8b7ca206-4790-4b9a-b8fe-575f050f886e");

/// Start of the metadata table ([MS-VHDX] 2.6.1).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MetadataTableHeader {
    /// `metadata`.
    pub(crate) signature: [u8; 8],
    /// 0.
    pub(crate) reserved: U16,
    /// At most [`MAX_METADATA`].
    pub(crate) count: U16,
    /// 0.
    pub(crate) reserved2: [U32; 5],
}
const _: () = assert!(size_of::<MetadataTableHeader>() == 32);

/// Entry of the metadata table.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MetadataEntry {
    /// Which item.
    pub(crate) id: Guid,
    /// From the region's start, at least 64 KiB; 0 when the item is empty.
    pub(crate) offset: U32,
    /// Bytes.
    pub(crate) length: U32,
    /// `FLAG_*` of [`metadata_flag`].
    pub(crate) flags: U32,
    /// 0.
    pub(crate) reserved: U32,
}
const _: () = assert!(size_of::<MetadataEntry>() == 32);

/// Bits of [`MetadataEntry::flags`].
pub(crate) mod metadata_flag {
    /// A user's item, not the format's.
    pub(crate) const USER: u32 = 1;
    /// Describes the virtual disk, not the file.
    pub(crate) const VIRTUAL_DISK: u32 = 2;
    /// Who does not know the item must not open the file.
    pub(crate) const REQUIRED: u32 = 4;
}

/// Bytes of the metadata table, before the items.
pub(crate) const METADATA_TABLE_LENGTH: usize = 64 << 10;
/// Signature of [`MetadataTableHeader`].
pub(crate) const METADATA_SIGNATURE: [u8; 8] = *b"metadata";
/// Most entries the table holds.
pub(crate) const MAX_METADATA: u16 = 2047;
/// u32 block size, u32 flags ([`file_parameter`]).
pub(crate) const ITEM_FILE_PARAMETERS: Guid = guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
/// u64 bytes.
pub(crate) const ITEM_VIRTUAL_SIZE: Guid = guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
/// GUID.
pub(crate) const ITEM_DISK_ID: Guid = guid("beca12ab-b2e6-4523-93ef-c309e000c746");
/// u32, 512 or 4096.
pub(crate) const ITEM_LOGICAL_SECTOR: Guid = guid("8141bf1d-a96f-4709-ba47-f233a8faab5f");
/// u32, 512 or 4096.
pub(crate) const ITEM_PHYSICAL_SECTOR: Guid = guid("cda348c7-445d-4471-9cc9-e9885251c556");
/// [`LocatorHeader`] and what follows.
pub(crate) const ITEM_PARENT_LOCATOR: Guid = guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c");

/// Bits of the file parameters' flags.
pub(crate) mod file_parameter {
    /// Blocks stay allocated: a fixed disk.
    pub(crate) const LEAVE_ALLOCATED: u32 = 1;
    /// A differencing disk.
    pub(crate) const HAS_PARENT: u32 = 2;
}

/// Start of the parent locator item ([MS-VHDX] 2.6.2.6).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LocatorHeader {
    /// [`LOCATOR_VHDX`].
    pub(crate) kind: Guid,
    /// 0.
    pub(crate) reserved: U16,
    /// Entries that follow.
    pub(crate) count: U16,
}
const _: () = assert!(size_of::<LocatorHeader>() == 20);

/// Entry of the parent locator; offsets from the item's start, lengths in bytes, text UTF-16LE without NUL.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LocatorEntry {
    /// Where the key is.
    pub(crate) key_offset: U32,
    /// Where the value is.
    pub(crate) value_offset: U32,
    /// Bytes of the key.
    pub(crate) key_length: U16,
    /// Bytes of the value.
    pub(crate) value_length: U16,
}
const _: () = assert!(size_of::<LocatorEntry>() == 12);

/// The only locator type defined.
pub(crate) const LOCATOR_VHDX: Guid = guid("b04aefb7-d19e-4a81-b789-25b8e9445913");

/// Unit of the log and of what it records.
pub(crate) const LOG_SECTOR: u64 = 4096;

/// Start of a log entry ([MS-VHDX] 2.3.1.1).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LogEntryHeader {
    /// `loge`.
    pub(crate) signature: [u8; 4],
    /// CRC-32C over the whole entry with this field zero.
    pub(crate) checksum: U32,
    /// Bytes of the entry, a multiple of 4 KiB.
    pub(crate) length: U32,
    /// Offset in the log of the oldest entry still needed, a multiple of 4 KiB.
    pub(crate) tail: U32,
    /// Greater than 0, one more than the entry before.
    pub(crate) sequence: U64,
    /// Descriptors that follow.
    pub(crate) descriptors: U32,
    /// 0.
    pub(crate) reserved: U32,
    /// The header's log GUID when the entry was written.
    pub(crate) log: Guid,
    /// The file was at least this long, durably, when the entry was written.
    pub(crate) flushed_offset: U64,
    /// The file must be at least this long after replay.
    pub(crate) last_offset: U64,
}
const _: () = assert!(size_of::<LogEntryHeader>() == 64);

/// Signature of [`LogEntryHeader`].
pub(crate) const LOG_SIGNATURE: [u8; 4] = *b"loge";

/// A descriptor: `desc` (one sector of data) or `zero` (a range of zeros), 32 bytes each.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LogDescriptor {
    /// `desc` or `zero`.
    pub(crate) signature: [u8; 4],
    /// `desc`: the last four bytes of the sector. `zero`: reserved.
    pub(crate) trailing: [u8; 4],
    /// `desc`: the first eight bytes of the sector. `zero`: u64 length, a multiple of 4 KiB.
    pub(crate) leading: [u8; 8],
    /// File offset to write to, a multiple of 4 KiB.
    pub(crate) offset: U64,
    /// The entry's sequence number.
    pub(crate) sequence: U64,
}
const _: () = assert!(size_of::<LogDescriptor>() == 32);

/// Signature of a data descriptor.
pub(crate) const DESCRIPTOR_DATA: [u8; 4] = *b"desc";
/// Signature of a zero descriptor.
pub(crate) const DESCRIPTOR_ZERO: [u8; 4] = *b"zero";
/// Signature of a data sector: then u32 high half of the sequence, 4084 bytes, u32 low half.
pub(crate) const DATA_SECTOR: [u8; 4] = *b"data";

/// CRC-32C of a structure whose own checksum lies at bytes 4..8, counted as zero.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let (head, rest) = bytes.split_at(bytes.len().min(4));
    let crc = crc32c::crc32c_append(crc32c::crc32c(head), &[0; 4]);
    crc32c::crc32c_append(crc, rest.get(4..).unwrap_or_default())
}

/// Writes the checksum into bytes 4..8.
pub(crate) fn seal(bytes: &mut [u8]) {
    let crc = checksum(bytes);
    if let Some(field) = bytes.get_mut(4..8) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

/// The checksum that stands in bytes 4..8.
pub(crate) fn stored_checksum(bytes: &[u8]) -> u32 {
    bytes.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

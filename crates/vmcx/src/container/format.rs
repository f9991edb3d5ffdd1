//! The container on disk: constants and structures, one telling for reader and writer.
//!
//! Little-endian and packed. Checksums are CRC-32 (IEEE 802.3, as in zlib) over a structure whose checksum field reads
//! zero. Facts: `docs/formats/vmcx.md`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Signature of [`FileHeader`].
pub(crate) const HEADER_SIGNATURE: u32 = 0x0128_2014;
/// Offsets of the two header copies.
pub(crate) const HEADER_OFFSETS: [u64; 2] = [0, 4096];
/// The only layout known: version 4.0.
pub(crate) const FORMAT_VERSION: u32 = 0x0400;
/// Least alignment of objects, and the size of key tables.
pub(crate) const MIN_ALIGNMENT: u32 = 4096;
/// Greatest alignment of objects.
pub(crate) const MAX_ALIGNMENT: u32 = 65536;

/// Offset of the first object table.
pub(crate) const ROOT_TABLE: u64 = 8192;
/// Signature of [`ObjectTableHeader`].
pub(crate) const OBJECT_TABLE_SIGNATURE: u32 = 0x0111_0001;
/// Entries of an object table of 4096 bytes.
pub(crate) const OBJECT_TABLE_ENTRIES: usize =
    (4096 - size_of::<ObjectTableHeader>()) / size_of::<ObjectEntry>();

/// Kinds of objects, [`ObjectEntry::kind`].
pub(crate) mod object {
    pub(crate) const EMPTY: u8 = 0;
    pub(crate) const OBJECT_TABLE: u8 = 1;
    pub(crate) const KEY_TABLE: u8 = 2;
    pub(crate) const FILE: u8 = 3;
    pub(crate) const FREE: u8 = 4;
}
/// [`ObjectEntry::flags`] of an object in use or free; empty entries have 0.
pub(crate) const OBJECT_ALLOCATED: u8 = 1;

/// Signature of [`LogHeader`].
pub(crate) const LOG_SIGNATURE: u32 = 0x0111_0003;
/// Room for the log header and its entries.
pub(crate) const LOG_HEADER_SIZE: u32 = 4096;
/// Entries that fit it.
pub(crate) const LOG_ENTRIES: usize =
    (LOG_HEADER_SIZE as usize - size_of::<LogHeader>()) / size_of::<LogEntry>();

/// Signature of [`KeyTableHeader`].
pub(crate) const KEY_TABLE_SIGNATURE: u16 = 2;
/// Values of this many bytes and more go to file objects.
pub(crate) const FILE_OBJECT_FROM: usize = 2048;
/// Bytes that Hyper-V leaves free behind a leaf's data: room to turn it into a [`FilePointer`].
pub(crate) const LEAF_SLACK: usize = size_of::<FilePointer>();

/// Types of key entries, [`KeyHeader::kind`].
pub(crate) mod key {
    pub(crate) const FREE: u8 = 1;
    pub(crate) const INT: u8 = 3;
    pub(crate) const UINT: u8 = 4;
    pub(crate) const DOUBLE: u8 = 5;
    pub(crate) const STRING: u8 = 6;
    pub(crate) const ARRAY: u8 = 7;
    pub(crate) const BOOL: u8 = 8;
    pub(crate) const NODE: u8 = 9;
}

/// At [`HEADER_OFFSETS`]; the valid one with the higher sequence is current.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct FileHeader {
    pub(crate) signature: U32,
    pub(crate) checksum: U32,
    pub(crate) sequence: U16,
    pub(crate) format: U32,
    /// Zero in real files.
    pub(crate) data_version: U32,
    /// Zero in real files.
    pub(crate) flags: U32,
    pub(crate) alignment: U32,
    pub(crate) log_offset: U64,
    pub(crate) log_size: U64,
    pub(crate) log_header_size: U32,
}

/// Starts an object table; its entries follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ObjectTableHeader {
    pub(crate) signature: U32,
    pub(crate) count: U32,
}

/// One object. Empty entries carry a valid checksum too.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ObjectEntry {
    pub(crate) kind: u8,
    pub(crate) checksum: U32,
    pub(crate) offset: U64,
    pub(crate) size: U32,
    pub(crate) flags: u8,
}

/// Starts the replay log.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LogHeader {
    pub(crate) signature: U32,
    pub(crate) checksum: U32,
    /// Entries not yet applied to the file; zero in a file that was closed.
    pub(crate) pending: U32,
    pub(crate) reserved: u8,
    /// Entries that fit; a loader refuses zero.
    pub(crate) max_entries: U32,
    pub(crate) change_tracking: u8,
    pub(crate) change_buffer_offset: U64,
    pub(crate) change_buffer_size: U32,
    pub(crate) change_buffer_used: U32,
}

/// One pending write, in the order of fields that Hyper-V uses: shown by the entries left over in the logs of real
/// files, whose checksums verify in this order only.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LogEntry {
    /// Offset in the file.
    pub(crate) destination: U64,
    pub(crate) size: U32,
    /// Offset of the data from the start of the log.
    pub(crate) source: U64,
    /// Of this entry, [`LogEntry::data_checksum`] included.
    pub(crate) checksum: U32,
    pub(crate) data_checksum: U32,
}

/// The other order of fields that has been published; no real file is known to use it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LogEntryAlternative {
    pub(crate) checksum: U32,
    pub(crate) destination: U64,
    pub(crate) size: U32,
    pub(crate) source: U64,
    pub(crate) data_checksum: U32,
}

/// Starts a key table; key entries fill the rest exactly.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct KeyTableHeader {
    pub(crate) signature: U16,
    /// From 1; of several tables with one index the highest sequence is current.
    pub(crate) index: U16,
    pub(crate) sequence: U16,
    /// Of these ten bytes only.
    pub(crate) checksum: U32,
}

/// Starts a key entry; name, NUL, data and slack follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct KeyHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// Of the whole entry, slack included.
    pub(crate) size: U32,
    /// Index of the parent's key table; 0 with offset 0 is the virtual root.
    pub(crate) parent_table: U16,
    /// Offset of the parent in that table, from the table's start.
    pub(crate) parent_offset: U32,
    /// Of header, name and data, without slack.
    pub(crate) checksum: U32,
    /// Order among siblings, from 1.
    pub(crate) insertion: U32,
    /// Length of the name with its NUL.
    pub(crate) name_length: u8,
}

/// Data of a node.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct NodeData {
    /// Zero in every real file seen.
    pub(crate) change_sequence: U64,
    /// Highest insertion sequence of the children + 1; zero when there are none.
    pub(crate) next_insertion: U32,
}

/// Data of an entry whose value lies in a file object.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct FilePointer {
    pub(crate) size: U32,
    pub(crate) offset: U64,
}

const _: () = assert!(size_of::<FileHeader>() == 46);
const _: () = assert!(size_of::<ObjectEntry>() == 18 && OBJECT_TABLE_ENTRIES == 227);
const _: () = assert!(size_of::<LogHeader>() == 34 && size_of::<LogEntry>() == 28 && LOG_ENTRIES == 145);
const _: () = assert!(size_of::<LogEntryAlternative>() == size_of::<LogEntry>());
const _: () = assert!(size_of::<KeyTableHeader>() == 10 && size_of::<KeyHeader>() == 21);
const _: () = assert!(size_of::<NodeData>() == 12 && size_of::<FilePointer>() == 12);

/// A structure that carries its own checksum.
pub(crate) trait Checksummed: IntoBytes + Immutable + Copy {
    fn stored(&self) -> u32;
    fn store(&mut self, checksum: u32);

    /// The checksum of this structure alone.
    fn computed(&self) -> u32 {
        self.hasher().finalize()
    }

    /// A hasher fed with this structure, for checksums that go on over what follows it.
    fn hasher(&self) -> crc32fast::Hasher {
        let mut zeroed = *self;
        zeroed.store(0);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(zeroed.as_bytes());
        hasher
    }

    /// This structure with its own checksum filled in.
    fn sealed(mut self) -> Self {
        let checksum = self.computed();
        self.store(checksum);
        self
    }
}

macro_rules! checksummed {
    ($($name:ident),*) => {
        $(impl Checksummed for $name {
            fn stored(&self) -> u32 {
                self.checksum.get()
            }
            fn store(&mut self, checksum: u32) {
                self.checksum = checksum.into();
            }
        })*
    };
}
checksummed!(FileHeader, ObjectEntry, LogHeader, LogEntry, LogEntryAlternative, KeyTableHeader, KeyHeader);

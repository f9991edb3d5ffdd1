//! The header of dynamic and differencing disks: where the table is, how large a block is, who the parent is.
//!
//! Text in it is a hostile file's: it is decoded and bounded here, and never a path to open as it stands.

use uuid::Uuid;
use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::footer::{Footer, SECTOR, VERSION, checksum};
use crate::error::Fault;
use crate::info::{DiskKind, ParentRef};
use crate::storage::Storage;

/// Bytes of a header.
pub(super) const LENGTH: usize = 1024;
/// First bytes of every header.
pub(super) const COOKIE: [u8; 8] = *b"cxsparse";
/// Largest block believed, 256 MiB. Windows makes 512 KiB and 2 MiB.
pub(super) const MAX_BLOCK: u32 = 256 << 20;
/// Longest path believed, in bytes of UTF-16: Windows' own limit is 32767 units.
pub(super) const MAX_PATH: u32 = 64 << 10;
/// Name of the structure in messages.
pub(super) const WHAT: &str = "the dynamic disk header";

/// One of eight places where the parent's path may be, as it lies in the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawLocator {
    pub(super) code: [u8; 4],
    /// Room for the text; some writers count sectors here, others bytes. Not used.
    pub(super) space: U32,
    /// Bytes of text.
    pub(super) length: U32,
    pub(super) reserved: U32,
    /// Where the text is.
    pub(super) offset: U64,
}

/// The header as it lies in the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) cookie: [u8; 8],
    pub(super) data_offset: U64,
    pub(super) table_offset: U64,
    pub(super) version: U32,
    pub(super) entries: U32,
    pub(super) block_size: U32,
    pub(super) checksum: U32,
    pub(super) parent_id: [u8; 16],
    pub(super) parent_time: U32,
    pub(super) reserved: U32,
    /// UTF-16, big-endian as everything else.
    pub(super) parent_name: [u8; 512],
    pub(super) locators: [RawLocator; 8],
    pub(super) reserved_end: [u8; 256],
}

const _: () = assert!(size_of::<RawHeader>() == LENGTH);

impl RawHeader {
    pub(super) fn right_checksum(&self) -> u32 {
        checksum(self.as_bytes(), std::mem::offset_of!(Self, checksum))
    }

    /// A header of ours, of a disk without a parent.
    pub(super) fn new(table_offset: u64, entries: u32, block_size: u32) -> Self {
        let locator = RawLocator {
            code: [0; 4],
            space: 0.into(),
            length: 0.into(),
            reserved: 0.into(),
            offset: 0.into(),
        };
        let mut header = Self {
            cookie: COOKIE,
            data_offset: u64::MAX.into(),
            table_offset: table_offset.into(),
            version: VERSION.into(),
            entries: entries.into(),
            block_size: block_size.into(),
            checksum: 0.into(),
            parent_id: [0; 16],
            parent_time: 0.into(),
            reserved: 0.into(),
            parent_name: [0; 512],
            locators: [locator; 8],
            reserved_end: [0; 256],
        };
        header.checksum = header.right_checksum().into();
        header
    }

    /// The header at `offset`, not judged yet.
    pub(super) fn read(storage: &dyn Storage, offset: u64) -> Result<Self, Fault> {
        let mut bytes = [0; LENGTH];
        storage.read_at(&mut bytes, offset).map_err(|source| Fault::io(WHAT, offset, source))?;
        Ok(zerocopy::transmute!(bytes))
    }
}

/// A header whose numbers can be used.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) table_offset: u64,
    /// A power of two from one sector to [`MAX_BLOCK`].
    pub(super) block_size: u32,
    pub(super) parent: Option<ParentRef>,
}

impl Header {
    /// Reads and judges the header that `footer` leads to.
    pub(super) fn open(
        storage: &dyn Storage,
        len: u64,
        footer: &Footer,
        lenient: bool,
        tolerated: &mut Vec<String>,
    ) -> Result<Self, Fault> {
        let offset = footer.data_offset;
        if offset.checked_add(LENGTH as u64).is_none_or(|end| end > len) {
            return Err(Fault::Truncated { what: WHAT, offset });
        }
        let raw = RawHeader::read(storage, offset)?;
        if raw.cookie != COOKIE {
            return Err(Fault::invalid(WHAT, offset, "the signature \"cxsparse\" is missing"));
        }
        let (right, stored) = (raw.right_checksum(), raw.checksum.get());
        if right != stored {
            if !lenient {
                return Err(Fault::Checksum { what: WHAT, offset });
            }
            tolerated.push(format!(
                "wrong checksum of {WHAT} at offset {offset}: {stored:#010x} instead of {right:#010x}"
            ));
        }
        let version = raw.version.get();
        if version >> 16 != VERSION >> 16 {
            return Err(Fault::unsupported(WHAT, offset, format!("format version {version:#010x}")));
        }
        let block_size = raw.block_size.get();
        if !block_size.is_power_of_two() || u64::from(block_size) < SECTOR || block_size > MAX_BLOCK {
            let problem = format!("block size {block_size} is no power of two from {SECTOR} to {MAX_BLOCK}");
            return Err(Fault::invalid(WHAT, offset, problem));
        }
        let (entries, table_offset) = (raw.entries.get(), raw.table_offset.get());
        let needed = footer.size.div_ceil(block_size.into());
        if u64::from(entries) < needed {
            let problem = format!("{entries} table entries, the disk needs {needed}");
            return Err(Fault::invalid(WHAT, offset, problem));
        }
        let what = "the block allocation table";
        match needed.checked_mul(4).and_then(|length| table_offset.checked_add(length)) {
            Some(end) if end <= len => {}
            _ => return Err(Fault::Truncated { what, offset: table_offset }),
        }
        let parent = match footer.kind {
            DiskKind::Differencing => Some(parent(storage, len, &raw, offset, lenient, tolerated)?),
            _ => None,
        };
        Ok(Self { table_offset, block_size, parent })
    }
}

/// What the header says about the parent: Windows' own locators first, then those of older systems, then the name.
fn parent(
    storage: &dyn Storage,
    len: u64,
    raw: &RawHeader,
    header_offset: u64,
    lenient: bool,
    tolerated: &mut Vec<String>,
) -> Result<ParentRef, Fault> {
    let (mut paths, mut older) = (Vec::new(), Vec::new());
    for locator in &raw.locators {
        let (key, decode): (&str, fn(&[u8]) -> String) = match &locator.code {
            b"W2ru" => ("relative_path", utf16_le),
            b"W2ku" => ("absolute_win32_path", utf16_le),
            // The forms that the specification calls deprecated: the system's 8-bit code page, which nobody recorded.
            b"Wi2r" => ("relative_path", latin1),
            b"Wi2k" => ("absolute_win32_path", latin1),
            b"MacX" => ("file_url", |bytes| String::from_utf8_lossy(bytes).into_owned()),
            // "Mac " is an alias record of a system that no longer is, 0 is none; others nobody knows.
            _ => continue,
        };
        let (offset, length) = (locator.offset.get(), locator.length.get());
        let problem = if length > MAX_PATH {
            Some(format!("a path of {length} bytes, longer than {MAX_PATH}"))
        } else if offset.checked_add(length.into()).is_none_or(|end| end > len) {
            Some(format!("a path of {length} bytes at offset {offset}, behind the end of the file"))
        } else {
            None
        };
        if let Some(problem) = problem {
            let code = String::from_utf8_lossy(&locator.code);
            if !lenient {
                return Err(Fault::invalid(
                    "the parent locator",
                    header_offset,
                    format!("{code}: {problem}"),
                ));
            }
            tolerated.push(format!("parent locator {code}: {problem}"));
            continue;
        }
        let mut bytes = vec![0; length as usize];
        storage
            .read_at(&mut bytes, offset)
            .map_err(|source| Fault::io("the parent locator", offset, source))?;
        let text = decode(&bytes);
        if !text.is_empty() {
            let list = if locator.code.starts_with(b"W2") { &mut paths } else { &mut older };
            list.push((key.to_owned(), text));
        }
    }
    paths.append(&mut older);
    let name = utf16_be(&raw.parent_name);
    if !name.is_empty() {
        paths.push(("parent_name".to_owned(), name));
    }
    Ok(ParentRef { linkage: Uuid::from_bytes(raw.parent_id), linkage2: None, paths })
}

fn utf16(units: impl Iterator<Item = u16>) -> String {
    char::decode_utf16(units.take_while(|&unit| unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

fn utf16_le(bytes: &[u8]) -> String {
    utf16(bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair)))
}

fn utf16_be(bytes: &[u8]) -> String {
    utf16(bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair)))
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().take_while(|&&byte| byte != 0).map(|&byte| char::from(byte)).collect()
}

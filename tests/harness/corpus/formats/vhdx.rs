//! VHDX: headers, regions, metadata, table, locator and log, each field free.

use super::{guid, guid_text, utf16};
use crate::bundle::Sparse;

/// 1 MiB, to which everything is aligned.
pub const MIB: u64 = 1 << 20;
/// Where the log is.
pub const LOG: u64 = MIB;
/// Where the metadata is.
pub const METADATA: u64 = 2 * MIB;
/// Where the block allocation table is; blocks follow it.
pub const TABLE: u64 = 3 * MIB;
/// The headers.
pub const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
/// The region tables.
pub const REGIONS: [u64; 2] = [192 << 10, 256 << 10];

/// State of a block that is all here, and of one whose sector bitmap decides.
pub const FULL: u64 = 6;
/// See [`FULL`].
pub const PARTIAL: u64 = 7;

const FILE_PARAMETERS: &str = "caa16737fa364d43b3b633f0aa44e76b";
const VIRTUAL_SIZE: &str = "2fa54224cd1b4876b2115dbed83bf4b8";
const DISK_ID: &str = "beca12abb2e6452393efc309e000c746";
const LOGICAL_SECTOR: &str = "8141bf1da96f4709ba47f233a8faab5f";
const PHYSICAL_SECTOR: &str = "cda348c7445d44719cc9e9885251c556";
const PARENT_LOCATOR: &str = "a8d35f2db30b454dabf7d3d84834ab0c";
const LOCATOR_TYPE: &str = "b04aefb7d19e4a81b78925b8e9445913";
const REGION_BAT: &str = "2dc27766f62342009d64115e9bfd4a08";
const REGION_METADATA: &str = "8b7ca20647904b9ab8fe575f050f886e";

/// A GUID of the specification, as it lies in a file.
fn id(text: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..16).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("hexadecimal")).collect();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// Puts the CRC-32C of a structure into its second field.
pub fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let crc = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// A file to be.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of a block.
    pub block: u32,
    /// Bytes of a sector.
    pub sector: u32,
    /// 1: fixed; 2: has a parent.
    pub flags: u32,
    /// Number that the linkage of a child must name.
    pub identity: u32,
    /// The parent locator, where there is one.
    pub locator: Vec<(String, String)>,
    /// Entries of the table, by number.
    pub table: Vec<(u64, u64)>,
    /// Bytes of the file, with nothing in it, that blocks may be in.
    pub blocks: u64,
    /// The log is in use; its entries.
    pub log: Option<Vec<Vec<u8>>>,
}

impl Disk {
    /// A sound disk of 4 MiB with something in its first block.
    #[must_use]
    pub fn small() -> Self {
        Self {
            size: 4 * MIB,
            block: 1 << 20,
            sector: 512,
            flags: 0,
            identity: 1,
            locator: Vec::new(),
            table: vec![(0, FULL | (TABLE + MIB))],
            blocks: MIB,
            log: None,
        }
    }

    /// A child of the disk `parent`, whose relative path is this one, with nothing in it.
    #[must_use]
    pub fn child(identity: u32, parent: u32, path: &str) -> Self {
        let name = path.rsplit('\\').next().unwrap_or(path);
        let pair = |key: &str, value: String| (key.to_owned(), value);
        Self {
            flags: 2,
            identity,
            locator: vec![
                pair("parent_linkage", guid_text(parent)),
                pair("relative_path", path.to_owned()),
                pair("absolute_win32_path", format!(r"C:\VMs\{name}")),
            ],
            table: Vec::new(),
            blocks: 0,
            ..Self::small()
        }
    }

    /// Bytes of the region that the table lies in.
    #[must_use]
    pub fn table_length(&self) -> u64 {
        let ratio = (1 << 23) * u64::from(self.sector) / u64::from(self.block).max(1);
        let blocks = self.size.div_ceil(u64::from(self.block).max(1)).min(1 << 27);
        ((blocks + blocks / ratio.max(1) + 1) * 8).next_multiple_of(MIB)
    }

    /// The file.
    #[must_use]
    pub fn build(&self) -> Sparse {
        let blocks = TABLE + self.table_length();
        let mut file = Sparse::new(blocks + self.blocks);
        file.put(0, b"vhdxfile");
        file.put(8, &utf16("hostile"));
        for (at, sequence) in HEADERS.into_iter().zip([1, 2]) {
            file.put(at, &self.header(sequence));
        }
        for at in REGIONS {
            file.put(
                at,
                &regions(&[(REGION_BAT, TABLE, self.table_length()), (REGION_METADATA, METADATA, MIB)]),
            );
        }
        file.put(METADATA, &self.metadata());
        for (number, entry) in &self.table {
            file.put(TABLE + number * 8, &entry.to_le_bytes());
        }
        if self.blocks >= 512 {
            file.put(blocks, b"what the guest sees");
        }
        let mut at = LOG;
        for entry in self.log.iter().flatten() {
            file.put(at, entry);
            at += entry.len() as u64;
        }
        file
    }

    fn header(&self, sequence: u64) -> Vec<u8> {
        let mut out = b"head\0\0\0\0".to_vec();
        out.extend(sequence.to_le_bytes());
        out.extend(guid(2));
        out.extend(guid(self.identity));
        out.extend(if self.log.is_some() { guid(3) } else { [0; 16] });
        out.extend([0, 0, 1, 0]);
        out.extend((MIB as u32).to_le_bytes());
        out.extend(LOG.to_le_bytes());
        out.resize(4096, 0);
        seal(&mut out);
        out
    }

    fn metadata(&self) -> Vec<u8> {
        let mut items = vec![
            (FILE_PARAMETERS, 4, [self.block.to_le_bytes(), self.flags.to_le_bytes()].concat()),
            (VIRTUAL_SIZE, 6, self.size.to_le_bytes().to_vec()),
            (LOGICAL_SECTOR, 6, self.sector.to_le_bytes().to_vec()),
            (PHYSICAL_SECTOR, 6, 4096_u32.to_le_bytes().to_vec()),
            (DISK_ID, 6, guid(4).to_vec()),
        ];
        if !self.locator.is_empty() {
            items.push((PARENT_LOCATOR, 4, self.locator()));
        }
        metadata(&items)
    }

    fn locator(&self) -> Vec<u8> {
        let mut out = id(LOCATOR_TYPE);
        out.extend([0; 2]);
        out.extend((self.locator.len() as u16).to_le_bytes());
        let mut text = Vec::new();
        let base = 20 + 12 * self.locator.len();
        for (key, value) in &self.locator {
            let (key, value) = (utf16(key), utf16(value));
            out.extend(((base + text.len()) as u32).to_le_bytes());
            out.extend(((base + text.len() + key.len()) as u32).to_le_bytes());
            out.extend((key.len() as u16).to_le_bytes());
            out.extend((value.len() as u16).to_le_bytes());
            text.extend(key);
            text.extend(value);
        }
        out.extend(text);
        out
    }
}

/// A region table: id, offset and length of each.
#[must_use]
pub fn regions(entries: &[(&str, u64, u64)]) -> Vec<u8> {
    let mut out = b"regi\0\0\0\0".to_vec();
    out.extend((entries.len() as u32).to_le_bytes());
    out.extend([0; 4]);
    for (region, offset, length) in entries {
        out.extend(id(region));
        out.extend(offset.to_le_bytes());
        out.extend((*length as u32).to_le_bytes());
        out.extend(1_u32.to_le_bytes());
    }
    out.resize(64 << 10, 0);
    seal(&mut out);
    out
}

/// The region table of a disk whose table and metadata are somewhere else.
#[must_use]
pub fn regions_at(table: (u64, u64), metadata: (u64, u64)) -> Vec<u8> {
    regions(&[(REGION_BAT, table.0, table.1), (REGION_METADATA, metadata.0, metadata.1)])
}

/// The metadata region: id, flags and bytes of each item.
fn metadata(items: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"metadata\0\0".to_vec();
    out.extend((items.len() as u16).to_le_bytes());
    out.resize(32, 0);
    let mut data: Vec<u8> = Vec::new();
    for (item, flags, bytes) in items {
        out.extend(id(item));
        out.extend(((64 << 10) + data.len() as u32).to_le_bytes());
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(flags.to_le_bytes());
        out.extend([0; 4]);
        data.extend(bytes);
    }
    out.resize(64 << 10, 0);
    out.extend(data);
    out
}

/// A log entry that begins at the start of the log: sectors of 4 KiB to write, and (offset, length) to zero.
#[must_use]
pub fn log_entry(sectors: &[(u64, [u8; 4096])], zeros: &[(u64, u64)], last: u64) -> Vec<u8> {
    let sequence = 1_u64;
    let count = sectors.len() + zeros.len();
    let table = (64 + 32 * count).next_multiple_of(4096);
    let mut out = b"loge\0\0\0\0".to_vec();
    out.extend(((table + 4096 * sectors.len()) as u32).to_le_bytes());
    out.extend([0; 4]);
    out.extend(sequence.to_le_bytes());
    out.extend((count as u32).to_le_bytes());
    out.extend([0; 4]);
    out.extend(guid(3));
    out.extend((4 * MIB).to_le_bytes());
    out.extend(last.to_le_bytes());
    for (offset, length) in zeros {
        out.extend(b"zero\0\0\0\0");
        out.extend(length.to_le_bytes());
        out.extend(offset.to_le_bytes());
        out.extend(sequence.to_le_bytes());
    }
    for (offset, bytes) in sectors {
        out.extend(b"desc");
        out.extend(&bytes[4092..]);
        out.extend(&bytes[..8]);
        out.extend(offset.to_le_bytes());
        out.extend(sequence.to_le_bytes());
    }
    out.resize(table, 0);
    for (_, bytes) in sectors {
        out.extend(b"data");
        out.extend(((sequence >> 32) as u32).to_le_bytes());
        out.extend(&bytes[8..4092]);
        out.extend((sequence as u32).to_le_bytes());
    }
    seal(&mut out);
    out
}

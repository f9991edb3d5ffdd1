//! VHD: footer, header, table and parent locators, each field free.

use super::{guid, utf16};
use crate::bundle::Sparse;

/// Where the header is.
pub const HEADER: u64 = 512;
/// Where the table is.
pub const TABLE: u64 = 1536;

/// A file to be.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of a block.
    pub block: u32,
    /// 2: fixed, 3: dynamic, 4: has a parent.
    pub kind: u32,
    /// Number that a child must name.
    pub identity: u32,
    /// Number of the parent.
    pub parent: u32,
    /// The parent's name in the header.
    pub parent_name: String,
    /// Locators: code and text.
    pub locators: Vec<(&'static [u8; 4], String)>,
    /// Entries of the table; the rest is absent, unless they are left out altogether.
    pub table: Option<Vec<u32>>,
    /// Entries that the header claims, if not as many as there are blocks.
    pub claimed: Option<u32>,
    /// Bytes for blocks behind the table.
    pub blocks: u64,
}

impl Disk {
    /// A sound dynamic disk of 4 MiB with nothing in it.
    #[must_use]
    pub fn small() -> Self {
        Self {
            size: 4 << 20,
            block: 2 << 20,
            kind: 3,
            identity: 1,
            parent: 0,
            parent_name: String::new(),
            locators: Vec::new(),
            table: Some(Vec::new()),
            claimed: None,
            blocks: 0,
        }
    }

    /// A child of the disk `parent`, which is at this relative path.
    #[must_use]
    pub fn child(identity: u32, parent: u32, path: &str) -> Self {
        let name = path.rsplit('\\').next().unwrap_or(path).to_owned();
        Self {
            kind: 4,
            identity,
            parent,
            locators: vec![(b"W2ru", path.to_owned()), (b"W2ku", format!(r"C:\VMs\{name}"))],
            parent_name: name,
            ..Self::small()
        }
    }

    /// The file.
    #[must_use]
    pub fn build(&self) -> Sparse {
        let entries = self.size.div_ceil(self.block.into());
        let table_end = (TABLE + entries * 4).next_multiple_of(512);
        let texts: Vec<Vec<u8>> = self.locators.iter().map(|(_, text)| utf16(text)).collect();
        let mut at = table_end;
        let mut places = Vec::new();
        for text in &texts {
            places.push(at);
            at = (at + text.len() as u64).next_multiple_of(512);
        }
        let end = at + self.blocks;
        let mut file = Sparse::new(end + 512);
        let footer = self.footer();
        file.put(0, &footer);
        file.put(HEADER, &self.header(&places, &texts));
        if let Some(table) = &self.table {
            let absent = vec![0xff; (entries * 4) as usize];
            file.put(TABLE, &absent);
            let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            file.put(TABLE, &bytes);
        }
        for (place, text) in places.iter().zip(&texts) {
            file.put(*place, text);
        }
        file.put(end, &footer);
        file
    }

    fn footer(&self) -> Vec<u8> {
        let mut out = b"conectix".to_vec();
        out.extend(2_u32.to_be_bytes());
        out.extend(0x0001_0000_u32.to_be_bytes());
        out.extend(if self.kind == 2 { u64::MAX } else { HEADER }.to_be_bytes());
        out.extend([0; 4]);
        out.extend(b"win \x00\x0a\x00\x00Wi2k");
        out.extend(self.size.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        out.extend([0, 120, 4, 17]);
        out.extend(self.kind.to_be_bytes());
        out.extend([0; 4]);
        out.extend(guid(self.identity));
        out.resize(512, 0);
        seal(&mut out, 64);
        out
    }

    fn header(&self, places: &[u64], texts: &[Vec<u8>]) -> Vec<u8> {
        let mut out = b"cxsparse".to_vec();
        out.extend(u64::MAX.to_be_bytes());
        out.extend(TABLE.to_be_bytes());
        out.extend(0x0001_0000_u32.to_be_bytes());
        let entries = self.size.div_ceil(self.block.into()) as u32;
        out.extend(self.claimed.unwrap_or(entries).to_be_bytes());
        out.extend(self.block.to_be_bytes());
        out.extend([0; 4]);
        out.extend(guid(self.parent));
        out.extend([0; 8]);
        let mut name: Vec<u8> = self.parent_name.encode_utf16().flat_map(u16::to_be_bytes).collect();
        name.resize(512, 0);
        out.extend(name);
        for (((code, _), place), text) in self.locators.iter().zip(places).zip(texts) {
            out.extend(*code);
            out.extend((text.len() as u32).next_multiple_of(512).to_be_bytes());
            out.extend((text.len() as u32).to_be_bytes());
            out.extend([0; 4]);
            out.extend(place.to_be_bytes());
        }
        out.resize(1024, 0);
        seal(&mut out, 36);
        out
    }
}

/// Puts the checksum of a structure into its field at `at`.
pub fn seal(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

//! A FAT directory: 32-byte entries, the long names in entries of their own before the short one.

use crate::bytes::{le16, le32};
use crate::limits;
use crate::volume::VolumeError;

const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTES_LONG_NAME: u8 = 0x0f;
/// Most entries one long name takes: 255 characters, 13 in each.
const MAX_LONG_PIECES: usize = 20;

/// A listed directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Directory {
    /// Files and directories, without `.`, `..`, labels and deleted ones.
    pub entries: Vec<Entry>,
    /// Why the listing ends before the directory does.
    pub damage: Option<VolumeError>,
}

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its long name, or the short one where it has no other.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Bytes of a file; 0 for a directory.
    pub size: u32,
    pub(super) first_cluster: u32,
}

impl Entry {
    /// Bytes of an entry on the disk.
    pub(super) const SIZE: usize = 32;
}

impl Directory {
    /// The entry of that name, without regard to case.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name.eq_ignore_ascii_case(name))
    }

    pub(super) fn parse(bytes: &[u8], damage: Option<VolumeError>) -> Self {
        let mut entries = Vec::new();
        let mut long = LongName::default();
        for raw in bytes.chunks_exact(Entry::SIZE).take(limits::MAX_DIRECTORY_ENTRIES) {
            match raw[0] {
                0 => break,
                0xe5 => {
                    long = LongName::default();
                    continue;
                }
                _ => {}
            }
            let attributes = raw[11];
            if attributes & 0x3f == ATTRIBUTES_LONG_NAME {
                long.push(raw);
                continue;
            }
            let long = std::mem::take(&mut long);
            if attributes & ATTRIBUTE_VOLUME != 0 {
                continue;
            }
            let name = long.finish(&raw[..11]).unwrap_or_else(|| short_name(raw));
            if name == "." || name == ".." {
                continue;
            }
            let (Some(high), Some(low), Some(size)) = (le16(raw, 20), le16(raw, 26), le32(raw, 28)) else {
                continue;
            };
            let is_directory = attributes & ATTRIBUTE_DIRECTORY != 0;
            entries.push(Entry {
                name,
                is_directory,
                size: if is_directory { 0 } else { size },
                first_cluster: u32::from(high) << 16 | u32::from(low),
            });
        }
        Self { entries, damage }
    }
}

/// The pieces of a long name, which stand last piece first.
#[derive(Default)]
struct LongName {
    pieces: Vec<[u16; 13]>,
    checksum: u8,
    /// The number the next piece must have; 0 when the name is complete.
    expected: u8,
}

impl LongName {
    fn push(&mut self, raw: &[u8]) {
        let (order, checksum) = (raw[0], raw[13]);
        let number = order & 0x3f;
        if order & 0x40 != 0 {
            *self = Self { pieces: Vec::new(), checksum, expected: number };
        }
        let fits = number != 0
            && number == self.expected
            && checksum == self.checksum
            && self.pieces.len() < MAX_LONG_PIECES;
        if !fits {
            *self = Self::default();
            return;
        }
        let mut piece = [0; 13];
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (unit, at) in piece.iter_mut().zip(places) {
            *unit = le16(raw, at).unwrap_or(0);
        }
        self.pieces.push(piece);
        self.expected = number - 1;
    }

    /// The name, if it is whole and belongs to this short name.
    fn finish(self, short: &[u8]) -> Option<String> {
        if self.pieces.is_empty() || self.expected != 0 || self.checksum != checksum(short) {
            return None;
        }
        let units: Vec<u16> =
            self.pieces.into_iter().rev().flatten().take_while(|&unit| unit != 0 && unit != 0xffff).collect();
        Some(String::from_utf16_lossy(&units)).filter(|name| !name.is_empty())
    }
}

/// Ties a long name to its short one.
fn checksum(short: &[u8]) -> u8 {
    short.iter().fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte))
}

fn short_name(raw: &[u8]) -> String {
    // Windows NT's flags in byte 12: base or extension is lower case.
    let part = |bytes: &[u8], lower: bool| {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches(' ');
        if lower { text.to_ascii_lowercase() } else { text.to_owned() }
    };
    let mut base: [u8; 8] = [0; 8];
    base.copy_from_slice(&raw[..8]);
    if base[0] == 0x05 {
        base[0] = 0xe5; // escaped, since 0xe5 marks a deleted entry
    }
    let base = part(&base, raw[12] & 0x08 != 0);
    let extension = part(&raw[8..11], raw[12] & 0x10 != 0);
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

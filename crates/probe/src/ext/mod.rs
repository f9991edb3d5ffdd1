//! A small read-only reader of ext2, ext3 and ext4: enough to look into `/boot`.
//!
//! ```text
//!   superblock ──► group descriptor ──► inode ──► extents, or block pointers ──► blocks of a file or directory
//! ```
//!
//! Directories are read block by block, which is right for hashed ones too: their index hides in what looks like unused
//! entries. Everything is bounded: block numbers by the volume, directories and extent trees by [`crate::limits`], and
//! all reads by a [`Budget`].
//!
//! What this leaves to others: the journal (a volume that was not unmounted shows what was written back, which is enough
//! for files as old as a kernel), symbolic links, checksums, encrypted names, and data kept inside inodes.
//!
//! Source: the kernel's own description of the layout (`Documentation/filesystems/ext4`).

mod superblock;

use std::collections::BTreeMap;

use superblock::{Superblock, Unusable};

use crate::bytes::{le16, le32};
use crate::disk::{ReadAt, read_up_to};
use crate::limits;
use crate::volume::{Budget, Files, VolumeError};

/// The top directory's inode.
const ROOT: u32 = 2;
/// Bytes of an inode that matter here.
const INODE: usize = 128;
/// Where the block map lies in an inode, and its length.
const MAP: std::ops::Range<usize> = 40..100;
/// Block pointers in an inode that lead to data directly; the three after them are indirect.
const DIRECT: usize = 12;
const EXTENTS_MAGIC: u16 = 0xf30a;
/// Deepest extent tree there is.
const MAX_DEPTH: u16 = 5;
const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_INLINE: u32 = 0x1000_0000;

/// An ext volume on a disk.
pub struct Volume<'a> {
    disk: &'a dyn ReadAt,
    budget: &'a Budget,
    offset: u64,
    end: u64,
    superblock: Superblock,
}

impl std::fmt::Debug for Volume<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("offset", &self.offset)
            .field("superblock", &self.superblock)
            .finish_non_exhaustive()
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name; bytes that are no UTF-8 are replaced.
    pub name: String,
    /// What it names.
    pub kind: Kind,
    inode: u32,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a link, a device, a pipe.
    Other,
    /// The volume's directories do not say.
    Unknown,
}

/// An inode, as far as it matters.
struct Inode {
    mode: u16,
    size: u64,
    flags: u32,
    map: Vec<u8>,
    /// Where it lies on the disk, for messages.
    offset: u64,
}

impl Inode {
    fn kind(&self) -> Kind {
        match self.mode & 0xf000 {
            0x8000 => Kind::File,
            0x4000 => Kind::Directory,
            _ => Kind::Other,
        }
    }
}

impl<'a> Volume<'a> {
    /// Opens the volume in the `length` bytes at `offset`; `None` when there is none.
    ///
    /// # Errors
    /// When the disk refuses the read, `budget` is spent, or the volume has what is not known here.
    pub fn open(
        disk: &'a dyn ReadAt,
        offset: u64,
        length: u64,
        budget: &'a Budget,
    ) -> Result<Option<Self>, VolumeError> {
        let end = offset.saturating_add(length).min(disk.size());
        budget.spend(Superblock::LENGTH as u64)?;
        let block = read_up_to(disk, offset.saturating_add(Superblock::AT), Superblock::LENGTH, end)?;
        match Superblock::parse(&block) {
            Ok(superblock) => Ok(Some(Self { disk, budget, offset, end, superblock })),
            Err(Unusable::Senseless) => Ok(None),
            Err(Unusable::Unknown(what)) => Err(VolumeError::Unsupported { system: "ext", what }),
        }
    }

    /// The top directory.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn root(&self) -> Result<Vec<Entry>, VolumeError> {
        self.listing(ROOT)
    }

    /// The directory that `entry` names; empty when it names none.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn directory(&self, entry: &Entry) -> Result<Vec<Entry>, VolumeError> {
        self.listing(entry.inode)
    }

    /// The first `length` bytes of the file that `entry` names, or all of it when it is shorter; nothing when it names no
    /// file.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn read_file(&self, entry: &Entry, length: usize) -> Result<Vec<u8>, VolumeError> {
        let inode = self.inode(entry.inode)?;
        if inode.kind() != Kind::File {
            return Ok(Vec::new());
        }
        self.content(&inode, (length as u64).min(inode.size))
    }

    fn listing(&self, number: u32) -> Result<Vec<Entry>, VolumeError> {
        let inode = self.inode(number)?;
        // Encrypted names mean nothing to anybody without the key.
        if inode.kind() != Kind::Directory || inode.flags & FLAG_ENCRYPTED != 0 {
            return Ok(Vec::new());
        }
        let bytes = self.content(&inode, inode.size.min(limits::MAX_EXT_DIRECTORY))?;
        let mut entries = Vec::new();
        for block in bytes.chunks(self.superblock.block_size as usize) {
            self.names(block, &mut entries);
        }
        Ok(entries)
    }

    /// The names in one block of a directory; a damaged block ends where the damage is.
    fn names(&self, block: &[u8], entries: &mut Vec<Entry>) {
        let mut at = 0;
        while entries.len() < limits::MAX_DIRECTORY_ENTRIES {
            let (Some(inode), Some(length), Some(&[name_length, file_type])) =
                (le32(block, at), le16(block, at + 4), block.get(at + 6..).and_then(<[u8]>::first_chunk))
            else {
                return;
            };
            // In blocks of 64 KiB the length of the only entry does not fit.
            let length = match usize::from(length) {
                0 | 0xffff => block.len() - at,
                length => length,
            };
            let name = block.get(at + 8..at + 8 + usize::from(name_length));
            let (Some(name), true) = (name, length >= 8 && length % 4 == 0) else { return };
            if inode != 0 && !name.is_empty() && !matches!(name, b"." | b"..") {
                let kind = match file_type {
                    _ if !self.superblock.has_file_types => Kind::Unknown,
                    0 => Kind::Unknown,
                    1 => Kind::File,
                    2 => Kind::Directory,
                    _ => Kind::Other,
                };
                entries.push(Entry { name: String::from_utf8_lossy(name).into_owned(), kind, inode });
            }
            at += length;
        }
    }

    fn inode(&self, number: u32) -> Result<Inode, VolumeError> {
        let s = &self.superblock;
        let Some(index) = number.checked_sub(1).filter(|_| number <= s.inodes) else {
            return Err(self.damaged(self.offset, "a name leads to an inode that does not exist"));
        };
        let (group, index) = (u64::from(index / s.inodes_per_group), u64::from(index % s.inodes_per_group));
        if group >= s.groups_in_table {
            return Err(VolumeError::Unsupported { system: "ext", what: "its group descriptors spread out" });
        }
        let block_size = u64::from(s.block_size);
        let at = s.descriptors_at * block_size + group * u64::from(s.descriptor_size);
        let descriptor = self.read(self.offset.saturating_add(at), s.descriptor_size as usize)?;
        let low = le32(&descriptor, 8);
        let high = if s.descriptor_size >= 64 { le32(&descriptor, 40) } else { Some(0) };
        let table = low.zip(high).map(|(low, high)| u64::from(high) << 32 | u64::from(low));
        let Some(table) = table.filter(|&block| block != 0 && block < s.blocks) else {
            return Err(self.damaged(self.offset.saturating_add(at), "a group has no inodes"));
        };
        let at = self.offset.saturating_add(table * block_size + index * u64::from(s.inode_size));
        let bytes = self.read(at, INODE)?;
        let inode = || {
            let size = u64::from(le32(&bytes, 4)?) | u64::from(le32(&bytes, 108)?) << 32;
            let (mode, flags, map) = (le16(&bytes, 0)?, le32(&bytes, 32)?, bytes.get(MAP)?.to_vec());
            Some(Inode { mode, size, flags, map, offset: at })
        };
        inode().ok_or_else(|| self.damaged(at, "an inode lies past the volume's end"))
    }

    /// The first `length` bytes of what `inode` holds.
    fn content(&self, inode: &Inode, length: u64) -> Result<Vec<u8>, VolumeError> {
        if inode.flags & FLAG_INLINE != 0 {
            return Err(VolumeError::Unsupported { system: "ext", what: "a file kept inside its inode" });
        }
        let block_size = u64::from(self.superblock.block_size);
        let count = length.div_ceil(block_size);
        let runs = if inode.flags & FLAG_EXTENTS != 0 {
            self.extents(inode, count)?
        } else {
            self.pointers(inode, count)?
        };
        let mut bytes = Vec::new();
        for run in runs {
            let at = usize::try_from(run.logical * block_size).unwrap_or(usize::MAX);
            // Between runs are holes, which read as zeros.
            bytes.resize(at.max(bytes.len()), 0);
            let wanted = (run.length.min(count - run.logical) * block_size) as usize;
            if run.physical.checked_add(run.length).is_none_or(|end| end > self.superblock.blocks) {
                return Err(self.damaged(inode.offset, "a file has blocks past the volume's end"));
            }
            let piece = self.read(self.offset.saturating_add(run.physical * block_size), wanted)?;
            if piece.len() < wanted {
                return Err(self.damaged(inode.offset, "a file has blocks past the disk's end"));
            }
            bytes.truncate(at);
            bytes.extend_from_slice(&piece);
        }
        bytes.resize(length as usize, 0);
        Ok(bytes)
    }

    /// The runs of blocks below logical block `count`, by the inode's extent tree, ascending and apart.
    fn extents(&self, inode: &Inode, count: u64) -> Result<Vec<Run>, VolumeError> {
        let mut runs = BTreeMap::new();
        let mut nodes = vec![(inode.map.clone(), inode.offset, None)];
        let mut seen = 0;
        while let Some((node, at, depth)) = nodes.pop() {
            seen += 1;
            let head = (le16(&node, 0), le16(&node, 2), le16(&node, 6));
            let (Some(EXTENTS_MAGIC), Some(entries), Some(level)) = head else {
                return Err(self.damaged(at, "a node of an extent tree is none"));
            };
            let expected = depth.is_none_or(|depth: u16| level.checked_add(1) == Some(depth));
            if level > MAX_DEPTH || !expected || seen > limits::MAX_EXTENT_NODES {
                return Err(self.damaged(at, "an extent tree is too deep or too wide"));
            }
            for entry in node.get(12..).unwrap_or_default().chunks_exact(12).take(usize::from(entries)) {
                let (Some(logical), Some(low)) =
                    (le32(entry, 0).map(u64::from), le32(entry, if level == 0 { 8 } else { 4 }))
                else {
                    continue;
                };
                if logical >= count {
                    continue;
                }
                let high = le16(entry, if level == 0 { 6 } else { 8 }).unwrap_or(0);
                let physical = u64::from(high) << 32 | u64::from(low);
                if level > 0 {
                    if physical >= self.superblock.blocks {
                        return Err(self.damaged(at, "an extent tree leads past the volume's end"));
                    }
                    let block_size = self.superblock.block_size;
                    let at = self.offset.saturating_add(physical * u64::from(block_size));
                    nodes.push((self.read(at, block_size as usize)?, at, Some(level)));
                    continue;
                }
                // Above 32768 an extent is reserved and not yet written: it reads as zeros.
                let length = le16(entry, 4).unwrap_or(0);
                if (1..=0x8000).contains(&length) {
                    runs.insert(logical, Run { logical, physical, length: u64::from(length) });
                }
            }
        }
        Ok(apart(runs.into_values(), count))
    }

    /// The same by the block pointers of ext2 and ext3, down to doubly indirect ones (64 MiB in blocks of 1 KiB).
    fn pointers(&self, inode: &Inode, count: u64) -> Result<Vec<Run>, VolumeError> {
        let per_block = u64::from(self.superblock.block_size / 4);
        let pointer = |bytes: &[u8], n: usize| le32(bytes, n * 4).unwrap_or(0);
        let mut blocks: Vec<u32> = (0..DIRECT).map(|n| pointer(&inode.map, n)).collect();
        let wanted = |blocks: &Vec<u32>| count.saturating_sub(blocks.len() as u64);
        if wanted(&blocks) > 0 {
            blocks.extend(self.indirect(pointer(&inode.map, DIRECT), inode)?);
        }
        if wanted(&blocks) > 0 {
            let second = self.indirect(pointer(&inode.map, DIRECT + 1), inode)?;
            for block in second.into_iter().take(wanted(&blocks).div_ceil(per_block) as usize) {
                blocks.extend(self.indirect(block, inode)?);
            }
        }
        let runs = blocks.into_iter().zip(0..count).filter(|(block, _)| *block != 0);
        let runs = runs.map(|(block, logical)| Run { logical, physical: u64::from(block), length: 1 });
        Ok(apart(runs, count))
    }

    /// The pointers in block `number`; all of them lead nowhere where it does.
    fn indirect(&self, number: u32, inode: &Inode) -> Result<Vec<u32>, VolumeError> {
        let block_size = self.superblock.block_size;
        if number == 0 {
            return Ok(vec![0; (block_size / 4) as usize]);
        }
        if u64::from(number) >= self.superblock.blocks {
            return Err(self.damaged(inode.offset, "a file has blocks past the volume's end"));
        }
        let at = self.offset.saturating_add(u64::from(number) * u64::from(block_size));
        let bytes = self.read(at, block_size as usize)?;
        Ok((0..(block_size / 4) as usize).map(|n| le32(&bytes, n * 4).unwrap_or(0)).collect())
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, VolumeError> {
        self.budget.spend(length as u64)?;
        Ok(read_up_to(self.disk, at, length, self.end)?)
    }

    fn damaged(&self, offset: u64, what: &'static str) -> VolumeError {
        VolumeError::Damaged { system: "ext", offset, what }
    }
}

/// Blocks of a file that lie one after another.
#[derive(Clone, Copy)]
struct Run {
    logical: u64,
    physical: u64,
    length: u64,
}

/// Ascending runs, joined where they touch and cut where a damaged tree lets them overlap.
fn apart(runs: impl Iterator<Item = Run>, count: u64) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    for mut run in runs {
        run.length = run.length.min(count.saturating_sub(run.logical));
        if let Some(last) = all.last_mut() {
            last.length = last.length.min(run.logical - last.logical);
            if last.logical + last.length == run.logical && last.physical + last.length == run.physical {
                last.length += run.length;
                continue;
            }
        }
        all.push(run);
    }
    all
}

impl Files for Volume<'_> {
    type Entry = Entry;

    fn top(&self) -> Result<Vec<Entry>, VolumeError> {
        self.root()
    }

    fn inside(&self, entry: &Entry) -> Result<Vec<Entry>, VolumeError> {
        self.directory(entry)
    }

    fn head(&self, entry: &Entry, length: usize) -> Result<Vec<u8>, VolumeError> {
        self.read_file(entry, length)
    }

    fn name(entry: &Entry) -> &str {
        &entry.name
    }

    fn is_directory(entry: &Entry) -> bool {
        matches!(entry.kind, Kind::Directory | Kind::Unknown)
    }
}

//! A small read-only reader of FAT12, FAT16 and FAT32 with long names: enough to list what is on an EFI system partition.
//!
//! Lenient where firmware is, and bounded everywhere: chains, directories and the bytes read in all ([`Budget`]). A
//! chain that breaks or runs in a circle ends the listing, and the [`Directory`] says so.
//!
//! What this leaves to others: writing, code pages (short names beyond ASCII come out with replacement characters), and
//! every judgement about what the files are.

mod directory;
mod geometry;

use std::cell::RefCell;

pub use directory::{Directory, Entry};
pub use geometry::{FatKind, Geometry};

use crate::volume::Budget;

use crate::disk::{ReadAt, read_up_to};
use crate::limits;
use crate::volume::{Files, VolumeError};

/// Granularity in which the allocation table is read.
const WINDOW: u64 = 4096;

/// A FAT volume on a disk.
pub struct Volume<'a> {
    disk: &'a dyn ReadAt,
    budget: &'a Budget,
    offset: u64,
    end: u64,
    geometry: Geometry,
    /// The part of the allocation table read last: its offset on the disk, and its bytes.
    window: RefCell<(u64, Vec<u8>)>,
}

impl std::fmt::Debug for Volume<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("offset", &self.offset)
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}

impl<'a> Volume<'a> {
    /// Opens the volume in the `length` bytes at `offset`; `None` when there is none.
    ///
    /// # Errors
    /// When the disk refuses the read, or `budget` is spent.
    pub fn open(
        disk: &'a dyn ReadAt,
        offset: u64,
        length: u64,
        budget: &'a Budget,
    ) -> Result<Option<Self>, VolumeError> {
        let end = offset.saturating_add(length).min(disk.size());
        budget.spend(Geometry::SECTOR as u64)?;
        let sector = read_up_to(disk, offset, Geometry::SECTOR, end)?;
        let Some(geometry) = Geometry::parse(&sector) else { return Ok(None) };
        Ok(Some(Self { disk, budget, offset, end, geometry, window: RefCell::default() }))
    }

    /// The volume's dimensions.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The root directory.
    ///
    /// # Errors
    /// See [`VolumeError`]; a broken chain is not one, but said in the [`Directory`].
    pub fn root(&self) -> Result<Directory, VolumeError> {
        match self.geometry.root_cluster() {
            Some(cluster) => self.directory_at(cluster),
            None => {
                let (start, length) = self.geometry.fixed_root();
                let length = length.min(limits::MAX_DIRECTORY_ENTRIES * Entry::SIZE);
                let bytes = self.read(self.offset.saturating_add(start), length)?;
                Ok(Directory::parse(&bytes, None))
            }
        }
    }

    /// The directory that `entry` names.
    ///
    /// # Errors
    /// As for [`Self::root`].
    pub fn directory(&self, entry: &Entry) -> Result<Directory, VolumeError> {
        // Cluster 0 stands for the root in `..` entries, which listings leave out; elsewhere it is damage.
        self.directory_at(entry.first_cluster)
    }

    fn directory_at(&self, cluster: u32) -> Result<Directory, VolumeError> {
        let (bytes, damage) = self.read_chain(cluster, limits::MAX_DIRECTORY_ENTRIES * Entry::SIZE)?;
        Ok(Directory::parse(&bytes, damage))
    }

    /// The first `length` bytes of the file that `entry` names, or all of it when it is shorter. A file whose chain breaks
    /// comes out cut short.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn read_file(&self, entry: &Entry, length: usize) -> Result<Vec<u8>, VolumeError> {
        let length = length.min(entry.size as usize);
        if length == 0 {
            return Ok(Vec::new());
        }
        let (mut bytes, _) = self.read_chain(entry.first_cluster, length)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Looks up `path`, its parts without regard to case.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn find(&self, path: &[&str]) -> Result<Option<Entry>, VolumeError> {
        let Some((last, parents)) = path.split_last() else { return Ok(None) };
        let mut directory = self.root()?;
        for part in parents {
            match directory.find(part).filter(|entry| entry.is_directory) {
                Some(entry) => directory = self.directory(entry)?,
                None => return Ok(None),
            }
        }
        Ok(directory.find(last).cloned())
    }

    /// Reads along a chain until `length` bytes are there, the chain ends, or it breaks.
    fn read_chain(&self, first: u32, length: usize) -> Result<(Vec<u8>, Option<VolumeError>), VolumeError> {
        let cluster_size = self.geometry.cluster_size();
        let mut bytes = Vec::new();
        let mut cluster = first;
        for _ in 0..limits::MAX_CLUSTER_CHAIN {
            let Some(start) = self.geometry.cluster_offset(cluster) else {
                return Ok((bytes, Some(self.damaged(0, "a chain leads to a cluster that does not exist"))));
            };
            let wanted = cluster_size.min(length - bytes.len());
            let piece = self.read(self.offset.saturating_add(start), wanted)?;
            let short = piece.len() < wanted;
            bytes.extend_from_slice(&piece);
            if short {
                return Ok((bytes, Some(self.damaged(start, "a cluster lies past the volume's end"))));
            }
            if bytes.len() >= length {
                return Ok((bytes, None));
            }
            match self.next_cluster(cluster)? {
                Next::Cluster(next) => cluster = next,
                Next::End => return Ok((bytes, None)),
                Next::Broken(what) => return Ok((bytes, Some(self.damaged(start, what)))),
            }
        }
        Ok((bytes, Some(self.damaged(0, "a chain does not end"))))
    }

    fn next_cluster(&self, cluster: u32) -> Result<Next, VolumeError> {
        let (at, width) = self.geometry.entry_position(cluster);
        let mut value = 0_u32;
        for i in (0..width).rev() {
            let Some(byte) = self.table_byte(at + i)? else {
                return Ok(Next::Broken("the allocation table is cut short"));
            };
            value = value << 8 | u32::from(byte);
        }
        Ok(match self.geometry.kind() {
            FatKind::Fat12 => Next::of(if cluster & 1 == 1 { value >> 4 } else { value & 0xfff }, 0xfff),
            FatKind::Fat16 => Next::of(value, 0xffff),
            FatKind::Fat32 => Next::of(value & 0x0fff_ffff, 0x0fff_ffff),
        })
    }

    fn table_byte(&self, at: u64) -> Result<Option<u8>, VolumeError> {
        let position = self.offset.saturating_add(at);
        let start = position / WINDOW * WINDOW;
        let mut window = self.window.borrow_mut();
        if window.0 != start || window.1.is_empty() {
            // Aligned to the disk, and so perhaps beginning before the volume; it is the disk's business all the same.
            self.budget.spend(WINDOW)?;
            *window = (start, read_up_to(self.disk, start, WINDOW as usize, self.end)?);
        }
        Ok(usize::try_from(position - start).ok().and_then(|i| window.1.get(i).copied()))
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, VolumeError> {
        self.budget.spend(length as u64)?;
        Ok(read_up_to(self.disk, at, length, self.end)?)
    }

    fn damaged(&self, at: u64, what: &'static str) -> VolumeError {
        VolumeError::Damaged { system: "FAT", offset: self.offset.saturating_add(at), what }
    }
}

impl Files for Volume<'_> {
    type Entry = Entry;

    fn top(&self) -> Result<Vec<Entry>, VolumeError> {
        Ok(self.root()?.entries)
    }

    fn inside(&self, entry: &Entry) -> Result<Vec<Entry>, VolumeError> {
        Ok(self.directory(entry)?.entries)
    }

    fn head(&self, entry: &Entry, length: usize) -> Result<Vec<u8>, VolumeError> {
        self.read_file(entry, length)
    }

    fn name(entry: &Entry) -> &str {
        &entry.name
    }

    fn is_directory(entry: &Entry) -> bool {
        entry.is_directory
    }
}

/// What an allocation table entry says.
enum Next {
    Cluster(u32),
    End,
    Broken(&'static str),
}

impl Next {
    /// `all_ones` is the entry of the type's width with all bits set: its eight highest values end a chain.
    fn of(value: u32, all_ones: u32) -> Self {
        match value {
            0 | 1 => Self::Broken("a chain runs into a free cluster"),
            value if value >= all_ones - 7 => Self::End,
            value if value == all_ones - 8 => Self::Broken("a chain runs into a bad cluster"),
            value => Self::Cluster(value),
        }
    }
}

//! What the readers of file systems have in common: how much they may read, and how they fail.

use std::cell::Cell;

use crate::error::ProbeError;
use crate::limits;

/// How many bytes the readers of file systems may still read, over all volumes of one probe together.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self(Cell::new(bytes))
    }

    pub(crate) fn spend(&self, bytes: u64) -> Result<(), VolumeError> {
        let left = self.0.get().checked_sub(bytes).ok_or(VolumeError::Exhausted)?;
        self.0.set(left);
        Ok(())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(limits::MAX_VOLUME_READ)
    }
}

/// Why a directory or a file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The disk refused a read.
    #[error(transparent)]
    Disk(#[from] ProbeError),
    /// The volume contradicts itself.
    #[error("the {system} volume is damaged at offset {offset} of the disk: {what}")]
    Damaged {
        /// `FAT` or `ext`.
        system: &'static str,
        /// Bytes from the beginning of the disk.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The volume needs what this reader does not know.
    #[error("the {system} volume has {what}, which is not read here")]
    Unsupported {
        /// `FAT` or `ext`.
        system: &'static str,
        /// What it has.
        what: &'static str,
    },
    /// More bytes would have to be read than the budget allows.
    #[error("looking into the file systems takes more than the bytes allowed for it")]
    Exhausted,
}

/// A volume's directories and files, as far as looking for what boots needs them.
pub(crate) trait Files {
    /// A name in a directory.
    type Entry;

    /// What is in the top directory.
    fn top(&self) -> Result<Vec<Self::Entry>, VolumeError>;
    /// What is in the directory that `entry` names.
    fn inside(&self, entry: &Self::Entry) -> Result<Vec<Self::Entry>, VolumeError>;
    /// The first `length` bytes of the file that `entry` names, or all of it when it is shorter.
    fn head(&self, entry: &Self::Entry, length: usize) -> Result<Vec<u8>, VolumeError>;
    /// Its name.
    fn name(entry: &Self::Entry) -> &str;
    /// Whether it is, or may be, a directory.
    fn is_directory(entry: &Self::Entry) -> bool;
}

//! The one thing that can go wrong: the disk does not let us look.

use std::io;

/// A disk that could not be probed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ProbeError(#[from] Cause);

/// Why a disk could not be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbeErrorKind {
    /// The disk refused a read.
    Read,
    /// The caller named a sector size other than 512 and 4096.
    SectorSize,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("cannot read {length} bytes at offset {offset} of the disk")]
    Read { offset: u64, length: usize, source: io::Error },
    #[error("a disk's logical sectors have 512 or 4096 bytes, not {found}")]
    SectorSize { found: u32 },
}

impl ProbeError {
    pub(crate) fn read(offset: u64, length: usize, source: io::Error) -> Self {
        Self(Cause::Read { offset, length, source })
    }

    pub(crate) fn sector_size(found: u32) -> Self {
        Self(Cause::SectorSize { found })
    }

    /// What a caller may branch on.
    pub fn kind(&self) -> ProbeErrorKind {
        match self.0 {
            Cause::Read { .. } => ProbeErrorKind::Read,
            Cause::SectorSize { .. } => ProbeErrorKind::SectorSize,
        }
    }

    /// Where on the disk the refused read began, in bytes.
    pub fn offset(&self) -> Option<u64> {
        match self.0 {
            Cause::Read { offset, .. } => Some(offset),
            Cause::SectorSize { .. } => None,
        }
    }
}

//! One file's own share of a disk, without its parents: the shape both formats give to [`crate::Image`].
//!
//! A layer answers from its tables where a byte is: here, recorded as zero, or not here. What "not here" means
//! (ask the parent, or a hole) is decided by the chain, not by the layer.

use std::fs::File;

use crate::error::ReadError;
use crate::info::Info;

/// Where a run of virtual bytes is, as far as one layer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunState {
    /// In this file, contiguous from `file_offset`.
    Data {
        /// Byte offset in the layer's file of the run's first byte.
        file_offset: u64,
    },
    /// Zeros by this layer's word; the parent is not asked.
    Zero,
    /// Not in this layer.
    Absent,
}

/// Virtual bytes in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// First virtual byte.
    pub(crate) offset: u64,
    /// Bytes, never 0.
    pub(crate) length: u64,
    /// Where they are.
    pub(crate) state: RunState,
}

impl Run {
    /// First byte after the run.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Appends a run, merging it with the last where both continue each other.
pub(crate) fn push_run(runs: &mut Vec<Run>, next: Run) {
    if let Some(last) = runs.last_mut()
        && last.end() == next.offset
    {
        let continues = match (last.state, next.state) {
            (RunState::Data { file_offset: a }, RunState::Data { file_offset: b }) => a + last.length == b,
            (a, b) => a == b,
        };
        if continues {
            last.length += next.length;
            return;
        }
    }
    runs.push(next);
}

/// What the readers of both formats offer.
pub(crate) trait LayerRead: Send + Sync {
    /// What the file says about itself.
    fn info(&self) -> &Info;

    /// Told once how many layers the chain has: all of them together keep about as much in memory as one would alone.
    fn share_memory(&mut self, layers: usize);

    /// The states of `[offset, offset + length)`, in order and gapless from `offset`, as far as this layer knows
    /// them. May stop early, after at least one byte, to keep one call short. The range must lie inside the
    /// layer's virtual size and not be empty.
    fn runs(&self, offset: u64, length: u64) -> Result<Vec<Run>, ReadError>;

    /// Fills `buf` from `file_offset` of a `Data` run (or from within one); `virtual_offset` is for the message.
    fn read_data(&self, buf: &mut [u8], file_offset: u64, virtual_offset: u64) -> Result<(), ReadError>;

    /// The host's file that has the data of `Data` runs where they say; none when a pending log is seen through.
    fn host_file(&self) -> Option<&File>;
}

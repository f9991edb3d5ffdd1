//! Where a disk's content goes: files of three formats, and anything QEMU can write, over NBD.
//!
//! A sink takes writes to disjoint ranges from several threads in any order. What was never written reads as zeros when
//! the sink is [fresh](Sink::is_fresh). `checkpoint` is the durability point; `finish` makes the file final. Choosing what to
//! write is `copy`'s work.

mod flat;
mod nbd_sink;
mod virtual_disk;

use std::fmt;
use std::path::Path;

use vhdx::FileRange;

pub use flat::{NullSink, RawSink};
pub use nbd_sink::NbdSink;
pub use virtual_disk::{VhdSink, VhdxSink};

use crate::fault::fault_error;

fault_error! {
    /// A sink that cannot be created or written; `NoSpace` and `ReadOnly` are told apart.
    SinkError
}

/// A disk being written.
pub trait Sink: Send + Sync + fmt::Debug {
    /// What messages call it.
    fn path(&self) -> &Path;
    /// Virtual size in bytes.
    fn size(&self) -> u64;
    /// True when everything not yet written reads as zeros, so that zeros need no writing.
    fn is_fresh(&self) -> bool {
        true
    }
    /// Writes all of `buf` at `offset`. Concurrent calls touch disjoint ranges.
    ///
    /// # Errors
    /// With path and offset.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), SinkError>;
    /// Puts the bytes of `from` at `offset` by sharing its blocks. `false`: it cannot, or not these; they must be written.
    ///
    /// # Errors
    /// With path and offset.
    fn clone_range(&self, from: FileRange<'_>, offset: u64) -> Result<bool, SinkError> {
        let _ = (from, offset);
        Ok(false)
    }
    /// Makes the range read as zeros. Not called on fresh sinks.
    ///
    /// # Errors
    /// With path and offset.
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), SinkError>;
    /// Returns once every write that returned before would survive power loss, in a file that opens.
    ///
    /// # Errors
    /// When the target cannot make it durable.
    fn checkpoint(&self) -> Result<(), SinkError>;
    /// Makes the disk final and durable. A sink dropped without it is not a disk that anyone should trust.
    ///
    /// # Errors
    /// When the target cannot.
    fn finish(self: Box<Self>) -> Result<(), SinkError>;
}

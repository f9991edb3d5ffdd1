//! What a range of a virtual disk holds, as known from metadata alone.
//!
//! Both formats and every layer of a chain answer in these words; nothing here reads payload.

/// What the bytes of an [`Extent`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Stored bytes: they must be read to be known.
    Data,
    /// Recorded as zeros (VHDX states 2 and 3, or an unallocated block of a fixed disk).
    Zero,
    /// Never written in any layer: reads as zeros.
    Hole,
}

/// A run of virtual bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First virtual byte.
    pub offset: u64,
    /// Length in bytes, never 0.
    pub length: u64,
    /// What the bytes are.
    pub kind: ExtentKind,
    /// Which layer of the chain answers, 0 = the leaf. Holes name the base.
    pub layer: usize,
}

impl Extent {
    /// First byte after the extent.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

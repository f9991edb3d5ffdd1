//! Every bound this crate puts on numbers that come from a file, by name.
//!
//! A file is hostile until proven otherwise: nothing is allocated, looped over or sought to by its word alone.

/// 1 MiB, the unit of VHDX layout.
pub const MIB: u64 = 1 << 20;

/// Largest virtual disk of a VHDX: 64 TiB ([MS-VHDX] 2.6.2.2).
pub const MAX_VHDX_SIZE: u64 = 64 << 40;

/// Largest virtual disk of a VHD: 2040 GiB.
pub const MAX_VHD_SIZE: u64 = 2040 << 30;

/// Largest file offset believed: twice the largest disk leaves room for any table and any waste.
pub const MAX_FILE_OFFSET: u64 = 128 << 40;

/// Most layers in a chain. Hyper-V makes at most 50 checkpoints of a machine; each layer costs an open file.
pub const MAX_CHAIN: usize = 128;

/// Longest log replayed. Windows always makes 1 MiB.
pub const MAX_LOG_LENGTH: u32 = 64 << 20;

/// Most changes that one log may ask for. Windows' 1 MiB has room for half as many.
pub const MAX_LOG_CHANGES: usize = 1 << 16;

/// Most files of a chain that may have a log to be replayed. Parents are not written, so there is hardly ever one.
pub const MAX_PENDING_LOGS: usize = 16;

/// Longest parent locator item read. A real one is about 1 KiB.
pub const MAX_LOCATOR_LENGTH: u32 = 1 << 20;

/// Most entries of a parent locator. A real one has five.
pub const MAX_LOCATOR_ENTRIES: u16 = 64;

/// Longest file name of the host, in bytes.
pub const MAX_FILE_NAME: usize = 255;

/// Most entries looked through in a directory when a parent's name differs in case only.
pub const MAX_DIRECTORY_ENTRIES: usize = 10_000;

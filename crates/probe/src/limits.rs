//! How much of a disk is believed and read. Every count and length from the disk is compared with one of these first.

/// Most partitions reported; what a table holds beyond them is noted and left out.
pub const MAX_PARTITIONS: usize = 256;
/// Most entries a GPT may declare. The usual number is 128; Linux itself stops at 256 minor numbers.
pub const MAX_GPT_ENTRIES: u32 = 1024;
/// Largest GPT entry in bytes. The usual size is 128.
pub const MAX_GPT_ENTRY_SIZE: u32 = 4096;
/// Largest whole GPT entry array in bytes.
pub const MAX_GPT_TABLE: u64 = 1 << 20;
/// Most extended boot records followed in an MBR's chain of logical partitions.
pub const MAX_LOGICAL_PARTITIONS: usize = 128;
/// Most entries read from one FAT directory. FAT itself allows 65536.
pub const MAX_DIRECTORY_ENTRIES: usize = 16 * 1024;
/// Most clusters followed in one chain: enough for [`MAX_DIRECTORY_ENTRIES`] in the smallest clusters.
pub const MAX_CLUSTER_CHAIN: usize = 4096;
/// Most directories below `\EFI` looked into, per volume.
pub const MAX_EFI_DIRECTORIES: usize = 64;
/// Most EFI loaders reported.
pub const MAX_LOADERS: usize = 256;
/// Most bytes read from file systems in one probe, over all partitions together.
pub const MAX_VOLUME_READ: u64 = 64 << 20;
/// Most bytes read of one directory of an ext volume.
pub const MAX_EXT_DIRECTORY: u64 = 1 << 20;
/// Most nodes of one file's extent tree looked at. A file of a megabyte has one.
pub const MAX_EXTENT_NODES: usize = 64;
/// Largest kernel configuration read, in bytes. Those of distributions have up to 300 KiB.
pub const MAX_KERNEL_CONFIG: usize = 1 << 20;
/// Most kernels reported.
pub const MAX_KERNELS: usize = 16;

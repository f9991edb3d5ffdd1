//! An ext volume's dimensions, from its superblock.

use crate::bytes::{le16, le32};

/// Features without which a volume cannot be read rightly, and that this reader knows or may overlook.
const FILE_TYPE: u32 = 0x2;
const NEEDS_RECOVERY: u32 = 0x4;
const META_BLOCK_GROUPS: u32 = 0x10;
const EXTENTS: u32 = 0x40;
const WIDE: u32 = 0x80;
const MULTIPLE_MOUNT_PROTECTION: u32 = 0x100;
const FLEXIBLE_BLOCK_GROUPS: u32 = 0x200;
const INODES_FOR_ATTRIBUTES: u32 = 0x400;
const CHECKSUM_SEED: u32 = 0x2000;
const LARGE_DIRECTORIES: u32 = 0x4000;
const INLINE_DATA: u32 = 0x8000;
const ENCRYPTION: u32 = 0x1_0000;
const CASE_FOLDING: u32 = 0x2_0000;
const KNOWN: u32 = FILE_TYPE
    | NEEDS_RECOVERY
    | META_BLOCK_GROUPS
    | EXTENTS
    | WIDE
    | MULTIPLE_MOUNT_PROTECTION
    | FLEXIBLE_BLOCK_GROUPS
    | INODES_FOR_ATTRIBUTES
    | CHECKSUM_SEED
    | LARGE_DIRECTORIES
    | INLINE_DATA
    | ENCRYPTION
    | CASE_FOLDING;

/// Largest volume in bytes: what 48 bits of block number reach in blocks of 4 KiB.
const MAX_VOLUME: u64 = 1 << 60;

/// Dimensions of a volume, checked for sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Bytes of a block, 1 KiB to 64 KiB.
    pub(super) block_size: u32,
    /// Blocks of the volume.
    pub(super) blocks: u64,
    /// Inodes of the volume.
    pub(super) inodes: u32,
    pub(super) inodes_per_group: u32,
    /// Bytes of an inode, 128 to a block.
    pub(super) inode_size: u32,
    /// Bytes of a group's descriptor, 32 to 1024.
    pub(super) descriptor_size: u32,
    /// Where the table of group descriptors begins, in blocks.
    pub(super) descriptors_at: u64,
    /// Groups whose descriptors are in that table; those of later ones are spread over the volume.
    pub(super) groups_in_table: u64,
    /// Whether directories say what kind of file a name is.
    pub(super) has_file_types: bool,
}

/// Why a superblock is of no use.
pub(super) enum Unusable {
    /// It is none, or contradicts itself.
    Senseless,
    /// It has what this reader does not know.
    Unknown(&'static str),
}

impl Superblock {
    /// Where it begins on the volume, and how long it is.
    pub(super) const AT: u64 = 1024;
    pub(super) const LENGTH: usize = 1024;

    pub(super) fn parse(block: &[u8]) -> Result<Self, Unusable> {
        let sane = Self::fields(block).ok_or(Unusable::Senseless)?;
        let incompatible = le32(block, 96).unwrap_or(u32::MAX);
        if incompatible & !KNOWN != 0 {
            return Err(Unusable::Unknown("features of a kind of its own"));
        }
        Ok(sane)
    }

    fn fields(block: &[u8]) -> Option<Self> {
        if le16(block, 56)? != 0xef53 {
            return None;
        }
        let revision = le32(block, 76)?;
        let incompatible = if revision == 0 { 0 } else { le32(block, 96)? };
        let block_size =
            1024_u32.checked_shl(le32(block, 24)?).filter(|size| (1024..=65536).contains(size))?;
        let wide = incompatible & WIDE != 0;
        let high = if wide { u64::from(le32(block, 336)?) << 32 } else { 0 };
        let blocks = u64::from(le32(block, 4)?) | high;
        let first_block = u64::from(le32(block, 20)?);
        let inodes_per_group = le32(block, 40)?;
        let inode_size = if revision == 0 { 128 } else { u32::from(le16(block, 88)?) };
        let descriptor_size = if wide { u32::from(le16(block, 254)?) } else { 32 };
        let per_block = u64::from(block_size.checked_div(descriptor_size)?);
        let bytes = blocks.saturating_mul(u64::from(block_size));
        let sane = first_block <= 1
            && bytes <= MAX_VOLUME
            && blocks > first_block
            && (1..=block_size * 8).contains(&inodes_per_group)
            && inode_size.is_power_of_two()
            && (128..=block_size).contains(&inode_size)
            && descriptor_size.is_power_of_two()
            && (32..=1024).contains(&descriptor_size);
        let groups_in_table = if incompatible & META_BLOCK_GROUPS == 0 {
            u64::from(u32::MAX)
        } else {
            u64::from(le32(block, 260)?) * per_block
        };
        sane.then_some(Self {
            block_size,
            blocks,
            inodes: le32(block, 0)?,
            inodes_per_group,
            inode_size,
            descriptor_size,
            // After the block that holds the superblock, whatever the first block's number (0 with bigalloc).
            descriptors_at: Self::AT / u64::from(block_size) + 1,
            groups_in_table,
            has_file_types: incompatible & FILE_TYPE != 0,
        })
    }
}

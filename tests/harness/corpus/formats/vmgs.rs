//! VMGS: a header and its file table.

use crate::bundle::Sparse;

/// A guest state file of `size` bytes with one header, encrypted by `algorithm`, and these files: number, offset and allocation
/// in blocks of 4 KiB, size in bytes.
#[must_use]
pub fn build(size: u64, algorithm: u16, files: &[(usize, u32, u32, u64)]) -> Sparse {
    let mut header = b"GUESTRTS".to_vec();
    header.extend(0x0003_0000_u32.to_le_bytes());
    header.extend([0; 4]);
    header.extend(1_u32.to_le_bytes());
    header.extend(168_u32.to_le_bytes());
    header.extend(2_u32.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    header.extend(algorithm.to_le_bytes());
    header.resize(168, 0);
    let crc = crc32fast::hash(&header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    let mut out = Sparse::new(size);
    out.put(0, &header);
    for (number, offset, allocation, size) in files {
        let mut entry = offset.to_le_bytes().to_vec();
        entry.extend(allocation.to_le_bytes());
        entry.extend(size.to_le_bytes());
        out.put(2 * 4096 + *number as u64 * 64, &entry);
    }
    out
}

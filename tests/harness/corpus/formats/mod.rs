//! Disk and state files byte by byte, written from the specifications and by none of our encoders, so that any field can be
//! whatever somebody wants it to be.

pub mod vhd;
pub mod vhdx;
pub mod vmgs;

/// `text` in little-endian UTF-16.
#[must_use]
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A GUID as files keep it: `n` in the first field, little-endian, and a mark in the last.
#[must_use]
pub fn guid(n: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    bytes[7] = 0x40;
    bytes[8] = 0x80;
    bytes[15] = 0xd1;
    bytes
}

/// The same as text.
#[must_use]
pub fn guid_text(n: u32) -> String {
    format!("{{{n:08x}-0000-4000-8000-0000000000d1}}")
}

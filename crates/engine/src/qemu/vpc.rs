//! How large QEMU believes a VHD to be.
//!
//! A VHD's footer tells its size twice: in bytes and as cylinders, heads and sectors, which is often smaller. QEMU's
//! `vpc` driver believes the bytes for files by a list of creators and the geometry for all others, and the option
//! that overrides this does not exist for `-blockdev`. Hyper-V always believes the bytes. So: a fixed VHD is given to
//! QEMU as the raw bytes before its footer, a dynamic one of an unlisted creator only where both sizes agree.
//!
//! This reads the footer only as far as that needs; what a VHD is in full, the `vhdx` crate knows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const FOOTER: usize = 512;
/// Creators whose byte size QEMU 10 believes (`block/vpc.c`).
const BELIEVED: [&[u8; 4]; 6] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"];
/// The largest geometry; with it QEMU believes the bytes whoever made the file.
const MAX_GEOMETRY: u64 = 65535 * 16 * 255;

/// How to give a VHD to QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vpc {
    /// As so many raw bytes.
    Raw(u64),
    /// As `vpc`.
    Driver,
    /// Not at all: QEMU would cut it to so many bytes.
    CutShort { bytes: u64, geometry: u64 },
}

/// Looks at the footer of a VHD.
pub(crate) fn look(path: &Path) -> io::Result<Vpc> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut footer = [0u8; FOOTER];
    let at = length
        .checked_sub(FOOTER as u64)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "too small for a VHD"))?;
    file.read_exact_at(&mut footer, at)?;
    judge(&footer, length)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no VHD footer at the end of the file"))
}

fn judge(footer: &[u8; FOOTER], length: u64) -> Option<Vpc> {
    let field = |at: usize, size: usize| footer.get(at..at + size);
    let number = |at, size| Some(field(at, size)?.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)));
    if field(0, 8)? != b"conectix" {
        return None;
    }
    let bytes = number(48, 8)?;
    let sectors = number(56, 2)? * number(58, 1)? * number(59, 1)?;
    let kind = number(60, 4)?;
    if kind == 2 {
        // The footer comes right after the data.
        return (bytes <= length - FOOTER as u64).then_some(Vpc::Raw(bytes));
    }
    let believed = BELIEVED.iter().any(|c| Some(c.as_slice()) == field(28, 4)) || sectors == MAX_GEOMETRY;
    let geometry = sectors * 512;
    Some(if believed || geometry == bytes { Vpc::Driver } else { Vpc::CutShort { bytes, geometry } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer(creator: &[u8; 4], bytes: u64, chs: (u16, u8, u8), kind: u32) -> [u8; FOOTER] {
        let mut f = [0u8; FOOTER];
        f[..8].copy_from_slice(b"conectix");
        f[28..32].copy_from_slice(creator);
        f[48..56].copy_from_slice(&bytes.to_be_bytes());
        f[56..58].copy_from_slice(&chs.0.to_be_bytes());
        f[58] = chs.1;
        f[59] = chs.2;
        f[60..64].copy_from_slice(&kind.to_be_bytes());
        f
    }

    #[test]
    fn no_vhd_is_silently_cut_short() {
        let mib = 1 << 20;
        assert_eq!(judge(&footer(b"win ", 10 * mib, (1, 1, 1), 3), mib), Some(Vpc::Driver));
        assert_eq!(
            judge(&footer(b"vs  ", 10 * mib, (300, 4, 17), 3), mib),
            Some(Vpc::CutShort { bytes: 10 * mib, geometry: 300 * 4 * 17 * 512 })
        );
        assert_eq!(judge(&footer(b"vs  ", 300 * 4 * 17 * 512, (300, 4, 17), 3), mib), Some(Vpc::Driver));
        assert_eq!(judge(&footer(b"vpc ", mib, (1, 1, 1), 2), mib + 512), Some(Vpc::Raw(mib)));
        assert_eq!(judge(&footer(b"vpc ", 2 * mib, (1, 1, 1), 2), mib + 512), None);
        assert_eq!(judge(&[0; FOOTER], mib), None);
    }
}

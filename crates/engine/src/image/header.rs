//! What an image's own header says, read by us before QEMU opens it.
//!
//! Two reasons. QEMU guesses a format by trying all its drivers, which a raw disk's owner (the guest) can steer; we look
//! for the few formats that are ever opened, and then tell QEMU which. And some headers name *further files*, which
//! QEMU opens without being asked: a qcow2 with an external data file, a VMDK descriptor with extents. Whoever makes
//! such an image chooses which of the host's files its user reads or writes, so those are refused. Backing files are not
//! a danger of that kind: QEMU is always told the chain, and follows none.
//!
//! Nothing here decides about a whole file; QEMU's drivers judge the rest.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use super::{Format, ImageError, ImageErrorKind};

/// How much of the beginning is looked at.
const HEAD: usize = 512;
const FOOTER: u64 = 512;
/// A qcow2 keeps its data in another file (incompatible feature bit 2).
const QCOW2_DATA_FILE: u64 = 1 << 2;

/// What a header means for who wants to open the image.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// Of a format that is opened.
    Is(Format),
    /// Of no format that is opened, or one that must not be; why.
    Refused(&'static str),
}

/// The format of the image at `path`, by its content. What has no known header is raw.
///
/// # Errors
/// It cannot be read, or its header is refused ([`ImageErrorKind::Unsupported`]).
pub(super) fn sniff(path: &Path) -> Result<Format, ImageError> {
    let (head, footer) = read(path)?;
    match judge(&head, &footer) {
        Header::Is(format) => Ok(format),
        Header::Refused(why) => Err(refused(path, why)),
    }
}

/// Refuses an image that is to be opened as `format` and would lead QEMU to further files.
///
/// # Errors
/// As [`sniff`]. A header of another format than `format` is left to QEMU to refuse.
pub(super) fn check(path: &Path, format: Format) -> Result<(), ImageError> {
    // The driver reads these headers only where it is told to.
    if !matches!(format, Format::Qcow2 | Format::Vmdk) {
        return Ok(());
    }
    sniff(path).map(|_| ())
}

fn refused(path: &Path, why: &str) -> ImageError {
    ImageError::new(ImageErrorKind::Unsupported, path, format!("`{}` is not opened: {why}", path.display()))
}

fn read(path: &Path) -> Result<(Vec<u8>, Vec<u8>), ImageError> {
    let read = || -> io::Result<_> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() && !metadata.file_type().is_block_device() {
            // Opening a pipe would wait for its other end.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
        }
        let file = File::open(path)?;
        let mut head = vec![0; HEAD];
        let length = read_up_to(&file, &mut head, 0)?;
        head.truncate(length);
        let mut footer = Vec::new();
        if metadata.is_file() && metadata.len() >= FOOTER {
            footer = vec![0; FOOTER as usize];
            file.read_exact_at(&mut footer, metadata.len() - FOOTER)?;
        }
        Ok((head, footer))
    };
    read().map_err(|e| ImageError::io(path, format!("cannot look at `{}`", path.display()), e))
}

fn read_up_to(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

fn judge(head: &[u8], footer: &[u8]) -> Header {
    let be = |at: usize, size: usize| -> u64 {
        head.get(at..at + size).unwrap_or_default().iter().fold(0, |n, b| n << 8 | u64::from(*b))
    };
    let starts = |magic: &[u8]| head.starts_with(magic);
    if starts(b"QFI\xfb") {
        return match be(4, 4) {
            2 => Header::Is(Format::Qcow2),
            3 if be(72, 8) & QCOW2_DATA_FILE != 0 => {
                Header::Refused("its header names another file as the one that holds its data")
            }
            3 => Header::Is(Format::Qcow2),
            _ => Header::Refused("it is a qcow of a version other than 2 and 3"),
        };
    }
    if starts(b"KDMV") {
        // Without a capacity the driver takes the descriptor inside for a list of extents in other files.
        return match head.get(12..20) {
            Some(capacity) if capacity != [0; 8] => Header::Is(Format::Vmdk),
            _ => Header::Refused("its header leads to a descriptor that names further files"),
        };
    }
    if starts(b"COWD") {
        return Header::Is(Format::Vmdk);
    }
    if head.windows(21).any(|w| w.eq_ignore_ascii_case(b"# disk descriptorfile")) {
        return Header::Refused("it is a VMDK descriptor, which names further files");
    }
    if starts(b"vhdxfile") {
        return Header::Is(Format::Vhdx);
    }
    if starts(b"conectix") || footer.starts_with(b"conectix") {
        return Header::Is(Format::Vpc);
    }
    if head.get(64..68) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        return Header::Is(Format::Vdi);
    }
    if starts(b"QED\0") || starts(b"WithoutFreeSpace") || starts(b"WithouFreSpacExt") {
        return Header::Refused("its format (QED or Parallels) is not one that is opened");
    }
    Header::Is(Format::Raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pieces: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        for (at, bytes) in pieces {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn formats_by_their_headers() {
        let is = |pieces: &[(usize, &[u8])]| judge(&head(pieces), &[]);
        assert_eq!(is(&[]), Header::Is(Format::Raw));
        assert_eq!(is(&[(0, b"QFI\xfb\0\0\0\x02")]), Header::Is(Format::Qcow2));
        assert_eq!(is(&[(0, b"QFI\xfb\0\0\0\x03"), (79, &[1])]), Header::Is(Format::Qcow2));
        assert!(matches!(is(&[(0, b"QFI\xfb\0\0\0\x03"), (79, &[4])]), Header::Refused(_)));
        assert!(matches!(is(&[(0, b"QFI\xfb\0\0\0\x01")]), Header::Refused(_)));
        assert_eq!(is(&[(0, b"KDMV\x01"), (13, &[8])]), Header::Is(Format::Vmdk));
        assert!(matches!(is(&[(0, b"KDMV\x01")]), Header::Refused(_)));
        assert!(matches!(is(&[(0, b"#\n# Disk DescriptorFile\nversion=1")]), Header::Refused(_)));
        assert_eq!(is(&[(0, b"vhdxfile")]), Header::Is(Format::Vhdx));
        assert_eq!(is(&[(0, b"conectix")]), Header::Is(Format::Vpc));
        assert_eq!(judge(&head(&[]), b"conectix"), Header::Is(Format::Vpc));
        assert_eq!(is(&[(64, &[0x7f, 0x10, 0xda, 0xbe])]), Header::Is(Format::Vdi));
        for length in 0..100 {
            for magic in [b"QFI\xfb\0\0\0\x03".as_slice(), b"KDMV", b"COWD", b"vhdxfile"] {
                let _ = judge(&head(&[(0, magic)])[..length], &[]);
            }
        }
    }
}

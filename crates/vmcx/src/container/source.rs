//! Where a container's bytes come from, with the replay log's writes laid over them.

use std::borrow::Cow;
use std::fs::File;
use std::io;

use super::super::error::{ReadError, ReadErrorKind};

/// Random access to a container's bytes.
pub(crate) trait Source {
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset`; short reads are errors.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// The bytes themselves, where they are in memory anyway.
    fn slice(&self) -> Option<&[u8]> {
        None
    }
}

impl Source for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Ok((**self).len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let range = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..buf.len()));
        buf.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}

impl Source for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buf, offset)
    }
}

impl Source for &File {
    fn size(&self) -> io::Result<u64> {
        Source::size(*self)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        Source::read_at(*self, buf, offset)
    }
}

/// A write that lies over the file.
pub(crate) struct Patch {
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
}

impl Patch {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// A source with patches over it, later ones on top; what lies beyond the source and under no patch reads zero.
pub(crate) struct Image<'a> {
    source: &'a dyn Source,
    source_len: u64,
    patches: Vec<Patch>,
    len: u64,
}

impl<'a> Image<'a> {
    pub(crate) fn new(source: &'a dyn Source) -> Result<Image<'a>, ReadError> {
        let len = source.size().map_err(|e| io_error(0, e))?;
        Ok(Image { source, source_len: len, patches: Vec::new(), len })
    }

    /// Lays `patches` over what is there. Their ends must not overflow.
    pub(crate) fn apply(&mut self, patches: Vec<Patch>) {
        self.len = patches.iter().map(Patch::end).fold(self.len, u64::max);
        self.patches.extend(patches);
    }

    /// Length in bytes, patches included.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Length of the file itself.
    pub(crate) fn source_len(&self) -> u64 {
        self.source_len
    }

    /// `size` bytes from `offset`; a range beyond the end is an error that names `what`.
    pub(crate) fn read(&self, offset: u64, size: usize, what: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        let end = offset.checked_add(size as u64).filter(|end| *end <= self.len).ok_or_else(|| {
            ReadError::truncated(
                offset,
                format!("{what} of {size} bytes lies beyond the end of the file ({})", self.len),
            )
        })?;
        if self.patches.is_empty()
            && let (Some(all), Ok(from), Ok(to)) =
                (self.source.slice(), usize::try_from(offset), usize::try_from(end))
            && let Some(range) = all.get(from..to)
        {
            return Ok(Cow::Borrowed(range));
        }
        let mut buf = vec![0; size];
        let in_source = self.source_len.saturating_sub(offset).min(size as u64) as usize;
        if in_source > 0 {
            self.source.read_at(&mut buf[..in_source], offset).map_err(|e| io_error(offset, e))?;
        }
        for patch in self.patches.iter().filter(|p| p.offset < end && p.end() > offset) {
            let from = patch.offset.max(offset);
            let to = patch.end().min(end);
            let target = (from - offset) as usize..(to - offset) as usize;
            let data = (from - patch.offset) as usize..(to - patch.offset) as usize;
            buf[target].copy_from_slice(&patch.data[data]);
        }
        Ok(Cow::Owned(buf))
    }
}

fn io_error(offset: u64, e: io::Error) -> ReadError {
    ReadError::new(ReadErrorKind::Io, offset, "cannot be read").caused_by(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_patches_win_and_gaps_read_zero() {
        let bytes: &[u8] = b"abcdef";
        let mut image = Image::new(&bytes).unwrap();
        assert!(matches!(image.read(1, 3, "x").unwrap(), Cow::Borrowed(b"bcd")));
        image.apply(vec![
            Patch { offset: 2, data: b"XYZ".to_vec() },
            Patch { offset: 4, data: b"12".to_vec() },
            Patch { offset: 8, data: b"!".to_vec() },
        ]);
        assert_eq!(&*image.read(0, 9, "x").unwrap(), b"abXY12\0\0!");
        assert_eq!(&*image.read(3, 2, "x").unwrap(), b"Y1");
        assert!(image.read(9, 1, "x").is_err());
        assert!(image.read(u64::MAX, 1, "x").is_err());
        assert_eq!(&*image.read(9, 0, "x").unwrap(), b"");
    }
}

//! A flat file or block device as a source; holes are those of the file system.

use std::fs;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom as HoleSeek;
use rustix::io::Errno;
use vhdx::{Extent, ExtentKind, FileRange, Storage};

use super::{MAX_EXTENTS, OpenOptions, Source, SourceError, SourceIdentity};
use crate::fault::{Fault, FaultKind};
use crate::hostfile::HostFile;

/// A flat file or block device.
#[derive(Debug)]
pub struct RawSource {
    path: PathBuf,
    file: HostFile,
    size: u64,
    sectors: (u32, u32),
    generation: String,
}

impl RawSource {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// When it cannot be opened, or is neither a file nor a block device.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, SourceError> {
        let failed = |error| SourceError::from(Fault::io(error, "open", path));
        let meta = fs::metadata(path).map_err(failed)?;
        if let Some(what) = super::no_disk(&meta) {
            return Err(Fault::new(FaultKind::Unsupported, "read", path).detail(what).into());
        }
        let block_device = std::os::unix::fs::FileTypeExt::is_block_device(&meta.file_type());
        let file = HostFile::open_read(path, options.access).map_err(failed)?;
        let size = if block_device {
            let mut device = file.file();
            device.seek(SeekFrom::End(0)).map_err(failed)?
        } else {
            file.len().map_err(failed)?
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            sectors: options.raw_sectors.unwrap_or((512, 4096)),
            generation: options.generation.clone(),
        })
    }

    /// First byte at or after `offset` that the file system calls data (or a hole); `None` when there is none.
    fn seek(&self, to: HoleSeek, offset: u64) -> Result<Option<u64>, SourceError> {
        match rustix::fs::seek(self.file.file(), to) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(Fault::io(error.into(), "map", &self.path).at(offset).into()),
        }
    }
}

impl Source for RawSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn logical_sector_size(&self) -> u32 {
        self.sectors.0
    }

    fn physical_sector_size(&self) -> u32 {
        self.sectors.1
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.file.read_at(buf, offset).map_err(|error| Fault::io(error, "read", &self.path).at(offset).into())
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, SourceError> {
        let end = offset.saturating_add(length).min(self.size);
        let mut extents = Vec::new();
        let mut at = offset;
        let mut push = |from: u64, to: u64, kind| {
            if to > from {
                extents.push(Extent { offset: from, length: to - from, kind, layer: 0 });
            }
            extents.len() < MAX_EXTENTS
        };
        while at < end {
            let data = match self.seek(HoleSeek::Data(at), at) {
                Ok(found) => found.unwrap_or(end).clamp(at, end),
                // A device or file system that has no notion of holes: all is data.
                Err(error) if at == offset && error.kind() != FaultKind::Vanished => {
                    push(at, end, ExtentKind::Data);
                    break;
                }
                Err(error) => return Err(error),
            };
            if !push(at, data, ExtentKind::Hole) || data == end {
                break;
            }
            at = self.seek(HoleSeek::Hole(data), data)?.unwrap_or(end).clamp(data, end);
            if at == data {
                at = end; // Shrunk under us: call it data, the read will say that it vanished.
            }
            if !push(data, at, ExtentKind::Data) {
                break;
            }
        }
        Ok(extents)
    }

    fn file_range(&self, offset: u64, length: u64) -> Option<FileRange<'_>> {
        Some(FileRange { file: self.file.file(), offset, length })
    }

    fn identity(&self) -> Result<SourceIdentity, SourceError> {
        SourceIdentity::of_files(&self.generation, [self.path.as_path()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_come_from_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let file = fs::File::create(&path).unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_all_at(&[1; 8192], 1 << 20).unwrap();
        file.write_all_at(&[2; 100], (10 << 20) - 100).unwrap();
        file.sync_all().unwrap();
        let source = RawSource::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(source.size(), 10 << 20);
        let extents = source.extents(0, source.size()).unwrap();
        let mut at = 0;
        for extent in &extents {
            assert_eq!(extent.offset, at);
            at = extent.end();
        }
        assert_eq!(at, 10 << 20);
        let data: u64 = extents.iter().filter(|e| e.kind == ExtentKind::Data).map(|e| e.length).sum();
        assert!(data >= 8292, "{extents:?}");
        if data == 10 << 20 {
            eprintln!("skipped: the file system reports no holes");
            return;
        }
        assert!(extents.iter().any(|e| e.kind == ExtentKind::Data && e.offset == 1 << 20));
        // A prefix of a part.
        let part = source.extents((1 << 20) + 4096, 8192).unwrap();
        assert_eq!(part[0].offset, (1 << 20) + 4096);
        assert_eq!(part[0].kind, ExtentKind::Data);
        assert_eq!(part.last().unwrap().end(), (1 << 20) + 4096 + 8192);
    }

    #[test]
    fn a_source_that_shrinks_has_vanished() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let source = RawSource::open(&path, &OpenOptions::default()).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let error = source.read_at(&mut [0; 8192], 0).unwrap_err();
        assert_eq!(error.kind(), FaultKind::Vanished);
        assert!(error.to_string().contains("disk.raw"), "{error}");
        fs::remove_file(&path).unwrap();
        assert_eq!(source.identity().unwrap_err().kind(), FaultKind::Vanished);
        let kind = |path: &Path| RawSource::open(path, &OpenOptions::default()).unwrap_err().kind();
        assert_eq!(kind(&path), FaultKind::NotFound);
        assert_eq!(kind(dir.path()), FaultKind::Unsupported);
    }
}

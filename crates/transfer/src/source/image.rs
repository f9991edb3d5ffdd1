//! A VHD or VHDX, with its parents, as a source.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx::FileRange;

use super::{Extent, MAX_EXTENTS, OpenOptions, Source, SourceError, SourceIdentity};
use crate::fault::{Fault, FaultKind};
use crate::hostfile::HostFile;

/// A VHD or VHDX chain.
#[derive(Debug)]
pub struct ImageSource {
    path: PathBuf,
    image: vhdx::Image,
    files: Vec<PathBuf>,
    generation: String,
}

impl ImageSource {
    /// Opens the image at `path` and all its parents.
    ///
    /// # Errors
    /// `Damaged` when a rule of the format is broken, `NotFound` when a parent is missing.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, SourceError> {
        let failed = |error| SourceError::from(Fault::image(error, path));
        let mut image = vhdx::Image::open(path, &options.image).map_err(failed)?;
        let files: Vec<_> = image.layers().iter().filter_map(|layer| layer.path.clone()).collect();
        if image.layers().len() == 1 {
            // One file: its payload can be read past the page cache.
            let storage = HostFile::open_read(path, options.access)
                .map_err(|error| SourceError::from(Fault::io(error, "open", path)))?;
            image = vhdx::Image::open_storage(Arc::new(storage), &path.to_string_lossy(), &options.image)
                .map_err(failed)?;
        }
        Ok(Self::new(image, path, files, &options.generation))
    }

    /// Takes an open image; `files` are its layers, leaf first, as far as they are files.
    pub fn new(image: vhdx::Image, path: &Path, files: Vec<PathBuf>, generation: &str) -> Self {
        Self { path: path.to_owned(), image, files, generation: generation.to_owned() }
    }

    /// The image.
    pub fn image(&self) -> &vhdx::Image {
        &self.image
    }
}

impl Source for ImageSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.image.virtual_size()
    }

    fn logical_sector_size(&self) -> u32 {
        self.image.logical_sector_size()
    }

    fn physical_sector_size(&self) -> u32 {
        self.image.physical_sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.image
            .read_at(buf, offset)
            .map_err(|error| Fault::foreign(error, FaultKind::Damaged, "read", &self.path).at(offset).into())
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, SourceError> {
        self.image
            .extents(offset, length)
            .take(MAX_EXTENTS)
            .collect::<Result<_, _>>()
            .map_err(|error| Fault::foreign(error, FaultKind::Damaged, "map", &self.path).at(offset).into())
    }

    fn file_range(&self, offset: u64, length: u64) -> Option<FileRange<'_>> {
        self.image.file_range(offset, length)
    }

    fn identity(&self) -> Result<SourceIdentity, SourceError> {
        SourceIdentity::of_files(&self.generation, self.files.iter().map(PathBuf::as_path))
    }
}

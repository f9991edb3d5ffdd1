//! A disk as its user sees it: one file and all its parents, read only.
//!
//! [`Image`] puts layers of either format on top of each other, leaf first. Where a byte is comes from the layers'
//! tables alone ([`Image::extents`], [`Image::locations`]); payload is touched by [`Image::read_at`] only. Finding and
//! judging the parents is `chain`'s part; what a single file holds is the readers'.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chain;
use crate::error::{Fault, OpenError, ReadError};
use crate::extent::{Extent, ExtentKind};
use crate::info::{DiskKind, Format, Info};
use crate::layer::{LayerRead, Run, RunState};
use crate::storage::{FileRange, Storage};

/// What to do when a differencing disk's parent is not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingParent {
    /// Refuse to open.
    #[default]
    Refuse,
    /// Read zeros where the parent would be asked: half a disk is better than none to someone who rescues files.
    Zero,
}

/// How to open an [`Image`]. The default is strict: everything checked, parents only beside the child.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// Parent files named by the user, the child's own parent first. Each is tried at its place in the chain, then by
    /// file name, then by identity.
    pub parents: Vec<PathBuf>,
    /// Further directories in which parents are looked for by file name.
    pub parent_dirs: Vec<PathBuf>,
    /// The same, for directories that nobody vouches for.
    pub fenced_dirs: Vec<FencedDir>,
    /// Directory that no parent found through the file's own words may leave; `None` is the child's own directory.
    /// Explicit parents and those in `parent_dirs` are the user's word and may lie anywhere.
    pub confine: Option<PathBuf>,
    /// What a missing parent means.
    pub missing_parent: MissingParent,
    /// Accept a parent whose identity is not the one recorded.
    pub ignore_linkage: bool,
    /// Read on where a checksum is wrong.
    pub lenient: bool,
}

/// A directory to look for parents in, and how far a link in it may lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencedDir {
    /// The directory.
    pub dir: PathBuf,
    /// What is found in it must lie inside this one, links resolved.
    pub fence: PathBuf,
}

/// One file of a chain.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Where it was opened; `None` when it came as a storage.
    pub path: Option<PathBuf>,
    /// What it says about itself.
    pub info: Info,
}

/// A disk with all its parents, read only. Shared between threads freely.
pub struct Image {
    layers: Vec<Layer>,
    /// Parallel to `layers`.
    readers: Vec<Box<dyn LayerRead>>,
    name: String,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl Image {
    /// Opens the disk at `path` and its parents.
    ///
    /// # Errors
    /// See [`crate::OpenErrorKind`]; in a chain the error names the file that failed.
    pub fn open(path: &Path, options: &ImageOptions) -> Result<Self, OpenError> {
        let opened = chain::open_chain(path, options)?;
        Ok(Self::from_layers(path.display().to_string(), opened))
    }

    /// Opens a disk that is one layer; `name` is for messages. No parent is looked for: a differencing disk needs
    /// [`MissingParent::Zero`].
    ///
    /// # Errors
    /// As for [`Image::open`].
    pub fn open_storage(
        storage: Arc<dyn Storage>,
        name: &str,
        options: &ImageOptions,
    ) -> Result<Self, OpenError> {
        let reader = chain::open_layer(storage, options.lenient).map_err(|fault| fault.named(name))?;
        if reader.info().kind == DiskKind::Differencing && options.missing_parent == MissingParent::Refuse {
            return Err(Fault::ParentMissing { tried: Vec::new() }.named(name));
        }
        Ok(Self::from_layers(name.to_owned(), vec![(None, reader)]))
    }

    fn from_layers(name: String, opened: Vec<(Option<PathBuf>, Box<dyn LayerRead>)>) -> Self {
        let mut layers = Vec::with_capacity(opened.len());
        let mut readers = Vec::with_capacity(opened.len());
        let count = opened.len();
        for (path, mut reader) in opened {
            reader.share_memory(count);
            layers.push(Layer { path, info: reader.info().clone() });
            readers.push(reader);
        }
        Self { layers, readers, name }
    }

    /// Which format the file at `path` is, by its content; `None` when neither, or not a regular file.
    ///
    /// # Errors
    /// What the host says when the file cannot be opened or read.
    pub fn is_vhd_or_vhdx(path: &Path) -> io::Result<Option<Format>> {
        chain::sniff_path(path)
    }

    /// Bytes of the disk.
    pub fn virtual_size(&self) -> u64 {
        self.leaf().virtual_size
    }

    /// 512 or 4096.
    pub fn logical_sector_size(&self) -> u32 {
        self.leaf().logical_sector_size
    }

    /// 512 or 4096.
    pub fn physical_sector_size(&self) -> u32 {
        self.leaf().physical_sector_size
    }

    /// The files of the chain, leaf first; never empty.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn leaf(&self) -> &Info {
        &self.layers[0].info
    }

    /// Fills `buf` from the virtual `offset`.
    ///
    /// # Errors
    /// `OutOfRange` when the range leaves the disk, `Corrupt` when a table leads nowhere, `Io` when the host refuses.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), ReadError> {
        let length = buf.len() as u64;
        self.check_range(offset, length)?;
        let mut rest = buf;
        for location in self.locations(offset, length) {
            let location = location?;
            let extent = location.extent;
            // A location is never longer than what was asked, so it fits a buffer.
            let (part, after) = std::mem::take(&mut rest).split_at_mut(extent.length as usize);
            rest = after;
            match location.file_offset {
                Some(at) => self.readers[extent.layer]
                    .read_data(part, at, extent.offset)
                    .map_err(|error| error.in_file(self.layer_name(extent.layer)))?,
                None => part.fill(0),
            }
        }
        Ok(())
    }

    /// What `[offset, offset + length)` holds, from metadata only, lazily, adjacent equals merged. The range is cut
    /// at the end of the disk. After an error the iterator ends.
    pub fn extents(&self, offset: u64, length: u64) -> Extents<'_> {
        Extents { locations: self.locations(offset, length), pending: None, failed: None }
    }

    /// Like [`Image::extents`], with the place of the data: what cloning and `map` need.
    pub fn locations(&self, offset: u64, length: u64) -> Locations<'_> {
        let end = offset.saturating_add(length).min(self.virtual_size());
        Locations {
            image: self,
            cursors: vec![VecDeque::new(); self.readers.len()],
            at: offset,
            end,
            pending: None,
            failed: None,
        }
    }

    /// Where the bytes from `offset` lie as they are in a file of the host, for at most `length` bytes and as long as they
    /// lie in one piece; `None` where they do not, or cannot be told.
    pub fn file_range(&self, offset: u64, length: u64) -> Option<FileRange<'_>> {
        let Location { extent, file_offset } = self.locations(offset, length).next()?.ok()?;
        let file = self.readers[extent.layer].host_file()?;
        Some(FileRange { file, offset: file_offset?, length: extent.length })
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<(), ReadError> {
        let size = self.virtual_size();
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(ReadError::out_of_range(offset, length, size).in_file(&self.name)),
        }
    }

    fn layer_name(&self, layer: usize) -> &str {
        self.layers[layer].path.as_deref().and_then(Path::to_str).unwrap_or(&self.name)
    }

    /// The next piece from `at`, at least one byte: asks each layer in turn until one knows.
    fn piece(&self, cursors: &mut [VecDeque<Run>], at: u64, end: u64) -> Result<Location, ReadError> {
        let mut length = end - at;
        let base = self.readers.len() - 1;
        for (layer, reader) in self.readers.iter().enumerate() {
            let size = reader.info().virtual_size;
            if at >= size {
                // The disk grew after this parent was made; there is nothing below its end either.
                break;
            }
            length = length.min(size - at);
            let run = run_at(reader.as_ref(), &mut cursors[layer], at, length)
                .map_err(|error| error.in_file(self.layer_name(layer)))?;
            length = length.min(run.end() - at);
            let extent = |kind| Extent { offset: at, length, kind, layer };
            match run.state {
                RunState::Data { file_offset } => {
                    let file_offset = Some(file_offset + (at - run.offset));
                    return Ok(Location { extent: extent(ExtentKind::Data), file_offset });
                }
                RunState::Zero => {
                    return Ok(Location { extent: extent(ExtentKind::Zero), file_offset: None });
                }
                RunState::Absent => {}
            }
        }
        let extent = Extent { offset: at, length, kind: ExtentKind::Hole, layer: base };
        Ok(Location { extent, file_offset: None })
    }
}

/// The run that holds `at`, from what was asked before or from the layer.
fn run_at(
    reader: &dyn LayerRead,
    cursor: &mut VecDeque<Run>,
    at: u64,
    length: u64,
) -> Result<Run, ReadError> {
    while let Some(run) = cursor.front() {
        if run.offset <= at && at < run.end() {
            return Ok(*run);
        }
        cursor.pop_front();
    }
    cursor.extend(reader.runs(at, length)?);
    match cursor.front() {
        Some(run) if run.offset <= at && at < run.end() => Ok(*run),
        _ => Err(ReadError::corrupt(at, "the tables give no answer")),
    }
}

/// An extent and where its data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// What and where in the disk.
    pub extent: Extent,
    /// For data: offset of its first byte in the file of `extent.layer`, contiguous for the whole extent.
    pub file_offset: Option<u64>,
}

impl Location {
    fn continues(&self, next: &Self) -> bool {
        self.extent.kind == next.extent.kind
            && self.extent.layer == next.extent.layer
            && self.extent.end() == next.extent.offset
            && match (self.file_offset, next.file_offset) {
                (Some(a), Some(b)) => a + self.extent.length == b,
                (None, None) => true,
                _ => false,
            }
    }
}

/// Lazy iterator of [`Image::locations`].
#[derive(Debug)]
pub struct Locations<'a> {
    image: &'a Image,
    /// Per layer, what it answered and was not used up yet.
    cursors: Vec<VecDeque<Run>>,
    at: u64,
    end: u64,
    pending: Option<Location>,
    failed: Option<ReadError>,
}

impl Iterator for Locations<'_> {
    type Item = Result<Location, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.end && self.failed.is_none() {
            match self.image.piece(&mut self.cursors, self.at, self.end) {
                Ok(next) => {
                    self.at = next.extent.end();
                    match &mut self.pending {
                        Some(last) if last.continues(&next) => last.extent.length += next.extent.length,
                        pending => {
                            if let Some(done) = pending.replace(next) {
                                return Some(Ok(done));
                            }
                        }
                    }
                }
                Err(error) => {
                    self.at = self.end;
                    self.failed = Some(error);
                }
            }
        }
        // What was known before the failure is still true and comes first.
        self.pending.take().map(Ok).or_else(|| self.failed.take().map(Err))
    }
}

/// Lazy iterator of [`Image::extents`].
#[derive(Debug)]
pub struct Extents<'a> {
    locations: Locations<'a>,
    pending: Option<Extent>,
    failed: Option<ReadError>,
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.failed.is_none() {
            match self.locations.next() {
                None => break,
                Some(Err(error)) => self.failed = Some(error),
                Some(Ok(Location { extent: next, .. })) => match &mut self.pending {
                    Some(last)
                        if last.kind == next.kind
                            && last.layer == next.layer
                            && last.end() == next.offset =>
                    {
                        last.length += next.length;
                    }
                    pending => {
                        if let Some(done) = pending.replace(next) {
                            return Some(Ok(done));
                        }
                    }
                },
            }
        }
        self.pending.take().map(Ok).or_else(|| self.failed.take().map(Err))
    }
}

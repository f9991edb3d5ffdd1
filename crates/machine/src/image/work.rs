//! The jobs that make and change virtual disk files.
//!
//! ```text
//!  write     a new file `.NAME.ID.partial`, filled and synced      (again after a death: it starts over)
//!  publish   the rename into the place: of nothing, or of the file that was copied
//! ```
//!
//! Undo removes the partial file, and a *new* file that was published. What was replaced is not brought back: the file holds
//! the same as before, and a cancel that comes before the rename is heard there.

use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use job::{Context, Failure, Kind, Steps, UndoReason};
use serde::{Deserialize, Serialize};
use transfer::copy::CopyOptions;
use transfer::source::{Extent, ExtentKind, ImageSource, Source, SourceError, SourceIdentity};
use vhdx::{CheckOptions, FileRange, Severity};

use super::file::{self, Inode};
use super::{FLOPPY, Shape, look};
use crate::error::{Error, Reason, chain};
use crate::jobs::{World, failure, io};

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The file that comes of it.
    pub(crate) file: PathBuf,
    /// What it will hold.
    pub(crate) content: Content,
    /// What it will be; `None` for a floppy disk, which is flat bytes.
    pub(crate) shape: Option<Shape>,
    /// Nothing is there yet.
    pub(crate) new: bool,
}

/// What a file is filled with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Content {
    /// Zeros.
    Nothing,
    /// That of a virtual disk.
    Image(PathBuf),
}

/// What such a job is called: they do the same, and are told apart by those who watch.
pub(crate) trait Begin: Send + Sync + 'static {
    const NAME: &'static str;
}

/// A job that makes a file.
pub(crate) struct Making<B>(PhantomData<B>);

macro_rules! called {
    ($($kind:ident = $name:literal),*) => { $(
        pub(crate) struct $kind;
        impl Begin for $kind {
            const NAME: &'static str = $name;
        }
    )* };
}
called!(
    Create = "image-create",
    Floppy = "image-floppy",
    Convert = "image-convert",
    Resize = "image-resize",
    Compact = "image-compact",
    Identify = "image-identify"
);

impl<B: Begin> Kind for Making<B> {
    const NAME: &'static str = B::NAME;
    const VERSION: u32 = 1;
    type Params = Work;
    type World = World;

    fn steps() -> Steps<Self> {
        Steps::new().step("write", write::<B>, forget::<B>).weight(50).step(
            "publish",
            publish::<B>,
            withdraw::<B>,
        )
    }
}

type Cx<'a, B> = Context<'a, Making<B>>;

/// What was written.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    /// The file.
    inode: Inode,
    /// What was copied, as it was then.
    of: Option<SourceIdentity>,
}

fn partial<B: Begin>(cx: &Cx<'_, B>) -> Result<PathBuf, Failure> {
    file::partial(&cx.params().file, cx.id().0).map_err(|e| failure(&e))
}

fn write<B: Begin>(cx: &mut Cx<'_, B>) -> Result<Written, Failure> {
    let work = cx.params();
    let partial = partial(cx)?;
    file::remove(&partial)?;
    let size = work.shape.as_ref().map_or(FLOPPY, |shape| shape.virtual_size);
    let source = match &work.content {
        Content::Nothing => None,
        Content::Image(path) => {
            let (image, _) = look::open(path).map_err(|e| failure(&e).path(path))?;
            let files = image.layers().iter().filter_map(|layer| layer.path.clone()).collect();
            Some(ImageSource::new(image, path, files, ""))
        }
    };
    let doing = format!("cannot write `{}`", work.file.display());
    let reporter = cx.reporter();
    let head = source.as_ref().map(|source| Head { source, size: source.size().min(size) });
    if let Some(head) = &head {
        head.refuse_loss(&|| reporter.cancelled())?;
    }
    let of = head.as_ref().map(Source::identity).transpose();
    let of = of.map_err(|e| Failure::new(Reason::Io.id(), format!("{doing}: {}", chain(&e))))?;
    let options = CopyOptions {
        cancelled: &|| reporter.cancelled(),
        progress: &|p| reporter.progress("copying", p.done, p.total),
        ..CopyOptions::default()
    };
    let source = head.as_ref().map(|head| head as &dyn Source);
    file::write(source, &partial, (work.shape.as_ref(), size), &doing, &options)?;
    Ok(Written { inode: Inode::of(&partial).map_err(|e| io("look at", &partial, e))?, of })
}

fn forget<B: Begin>(cx: &mut Cx<'_, B>, _why: UndoReason) -> Result<(), Failure> {
    file::remove(&partial(cx)?)
}

fn publish<B: Begin>(cx: &mut Cx<'_, B>) -> Result<PathBuf, Failure> {
    let written: Written = cx.output(write::<B>)?;
    let (work, partial) = (cx.params(), partial(cx)?);
    if written.inode.is_at(&work.file) {
        // Done before we died.
        file::remove(&partial)?;
        return Ok(work.file.clone());
    }
    cx.check_cancel()?;
    if let Some(was) = written.of.as_ref().filter(|_| !work.new) {
        let files = was.layers.iter().map(|layer| layer.path.as_path());
        let now = SourceIdentity::of_files("", files);
        let changed = match now {
            Ok(now) => was.difference(&now),
            Err(e) => Some(chain(&e)),
        };
        if let Some(how) = changed {
            return Err(Failure::new(Reason::InUse.id(), format!("somebody changed it meanwhile: {how}"))
                .path(&work.file)
                .hint("make sure that nothing writes to it, then try again"));
        }
    }
    file::publish(&partial, &work.file, work.new)?;
    Ok(work.file.clone())
}

fn withdraw<B: Begin>(cx: &mut Cx<'_, B>, _why: UndoReason) -> Result<(), Failure> {
    let Some(written) = cx.try_output(write::<B>)? else { return Ok(()) };
    let work = cx.params();
    if work.new && written.inode.is_at(&work.file) {
        fs::remove_file(&work.file).map_err(|e| io("remove", &work.file, e))?;
    }
    Ok(())
}

/// The beginning of a disk, or all of it.
#[derive(Debug)]
struct Head<'a> {
    source: &'a ImageSource,
    size: u64,
}

impl Head<'_> {
    /// Refuses when what is behind the end is not all zeros.
    fn refuse_loss(&self, cancelled: &dyn Fn() -> bool) -> Result<(), Failure> {
        const PIECE: u64 = 1 << 20;
        let unreadable = |e: SourceError| Failure::new(Reason::Io.id(), chain(&e)).path(self.source.path());
        let mut buffer = vec![0; PIECE as usize];
        let mut at = self.size;
        while at < self.source.size() {
            for extent in self.source.extents(at, self.source.size() - at).map_err(unreadable)? {
                at = extent.end();
                let mut from = extent.offset;
                while extent.kind == ExtentKind::Data && from < extent.end() {
                    if cancelled() {
                        return Err(Failure::new(job::ids::INTERRUPTED, "told to stop"));
                    }
                    let piece = &mut buffer[..(extent.end() - from).min(PIECE) as usize];
                    self.source.read_at(piece, from).map_err(unreadable)?;
                    if let Some(found) = piece.iter().position(|byte| *byte != 0) {
                        let message = format!(
                            "a disk of {} bytes would lose what is at byte {}",
                            self.size,
                            from + found as u64
                        );
                        return Err(Failure::new(Reason::InvalidArgument.id(), message)
                            .path(self.source.path())
                            .hint(
                                "shrink the file system in it first; a GPT keeps its copy at the very end",
                            ));
                    }
                    from += piece.len() as u64;
                }
            }
        }
        Ok(())
    }
}

impl Source for Head<'_> {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn logical_sector_size(&self) -> u32 {
        self.source.logical_sector_size()
    }

    fn physical_sector_size(&self) -> u32 {
        self.source.physical_sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.source.read_at(buf, offset)
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, SourceError> {
        self.source.extents(offset, length.min(self.size.saturating_sub(offset)))
    }

    fn file_range(&self, offset: u64, length: u64) -> Option<FileRange<'_>> {
        self.source.file_range(offset, length)
    }

    fn identity(&self) -> Result<SourceIdentity, SourceError> {
        self.source.identity()
    }
}

/// A job that compares a file with the rules of its format.
pub(crate) struct Validate;

/// Which file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ValidateParams {
    pub(crate) file: PathBuf,
}

impl Kind for Validate {
    const NAME: &'static str = "image-check";
    const VERSION: u32 = 1;
    const EXCLUSIVE: bool = false;
    type Params = ValidateParams;
    type World = World;

    fn steps() -> Steps<Self> {
        Steps::new().step_without_undo("check", check)
    }
}

fn check(cx: &mut Context<'_, Validate>) -> Result<usize, Failure> {
    let path = &cx.params().file;
    let image = vhdx::Image::open(path, &vhdx::ImageOptions::default());
    let image = image.map_err(|e| failure(&look::refusal(path, e)).path(path))?;
    let files: Vec<_> = image.layers().iter().filter_map(|layer| layer.path.clone()).collect();
    for file in &files {
        cx.check_cancel()?;
        let report = vhdx::check(file, &CheckOptions::default());
        let report = report.map_err(|e| failure(&look::refusal(file, e)).path(file))?;
        if let Some(broken) = report.findings.iter().find(|found| found.severity == Severity::Error) {
            let e = Error::new(Reason::BadPackage, format!("`{}`: {broken}", file.display()))
                .hint(format!("`slipway disk check {}` lists all", transfer::shell::word(file)));
            return Err(failure(&e).path(file));
        }
        for found in report.findings.iter().filter(|found| found.severity == Severity::Warning) {
            cx.warn(job::Warning::new(found.rule, found.message.clone()));
        }
    }
    Ok(files.len())
}

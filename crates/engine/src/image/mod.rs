//! Any QEMU image, served as NBD, created, or asked what it is.
//!
//! QEMU is the only reader and writer of its own formats: the rest of Slipway sees such an image as an NBD export on a
//! Unix socket ([`serve`], [`serve_chain`]) for as long as a [`ServedImage`] lives. An image's own header never decides
//! which further files are opened: a backing file it names is reported by [`info`], not followed, and one that keeps its
//! data in other files is refused.

mod header;
mod info;
mod serve;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

pub use info::{ImageInfo, info};
pub use serve::{ServedImage, serve, serve_chain};

use crate::qemu::process::{find_program, run};

/// Longest a metadata command of `qemu-img` may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How to get the programs, on Debian.
const FIX: &str = "sudo apt install qemu-utils (Debian 12: from bookworm-backports)";
/// Largest disk, in bytes: what VHDX allows.
const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// A format of an image, among those that are ever opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Flat bytes.
    Raw,
    /// QEMU's own.
    Qcow2,
    /// Hyper-V's.
    Vhdx,
    /// VHD.
    Vpc,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
}

impl Format {
    /// QEMU's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhdx => "vhdx",
            Self::Vpc => "vpc",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
        }
    }
}

impl From<crate::ImageFormat> for Format {
    fn from(format: crate::ImageFormat) -> Self {
        match format {
            crate::ImageFormat::Raw => Self::Raw,
            crate::ImageFormat::Qcow2 => Self::Qcow2,
            crate::ImageFormat::Vhdx => Self::Vhdx,
            crate::ImageFormat::Vpc => Self::Vpc,
        }
    }
}

/// What may be done with a served image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// What a caller may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageErrorKind {
    /// The program is not installed.
    NotInstalled,
    /// The image is locked by another process.
    InUse,
    /// There is no such file.
    NotFound,
    /// The operating system does not permit it.
    Denied,
    /// The format is none of those that are opened.
    Unsupported,
    /// It took too long.
    TimedOut,
    /// Anything else; QEMU's words are in the message.
    Failed,
}

/// An image that could not be served, created or looked at.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    kind: ImageErrorKind,
    path: PathBuf,
    message: String,
    #[source]
    source: Option<std::io::Error>,
}

impl ImageError {
    fn new(kind: ImageErrorKind, path: &Path, message: impl Into<String>) -> Self {
        Self { kind, path: path.to_owned(), message: message.into(), source: None }
    }

    fn io(path: &Path, message: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ImageErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ImageErrorKind::Denied,
            std::io::ErrorKind::TimedOut => ImageErrorKind::TimedOut,
            _ => ImageErrorKind::Failed,
        };
        Self { source: Some(source), ..Self::new(kind, path, message) }
    }

    /// From what QEMU's tools say on standard error; or how they ended, when they said nothing.
    fn said(path: &Path, doing: &str, status: ExitStatus, text: &str) -> Self {
        let mut last = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
        if last.is_empty() {
            last = format!("the program ended without a word ({status})");
        }
        let kind = if text.contains(" lock") {
            ImageErrorKind::InUse
        } else if text.contains("No such file") {
            ImageErrorKind::NotFound
        } else if text.contains("Permission denied") {
            ImageErrorKind::Denied
        } else {
            ImageErrorKind::Failed
        };
        Self::new(kind, path, format!("cannot {doing} `{}`: {last}", path.display()))
    }

    /// What a caller may branch on.
    pub fn kind(&self) -> ImageErrorKind {
        self.kind
    }

    /// The image concerned.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self.kind {
            ImageErrorKind::NotInstalled => Some(FIX),
            ImageErrorKind::InUse => Some("another process has the image open; stop it first"),
            ImageErrorKind::Unsupported => Some(
                "if you trust where it comes from, `qemu-img convert -O qcow2 SRC DST` makes one file of it",
            ),
            _ => None,
        }
    }
}

/// A command of QEMU's. Its messages are matched, so they have to come in English.
fn program(name: &str, path: &Path) -> Result<Command, ImageError> {
    let program = find_program(name).ok_or_else(|| {
        ImageError::new(ImageErrorKind::NotInstalled, path, format!("{name} is not installed"))
    })?;
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env_remove("LANGUAGE");
    Ok(command)
}

/// Creates a qcow2 image of `size` bytes at `path`, which is replaced if it exists. `backing` becomes its header's
/// backing file, which is not opened here; our own guests are told their layers explicitly and need none.
///
/// # Errors
/// The size is beyond 64 TiB; `qemu-img` is missing or refuses.
pub fn create_qcow2(path: &Path, size: u64, backing: Option<(&Path, Format)>) -> Result<(), ImageError> {
    if size > MAX_VIRTUAL_SIZE {
        let message = format!("a disk of {size} bytes is larger than {MAX_VIRTUAL_SIZE}");
        return Err(ImageError::new(ImageErrorKind::Unsupported, path, message));
    }
    let mut command = program("qemu-img", path)?;
    command.args(["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=off"]);
    if let Some((base, format)) = backing {
        // Unread: its size is told, and its own headers lead nowhere.
        command.arg("-u").arg("-b").arg(base).args(["-F", format.name()]);
    }
    command.arg("--").arg(path).arg(size.to_string());
    let (status, text) = run(&mut command, LIMIT)
        .map_err(|e| ImageError::io(path, format!("cannot create `{}`", path.display()), e))?;
    if !status.success() {
        return Err(ImageError::said(path, "create", status, &text));
    }
    let durable = || -> std::io::Result<()> {
        std::fs::File::open(path)?.sync_all()?;
        match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => std::fs::File::open(dir)?.sync_all(),
            _ => Ok(()),
        }
    };
    durable().map_err(|e| ImageError::io(path, format!("cannot sync `{}`", path.display()), e))
}

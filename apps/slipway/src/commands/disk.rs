//! `slipway disk`: what is in a disk file, without a daemon.
//!
//! VHD and VHDX are read by our own library, raw files as they are; any other QEMU image is served by the engine over
//! NBD for as long as the command runs.

mod convert;
mod info;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use transfer::source::{self, DiskFormat, NbdSource, OpenOptions, Source, SourceIdentity};
use vhdx::{ExtentKind, ImageOptions, MissingParent};

pub(crate) use convert::{ConvertOptions, Target, convert};
pub(crate) use info::{check, info, map};

use crate::failure::{Code, Failure, Result};
use crate::printer::Printer;

/// Bytes read at a time when hashing.
const PIECE: usize = 4 << 20;

/// How a disk's chain is to be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChainOptions {
    pub(crate) parents: Vec<PathBuf>,
    pub(crate) missing_parent_zero: bool,
    pub(crate) ignore_linkage: bool,
    pub(crate) lenient: bool,
}

impl ChainOptions {
    pub(crate) fn image(&self) -> ImageOptions {
        ImageOptions {
            parents: self.parents.clone(),
            missing_parent: if self.missing_parent_zero {
                MissingParent::Zero
            } else {
                MissingParent::Refuse
            },
            ignore_linkage: self.ignore_linkage,
            lenient: self.lenient,
            ..ImageOptions::default()
        }
    }
}

/// An opened disk, with the process that serves it if one must.
pub(crate) struct Disk {
    pub(crate) source: Box<dyn Source>,
    pub(crate) format: &'static str,
    _served: Option<engine::image::ServedImage>,
}

/// Opens whatever disk `path` is.
pub(crate) fn open(path: &Path, chain: &ChainOptions) -> Result<Disk> {
    let found = source::sniff(path).map_err(|e| {
        Failure::at("open", path, &e).code(code(e.kind())).or_hint(|| "name a disk file".to_owned())
    })?;
    let format = match found {
        DiskFormat::Raw => "raw",
        DiskFormat::Vhd => "vhd",
        DiskFormat::Vhdx => "vhdx",
        DiskFormat::Engine(name) => return serve(path, name),
        _ => {
            return Err(Failure::new(
                "not-supported",
                format!("`{}` is of an unknown format", path.display()),
            )
            .hint("VHDX, VHD, raw, qcow2, VMDK and VDI are read"));
        }
    };
    let options = OpenOptions { image: chain.image(), ..OpenOptions::default() };
    let source = source::open_as(path, found, &options).map_err(|e| {
        let failure = Failure::at("open", path, &e).code(code(e.kind()));
        match hint(path, chain) {
            Some(hint) => failure.hint(hint),
            None => failure.or_hint(|| look_closer(path)),
        }
    })?;
    Ok(Disk { source, format, _served: None })
}

/// The command that says more of a disk that cannot be read.
fn look_closer(path: &Path) -> String {
    let ours = vhdx::Image::is_vhd_or_vhdx(path).is_ok_and(|known| known.is_some());
    format!("{} {}", if ours { "slipway disk check" } else { "qemu-img check" }, transfer::shell::path(path))
}

/// A failure in the middle of reading.
fn unreadable(path: &Path, e: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::at("read", path, e).or_hint(|| look_closer(path))
}

/// What the format library advises about a disk that cannot be opened.
fn hint(path: &Path, chain: &ChainOptions) -> Option<&'static str> {
    vhdx::Image::open(path, &chain.image()).err().and_then(|e| e.hint())
}

fn code(kind: transfer::FaultKind) -> Code {
    match kind {
        transfer::FaultKind::NotFound => Code::NotFound,
        transfer::FaultKind::Damaged => Code::Findings,
        transfer::FaultKind::Busy => Code::NotNow,
        _ => Code::Failed,
    }
}

fn serve(path: &Path, name: &'static str) -> Result<Disk> {
    let format = match name {
        "qcow2" => engine::image::Format::Qcow2,
        "vmdk" => engine::image::Format::Vmdk,
        "vdi" => engine::image::Format::Vdi,
        other => {
            return Err(Failure::new(
                "not-supported",
                format!("`{}` is {other}, which is not read", path.display()),
            )
            .hint("convert it first: qemu-img convert"));
        }
    };
    let at = |e: &(dyn std::error::Error + 'static)| unreadable(path, e);
    let served = engine::image::serve(path, format, engine::image::Access::ReadOnly).map_err(|e| at(&e))?;
    let client = nbd::Client::connect_unix(served.socket(), served.export(), &["base:allocation"])
        .map_err(|e| at(&e))?;
    let identity = SourceIdentity::of_files("", [path]).map_err(|e| at(&e))?;
    let source = Box::new(NbdSource::new(client, path, (512, 512), identity));
    Ok(Disk { source, format: name, _served: Some(served) })
}

/// `disk hash FILE`: SHA-256 of the whole virtual content, two spaces, its size in bytes.
pub(crate) fn hash(printer: Printer, path: &Path, chain: &ChainOptions) -> Result {
    let disk = open(path, chain)?;
    let source = &*disk.source;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    let zeros = vec![0; PIECE];
    let at = |e: &(dyn std::error::Error + 'static)| unreadable(path, e);
    let mut offset = 0;
    while offset < source.size() {
        let extents = source.extents(offset, source.size() - offset).map_err(|e| at(&e))?;
        for extent in extents {
            let end = extent.end().min(source.size());
            while offset < end {
                let length = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
                if extent.kind == ExtentKind::Data {
                    source.read_at(&mut piece[..length], offset).map_err(|e| at(&e))?;
                    hasher.update(&piece[..length]);
                } else {
                    hasher.update(&zeros[..length]);
                }
                offset += length as u64;
            }
        }
    }
    let digest: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    printer.line(format!("{digest}  {}", source.size()))
}

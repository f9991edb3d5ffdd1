//! A machine's export on disk, as Hyper-V lays it out, found and fenced.
//!
//! ```text
//!   <package>/config.xml                                describes an export of 2008 to 2012
//!             Virtual Machines/GUID.{vmcx,xml,exp}      the configuration
//!             Virtual Machines/GUID.{vmrs,vmgs}         runtime and guest state; GUID/*.{bin,vsv} before 2016
//!             Snapshots/GUID.…                          one set per checkpoint
//!             Virtual Hard Disks/*.{vhd,vhdx,avhd,avhdx}
//!             Slipway/                                  ours: manifest and digests
//! ```
//!
//! Directory names are matched without regard to case; Vagrant boxes and the layouts of 2008 to 2012 R2 are the same thing
//! with other file names. A package is hostile input: the number of entries looked at is bounded, and every path that
//! [`Package`] hands out has been resolved and lies inside the package, or inside a directory that the user named.
//! What the configuration *says* is for `vmcx` and the domain; this module opens no file it lists.

mod find;
mod live;
mod resolve;
mod scan;

use std::fmt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

pub use find::find_packages;
pub use live::{make_export, make_live};
pub use resolve::{DiskNotFound, Resolver, Tried, windows_components};
pub use scan::is_disk_name;
pub(crate) use scan::{is_partial, manifest_in};

use crate::fault::FaultKind;
use crate::manifest::{DiskEntry, Manifest, fold_case};
use crate::verify::VerifyError;

/// Most entries looked at in one directory.
pub const MAX_DIRECTORY: usize = 10_000;
/// Most checkpoints of one machine. Hyper-V makes 50.
pub const MAX_SNAPSHOTS: usize = 256;
/// Most candidates an error lists.
pub const MAX_CANDIDATES: usize = 20;
/// Extension of an export under way.
pub const PARTIAL: &str = "partial";

/// What a configuration file is, by its name and first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfigKind {
    /// The binary container of 2016 and later.
    Vmcx,
    /// XML of 2012 and 2012 R2, and of Vagrant boxes.
    Xml,
    /// An export of 2008 to 2012: WMI instance XML from Hyper-V itself, or the XML of a configuration.
    Exp,
}

/// A file that belongs to a machine or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFile {
    /// Resolved path.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

/// The configuration of a machine or a snapshot, and the state beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Resolved path.
    pub path: PathBuf,
    /// By name and bytes.
    pub kind: ConfigKind,
    /// From the file name, where that is a GUID.
    pub id: Option<Uuid>,
    /// `.vmrs`: runtime state, there even when the machine is off.
    pub runtime_state: Option<MemberFile>,
    /// `.vmgs`: guest state, such as UEFI variables and TPM.
    pub guest_state: Option<MemberFile>,
    /// `.bin` and `.vsv`: memory and devices of a saved machine before 2016.
    pub saved_state: Vec<MemberFile>,
}

/// How the package is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Hyper-V's directories.
    HyperV,
    /// The same inside an unpacked Vagrant box.
    Vagrant,
    /// A configuration file in any directory.
    Loose,
}

/// A disk file in the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// Resolved path.
    pub path: PathBuf,
    /// File name.
    pub name: String,
    /// Bytes of the file.
    pub size: u64,
}

/// A package that was found and fenced.
#[derive(Clone, Debug)]
pub struct Package {
    /// Canonical path of the directory.
    pub root: PathBuf,
    /// How it is laid out.
    pub layout: Layout,
    /// The machine's configuration.
    pub configuration: Configuration,
    /// The snapshots' configurations, by name.
    pub snapshots: Vec<Configuration>,
    /// Disk files present, by path. Which of them are attached, the configuration says.
    pub disks: Vec<DiskFile>,
    /// Our manifest, where there is one.
    pub manifest: Option<PathBuf>,
    /// `config.xml` at the top, by which an export of 2008 to 2012 is known.
    pub description: Option<PathBuf>,
}

impl Package {
    /// Finds the package at `path`: its directory, its `Virtual Machines` directory, or a configuration file.
    ///
    /// # Errors
    /// Says what the path is instead, and what to do next.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        scan::open(path)
    }

    /// The file in this package that `wanted`, a path as a Windows host wrote it, names.
    ///
    /// Looked for without regard to case, in `extra_dirs` (which the user named) first, then in `Virtual Hard Disks`, beside
    /// the configuration, and at the package's top; in each with as many trailing directories of `wanted` as match.
    ///
    /// # Errors
    /// Lists what was tried.
    pub fn resolve_disk(&self, wanted: &str, extra_dirs: &[PathBuf]) -> Result<PathBuf, DiskNotFound> {
        self.resolver(extra_dirs).find(wanted)
    }

    /// [`Self::resolve_disk`] for several disks.
    pub fn resolver(&self, extra_dirs: &[PathBuf]) -> Resolver {
        Resolver::new(self, extra_dirs)
    }

    /// Our manifest; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, is too large, or cannot be relied on.
    pub fn read_manifest(&self) -> Result<Option<Manifest>, VerifyError> {
        self.manifest.as_deref().map(crate::verify::read_manifest).transpose()
    }

    /// What `manifest` says of the disk at `path`, a file of this package.
    pub fn declared<'m>(&self, manifest: &'m Manifest, path: &Path) -> Option<&'m DiskEntry> {
        let inside = fold_case(path.strip_prefix(&self.root).ok()?.to_str()?);
        manifest.disks.iter().find(|disk| fold_case(&disk.path) == inside)
    }

    /// True when it was an export of 2008 to 2012 and is a machine's own folder by now: imported in place, once.
    pub fn is_live(&self) -> bool {
        self.description.is_some() && self.configuration.kind == ConfigKind::Xml
    }

    /// The machine's and all snapshots' configurations.
    pub fn configurations(&self) -> impl Iterator<Item = &Configuration> {
        std::iter::once(&self.configuration).chain(&self.snapshots)
    }
}

/// What is at a path that is not a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotPackage {
    /// Nothing.
    Missing,
    /// Something that cannot be read.
    Unreadable,
    /// A disk image.
    Disk,
    /// Another file of a package (state), whose configuration is elsewhere.
    State,
    /// Any other file.
    File,
    /// A directory whose subdirectories are packages.
    OneLevelTooHigh,
    /// A directory with several machines in one package.
    SeveralConfigurations,
    /// A directory that holds no configuration.
    Nothing,
    /// An export that did not finish.
    Partial,
    /// A name in it leads outside.
    Escapes,
    /// More entries than we look at.
    TooLarge,
}

/// Why there is no package at a path.
#[derive(Debug)]
pub struct OpenError {
    reason: NotPackage,
    path: PathBuf,
    message: String,
    candidates: Vec<PathBuf>,
    hint: Option<String>,
    cause: Option<std::io::Error>,
}

impl OpenError {
    fn new(reason: NotPackage, path: &Path, message: impl Into<String>) -> Self {
        Self {
            reason,
            path: path.to_owned(),
            message: message.into(),
            candidates: Vec::new(),
            hint: None,
            cause: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn candidates(mut self, candidates: Vec<PathBuf>) -> Self {
        self.candidates = candidates;
        self
    }

    fn io(path: &Path, error: std::io::Error) -> Self {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let (reason, message) = if missing {
            (NotPackage::Missing, "there is nothing here")
        } else {
            (NotPackage::Unreadable, "it cannot be read")
        };
        let hint = match FaultKind::of(&error) {
            FaultKind::NotFound => "check the path; name the directory that Hyper-V's Export made",
            FaultKind::Denied => "run it as a user who may read it all, or change who may",
            _ => "look at it: ls -l",
        };
        let failed = Self { cause: Some(error), ..Self::new(reason, path, message) };
        failed.hint(hint)
    }

    /// What is there instead.
    pub fn reason(&self) -> NotPackage {
        self.reason
    }

    /// The general kind, as for every error of this crate.
    pub fn kind(&self) -> FaultKind {
        match self.reason {
            NotPackage::Missing => FaultKind::NotFound,
            NotPackage::Unreadable => self.cause.as_ref().map_or(FaultKind::Other, FaultKind::of),
            NotPackage::Escapes => FaultKind::Escapes,
            NotPackage::TooLarge => FaultKind::Limit,
            NotPackage::Partial => FaultKind::Busy,
            _ => FaultKind::Unsupported,
        }
    }

    /// The path that is no package.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Paths that are packages or configurations and may have been meant; at most [`MAX_CANDIDATES`].
    pub fn alternatives(&self) -> &[PathBuf] {
        &self.candidates
    }

    /// What to do next.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a machine's package: {}", self.path.display(), self.message)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|c| c as _)
    }
}

/// How the disks of the package at `root` (resolved) are opened: parents are looked for in its own directories, which no
/// link leads out of, and in `disk_dirs`, which the user named.
pub fn image_options(root: &Path, disk_dirs: &[PathBuf]) -> vhdx::ImageOptions {
    vhdx::ImageOptions {
        parent_dirs: disk_dirs.to_vec(),
        fenced_dirs: scan::disk_directories(root)
            .into_iter()
            .map(|dir| vhdx::FencedDir { dir, fence: root.to_owned() })
            .collect(),
        confine: Some(root.to_owned()),
        ..vhdx::ImageOptions::default()
    }
}

#[cfg(test)]
mod tests;

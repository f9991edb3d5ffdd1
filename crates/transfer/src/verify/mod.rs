//! Proving a package, and saying which level of proof was given.
//!
//! With a manifest every file's bytes and every disk's content are compared with their digests: [`Proof::Content`].
//! Without one the structure is checked: configurations can be read, disks keep the rules of their format, chains are
//! complete, and the disks that a configuration names are there: [`Proof::Structure`]. Nothing is written, and nothing outside
//! the package is opened.

mod content;
mod structure;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::copy::{CopyOptions, Progress};
use crate::fault::{Cause, FaultKind};
use crate::hostfile::DO_NOT_WAIT;
use crate::manifest::{self, Manifest, ManifestError};
use crate::package::{OpenError, Package, is_partial, manifest_in};

/// Findings kept in a report; more are counted only.
pub const MAX_FINDINGS: usize = 1000;

/// How much a report proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// Every byte that matters was compared with the manifest's digests.
    Content,
    /// The package has no manifest: formats and completeness were checked, not content.
    Structure,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// The package works, but is not quite what it should be.
    Warning,
    /// The package is not what its maker wrote, or cannot be used.
    Error,
}

/// Something a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable id: `package.*`, `disk.*`, or the format check's own rule.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// The file, relative to the package where it lies inside.
    pub path: PathBuf,
    /// Byte concerned, where there is one: of the virtual disk for content, of the file for structure.
    pub offset: Option<u64>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What a verification came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The package's directory.
    pub root: PathBuf,
    /// What was proven, provided there is no error among the findings.
    pub proof: Proof,
    /// The manifest, where there is one.
    pub manifest: Option<Manifest>,
    /// Small files looked at.
    pub files: usize,
    /// Disks looked at.
    pub disks: usize,
    /// Bytes of data read from disks.
    pub bytes: u64,
    /// What was found, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings beyond that.
    pub more_findings: usize,
}

impl Report {
    /// True when nothing worse than a warning was found.
    pub fn is_good(&self) -> bool {
        // An error is only left out when all that is kept are errors.
        self.findings.iter().all(|f| f.severity < Severity::Error)
    }

    fn new(root: &Path, proof: Proof) -> Self {
        Self {
            root: root.to_owned(),
            proof,
            manifest: None,
            files: 0,
            disks: 0,
            bytes: 0,
            findings: Vec::new(),
            more_findings: 0,
        }
    }

    fn add(&mut self, id: &'static str, severity: Severity, path: &Path, message: impl Into<String>) {
        self.push(Finding {
            id,
            severity,
            path: self.relative(path),
            offset: None,
            message: message.into(),
            hint: None,
        });
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    fn push(&mut self, finding: Finding) {
        // A flood of notes must not hide an error.
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else if finding.severity == Severity::Error
            && let Some(least) = self.findings.iter_mut().find(|f| f.severity < Severity::Error)
        {
            *least = finding;
            self.more_findings += 1;
        } else {
            self.more_findings += 1;
        }
    }
}

/// How to verify.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions<'a> {
    /// Workers, rate limit, cancel flag and progress; progress covers all disks together.
    pub copy: CopyOptions<'a>,
    /// Directories outside the package where the user says that disks are.
    pub disk_dirs: &'a [PathBuf],
}

/// Why a package could not be verified at all. A package that is wrong is a report, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no package.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is a manifest that cannot be relied on.
    #[error("cannot use the manifest `{}`", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// Something cannot be read that should be.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl VerifyError {
    /// What a caller may branch on.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Manifest { .. } => FaultKind::Damaged,
            Self::Read { source, .. } => FaultKind::of(source),
            Self::Cancelled => FaultKind::Cancelled,
        }
    }

    /// What the user may do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Open(error) => error.advice(),
            Self::Manifest { .. } => {
                Some("move the manifest away to have only the package's structure checked")
            }
            _ => None,
        }
    }
}

/// Verifies the package at `path`.
///
/// # Errors
/// Only when there is nothing that could be verified.
pub fn verify(path: &Path, options: &VerifyOptions<'_>) -> Result<Report, VerifyError> {
    // A package whose configuration is missing is no package, but with a manifest it can be told what is missing.
    let (root, path) = match Package::open(path) {
        Ok(Package { root, manifest: Some(manifest), .. }) => (root, manifest),
        Ok(package) => return structure::verify(&package, options),
        Err(error) => {
            let root = fs::canonicalize(path).ok().filter(|root| !is_partial(root));
            let manifest = root.as_deref().and_then(manifest_in).filter(|path| path.is_file());
            root.zip(manifest).ok_or(error)?
        }
    };
    content::verify(&root, read_manifest(&path)?, options)
}

/// Reads the manifest at `path`.
pub(crate) fn read_manifest(path: &Path) -> Result<Manifest, VerifyError> {
    let bytes = read_bounded(path, manifest::MAX_SIZE)
        .map_err(|source| VerifyError::Read { path: path.to_owned(), source })?;
    Manifest::parse(&bytes).map_err(|source| VerifyError::Manifest { path: path.to_owned(), source })
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Opens what must be a file: a pipe of that name would block the open itself, also one that comes in between.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        let file = File::options().read(true).custom_flags(DO_NOT_WAIT).open(path)?;
        if file.metadata()?.is_file() {
            return Ok(file);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"))
}

/// Adds the progress of one disk to that of those before.
fn shifted(progress: &Progress, before: u64, total: u64) -> Progress {
    Progress { done: before + progress.done, total: total.max(before + progress.total), ..*progress }
}

/// The chain of causes on one line, for findings.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        at = cause.source();
    }
    text
}

/// [`chain`] of a boxed cause.
fn chain_of(cause: &Cause) -> String {
    chain(&**cause)
}

#[cfg(test)]
mod tests;

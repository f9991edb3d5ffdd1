//! One file per noun, one function per command.
//!
//! A command takes resolved arguments and a [`crate::printer::Printer`], does one thing and returns. Offline commands
//! (`config`, `disk`, `explain`, `help`, `inspect`, `verify`) work on files and need no daemon; the online ones get a
//! [`crate::session::Session`] with it and are async. `serve` is the daemon itself.

pub(crate) mod config;
pub(crate) mod disk;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod help;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod job;
pub(crate) mod machine;
pub(crate) mod metrics;
pub(crate) mod planned;
pub(crate) mod serve;
pub(crate) mod simulator;
pub(crate) mod switch;
pub(crate) mod user;
pub(crate) mod verify;

use std::io::Write;
use std::path::Path;

use crate::failure::{Code, Failure, Result};

/// Writes a file that must not exist: whole under its name, or not at all.
pub(crate) fn write_new(target: &Path, bytes: &[u8]) -> Result {
    let at = |e: std::io::Error| Failure::at("write", target, &e);
    if target.exists() {
        return Err(Failure::new("already-exists", format!("`{}` exists already", target.display()))
            .code(Code::Failed)
            .hint("name a file that does not exist"));
    }
    let dir = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(dir).map_err(at)?;
    temporary.write_all(bytes).map_err(at)?;
    temporary.as_file().sync_all().map_err(at)?;
    temporary.persist_noclobber(target).map_err(|e| at(e.error))?;
    Ok(())
}

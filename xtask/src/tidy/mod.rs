//! The house rules, as programs: each rule reads the repository and returns what breaks it.
//!
//! A rule that can be broken by accident is here; taste is not. Findings carry file, line, and what to do. Exceptions
//! are rows with a reason ([`sources::EXCEPTIONS`]), never a comment that switches a rule off in place.

mod arrows;
mod fuzzing;
mod lexer;
mod links;
mod sources;

use crate::outside::{Outcome, output, root};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One broken rule.
pub(crate) struct Finding {
    pub(crate) place: String,
    pub(crate) message: String,
}

impl Finding {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { place: place.into(), message: message.into() }
    }
}

/// A file of the repository: its path from the root, with `/`, and its text.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn check() -> Outcome {
    let files = text_files(&root())?;
    let mut findings = Vec::new();
    findings.extend(arrows::check(&files)?);
    findings.extend(sources::check(&files));
    findings.extend(links::check(&root(), &files));
    findings.extend(fuzzing::check(&root(), &files));
    findings.sort_by(|a, b| a.place.cmp(&b.place));
    for finding in &findings {
        println!("{}: {}", finding.place, finding.message);
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing to say", files.len());
        Ok(())
    } else {
        Err(format!("tidy: {} broken rule(s)", findings.len()))
    }
}

/// Every text file that git tracks or would track.
fn text_files(root: &Path) -> Outcome<Vec<File>> {
    let listed = output(Command::new("git").current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]))?;
    let mut files = Vec::new();
    for path in listed.split(|b| *b == 0).filter(|p| !p.is_empty()) {
        let path = String::from_utf8_lossy(path).into_owned();
        let full: PathBuf = root.join(&path);
        // Listed but deleted in the work tree, or not text: neither is ours to judge.
        let Ok(text) = std::fs::read_to_string(&full) else { continue };
        files.push(File { path, text });
    }
    Ok(files)
}

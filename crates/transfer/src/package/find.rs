//! All packages below a directory.

use std::path::{Path, PathBuf};

use super::scan;
use super::{NotPackage, Package};

/// Directories looked into at most.
const MAX_DIRECTORIES: usize = 100_000;
/// Levels looked into at most.
const MAX_LEVELS: usize = 16;

/// Paths of all packages at and below `dir`, each one that [`Package::open`] takes, in order of path.
///
/// Where one directory holds several configurations, each of them. Links are not followed, unfinished exports are passed
/// over, and packages are not looked into.
///
/// # Errors
/// When `dir` itself cannot be listed; what lies below and cannot be read is passed over.
pub fn find_packages(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let top = std::fs::canonicalize(dir)?;
    scan::list(&top, &top)?;
    let mut found = Vec::new();
    let mut open = vec![(dir.to_owned(), 0)];
    let mut seen = 0;
    while let Some((dir, level)) = open.pop() {
        seen += 1;
        if seen > MAX_DIRECTORIES || scan::is_partial(&dir) {
            continue;
        }
        match Package::open(&dir) {
            Ok(_) => {
                found.push(dir);
                continue;
            }
            Err(error) if error.reason() == NotPackage::SeveralConfigurations => {
                found.extend(error.alternatives().iter().cloned());
                continue;
            }
            Err(_) => {}
        }
        if level >= MAX_LEVELS {
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.take(super::MAX_DIRECTORY).flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push((entry.path(), level + 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

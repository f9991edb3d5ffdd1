//! From a path that a Windows host wrote to a file here.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Package;
use super::scan::{self, DISKS};
use crate::manifest::check_name;

/// Trailing directories of a Windows path that are tried.
const MAX_DEPTH: usize = 8;

/// The names in a path as Windows wrote it, after drive, server or volume; both slashes separate.
pub fn windows_components(path: &str) -> Vec<&str> {
    let path = path.rsplit_once(':').map_or(path, |(_, rest)| rest);
    path.split(['\\', '/']).filter(|name| !name.is_empty() && *name != ".").collect()
}

/// A place where a disk was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The path looked at.
    pub path: PathBuf,
    /// Why it was not the disk.
    pub why: &'static str,
}

/// A disk that is not in the package.
#[derive(Clone, Debug, thiserror::Error)]
pub struct DiskNotFound {
    /// The path in the configuration.
    pub wanted: String,
    /// Where it was looked for, in order.
    pub tried: Vec<Tried>,
}

impl fmt::Display for DiskNotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk `{}` is not in the package", shortened(&self.wanted))?;
        for (number, tried) in self.tried.iter().enumerate() {
            let before = if number == 0 { "; looked at" } else { "," };
            write!(f, "{before} `{}` ({})", shortened(&tried.path.to_string_lossy()), tried.why)?;
        }
        Ok(())
    }
}

/// The beginning of a path that is longer than any real one.
fn shortened(path: &str) -> Cow<'_, str> {
    const SHOWN: usize = 512;
    match path.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &path[..end])),
        None => Cow::Borrowed(path),
    }
}

pub(super) fn resolve(
    package: &Package,
    wanted: &str,
    extra_dirs: &[PathBuf],
) -> Result<PathBuf, DiskNotFound> {
    let mut tried = Vec::new();
    let names = windows_components(wanted);
    // The file's name and as many directories above it as are plain names.
    let usable = names.iter().rev().take(MAX_DEPTH).take_while(|name| check_name(name).is_ok()).count();
    if usable == 0 {
        tried.push(Tried { path: PathBuf::from(wanted), why: "not a path to a file" });
        return Err(DiskNotFound { wanted: wanted.to_owned(), tried });
    }
    let names = &names[names.len() - usable..];

    // (directory, fence): nothing found through the directory may lie outside the fence.
    let mut places: Vec<(PathBuf, PathBuf)> = Vec::new();
    for dir in extra_dirs {
        match std::fs::canonicalize(dir) {
            Ok(dir) => places.push((dir.clone(), dir)),
            Err(_) => tried.push(Tried { path: dir.clone(), why: "no such directory" }),
        }
    }
    let root = &package.root;
    match entry(root, DISKS, root) {
        Found::One(dir) => places.push((dir, root.clone())),
        Found::Outside(path) => tried.push(Tried { path, why: "leads outside the package" }),
        Found::None | Found::Ambiguous => {}
    }
    if let Some(home) = package.configuration.path.parent() {
        places.push((home.to_owned(), root.clone()));
    }
    places.push((root.clone(), root.clone()));
    places.dedup();

    for (dir, fence) in &places {
        // The longest tail first: two disks of one name in different directories stay apart.
        for start in 0..names.len() {
            match descend(dir, &names[start..], fence) {
                Found::One(path) if path.is_file() => return Ok(path),
                Found::One(path) => tried.push(Tried { path, why: "not a file" }),
                Found::Outside(path) => tried.push(Tried { path, why: "leads outside the package" }),
                Found::Ambiguous => tried.push(Tried {
                    path: dir.join(names[start..].join("/")),
                    why: "several files differ only in case",
                }),
                Found::None if start + 1 == names.len() => {
                    tried.push(Tried { path: dir.join(names[start]), why: "not there" });
                }
                Found::None => {}
            }
        }
    }
    // `Virtual Hard Disks` may also be the last directory of the path that Windows wrote.
    let mut seen = std::collections::HashSet::new();
    tried.retain(|t| seen.insert(t.path.clone()));
    Err(DiskNotFound { wanted: wanted.to_owned(), tried })
}

enum Found {
    None,
    One(PathBuf),
    Outside(PathBuf),
    Ambiguous,
}

fn descend(dir: &Path, names: &[&str], fence: &Path) -> Found {
    let mut at = dir.to_owned();
    for name in names {
        match entry(&at, name, fence) {
            Found::One(path) => at = path,
            other => return other,
        }
    }
    Found::One(at)
}

/// The entry of `dir` called `name`: exactly, else the only one that differs in case.
fn entry(dir: &Path, name: &str, fence: &Path) -> Found {
    let Ok(listing) = scan::list(dir, fence) else { return Found::None };
    if let Some(exact) = listing.entries.iter().find(|e| e.name == name) {
        return Found::One(exact.path.clone());
    }
    let folded = crate::manifest::fold_case(name);
    let outside = listing
        .escaping
        .iter()
        .find(|p| p.file_name().is_some_and(|n| crate::manifest::fold_case(&n.to_string_lossy()) == folded));
    if let Some(link) = outside {
        return Found::Outside(link.clone());
    }
    let mut matching = listing.entries.iter().filter(|e| e.has_name(name));
    match (matching.next(), matching.next()) {
        (None, _) => Found::None,
        (Some(one), None) => Found::One(one.path.clone()),
        _ => Found::Ambiguous,
    }
}

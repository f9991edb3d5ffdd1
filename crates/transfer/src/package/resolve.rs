//! From a path that a Windows host wrote to a file here.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::Package;
use super::scan::{self, DISKS};
use crate::manifest::{check_name, fold_case};

/// Trailing directories of a Windows path that are tried.
const MAX_DEPTH: usize = 8;
/// Why a link is not followed.
const OUTSIDE: &str = "leads outside the package";

/// The names in a path as Windows wrote it, after drive, server or volume; both slashes separate.
pub fn windows_components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    let path = path.rsplit_once(':').map_or(path, |(_, rest)| rest);
    path.split(['\\', '/']).filter(|name| !name.is_empty() && *name != ".")
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

/// Finds disks of one package; every directory is listed once, however many disks are looked for.
#[derive(Debug)]
pub struct Resolver {
    /// (directory, fence): nothing found through the directory may lie outside the fence.
    places: Vec<(PathBuf, PathBuf)>,
    /// What was wrong with places before anything was looked for.
    unusable: Vec<Tried>,
    listings: HashMap<PathBuf, Names>,
}

impl Resolver {
    pub(super) fn new(package: &Package, extra_dirs: &[PathBuf]) -> Self {
        let mut resolver = Self { places: Vec::new(), unusable: Vec::new(), listings: HashMap::new() };
        for dir in extra_dirs {
            match std::fs::canonicalize(dir) {
                Ok(dir) => resolver.places.push((dir.clone(), dir)),
                Err(_) => {
                    resolver.unusable.push(Tried { path: dir.clone(), why: "no such directory" });
                }
            }
        }
        let root = &package.root;
        match resolver.entry(root, DISKS, root) {
            Found::One(dir) => resolver.places.push((dir, root.clone())),
            Found::Outside(path) => resolver.unusable.push(Tried { path, why: OUTSIDE }),
            Found::None | Found::Ambiguous => {}
        }
        if let Some(home) = package.configuration.path.parent() {
            resolver.places.push((home.to_owned(), root.clone()));
        }
        resolver.places.push((root.clone(), root.clone()));
        resolver.places.dedup();
        resolver
    }

    /// The file that `wanted`, a path as a Windows host wrote it, names; see [`Package::resolve_disk`].
    ///
    /// # Errors
    /// Lists what was tried.
    pub fn find(&mut self, wanted: &str) -> Result<PathBuf, DiskNotFound> {
        let not_found = |tried| DiskNotFound { wanted: wanted.to_owned(), tried };
        // The file's name and as many directories above it as are plain names.
        let mut names: Vec<&str> = windows_components(wanted)
            .rev()
            .take(MAX_DEPTH)
            .take_while(|name| check_name(name).is_ok())
            .collect();
        names.reverse();
        if names.is_empty() {
            return Err(not_found(vec![Tried { path: PathBuf::from(wanted), why: "not a path to a file" }]));
        }
        let mut tried = self.unusable.clone();
        for (dir, fence) in self.places.clone() {
            // The longest tail first: two disks of one name in different directories stay apart.
            for start in 0..names.len() {
                match self.descend(&dir, &names[start..], &fence) {
                    Found::One(path) if path.is_file() => return Ok(path),
                    Found::One(path) => tried.push(Tried { path, why: "not a file" }),
                    Found::Outside(path) => tried.push(Tried { path, why: OUTSIDE }),
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
        let mut seen = HashSet::new();
        tried.retain(|t| seen.insert(t.path.clone()));
        Err(not_found(tried))
    }

    fn descend(&mut self, dir: &Path, names: &[&str], fence: &Path) -> Found {
        let mut at = dir.to_owned();
        for name in names {
            match self.entry(&at, name, fence) {
                Found::One(path) => at = path,
                other => return other,
            }
        }
        Found::One(at)
    }

    /// The entry of `dir` called `name`: exactly, else the only one that differs in case.
    fn entry(&mut self, dir: &Path, name: &str, fence: &Path) -> Found {
        // A directory has one fence: that of the place it was reached through first, which is where it lies.
        let names =
            self.listings.entry(dir.to_owned()).or_insert_with(|| Names::of(dir, fence).unwrap_or_default());
        names.find(name)
    }
}

/// A directory's names, ready to be looked up.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, PathBuf>,
    /// By folded name; `None` where several differ only in case.
    folded: HashMap<String, Option<PathBuf>>,
    /// Links that lead outside, by folded name.
    outside: HashMap<String, PathBuf>,
}

impl Names {
    fn of(dir: &Path, fence: &Path) -> std::io::Result<Self> {
        let listing = scan::list(dir, fence)?;
        let mut names = Self::default();
        for entry in listing.entries {
            names
                .folded
                .entry(fold_case(&entry.name))
                .and_modify(|one| *one = None)
                .or_insert_with(|| Some(entry.path.clone()));
            names.exact.insert(entry.name, entry.path);
        }
        for link in listing.escaping {
            let name = link.file_name().map(|n| fold_case(&n.to_string_lossy())).unwrap_or_default();
            names.outside.entry(name).or_insert(link);
        }
        Ok(names)
    }

    fn find(&self, name: &str) -> Found {
        if let Some(path) = self.exact.get(name) {
            return Found::One(path.clone());
        }
        let folded = fold_case(name);
        if let Some(link) = self.outside.get(&folded) {
            return Found::Outside(link.clone());
        }
        match self.folded.get(&folded) {
            None => Found::None,
            Some(Some(path)) => Found::One(path.clone()),
            Some(None) => Found::Ambiguous,
        }
    }
}

enum Found {
    None,
    One(PathBuf),
    Outside(PathBuf),
    Ambiguous,
}

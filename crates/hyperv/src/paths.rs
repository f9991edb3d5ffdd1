//! Windows paths for folders of the host: `C:\Exports`, `\\nas\vm`.
//!
//! A client writes and reads Windows paths; the domain knows folders of Linux. The map is configured: each root has a
//! Windows name and a folder. Below a root everything is reachable by its name and nothing else is, whatever `..` and
//! symbolic links say. What is shown is put back into the form of the root it lies under; what lies under none is shown as
//! it is.

use std::path::{Component, Path, PathBuf};

use machine::{Error, Reason};

/// The setting that names the roots, for refusals.
pub const SETTING: &str = "cim.paths";
/// Longest path that is taken from a client, in bytes.
const MAX_PATH: usize = 4096;

/// A folder that clients know by a Windows name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// `C:`, `D:\Machines`, `\\nas\vm`, without a separator at the end.
    pub windows: String,
    /// The folder; absolute.
    pub folder: PathBuf,
}

/// All roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathMap {
    roots: Vec<Root>,
}

impl PathMap {
    /// A map of `roots`. Where several fit a path, the longest one counts.
    ///
    /// # Errors
    /// A Windows name is neither a drive nor a share, a folder is not absolute, or a name comes twice.
    pub fn new(roots: Vec<Root>) -> Result<Self, Error> {
        let mut map = Self::default();
        for Root { windows, folder } in roots {
            let windows = windows.trim_end_matches(['\\', '/']).replace('/', "\\");
            let wrong =
                |why: &str| Err(Error::new(Reason::InvalidArgument, format!("{SETTING}: `{windows}` {why}")));
            if drive(&windows).is_none() && share(&windows).is_none() {
                return wrong("is neither a drive (`C:`) nor a share (`\\\\host\\share`)");
            }
            if !folder.is_absolute() {
                return wrong("leads to a folder that is not absolute");
            }
            if map.roots.iter().any(|r| r.windows.eq_ignore_ascii_case(&windows)) {
                return wrong("is there twice");
            }
            map.roots.push(Root { windows, folder });
        }
        // The longest first.
        map.roots.sort_by_key(|root| std::cmp::Reverse(root.windows.len()));
        Ok(map)
    }

    /// Its roots, the longest Windows names first.
    pub fn roots(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter()
    }

    /// The file or folder of the host that a client means by `text`. It need not exist; what exists of it is followed to
    /// where it really is, and must lie under the root.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`] for what is no full path, [`Reason::AccessDenied`] for one that no root leads to, or that
    /// leads out of its root.
    pub fn resolve(&self, text: &str) -> Result<PathBuf, Error> {
        let wrong = |why: &str| Error::new(Reason::InvalidArgument, format!("`{text}` {why}"));
        if text.len() > MAX_PATH || text.contains('\0') {
            return Err(wrong("is no path"));
        }
        let tidy = text.replace('/', "\\");
        let tidy = tidy.strip_prefix(r"\\?\").map_or(tidy.clone(), |rest| {
            rest.strip_prefix(r"UNC\").map_or_else(|| rest.to_owned(), |share| format!(r"\\{share}"))
        });
        if drive(&tidy).is_none() && share(&tidy).is_none() {
            return Err(wrong("is no full path of a drive or a share").hint("as in `C:\\Exports\\web`"));
        }
        let found = self.roots.iter().find_map(|root| Some((root, below(&tidy, &root.windows)?)));
        let Some((root, rest)) = found else {
            return Err(Error::new(Reason::AccessDenied, format!("no folder of this host is `{text}`"))
                .hint(format!("an administrator names folders in `{SETTING}`")));
        };
        let mut path = root.folder.clone();
        for part in rest.split('\\').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(outside(text, root));
            }
            if part.contains(':') {
                return Err(wrong("has a colon behind its drive"));
            }
            path.push(part);
        }
        let inside = confined(&path, &root.folder)
            .map_err(|e| Error::new(Reason::AccessDenied, format!("cannot look at `{text}`")).caused_by(e))?;
        if inside { Ok(path) } else { Err(outside(text, root)) }
    }

    /// `path` as clients see it.
    #[must_use]
    pub fn shown(&self, path: &Path) -> String {
        let fits = self.roots.iter().filter_map(|root| Some((root, path.strip_prefix(&root.folder).ok()?)));
        // The deepest folder; of several names for it, the first.
        let best = fits.min_by_key(|(_, rest)| rest.components().count());
        let Some((root, rest)) = best else { return path.display().to_string() };
        let mut text = root.windows.clone();
        for part in rest.components() {
            if let Component::Normal(part) = part {
                text.push('\\');
                text.push_str(&part.to_string_lossy());
            }
        }
        if text.len() == 2 {
            text.push('\\');
        }
        text
    }

    /// `message` with the paths of this host in it as clients see them. They stand between backticks.
    pub(crate) fn told(&self, message: &str) -> String {
        let parts = message.split('`').enumerate().map(|(n, part)| {
            let is_path = n % 2 == 1 && part.starts_with('/');
            if is_path { self.shown(Path::new(part)) } else { part.to_owned() }
        });
        parts.collect::<Vec<_>>().join("`")
    }
}

fn outside(text: &str, root: &Root) -> Error {
    Error::new(Reason::AccessDenied, format!("`{text}` leads out of `{}`", root.windows))
        .hint(format!("an administrator names folders in `{SETTING}`"))
}

/// What is behind the drive in `C:\…`.
fn drive(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(|first: char| first.is_ascii_alphabetic())?.strip_prefix(':')?;
    (rest.is_empty() || rest.starts_with('\\')).then_some(rest)
}

/// What is behind host and share in `\\host\share\…`.
fn share(text: &str) -> Option<&str> {
    let (host, rest) = text.strip_prefix(r"\\")?.split_once('\\')?;
    let (share, rest) = rest.split_at(rest.find('\\').unwrap_or(rest.len()));
    let named = |name: &str| !name.is_empty() && !matches!(name, "." | ".." | "?");
    (named(host) && named(share)).then_some(rest)
}

/// The part of `text` below the Windows name `root`.
fn below<'t>(text: &'t str, root: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(root.len())?;
    (head.eq_ignore_ascii_case(root) && (rest.is_empty() || rest.starts_with('\\'))).then_some(rest)
}

/// Whether what exists of `path` lies in `folder`, all symbolic links followed.
fn confined(path: &Path, folder: &Path) -> std::io::Result<bool> {
    let folder = folder.canonicalize()?;
    for at in path.ancestors() {
        match at.symlink_metadata() {
            // A link that leads nowhere cannot be followed, and must not be made a file through.
            Ok(_) => return Ok(at.canonicalize().is_ok_and(|real| real.starts_with(&folder))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(folder: &Path) -> PathMap {
        PathMap::new(vec![
            Root { windows: "C:".into(), folder: folder.join("c") },
            Root { windows: r"C:\Exports".into(), folder: folder.join("exports") },
            Root { windows: r"\\nas\vm\".into(), folder: folder.join("nas") },
        ])
        .unwrap()
    }

    fn folders() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["c", "exports", "nas", "elsewhere"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        dir
    }

    #[test]
    fn paths_lead_to_their_root_and_back() {
        let dir = folders();
        let map = map(dir.path());
        for (text, place, shown) in [
            (r"C:\Disks\a.vhdx", "c/Disks/a.vhdx", r"C:\Disks\a.vhdx"),
            (r"c:/disks//./b", "c/disks/b", r"C:\disks\b"),
            (r"c:\exports\web", "exports/web", r"C:\Exports\web"),
            (r"C:\ExportsMore", "c/ExportsMore", r"C:\ExportsMore"),
            (r"\\NAS\vm\x y", "nas/x y", r"\\nas\vm\x y"),
            (r"\\?\C:\a", "c/a", r"C:\a"),
            (r"\\?\UNC\nas\vm\a", "nas/a", r"\\nas\vm\a"),
            (r"C:\", "c", r"C:\"),
        ] {
            let found = map.resolve(text).unwrap();
            assert_eq!(found, dir.path().join(place), "{text}");
            assert_eq!(map.shown(&found), shown);
        }
        assert_eq!(map.shown(Path::new("/srv/a.raw")), "/srv/a.raw");
        let message = format!("`{}` is not `/empty`", dir.path().join("exports/web").display());
        assert_eq!(map.told(&message), r"`C:\Exports\web` is not `/empty`");
        assert_eq!(map.told("/a `"), "/a `");
    }

    #[test]
    fn nothing_leads_out_of_its_root() {
        let dir = folders();
        let map = map(dir.path());
        let link = |to: &str, at: &str| {
            std::os::unix::fs::symlink(dir.path().join(to), dir.path().join(at)).unwrap();
        };
        link("elsewhere", "c/out");
        link("c", "c/in");
        link("nowhere", "c/dangling");
        assert!(map.resolve(r"C:\in\a").is_ok());
        for text in
            [r"C:\..\x", r"C:\a\..\..\x", r"C:\out", r"C:\out\x", r"C:\dangling", r"D:\x", r"\\nas\other\x"]
        {
            let error = map.resolve(text).unwrap_err();
            assert_eq!(error.reason(), Reason::AccessDenied, "{text}: {error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains(SETTING)), "{text}");
        }
        for text in
            ["", "x", r"\x", "C:x", "/etc/passwd", r"C:\a:b", r"\\nas", r"\\.\PhysicalDrive0\x", "C:\\a\0b"]
        {
            let error = map.resolve(text).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn roots_must_make_sense() {
        let root = |windows: &str, folder: &str| Root { windows: windows.into(), folder: folder.into() };
        for bad in [
            vec![root("C", "/a")],
            vec![root("C:", "a")],
            vec![root("C:", "/a"), root(r"c:\", "/b")],
            vec![root(r"\\nas", "/a")],
        ] {
            assert!(PathMap::new(bad.clone()).is_err(), "{bad:?}");
        }
    }
}

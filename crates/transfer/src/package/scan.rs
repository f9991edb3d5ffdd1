//! Looking at a path and saying which package it is, or what it is instead.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{
    ConfigKind, Configuration, DiskFile, Layout, MAX_CANDIDATES, MAX_DIRECTORY, MAX_SNAPSHOTS, MemberFile,
    NotPackage, OpenError, PARTIAL, Package,
};
use crate::manifest::{self, fold_case};
use crate::shell;

/// Names of Hyper-V's directories.
pub(super) const MACHINES: &str = "Virtual Machines";
pub(super) const SNAPSHOTS: &str = "Snapshots";
pub(super) const DISKS: &str = "Virtual Hard Disks";
/// What describes an export of 2008 to 2012.
const DESCRIPTION: &str = "config.xml";
/// First bytes of a VMCX container's header (signature 0x01282014, little-endian).
const VMCX_SIGNATURE: [u8; 4] = [0x14, 0x20, 0x28, 0x01];

/// One name in a directory, resolved.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Canonical.
    pub(super) path: PathBuf,
    pub(super) is_dir: bool,
    pub(super) size: u64,
}

impl Entry {
    pub(super) fn has_name(&self, name: &str) -> bool {
        self.name == name || fold_case(&self.name) == fold_case(name)
    }

    fn extension(&self) -> String {
        extension(&self.name)
    }
}

fn extension(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => extension.to_ascii_lowercase(),
        _ => String::new(),
    }
}

/// What listing a directory came to.
pub(super) struct Listing {
    /// By name.
    pub(super) entries: Vec<Entry>,
    /// Links that lead outside `fence`.
    pub(super) escaping: Vec<PathBuf>,
}

/// Lists `dir`; every entry is resolved, and those that lead outside `fence` (canonical) are set apart.
///
/// Dangling links and names that are not Unicode are passed over: nothing in a configuration can name them.
pub(super) fn list(dir: &Path, fence: &Path) -> io::Result<Listing> {
    let mut listing = Listing { entries: Vec::new(), escaping: Vec::new() };
    for (count, entry) in fs::read_dir(dir)?.enumerate() {
        if count >= MAX_DIRECTORY {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {MAX_DIRECTORY} entries"),
            ));
        }
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if entry.file_type()?.is_symlink() {
            match fs::canonicalize(entry.path()) {
                Ok(path) if path.starts_with(fence) => path,
                Ok(_) => {
                    listing.escaping.push(entry.path());
                    continue;
                }
                Err(_) => continue,
            }
        } else {
            entry.path()
        };
        let Ok(meta) = fs::metadata(&path) else { continue };
        if !meta.is_dir() && !meta.is_file() {
            continue; // Sockets and devices are no part of a package.
        }
        listing.entries.push(Entry { name, path, is_dir: meta.is_dir(), size: meta.len() });
    }
    listing.entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

/// Where a package keeps disks: Hyper-V's directories for them, however they are spelled, and the top.
pub(super) fn disk_directories(root: &Path) -> Vec<PathBuf> {
    let listing = list(root, root).map(|listing| listing.entries).unwrap_or_default();
    let named = |name| listing.iter().find(move |e| e.is_dir && e.has_name(name)).map(|e| e.path.clone());
    [DISKS, SNAPSHOTS].into_iter().filter_map(named).chain([root.to_owned()]).collect()
}

/// The manifest of the package at `root` (resolved), unless it is a link that leads out of it.
pub(crate) fn manifest_in(root: &Path) -> Option<PathBuf> {
    fs::canonicalize(root.join(manifest::PATH)).ok().filter(|path| path.starts_with(root))
}

/// True when the file name's extension is one that Hyper-V gives to disks.
pub fn is_disk_name(name: &str) -> bool {
    matches!(extension(name).as_str(), "vhd" | "vhdx" | "avhd" | "avhdx" | "vhds")
}

fn config_kind_by_name(name: &str) -> Option<ConfigKind> {
    match extension(name).as_str() {
        "vmcx" => Some(ConfigKind::Vmcx),
        "xml" => Some(ConfigKind::Xml),
        "exp" => Some(ConfigKind::Exp),
        _ => None,
    }
}

pub(crate) fn is_partial(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(PARTIAL))
}

pub(super) fn open(path: &Path) -> Result<Package, OpenError> {
    let canonical = fs::canonicalize(path).map_err(|error| OpenError::io(path, error))?;
    let meta = fs::metadata(&canonical).map_err(|error| OpenError::io(path, error))?;
    if meta.is_dir() { open_dir(path, &canonical) } else { open_file(path, &canonical) }
}

/// A configuration file was named.
fn open_file(path: &Path, canonical: &Path) -> Result<Package, OpenError> {
    let name = canonical.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let kind = match sniff(canonical, &name).map_err(|error| OpenError::io(path, error))? {
        Sniffed::Config(kind) => kind,
        Sniffed::Disk => return Err(given_a_disk(path, canonical)),
        Sniffed::State => {
            return Err(OpenError::new(
                NotPackage::State,
                path,
                "it holds state of a machine; the configuration is the .vmcx or .xml file beside it",
            )
            .hint(format!(
                "name the directory instead: slipway inspect {}",
                shell::path(package_dir(canonical))
            )));
        }
        Sniffed::Other(what) => {
            return Err(OpenError::new(NotPackage::File, path, format!("it is {what}"))
                .hint("name the exported directory, or the .vmcx or .xml file in its `Virtual Machines`"));
        }
    };
    let root = package_dir(canonical).to_owned();
    refuse_partial(path, &root)?;
    let chosen = Chosen { name, path: canonical.to_owned(), kind };
    build(path, &root, canonical.parent().unwrap_or(&root), &chosen)
}

/// The package's directory of a configuration file: the one above `Virtual Machines`, else the file's own.
fn package_dir(file: &Path) -> &Path {
    let dir = file.parent().unwrap_or(file);
    let of_hyperv = dir.file_name().is_some_and(|name| {
        let name = fold_case(&name.to_string_lossy());
        name == fold_case(MACHINES) || name == fold_case(SNAPSHOTS)
    });
    if of_hyperv { dir.parent().unwrap_or(dir) } else { dir }
}

fn given_a_disk(path: &Path, canonical: &Path) -> OpenError {
    let word = shell::path(path);
    let error = OpenError::new(NotPackage::Disk, path, "it is a disk, not a machine");
    // Often the disk of a package: then that is what was meant.
    let above = canonical.parent().and_then(Path::parent);
    let beside = canonical.parent();
    let package = [above, beside].into_iter().flatten().find(|dir| open(dir).is_ok());
    match package {
        Some(dir) => error
            .hint(format!(
                "the machine is `{}`: slipway inspect {}; to look at the disk: slipway disk info {word}",
                dir.display(),
                shell::path(dir)
            ))
            .candidates(vec![dir.to_owned()]),
        None => error.hint(format!(
            "to look at it: slipway disk info {word}; to make a machine of it: slipway machine define"
        )),
    }
}

enum Sniffed {
    Config(ConfigKind),
    Disk,
    State,
    Other(&'static str),
}

/// What a file is, by bytes first and by name where bytes do not tell.
fn sniff(path: &Path, name: &str) -> io::Result<Sniffed> {
    if !fs::metadata(path)?.is_file() {
        return Ok(Sniffed::Other("not a file"));
    }
    let extension = extension(name);
    if vhdx::Image::is_vhd_or_vhdx(path)?.is_some() && extension != "vmgs" {
        return Ok(Sniffed::Disk);
    }
    let mut head = Vec::with_capacity(512);
    fs::File::open(path)?.take(512).read_to_end(&mut head)?;
    Ok(match extension.as_str() {
        "vmrs" | "vmgs" | "bin" | "vsv" => Sniffed::State,
        "exp" => Sniffed::Config(ConfigKind::Exp),
        _ if head.starts_with(&VMCX_SIGNATURE) => Sniffed::Config(ConfigKind::Vmcx),
        _ if looks_like_xml(&head) => Sniffed::Config(ConfigKind::Xml),
        // A damaged configuration is still the one that was meant: reading it will say what is wrong.
        "vmcx" => Sniffed::Config(ConfigKind::Vmcx),
        "xml" => Sniffed::Config(ConfigKind::Xml),
        _ if is_disk_name(name) => Sniffed::Disk,
        _ if head.is_empty() => Sniffed::Other("an empty file"),
        "iso" => Sniffed::Other("a CD image"),
        "zip" | "7z" | "box" | "gz" | "xz" | "tar" | "rar" => Sniffed::Other("an archive; unpack it first"),
        _ => Sniffed::Other("a file of no kind that a package has"),
    })
}

/// `<` after an optional byte order mark, in UTF-8 or UTF-16.
fn looks_like_xml(head: &[u8]) -> bool {
    let start = [&b"\xff\xfe"[..], b"\xfe\xff", b"\xef\xbb\xbf"]
        .iter()
        .find_map(|mark| head.strip_prefix(*mark))
        .unwrap_or(head);
    start.iter().find(|b| !matches!(b, 0 | b' ' | b'\r' | b'\n' | b'\t')) == Some(&b'<')
}

fn refuse_partial(path: &Path, root: &Path) -> Result<(), OpenError> {
    let unfinished = is_partial(root)
        || (root.join(crate::writer::JOURNAL_PATH).exists() && !root.join(manifest::PATH).exists());
    if !unfinished {
        return Ok(());
    }
    Err(OpenError::new(NotPackage::Partial, path, "it is an export that did not finish")
        .hint(format!("run the export again to go on with it, or drop it: rm -r {}", shell::path(root))))
}

/// A directory was named.
fn open_dir(path: &Path, canonical: &Path) -> Result<Package, OpenError> {
    refuse_partial(path, canonical)?;
    // `Virtual Machines` itself: its package is one up.
    let name = canonical.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let (root, given_machines) = match canonical.parent() {
        Some(above) if fold_case(&name) == fold_case(MACHINES) => {
            refuse_partial(path, above)?;
            (above.to_owned(), true)
        }
        _ => (canonical.to_owned(), false),
    };
    let top = list(&root, &root).map_err(|error| listing_failed(path, error))?;
    let machines_dir = top.entries.iter().find(|e| e.is_dir && e.has_name(MACHINES));
    let machines = match machines_dir {
        Some(entry) => list(&entry.path, &root).map_err(|error| listing_failed(path, error))?,
        None => Listing { entries: Vec::new(), escaping: Vec::new() },
    };
    let (mut found, mut home) = (configurations(&machines), machines_dir.map(|e| e.path.clone()));
    if found.is_empty() {
        // config.xml at the top of a 2008 export describes the export, not the machine, so the top comes second.
        found = configurations(&top);
        home = Some(root.clone());
    }
    match found.as_slice() {
        [one] => build(path, &root, home.as_deref().unwrap_or(&root), one),
        [] if given_machines => Err(nothing(path, &top, &machines)),
        [] => Err(one_level_too_high(path, &top).unwrap_or_else(|| nothing(path, &top, &machines))),
        several => Err(several_configurations(path, several)),
    }
}

fn listing_failed(path: &Path, error: io::Error) -> OpenError {
    if error.kind() == io::ErrorKind::FileTooLarge {
        let message = format!("it has more than {MAX_DIRECTORY} entries");
        return OpenError::new(NotPackage::TooLarge, path, message)
            .hint("name the configuration file itself");
    }
    OpenError::io(path, error)
}

/// A configuration found by name.
struct Chosen {
    name: String,
    path: PathBuf,
    kind: ConfigKind,
}

fn configurations(listing: &Listing) -> Vec<Chosen> {
    let mut found: Vec<Chosen> = listing
        .entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| {
            let kind = config_kind_by_name(&entry.name)?;
            // XML files of all sorts lie about; a machine's is named by its id, or starts as one.
            let plausible = kind != ConfigKind::Xml
                || guid_of(&entry.name).is_some()
                || starts_as_configuration(&entry.path);
            plausible.then(|| Chosen { name: entry.name.clone(), path: entry.path.clone(), kind })
        })
        .collect();
    // One machine may be there in two forms (upgraded in place): the newer form counts.
    let newest: std::collections::HashMap<_, _> = found.iter().fold(Default::default(), |mut map, chosen| {
        let rank = map.entry(stem(&chosen.name)).or_insert(0_u8);
        *rank = (*rank).max(rank_of(chosen.kind));
        map
    });
    found.retain(|chosen| newest.get(&stem(&chosen.name)) == Some(&rank_of(chosen.kind)));
    found
}

fn rank_of(kind: ConfigKind) -> u8 {
    match kind {
        ConfigKind::Exp => 1,
        ConfigKind::Xml => 2,
        ConfigKind::Vmcx => 3,
    }
}

fn stem(name: &str) -> String {
    fold_case(name.rsplit_once('.').map_or(name, |(stem, _)| stem))
}

fn guid_of(name: &str) -> Option<Uuid> {
    Uuid::try_parse(name.rsplit_once('.')?.0.trim_matches(['{', '}'])).ok()
}

/// True when the first bytes of the XML file, ASCII or UTF-16, name the root element of a configuration.
fn starts_as_configuration(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(2048).read_to_end(&mut head));
    head.retain(|byte| *byte != 0);
    read.is_ok() && head.windows(14).any(|window| window == b"<configuration")
}

fn several_configurations(path: &Path, several: &[Chosen]) -> OpenError {
    let candidates: Vec<_> = several.iter().take(MAX_CANDIDATES).map(|c| c.path.clone()).collect();
    let names: Vec<_> = several.iter().take(MAX_CANDIDATES).map(|c| format!("`{}`", c.name)).collect();
    let message = format!("it holds {} machines: {}", several.len(), names.join(", "));
    let next = candidates.first().map(|c| shell::path(c)).unwrap_or_default();
    OpenError::new(NotPackage::SeveralConfigurations, path, message)
        .hint(format!("name the one you mean: slipway inspect {next}"))
        .candidates(candidates)
}

fn one_level_too_high(path: &Path, top: &Listing) -> Option<OpenError> {
    let below = |dir: &&Entry| {
        dir.is_dir
            && !is_partial(&dir.path)
            && list(&dir.path, &dir.path).is_ok_and(|listing| {
                let machines = listing.entries.iter().find(|e| e.is_dir && e.has_name(MACHINES));
                machines
                    .and_then(|entry| list(&entry.path, &dir.path).ok())
                    .is_some_and(|listing| !configurations(&listing).is_empty())
                    || !configurations(&listing).is_empty()
            })
    };
    let candidates: Vec<_> =
        top.entries.iter().filter(below).take(MAX_CANDIDATES).map(|e| path.join(&e.name)).collect();
    let first = candidates.first()?;
    let message = match candidates.len() {
        1 => format!("the package is one level below, in `{}`", first.display()),
        count => format!("it holds {count} packages, one level below"),
    };
    let next: Vec<_> = candidates.iter().map(|c| format!("slipway inspect {}", shell::path(c))).collect();
    Some(
        OpenError::new(NotPackage::OneLevelTooHigh, path, message)
            .hint(next.join("\n"))
            .candidates(candidates),
    )
}

fn nothing(path: &Path, top: &Listing, machines: &Listing) -> OpenError {
    if let Some(link) = machines.escaping.first().or(top.escaping.first()) {
        let message = format!("`{}` leads outside it", link.display());
        return OpenError::new(NotPackage::Escapes, path, message)
            .hint("put the file itself there; links out of a package are not followed");
    }
    let disks = top.entries.iter().any(|e| is_disk_name(&e.name) || e.has_name(DISKS));
    let message = if top.entries.is_empty() {
        "the directory is empty"
    } else if disks {
        "it has disks, but no configuration (Virtual Machines/GUID.vmcx or .xml)"
    } else {
        "it holds no machine configuration (Virtual Machines/GUID.vmcx or .xml)"
    };
    let error = OpenError::new(NotPackage::Nothing, path, message);
    let Some(disk) = top.entries.iter().find(|e| is_disk_name(&e.name)) else {
        return error
            .hint("name the directory that Hyper-V's Export made, the one holding `Virtual Machines`");
    };
    error.hint(format!("to look at a disk: slipway disk info {}", shell::path(&disk.path)))
}

/// Collects all that belongs to the configuration chosen.
fn build(path: &Path, root: &Path, home: &Path, chosen: &Chosen) -> Result<Package, OpenError> {
    let failed = |error| listing_failed(path, error);
    let top = list(root, root).map_err(failed)?;
    let sub =
        |name: &str| -> Result<Option<Listing>, OpenError> {
            if let Some(link) = top.escaping.iter().find(|link| {
                link.file_name().is_some_and(|n| fold_case(&n.to_string_lossy()) == fold_case(name))
            }) {
                // Disks elsewhere are legitimate, when the user says so.
                tracing::warn!(link = %link.display(), "ignored: it leads outside the package");
                return Ok(None);
            }
            match top.entries.iter().find(|e| e.is_dir && e.has_name(name)) {
                Some(dir) => list(&dir.path, root).map(Some).map_err(failed),
                None => Ok(None),
            }
        };
    let beside = list(home, root).map_err(failed)?;
    let configuration = with_state(chosen, &beside, root);

    let mut snapshots = Vec::new();
    if let Some(listing) = sub(SNAPSHOTS)? {
        let chosen = configurations(&listing);
        if chosen.len() > MAX_SNAPSHOTS {
            let message = format!("it has {} checkpoints, more than {MAX_SNAPSHOTS}", chosen.len());
            return Err(OpenError::new(NotPackage::TooLarge, path, message)
                .hint("no machine has so many: name another package"));
        }
        snapshots.extend(chosen.iter().map(|chosen| with_state(chosen, &listing, root)));
    }
    let mut disks: Vec<DiskFile> = Vec::new();
    let from_disks = sub(DISKS)?;
    let places = [from_disks.as_ref(), Some(&top), Some(&beside)];
    for entry in places.into_iter().flatten().flat_map(|listing| &listing.entries) {
        if !entry.is_dir && is_disk_name(&entry.name) && disks.iter().all(|d| d.path != entry.path) {
            disks.push(DiskFile { path: entry.path.clone(), name: entry.name.clone(), size: entry.size });
        }
    }
    disks.sort_by(|a, b| a.path.cmp(&b.path));

    let manifest = manifest_in(root);
    let description =
        top.entries.iter().find(|e| !e.is_dir && e.has_name(DESCRIPTION)).map(|e| e.path.clone());
    let vagrant = top.entries.iter().any(|e| !e.is_dir && e.has_name("metadata.json"));
    let layout = match (home != root, vagrant) {
        (true, true) => Layout::Vagrant,
        (true, false) => Layout::HyperV,
        (false, _) => Layout::Loose,
    };
    Ok(Package { root: root.to_owned(), layout, configuration, snapshots, disks, manifest, description })
}

fn with_state(chosen: &Chosen, beside: &Listing, fence: &Path) -> Configuration {
    let own = stem(&chosen.name);
    let member = |entry: &Entry| MemberFile { path: entry.path.clone(), size: entry.size };
    let state = |extension: &str| {
        let found =
            beside.entries.iter().find(|e| !e.is_dir && e.extension() == extension && stem(&e.name) == own);
        found.map(member)
    };
    let mut saved_state: Vec<_> = ["bin", "vsv"].iter().filter_map(|e| state(e)).collect();
    if let Some(dir) = beside.entries.iter().find(|e| e.is_dir && fold_case(&e.name) == own) {
        let inside = list(&dir.path, fence).map(|l| l.entries).unwrap_or_default();
        saved_state
            .extend(inside.iter().filter(|e| matches!(e.extension().as_str(), "bin" | "vsv")).map(member));
    }
    Configuration {
        path: chosen.path.clone(),
        kind: chosen.kind,
        id: guid_of(&chosen.name),
        runtime_state: state("vmrs"),
        guest_state: state("vmgs"),
        saved_state,
    }
}

//! Our own record of what a package holds: `Slipway/manifest.json`, written last, read first.
//!
//! A manifest proves a package: size and BLAKE3 of every small file, and for every disk the root digest of its *virtual
//! content* (a reader may convert or compact the file; the content stays provable). Other tools ignore it. The format is
//! specified in docs/formats/package.md. Unknown fields survive reading and writing. A manifest is hostile input: everything
//! is bounded, and every path is checked to stay inside the package before anyone may use it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::digest::{self, Digest};

/// Directory of our own files inside a package.
pub const DIRECTORY: &str = "Slipway";
/// Path of the manifest inside a package.
pub const PATH: &str = "Slipway/manifest.json";
/// Path of a machine's saved memory inside a package.
pub const STATE: &str = "Slipway/saved-state";
/// Value of [`Manifest::format`].
pub const FORMAT: &str = "slipway-package";
/// The version this code writes; higher ones are refused.
pub const VERSION: u32 = 1;

/// Largest manifest read, in bytes.
pub const MAX_SIZE: u64 = 8 << 20;
/// Most files, and most disks, that a manifest may list.
pub const MAX_ENTRIES: usize = 10_000;
/// Longest path inside a package, in bytes.
pub const MAX_PATH: usize = 1024;
/// Longest file name, in bytes; what Linux file systems take.
pub const MAX_NAME: usize = 255;
/// Longest other text, in bytes.
const MAX_TEXT: usize = 16 << 10;
/// Largest virtual disk: VHDX's own limit of 64 TiB.
const MAX_DISK: u64 = 64 << 40;

/// What a package holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Name and version of the program that wrote it.
    pub tool: String,
    /// When the package was finished, RFC 3339 in UTC.
    pub created: String,
    /// The machine.
    pub machine: MachineEntry,
    /// Small files: configuration and state, each hashed whole.
    pub files: Vec<FileEntry>,
    /// Disks, each hashed by content.
    pub disks: Vec<DiskEntry>,
    /// The machine's memory, when it was saved and its memory came along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_state: Option<StateEntry>,
    /// What the export left out on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<ExcludedEntry>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The machine a package is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineEntry {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A small file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path inside the package, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the bytes.
    pub blake3: Digest,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskEntry {
    /// Path inside the package, with `/`.
    pub path: String,
    /// `vhdx`, `vhd` or `raw`.
    pub format: String,
    /// Bytes the guest sees.
    pub virtual_size: u64,
    /// Bytes per block, 0 where the format has none.
    pub block_size: u32,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// The id that the format keeps in the file.
    pub disk_id: Uuid,
    /// Bytes of the file when it was written.
    pub file_size: u64,
    /// Digest of the content.
    pub digest: ContentDigest,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A machine's saved memory. Hyper-V knows nothing of it: for Hyper-V the machine is off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateEntry {
    /// Always [`STATE`].
    pub path: String,
    /// Bytes, holes included.
    pub size: u64,
    /// Digest of the content, as of a disk's.
    pub digest: ContentDigest,
    /// What it takes to go on with it, in the words of who wrote it.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

/// Digest of a disk's content; see [`digest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContentDigest {
    /// Name of the algorithm: [`digest::ALGORITHM`].
    pub algorithm: String,
    /// Bytes per chunk: [`digest::CHUNK_SIZE`].
    pub chunk_size: u64,
    /// The root.
    pub root: Digest,
    /// Path inside the package of the list of chunk digests, where it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Something left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExcludedEntry {
    /// What: `disk`, `snapshot`, `saved-state`, …
    pub what: String,
    /// Which one: a path or a name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Why a manifest is not one we can rely on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// More than [`MAX_SIZE`].
    #[error("manifest is larger than {MAX_SIZE} bytes")]
    TooLarge,
    /// Not JSON, or not of this shape.
    #[error("manifest cannot be understood")]
    Syntax(#[source] serde_json::Error),
    /// Another kind of file.
    #[error("manifest says it is a `{0}`, not a `{FORMAT}`")]
    Format(String),
    /// Written by a newer program.
    #[error("manifest has version {0}; this program knows up to {VERSION}")]
    Version(u32),
    /// A path that leaves the package, or cannot be a path.
    #[error("manifest names `{path}`, which {why}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A number or text beyond its limit, or that contradicts another.
    #[error("manifest entry `{entry}`: {why}")]
    Value {
        /// The path of the entry, or the field.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Manifest {
    /// Reads and checks a manifest: what this returns can be acted on.
    ///
    /// # Errors
    /// Naming the first rule broken.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MAX_SIZE {
            return Err(ManifestError::TooLarge);
        }
        // The version first: a newer manifest may have another shape.
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(ManifestError::Syntax)?;
        if head.format != FORMAT {
            return Err(ManifestError::Format(head.format.chars().take(64).collect()));
        }
        if head.version == 0 || head.version > VERSION {
            return Err(ManifestError::Version(head.version));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(ManifestError::Syntax)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes to write; what [`Self::parse`] would refuse is refused here too.
    ///
    /// # Errors
    /// Naming the first rule broken.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(ManifestError::Syntax)?;
        bytes.push(b'\n');
        if bytes.len() as u64 > MAX_SIZE {
            return Err(ManifestError::TooLarge);
        }
        Ok(bytes)
    }

    /// Every path the manifest accounts for, itself not included.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let files = self.files.iter().map(|f| f.path.as_str());
        let disks = self.disks.iter().map(|d| d.path.as_str());
        let lists = self.disks.iter().filter_map(|d| d.digest.chunks.as_deref());
        let state = self.saved_state.iter().map(|s| s.path.as_str());
        files.chain(disks).chain(lists).chain(state)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let value = |entry: &str, why| Err(ManifestError::Value { entry: entry.to_owned(), why });
        if self.files.len() > MAX_ENTRIES
            || self.disks.len() > MAX_ENTRIES
            || self.excluded.len() > MAX_ENTRIES
        {
            return value("files", "has too many entries");
        }
        for (field, text) in
            [("tool", &self.tool), ("created", &self.created), ("machine", &self.machine.name)]
        {
            if text.len() > MAX_TEXT {
                return value(field, "is too long");
            }
        }
        let mut seen = std::collections::HashSet::new();
        for path in self.paths() {
            check_path(path).map_err(|why| ManifestError::Path { path: shorten(path), why })?;
            if !seen.insert(fold_case(path)) {
                return value(path, "is listed twice");
            }
            if path.eq_ignore_ascii_case(PATH) {
                return value(path, "is the manifest itself");
            }
        }
        if let Some(state) = &self.saved_state {
            if state.path != STATE || state.digest.chunks.is_some() {
                return value(&state.path, "is not where a saved state is");
            }
            if state.size > MAX_DISK {
                return value(&state.path, "is larger than 64 TiB");
            }
            if state.digest.algorithm != digest::ALGORITHM || state.digest.chunk_size != digest::CHUNK_SIZE {
                return value(&state.path, "has a digest of an unknown algorithm");
            }
        }
        for disk in &self.disks {
            if disk.virtual_size > MAX_DISK {
                return value(&disk.path, "is larger than 64 TiB");
            }
            if !matches!(disk.format.as_str(), "vhdx" | "vhd" | "raw") {
                return value(&disk.path, "has an unknown format");
            }
            if [disk.logical_sector_size, disk.physical_sector_size].iter().any(|s| !matches!(s, 512 | 4096))
            {
                return value(&disk.path, "has a sector size other than 512 and 4096");
            }
            if disk.digest.algorithm != digest::ALGORITHM || disk.digest.chunk_size != digest::CHUNK_SIZE {
                return value(&disk.path, "has a digest of an unknown algorithm");
            }
        }
        Ok(())
    }
}

/// Case as Windows file systems fold it, near enough: character by character, one for one (so `ß` stays what it is).
pub(crate) fn fold_case(name: &str) -> String {
    let fold = |c: char| {
        let mut upper = c.to_uppercase();
        match (upper.next(), upper.next()) {
            (Some(one), None) => one,
            _ => c,
        }
    };
    name.chars().map(fold).collect()
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Checks a path inside a package: relative, `/` between names, every name one that Windows and Linux can both hold.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > MAX_PATH {
        return Err("is too long");
    }
    if path.starts_with('/') {
        return Err("is an absolute path");
    }
    path.split('/').try_for_each(check_name)
}

/// Checks one file name inside a package.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("has an empty name in it");
    }
    if name == "." || name == ".." {
        return Err("leaves its directory");
    }
    if name.len() > MAX_NAME {
        return Err("has a name that is too long");
    }
    if name.contains(['\\', '/', ':', '<', '>', '"', '|', '?', '*']) {
        return Err("has a character that a file name cannot have");
    }
    if name.chars().any(char::is_control) {
        return Err("has a control character in it");
    }
    if name.ends_with([' ', '.']) {
        return Err("ends in a space or a dot, which Windows drops");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Manifest {
        Manifest {
            format: FORMAT.into(),
            version: VERSION,
            tool: "slipway 0.1.0".into(),
            created: "2026-11-21T04:00:00Z".into(),
            machine: MachineEntry {
                id: Uuid::from_u128(1), name: "Größe 機械".into(), extra: Map::new()
            },
            files: vec![FileEntry {
                path: "Virtual Machines/00000000-0000-0000-0000-000000000001.vmcx".into(),
                size: 5,
                blake3: Digest::of(b"hello"),
                extra: Map::new(),
            }],
            disks: vec![DiskEntry {
                path: "Virtual Hard Disks/дискъ.vhdx".into(),
                format: "vhdx".into(),
                virtual_size: 10 << 30,
                block_size: 32 << 20,
                logical_sector_size: 512,
                physical_sector_size: 4096,
                disk_id: Uuid::from_u128(2),
                file_size: 4 << 20,
                digest: ContentDigest {
                    algorithm: digest::ALGORITHM.into(),
                    chunk_size: digest::CHUNK_SIZE,
                    root: Digest([3; 32]),
                    chunks: Some("Slipway/дискъ.vhdx.b3".into()),
                    extra: Map::new(),
                },
                extra: Map::new(),
            }],
            saved_state: None,
            excluded: vec![],
            extra: Map::new(),
        }
    }

    fn state(path: &str) -> StateEntry {
        let digest = ContentDigest { chunks: None, ..sample().disks.remove(0).digest };
        StateEntry { path: path.into(), size: 5, digest, details: Map::new() }
    }

    #[test]
    fn unknown_fields_survive() {
        let mut json: Value = serde_json::from_slice(&sample().to_bytes().unwrap()).unwrap();
        json["signature"] = "xyz".into();
        json["disks"][0]["parent"] = "a.vhdx".into();
        json["disks"][0]["digest"]["signed"] = true.into();
        json["machine"]["host"] = "h".into();
        let manifest = Manifest::parse(&serde_json::to_vec(&json).unwrap()).unwrap();
        let again: Value = serde_json::from_slice(&manifest.to_bytes().unwrap()).unwrap();
        assert_eq!(again, json);
    }

    #[test]
    fn each_rule_is_named() {
        let broken = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = sample();
            change(&mut manifest);
            let text = serde_json::to_vec(&manifest).unwrap();
            assert!(manifest.to_bytes().is_err());
            Manifest::parse(&text).unwrap_err().to_string()
        };
        for bad in [
            "../x",
            "/etc/passwd",
            "a/../../b",
            "C:/x",
            "a\\b",
            "",
            "a//b",
            "a/.",
            "a\0b",
            "nul:",
            "x ",
            "x.",
            "a\nb",
        ] {
            let said = broken(&|m| m.files[0].path = bad.into());
            assert!(said.contains("which"), "{bad:?}: {said}");
        }
        assert!(broken(&|m| m.files[0].path = "x/".repeat(600) + "y").contains("too long"));
        assert!(broken(&|m| m.files[0].path = m.disks[0].path.to_uppercase()).contains("twice"));
        assert!(broken(&|m| m.files[0].path = "slipway/MANIFEST.json".into()).contains("itself"));
        assert!(broken(&|m| m.disks[0].virtual_size = u64::MAX).contains("64 TiB"));
        assert!(broken(&|m| m.disks[0].logical_sector_size = 0).contains("sector"));
        assert!(broken(&|m| m.disks[0].format = "qcow2".into()).contains("format"));
        assert!(broken(&|m| m.disks[0].digest.chunk_size = 1).contains("algorithm"));
        assert!(broken(&|m| m.disks[0].digest.chunks = Some("../x".into())).contains("leaves"));
        assert!(broken(&|m| m.saved_state = Some(state("Slipway/other"))).contains("saved state"));
        let parse = |text: &str| Manifest::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(parse("{}").contains("understood"));
        assert!(parse(r#"{"format":"x","version":1}"#).contains("`x`"));
        assert!(parse(r#"{"format":"slipway-package","version":2}"#).contains("version 2"));
        assert!(parse(&"[".repeat(100_000)).contains("understood"));
    }

    proptest! {
        #[test]
        fn unknown_numbers_keep_every_digit(number in proptest::num::f64::NORMAL) {
            let mut json: Value = serde_json::from_slice(&sample().to_bytes().unwrap()).unwrap();
            json["disks"][0]["ratio"] = number.into();
            let once = Manifest::parse(&serde_json::to_vec(&json).unwrap()).unwrap();
            let twice = Manifest::parse(&once.to_bytes().unwrap()).unwrap();
            prop_assert_eq!(once.disks[0].extra["ratio"].as_f64(), Some(number));
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn garbage_is_refused_not_feared(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn mutations_parse_or_say_why(at in 0usize..1500, byte: u8) {
            let mut bytes = sample().to_bytes().unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(manifest) = Manifest::parse(&bytes) {
                prop_assert!(manifest.to_bytes().is_ok());
                prop_assert!(manifest.paths().all(|p| check_path(p).is_ok()));
            }
        }
    }
}

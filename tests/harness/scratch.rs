//! A folder of a story's own, gone when the story ends, and disks with known content to put there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A temporary folder. `SLIPWAY_KEEP=1` leaves it and says where it is.
#[derive(Debug)]
pub struct Scratch(Option<tempfile::TempDir>);

impl Scratch {
    /// A new folder. Its path is short: sockets are put into it.
    ///
    /// # Panics
    /// When there is no room for one.
    #[must_use]
    pub fn new() -> Scratch {
        Scratch(Some(tempfile::Builder::new().prefix("slip").tempdir().expect("a temporary folder")))
    }

    /// The folder.
    ///
    /// # Panics
    /// Never: the folder is there until it is dropped.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("there until dropped").path()
    }

    /// A path inside.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("SLIPWAY_KEEP").is_some()
            && let Some(folder) = self.0.take()
        {
            println!("kept: {}", folder.keep().display());
        }
    }
}

/// Bytes that look random, are the same every time, and never repeat within a disk.
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// A raw disk of `size` bytes: noise at the given (offset, length) ranges, holes elsewhere.
///
/// # Panics
/// When the file cannot be written.
pub fn raw_disk(path: &Path, size: u64, data: &[(u64, usize)]) {
    let file = File::create(path).expect("a new raw disk");
    file.set_len(size).expect("room for a sparse file");
    for (offset, length) in data {
        file.write_all_at(&noise(*offset + 1, *length), *offset).expect("room for the data");
    }
}

/// Every file below `folder` with its content's hash: to prove that nothing was written.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn snapshot(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let hash = crate::oracle::sha256_file(&path);
                found.push((path, hash));
            }
        }
    }
    found.sort();
    found
}

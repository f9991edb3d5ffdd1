//! Content-addressed files beside the store: configurations and guest state files as they came.
//!
//! A blob is written once, under the BLAKE3 of its bytes, by way of a temporary file: if we die before the rename there is
//! no blob and no record names it; after it the blob is whole. Reading checks the hash again. Blobs that no record names
//! are harmless; collecting them is left to a later change.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason, Result};

/// Largest blob in bytes: guest state files are 4 MiB, configurations far less.
pub const MAX_BLOB: u64 = 64 << 20;

/// The hexadecimal BLAKE3 of a blob's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobId(pub String);

/// The directory of blobs.
#[derive(Clone, Debug)]
pub struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// Blobs below `root`, which is created.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).map_err(|e| Error::io("create directory", &root, e))?;
        Ok(Self { root })
    }

    /// Keeps `bytes`; durable on return.
    ///
    /// # Errors
    /// Larger than [`MAX_BLOB`], or the file system refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobId> {
        if bytes.len() as u64 > MAX_BLOB {
            return Err(Error::new(
                Reason::BadPackage,
                format!("a file of {} bytes is larger than the {MAX_BLOB} bytes kept of one", bytes.len()),
            ));
        }
        let id = BlobId(blake3::hash(bytes).to_hex().to_string());
        let path = self.path(&id);
        if path.exists() {
            return Ok(id);
        }
        let temporary = self.root.join(format!(".{}.{}", id.0, uuid::Uuid::new_v4().simple()));
        write_durably(&temporary, bytes).map_err(|e| Error::io("write", &temporary, e))?;
        fs::rename(&temporary, &path).map_err(|e| Error::io("rename into", &path, e))?;
        sync_directory(&self.root).map_err(|e| Error::io("sync directory", &self.root, e))?;
        Ok(id)
    }

    /// The bytes of `id`.
    ///
    /// # Errors
    /// It is missing or its bytes changed.
    pub fn get(&self, id: &BlobId) -> Result<Vec<u8>> {
        let path = self.path(id);
        let bytes = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        if blake3::hash(&bytes).to_hex().as_str() != id.0 {
            return Err(Error::new(Reason::Store, format!("`{}` was changed or damaged", path.display())));
        }
        Ok(bytes)
    }

    /// How many bytes `id` has.
    ///
    /// # Errors
    /// It is missing.
    pub fn size(&self, id: &BlobId) -> Result<u64> {
        let path = self.path(id);
        fs::metadata(&path).map(|file| file.len()).map_err(|e| Error::io("look at", &path, e))
    }

    fn path(&self, id: &BlobId) -> PathBuf {
        self.root.join(&id.0)
    }
}

/// Writes a new file and syncs it.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes renames and creations in `path` durable.
pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_comes_back_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("b")).unwrap();
        let id = blobs.put(b"configuration").unwrap();
        assert_eq!(blobs.put(b"configuration").unwrap(), id);
        assert_eq!(blobs.get(&id).unwrap(), b"configuration");
        fs::write(blobs.path(&id), b"damaged").unwrap();
        assert_eq!(blobs.get(&id).unwrap_err().reason(), Reason::Store);
        assert_eq!(fs::read_dir(dir.path().join("b")).unwrap().count(), 1, "no temporary file is left");
    }
}

//! Doubles for tests: a source that knows its holes, and storage that fails on demand.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vhdx::{Extent, ExtentKind, MemoryStorage, Storage};

use crate::digest::{ALGORITHM, CHUNK_SIZE, Digest};
use crate::fault::{Fault, FaultKind};
use crate::source::{Source, SourceError, SourceIdentity};

/// Bytes in memory with an extent map; reading anything but data is a bug of the copy and panics.
#[derive(Debug)]
pub(crate) struct MapSource {
    pub(crate) bytes: Vec<u8>,
    /// (end, kind), ascending.
    pub(crate) map: Vec<(u64, ExtentKind)>,
    /// Extents per answer.
    pub(crate) answers: usize,
    pub(crate) identity: Mutex<SourceIdentity>,
    pub(crate) fail_at: Option<u64>,
    pub(crate) read: AtomicU64,
}

impl MapSource {
    pub(crate) fn new(bytes: Vec<u8>, map: Vec<(u64, ExtentKind)>) -> Self {
        Self { bytes, map, answers: 3, identity: Mutex::default(), fail_at: None, read: AtomicU64::new(0) }
    }

    /// All data.
    pub(crate) fn flat(bytes: Vec<u8>) -> Self {
        let map = vec![(bytes.len() as u64, ExtentKind::Data)];
        Self::new(bytes, map)
    }
}

impl Source for MapSource {
    fn path(&self) -> &Path {
        Path::new("/memory/source")
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let end = offset + buf.len() as u64;
        if self.fail_at.is_some_and(|at| (offset..end).contains(&at)) {
            return Err(Fault::new(FaultKind::Vanished, "read", self.path()).at(offset).into());
        }
        let mut at = 0;
        for (to, kind) in &self.map {
            assert!(*kind == ExtentKind::Data || *to <= offset || at >= end, "read of {kind:?} at {offset}");
            at = *to;
        }
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        buf.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        Ok(())
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, SourceError> {
        let end = offset + length;
        let mut at = offset;
        let mut extents = Vec::new();
        for (to, kind) in &self.map {
            let to = (*to).min(end);
            if to > at && extents.len() < self.answers {
                extents.push(Extent { offset: at, length: to - at, kind: *kind, layer: 0 });
                at = to;
            }
        }
        Ok(extents)
    }

    fn identity(&self) -> Result<SourceIdentity, SourceError> {
        Ok(self.identity.lock().unwrap().clone())
    }
}

/// The root digest, computed straight from the definition in docs/formats/package.md.
pub(crate) fn root_by_definition(bytes: &[u8]) -> Digest {
    let mut text = format!("{ALGORITHM}\n").into_bytes();
    text.extend((bytes.len() as u64).to_le_bytes());
    text.extend(CHUNK_SIZE.to_le_bytes());
    let mut count = 0_u64;
    for (index, chunk) in bytes.chunks(CHUNK_SIZE as usize).enumerate() {
        if !crate::buffer::is_zero(chunk) {
            text.extend((index as u64).to_le_bytes());
            text.extend(blake3::hash(chunk).as_bytes());
            count += 1;
        }
    }
    text.extend(count.to_le_bytes());
    Digest(*blake3::hash(&text).as_bytes())
}

/// Bytes that repeat in no block, from a seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Memory whose writes fail from the n-th on.
#[derive(Debug)]
pub(crate) struct FailingStorage {
    pub(crate) inner: MemoryStorage,
    pub(crate) writes_left: AtomicU64,
    pub(crate) error: rustix::io::Errno,
}

impl Storage for FailingStorage {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let left = self.writes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if left.is_err() {
            return Err(self.error.into());
        }
        self.inner.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
}

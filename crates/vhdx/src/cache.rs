//! Pages of a file's tables, a bounded number of them in memory.
//!
//! The block allocation table of a 64 TiB disk is half a GiB; it is read through here, page by page. Whole pages of
//! zeros are marked, so that the absent parts of a table cost one test each.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::storage::Storage;

/// Bytes of a page; a page lies at a multiple of this in the file.
pub(crate) const PAGE: u64 = 64 << 10;

/// What every page of zeros holds: a hostile file can have any number of them at no cost.
static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// A page's bytes; shorter than [`PAGE`] at the end of the file only.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) bytes: Cow<'static, [u8]>,
    /// All bytes are zero and none is missing.
    pub(crate) zero: bool,
}

impl Page {
    /// The little-endian u64 at `offset` in the page, `None` past the end of the file.
    pub(crate) fn u64_at(&self, offset: u64) -> Option<u64> {
        let start = usize::try_from(offset).ok()?;
        let bytes = self.bytes.get(start..start.checked_add(8)?)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }
}

#[derive(Debug, Default)]
struct Inner {
    pages: HashMap<u64, (u64, Arc<Page>)>,
    clock: u64,
}

/// At most `capacity` pages, the least recently used goes first.
#[derive(Debug)]
pub(crate) struct PageCache {
    inner: Mutex<Inner>,
    capacity: usize,
}

impl PageCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { inner: Mutex::default(), capacity: capacity.max(1) }
    }

    /// Keeps at most so many pages from now on.
    pub(crate) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity.max(1);
    }

    /// Page number `number`, from memory or from `storage`. Reading happens outside the lock: two threads may read
    /// the same page once each, none waits for another's disk.
    pub(crate) fn get(&self, storage: &dyn Storage, number: u64) -> io::Result<Arc<Page>> {
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.clock += 1;
            let now = inner.clock;
            if let Some((used, page)) = inner.pages.get_mut(&number) {
                *used = now;
                return Ok(Arc::clone(page));
            }
        }
        let start = number.checked_mul(PAGE).ok_or(io::ErrorKind::UnexpectedEof)?;
        let present = storage.len()?.saturating_sub(start).min(PAGE);
        let mut bytes = vec![0; present as usize];
        storage.read_at(&mut bytes, start)?;
        let zero = present == PAGE && is_zero(&bytes);
        let bytes = if zero { Cow::Borrowed(&ZEROS[..]) } else { Cow::Owned(bytes) };
        let page = Arc::new(Page { bytes, zero });
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = inner.clock;
        if inner.pages.len() >= self.capacity
            && let Some(oldest) =
                inner.pages.iter().min_by_key(|(_, (used, _))| *used).map(|(number, _)| *number)
        {
            inner.pages.remove(&oldest);
        }
        inner.pages.insert(number, (now, Arc::clone(&page)));
        Ok(page)
    }
}

/// Whether all bytes are zero; as one comparison, which is quick even in an unoptimised build.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((first, rest)) => *first == 0 && *rest == bytes[..rest.len()],
        None => true,
    }
}

//! A sparse file in memory that forgets what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use vhdx::Storage;

const PAGE: u64 = 4096;
type Pages = BTreeMap<u64, Arc<[u8; PAGE as usize]>>;

#[derive(Debug, Default, Clone)]
struct State {
    now: Pages,
    len: u64,
    durable: Pages,
    durable_len: u64,
    /// Pages written since the last sync.
    dirty: std::collections::BTreeSet<u64>,
    /// Writes and length changes until everything fails; `None`: never.
    fuse: Option<u64>,
    syncs: u64,
}

/// Volatile and durable images of one file.
#[derive(Debug, Default)]
pub(crate) struct CrashStorage {
    state: Mutex<State>,
}

impl CrashStorage {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// What a power loss leaves: all that was synced, and of the rest the pages and the length that `survives` picks.
    pub(crate) fn after_crash(&self, mut survives: impl FnMut() -> bool) -> Arc<Self> {
        let state = self.state.lock().unwrap();
        let mut left = State { now: state.durable.clone(), len: state.durable_len, ..State::default() };
        if survives() {
            left.len = state.len;
        }
        for page in &state.dirty {
            if survives()
                && page * PAGE < left.len
                && let Some(bytes) = state.now.get(page)
            {
                left.now.insert(*page, Arc::clone(bytes));
            }
        }
        left.now.retain(|page, _| page * PAGE < left.len);
        left.durable = left.now.clone();
        left.durable_len = left.len;
        Arc::new(Self { state: Mutex::new(left) })
    }

    /// A copy that shares nothing.
    pub(crate) fn copy(&self) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(self.state.lock().unwrap().clone()) })
    }

    /// After `count` more writes or length changes everything fails.
    pub(crate) fn fail_after(&self, count: Option<u64>) {
        self.state.lock().unwrap().fuse = count;
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state.lock().unwrap().syncs
    }

    /// Bytes that really take memory.
    pub(crate) fn stored(&self) -> u64 {
        self.state.lock().unwrap().now.len() as u64 * PAGE
    }

    /// Replaces bytes behind the writer's back.
    pub(crate) fn patch(&self, offset: u64, bytes: &[u8]) {
        self.write_at(bytes, offset).unwrap();
    }

    pub(crate) fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read_at(&mut bytes, offset).unwrap();
        bytes
    }
}

impl State {
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Storage for CrashStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.fill(0);
        let end = offset + buf.len() as u64;
        for (page, bytes) in state.now.range(offset / PAGE..end.div_ceil(PAGE)) {
            let (from, to) = ((page * PAGE).max(offset), ((page + 1) * PAGE).min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - page * PAGE) as usize..(to - page * PAGE) as usize]);
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.burn()?;
        let end = offset + buf.len() as u64;
        state.len = state.len.max(end);
        let mut at = offset;
        while at < end {
            let (page, within) = (at / PAGE, (at % PAGE) as usize);
            let step = (PAGE as usize - within).min((end - at) as usize);
            let part = &buf[(at - offset) as usize..][..step];
            let bytes = state.now.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(bytes)[within..within + step].copy_from_slice(part);
            state.dirty.insert(page);
            at += step as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.burn()?;
        if len < state.len {
            let gone: Vec<u64> = state.now.range(len.div_ceil(PAGE)..).map(|(page, _)| *page).collect();
            for page in gone {
                state.now.remove(&page);
                state.dirty.insert(page);
            }
            let within = (len % PAGE) as usize;
            if within != 0
                && let Some(bytes) = state.now.get_mut(&(len / PAGE))
            {
                Arc::make_mut(bytes)[within..].fill(0);
                state.dirty.insert(len / PAGE);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.fuse == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.syncs += 1;
        for page in std::mem::take(&mut state.dirty) {
            match state.now.get(&page).cloned() {
                Some(bytes) => state.durable.insert(page, bytes),
                None => state.durable.remove(&page),
            };
        }
        state.durable_len = state.len;
        Ok(())
    }
}

/// A disk's expected content: what is not here is zero.
#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Model {
    pub(crate) fn write(&mut self, buf: &[u8], offset: u64) {
        let end = offset + buf.len() as u64;
        let mut at = offset;
        while at < end {
            let (page, within) = (at / PAGE, (at % PAGE) as usize);
            let step = (PAGE as usize - within).min((end - at) as usize);
            let bytes = self.pages.entry(page).or_insert_with(|| vec![0; PAGE as usize]);
            bytes[within..within + step].copy_from_slice(&buf[(at - offset) as usize..][..step]);
            at += step as u64;
        }
    }

    pub(crate) fn zero(&mut self, offset: u64, length: u64) {
        let end = offset + length;
        let touched: Vec<u64> =
            self.pages.range(offset / PAGE..end.div_ceil(PAGE)).map(|(page, _)| *page).collect();
        for page in touched {
            let bytes = self.pages.get_mut(&page).unwrap();
            let (from, to) = ((page * PAGE).max(offset), ((page + 1) * PAGE).min(end));
            bytes[(from - page * PAGE) as usize..(to - page * PAGE) as usize].fill(0);
        }
    }

    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) {
        buf.fill(0);
        let end = offset + buf.len() as u64;
        for (page, bytes) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let (from, to) = ((page * PAGE).max(offset), ((page + 1) * PAGE).min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - page * PAGE) as usize..(to - page * PAGE) as usize]);
        }
    }

    /// Every byte of `image` is what the model says; only data is read, and what is not data must be zero here.
    pub(crate) fn assert_is(&self, image: &vhdx::Image) {
        let size = image.virtual_size();
        let mut at = 0;
        for extent in image.extents(0, size) {
            let extent = extent.unwrap();
            assert_eq!(extent.offset, at, "gapless");
            assert!(extent.length > 0);
            at = extent.end();
            if extent.kind == vhdx::ExtentKind::Data {
                let mut here = extent.offset;
                let (mut got, mut want) = (vec![0; 1 << 20], vec![0; 1 << 20]);
                while here < at {
                    let step = (at - here).min(1 << 20) as usize;
                    image.read_at(&mut got[..step], here).unwrap();
                    self.read(&mut want[..step], here);
                    assert!(got[..step] == want[..step], "content differs in {step} bytes at {here}");
                    here += step as u64;
                }
            } else {
                for (page, bytes) in self.pages.range(extent.offset / PAGE..at.div_ceil(PAGE)) {
                    let (from, to) = ((page * PAGE).max(extent.offset), ((page + 1) * PAGE).min(at));
                    let part = &bytes[(from - page * PAGE) as usize..(to - page * PAGE) as usize];
                    assert!(
                        part.iter().all(|byte| *byte == 0),
                        "{:?} at {from} but data was written",
                        extent.kind
                    );
                }
            }
        }
        assert_eq!(at, size, "the whole disk is mapped");
        // Reads across whatever lies between, too.
        for page in self.pages.keys() {
            let start = (page * PAGE).saturating_sub(777).min(size);
            let length = (size - start).min(6000) as usize;
            let (mut got, mut want) = (vec![1; length], vec![2; length]);
            image.read_at(&mut got, start).unwrap();
            self.read(&mut want, start);
            assert!(got == want, "content differs around {start}");
        }
    }
}

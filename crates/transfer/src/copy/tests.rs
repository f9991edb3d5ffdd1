//! The copy engine against byte vectors, and under everything that can go wrong.

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use proptest::prelude::*;
use vhdx::{CreateOptions, DiskKind, ExtentKind, Image, MemoryStorage, Storage};

use super::*;
use crate::sink::{NullSink, RawSink, VhdxSink};
use crate::testing::{FailingStorage, MapSource, noise, root_by_definition};

fn read_all(storage: &MemoryStorage) -> Vec<u8> {
    storage.snapshot()
}

fn small() -> CopyOptions<'static> {
    CopyOptions { workers: 3, io_size: 1 << 20, ..CopyOptions::default() }
}

/// A disk of some MiB with data, zeros and holes of any size, the data partly zero at any granularity.
fn disks() -> impl Strategy<Value = MapSource> {
    let run = (prop_oneof![1u64..200_000, 500_000u64..1_500_000], 0..4u8, any::<u64>());
    proptest::collection::vec(run, 1..12).prop_map(|runs| {
        let (mut bytes, mut map) = (Vec::new(), Vec::new());
        for (length, kind, seed) in runs {
            let start = bytes.len();
            bytes.resize(start + length as usize, 0);
            let kind = match kind {
                0 => ExtentKind::Hole,
                1 => ExtentKind::Zero,
                _ => {
                    let mut data = noise(length as usize, seed);
                    let zeros = (seed % (length + 1)) as usize;
                    data[zeros / 2..zeros].fill(0);
                    bytes[start..].copy_from_slice(&data);
                    ExtentKind::Data
                }
            };
            map.push((bytes.len() as u64, kind));
        }
        MapSource::new(bytes, map)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_disk_arrives_as_it_is(source in disks(), extra in 0u64..3_000_000, io_mib in 1usize..4, workers in 1usize..6) {
        let options = CopyOptions { workers, io_size: io_mib << 20, ..CopyOptions::default() };
        let mut expected = source.bytes.clone();
        expected.resize(expected.len() + extra as usize, 0);
        let size = expected.len() as u64;

        // Flat and fresh.
        let storage = Arc::new(MemoryStorage::default());
        let sink = RawSink::new(storage.clone(), Path::new("raw"), size).unwrap();
        let copied = copy(&source, &sink, &options, None, &mut NoJournal).unwrap();
        prop_assert!(read_all(&storage) == expected);
        prop_assert_eq!(copied.root, root_by_definition(&expected));
        prop_assert_eq!(copied.read, source.read.load(Ordering::Relaxed));

        // Full of something else before: zeros must be written.
        let dirty = DirtySink(RawSink::new(Arc::new(MemoryStorage::new(vec![0xaa; size as usize])), Path::new("dirty"), size).unwrap(), size);
        copy(&source, &dirty, &options, None, &mut NoJournal).unwrap();
        let again = MapSource::flat(dirty.content());
        prop_assert_eq!(hash(&again, size, &options, &mut NoJournal).unwrap().root, copied.root);
    }

    #[test]
    fn a_vhdx_holds_it_too(source in disks(), block in 0u32..3) {
        let size = (source.bytes.len() as u64).next_multiple_of(512);
        let create = CreateOptions {
            block_size: 1 << (20 + block),
            kind: DiskKind::Dynamic,
            ..CreateOptions::dynamic(size)
        };
        let storage = Arc::new(MemoryStorage::default());
        let sink = Box::new(VhdxSink::create(storage.clone(), Path::new("x.vhdx"), &create).unwrap());
        let copied = copy(&source, &*sink, &small(), None, &mut NoJournal).unwrap();
        sink.finish().unwrap();
        let image = Image::open_storage(storage, "x.vhdx", &Default::default()).unwrap();
        let mut back = vec![0; size as usize];
        image.read_at(&mut back, 0).unwrap();
        let mut expected = source.bytes.clone();
        expected.resize(size as usize, 0);
        prop_assert!(back == expected);
        prop_assert_eq!(copied.root, root_by_definition(&expected));
    }

    #[test]
    fn an_interrupted_copy_goes_on(source in disks(), stop_after in 1usize..4) {
        let size = source.bytes.len() as u64;
        let storage = Arc::new(MemoryStorage::default());
        let sink = RawSink::new(storage.clone(), Path::new("raw"), size).unwrap();
        let options = CopyOptions { checkpoint_bytes: 1, ..small() };
        let mut journal = Interrupt { left: stop_after, root: RootHasher::new(size), at: None };
        let first = copy(&source, &sink, &options, None, &mut journal);
        let resume = match first {
            Ok(_) => None, // Too small to be interrupted.
            Err(_) => journal.at.map(|(watermark, root)| Resume { watermark, root }),
        };
        // What lies above the watermark may be anything that the same source put there, in part.
        let sink = RawSink::new(storage.clone(), Path::new("raw"), size).unwrap();
        let copied = copy(&source, &sink, &options, resume, &mut NoJournal).unwrap();
        prop_assert!(read_all(&storage) == source.bytes);
        prop_assert_eq!(copied.root, root_by_definition(&source.bytes));
    }
}

/// Not fresh.
#[derive(Debug)]
struct DirtySink(RawSink, u64);

impl DirtySink {
    fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.1 as usize];
        self.0.read_back(&mut bytes);
        bytes
    }
}

impl Sink for DirtySink {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn size(&self) -> u64 {
        self.1
    }
    fn is_fresh(&self) -> bool {
        false
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), SinkError> {
        self.0.write_at(buf, offset)
    }
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), SinkError> {
        self.0.write_zeroes(offset, length)
    }
    fn checkpoint(&self) -> Result<(), SinkError> {
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Fails at the n-th checkpoint, keeping what a journal would keep.
struct Interrupt {
    left: usize,
    root: RootHasher,
    at: Option<(u64, RootHasher)>,
}

impl Journal for Interrupt {
    fn chunk(&mut self, index: u64, digest: &Digest) -> io::Result<()> {
        self.root.push(index, digest);
        Ok(())
    }

    fn checkpoint(&mut self, watermark: u64) -> io::Result<()> {
        self.at = Some((watermark, self.root.clone()));
        self.left -= 1;
        if self.left == 0 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

#[test]
fn an_enormous_empty_disk_costs_nothing() {
    #[derive(Debug)]
    struct Empty;
    impl Source for Empty {
        fn path(&self) -> &Path {
            Path::new("empty")
        }
        fn size(&self) -> u64 {
            64 << 40
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> Result<(), SourceError> {
            panic!("nothing here is data")
        }
        fn extents(&self, offset: u64, length: u64) -> Result<Vec<vhdx::Extent>, SourceError> {
            Ok(vec![vhdx::Extent { offset, length, kind: ExtentKind::Hole, layer: 0 }])
        }
        fn identity(&self) -> Result<SourceIdentity, SourceError> {
            Ok(SourceIdentity::default())
        }
    }
    let copied = hash(&Empty, 64 << 40, &small(), &mut NoJournal).unwrap();
    assert_eq!((copied.chunks, copied.read), (0, 0));
    assert_eq!(copied.root, RootHasher::new(64 << 40).finish());
}

#[test]
fn cancelling_stops_the_copy() {
    let source = MapSource::flat(noise(16 << 20, 1));
    let asked = AtomicUsize::new(0);
    let options = CopyOptions {
        cancelled: &|| asked.fetch_add(1, Ordering::Relaxed) > 3,
        workers: 1,
        // One MiB takes a minute: only a cancel ends this test soon.
        rate_limit: NonZero::new(1 << 14),
        ..small()
    };
    let sink = NullSink::new(16 << 20);
    let error = copy(&source, &sink, &options, None, &mut NoJournal).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Cancelled);
    assert_eq!(error.to_string(), "cancelled");
    assert!(source.read.load(Ordering::Relaxed) < 16 << 20);
}

#[test]
fn a_full_target_says_how_much_is_missing() {
    let source = MapSource::flat(noise(8 << 20, 1));
    let storage = Arc::new(FailingStorage {
        inner: MemoryStorage::default(),
        writes_left: AtomicU64::new(3),
        error: rustix::io::Errno::NOSPC,
    });
    let sink = RawSink::new(storage, Path::new("/target/disk.raw"), 8 << 20).unwrap();
    let error = copy(&source, &sink, &small(), None, &mut NoJournal).unwrap_err();
    assert_eq!(error.kind(), FaultKind::NoSpace);
    assert!(error.offset().is_some());
    let needed = error.needed().unwrap();
    assert!((5 << 20..=8 << 20).contains(&needed), "{needed}");
    assert!(error.to_string().contains("/target/disk.raw"), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn a_failing_source_names_path_and_offset() {
    let mut source = MapSource::flat(noise(8 << 20, 1));
    source.fail_at = Some((3 << 20) + 17);
    let error = hash(&source, 8 << 20, &small(), &mut NoJournal).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Vanished);
    assert_eq!(error.offset(), Some(3 << 20));
    assert_eq!(error.path(), Some(Path::new("/memory/source")));
}

#[test]
fn a_source_that_is_written_meanwhile_is_refused() {
    let source = MapSource::flat(noise(2 << 20, 1));
    let once = AtomicBool::new(false);
    let options = CopyOptions {
        progress: &|_| {
            if !once.swap(true, Ordering::Relaxed) {
                source.identity.lock().unwrap().generation = "ran".into();
            }
        },
        ..small()
    };
    let error = hash(&source, 2 << 20, &options, &mut NoJournal).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Changed);
}

#[test]
fn a_smaller_sink_is_refused_before_anything_is_written() {
    let source = MapSource::flat(noise(2 << 20, 1));
    let error = hash(&source, 1 << 20, &small(), &mut NoJournal).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Unsupported);
    assert_eq!(source.read.load(Ordering::Relaxed), 0);
}

#[test]
fn progress_ends_at_the_total() {
    let mut bytes = noise(3 << 20, 1);
    bytes.resize(9 << 20, 0);
    let source = MapSource::new(bytes, vec![(3 << 20, ExtentKind::Data), (9 << 20, ExtentKind::Hole)]);
    let last = std::sync::Mutex::new(Progress::default());
    let options = CopyOptions { progress: &|p| *last.lock().unwrap() = *p, ..small() };
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let sink = RawSink::new(storage, Path::new("raw"), 9 << 20).unwrap();
    copy(&source, &sink, &options, None, &mut NoJournal).unwrap();
    let last = *last.lock().unwrap();
    assert_eq!(
        last,
        Progress {
            phase: Phase::Copy,
            done: 3 << 20,
            total: 3 << 20,
            read: 3 << 20,
            written: 3 << 20,
            position: 9 << 20,
            size: 9 << 20
        }
    );
}

#[test]
fn checkpoints_follow_the_watermark() {
    struct Watch(Vec<u64>);
    impl Journal for Watch {
        fn checkpoint(&mut self, watermark: u64) -> io::Result<()> {
            self.0.push(watermark);
            Ok(())
        }
    }
    let source = MapSource::flat(noise(8 << 20, 1));
    let mut watch = Watch(Vec::new());
    let options = CopyOptions { checkpoint_bytes: 2 << 20, workers: 1, ..small() };
    copy(&source, &NullSink::new(8 << 20), &options, None, &mut watch).unwrap();
    assert_eq!(watch.0, [2 << 20, 4 << 20, 6 << 20, 8 << 20]);
}

//! A file system in memory that knows what is durable, dies at the n-th change, and comes back having lost any part of the
//! rest.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use vhdx::Storage;

use super::super::fs::{EntryKind, Fs, Lock};

/// Pages of a file are lost one by one.
const PAGE: usize = 64 << 10;

#[derive(Clone, Debug)]
enum Node {
    File(Arc<Mutex<FileState>>),
    Dir(Arc<Mutex<DirState>>),
}

#[derive(Debug, Default)]
struct FileState {
    live: Pages,
    durable: Pages,
}

/// The bytes of a file: shared between the live and the durable image as long as they are equal, absent while zero.
#[derive(Clone, Debug, Default)]
struct Pages {
    len: usize,
    pages: BTreeMap<usize, Arc<Vec<u8>>>,
}

impl Pages {
    fn resize(&mut self, len: usize) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            if let Some(last) = self.pages.get_mut(&(len / PAGE)) {
                Arc::make_mut(last)[len % PAGE..].fill(0);
            }
        }
        self.len = len;
    }

    fn read(&self, buf: &mut [u8], offset: usize) -> io::Result<()> {
        if offset.checked_add(buf.len()).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done;
            let count = (PAGE - at % PAGE).min(buf.len() - done);
            let part = &mut buf[done..done + count];
            match self.pages.get(&(at / PAGE)) {
                Some(page) => part.copy_from_slice(&page[at % PAGE..at % PAGE + count]),
                None => part.fill(0),
            }
            done += count;
        }
        Ok(())
    }

    fn write(&mut self, buf: &[u8], offset: usize) {
        self.len = self.len.max(offset + buf.len());
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done;
            let count = (PAGE - at % PAGE).min(buf.len() - done);
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Arc::new(vec![0; PAGE]));
            Arc::make_mut(page)[at % PAGE..at % PAGE + count].copy_from_slice(&buf[done..done + count]);
            done += count;
        }
    }

    fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(&mut bytes, 0).unwrap();
        bytes
    }

    fn from_vec(bytes: &[u8]) -> Self {
        let mut pages = Self::default();
        pages.write(bytes, 0);
        pages
    }
}

#[derive(Debug, Default)]
struct DirState {
    live: BTreeMap<OsString, Node>,
    durable: BTreeMap<OsString, Node>,
}

#[derive(Debug, Default)]
struct Clock {
    changes: u64,
    die_at: Option<u64>,
    /// Die at this operation on this path.
    die_on: Option<(&'static str, PathBuf)>,
}

/// What of the unsynced survives.
#[derive(Clone, Copy, Debug)]
pub(super) enum Crash {
    /// All: only the process died.
    Kill,
    /// Nothing: power failed.
    PowerLoss,
    /// Some, drawn from a seed: power failed while the disk was writing back.
    Some(u64),
}

#[derive(Clone, Debug)]
pub(super) struct CrashFs {
    root: Arc<Mutex<DirState>>,
    clock: Arc<Mutex<Clock>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn died() -> io::Error {
    io::Error::other("died")
}

impl CrashFs {
    pub(super) fn new() -> Self {
        let fs = Self { root: Arc::default(), clock: Arc::default() };
        fs.create_dir(Path::new("/t")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        fs
    }

    /// Changes so far.
    pub(super) fn changes(&self) -> u64 {
        lock(&self.clock).changes
    }

    /// The `n`-th change from now fails, and everything after it.
    pub(super) fn die_after(&self, n: u64) {
        let mut clock = lock(&self.clock);
        clock.die_at = Some(clock.changes + n);
    }

    /// True when the fatal change has come.
    pub(super) fn is_dead(&self) -> bool {
        self.alive().is_err()
    }

    fn alive(&self) -> io::Result<()> {
        let clock = lock(&self.clock);
        if clock.die_at.is_some_and(|at| clock.changes >= at) { Err(died()) } else { Ok(()) }
    }

    /// The next such operation on that path fails, and everything after it.
    pub(super) fn die_on(&self, operation: &'static str, path: &Path) {
        lock(&self.clock).die_on = Some((operation, path.to_owned()));
    }

    fn change_at(&self, operation: &'static str, path: &Path) -> io::Result<()> {
        let mut clock = lock(&self.clock);
        if clock.die_on.as_ref().is_some_and(|(fatal, at)| *fatal == operation && at == path) {
            clock.die_at = Some(clock.changes + 1);
        }
        drop(clock);
        self.change()
    }

    fn change(&self) -> io::Result<()> {
        let mut clock = lock(&self.clock);
        if clock.die_at.is_some_and(|at| clock.changes >= at) {
            return Err(died());
        }
        clock.changes += 1;
        if clock.die_at == Some(clock.changes) { Err(died()) } else { Ok(()) }
    }

    /// The file system as the next boot finds it.
    pub(super) fn after(&self, crash: Crash) -> Self {
        let mut coins = Coins { crash, drawn: 0 };
        let root = survive_dir(&lock(&self.root), &mut coins);
        Self { root: Arc::new(Mutex::new(root)), clock: Arc::default() }
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        let mut at = Node::Dir(Arc::clone(&self.root));
        for name in path.components().skip(1) {
            let Node::Dir(dir) = &at else { return Err(io::ErrorKind::NotADirectory.into()) };
            let next = lock(dir).live.get(name.as_os_str()).cloned();
            at = next.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn dir(&self, path: &Path) -> io::Result<Arc<Mutex<DirState>>> {
        match self.node(path)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn place(&self, path: &Path) -> io::Result<(Arc<Mutex<DirState>>, OsString)> {
        Ok((self.dir(path.parent().unwrap())?, path.file_name().unwrap().to_owned()))
    }

    fn file(&self, state: Arc<Mutex<FileState>>) -> Arc<dyn Storage> {
        Arc::new(CrashFile { fs: self.clone(), state })
    }

    /// Paths of all files.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        fn walk(dir: &DirState, at: &Path, out: &mut Vec<PathBuf>) {
            for (name, node) in &dir.live {
                match node {
                    Node::File(_) => out.push(at.join(name)),
                    Node::Dir(dir) => walk(&lock(dir), &at.join(name), out),
                }
            }
        }
        let mut out = Vec::new();
        walk(&lock(&self.root), Path::new("/"), &mut out);
        out
    }

    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.node(path)? {
            Node::File(file) => Ok(lock(&file).live.to_vec()),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Changes a file behind everybody's back, as bad storage does.
    pub(super) fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let Node::File(file) = self.node(path).unwrap() else { panic!("a directory") };
        let mut file = lock(&file);
        let mut bytes = file.live.to_vec();
        change(&mut bytes);
        file.live = Pages::from_vec(&bytes);
        file.durable = file.live.clone();
    }
}

struct Coins {
    crash: Crash,
    drawn: u64,
}

impl Coins {
    /// True: the unsynced state survives.
    fn flip(&mut self) -> bool {
        match self.crash {
            Crash::Kill => true,
            Crash::PowerLoss => false,
            Crash::Some(seed) => {
                self.drawn += 1;
                let mut hasher = blake3::Hasher::new();
                hasher.update(&seed.to_le_bytes()).update(&self.drawn.to_le_bytes());
                hasher.finalize().as_bytes()[0] & 1 == 1
            }
        }
    }
}

fn survive_dir(dir: &DirState, coins: &mut Coins) -> DirState {
    let entries = if coins.flip() { &dir.live } else { &dir.durable };
    let live: BTreeMap<_, _> = entries
        .iter()
        .map(|(name, node)| {
            let node = match node {
                Node::Dir(dir) => Node::Dir(Arc::new(Mutex::new(survive_dir(&lock(dir), coins)))),
                Node::File(file) => Node::File(Arc::new(Mutex::new(survive_file(&lock(file), coins)))),
            };
            (name.clone(), node)
        })
        .collect();
    DirState { durable: live.clone(), live }
}

fn survive_file(file: &FileState, coins: &mut Coins) -> FileState {
    let len = if coins.flip() { file.live.len } else { file.durable.len };
    let mut live = Pages { len: len.next_multiple_of(PAGE), ..Pages::default() };
    let numbers: BTreeSet<_> = file.live.pages.keys().chain(file.durable.pages.keys()).copied().collect();
    for number in numbers {
        let from = if coins.flip() { &file.live } else { &file.durable };
        if let Some(page) = from.pages.get(&number)
            && number * PAGE < len
        {
            live.pages.insert(number, Arc::clone(page));
        }
    }
    live.resize(len);
    FileState { durable: live.clone(), live }
}

#[derive(Debug)]
struct NoLock;
impl Lock for NoLock {}

impl Fs for CrashFs {
    fn entry(&self, path: &Path) -> io::Result<EntryKind> {
        self.alive()?;
        Ok(match self.node(path) {
            Err(_) => EntryKind::Absent,
            Ok(Node::File(_)) => EntryKind::File,
            Ok(Node::Dir(dir)) if lock(&dir).live.is_empty() => EntryKind::EmptyDirectory,
            Ok(Node::Dir(_)) => EntryKind::Directory,
        })
    }

    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.alive()?;
        let dir = self.dir(path)?;
        let names = lock(&dir).live.keys().cloned().collect();
        Ok(names)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        let (dir, name) = self.place(path)?;
        let mut dir = lock(&dir);
        if dir.live.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        dir.live.insert(name, Node::Dir(Arc::default()));
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        self.change()?;
        let (dir, name) = self.place(path)?;
        let mut dir = lock(&dir);
        if dir.live.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let state = Arc::<Mutex<FileState>>::default();
        dir.live.insert(name, Node::File(Arc::clone(&state)));
        Ok(self.file(state))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn Storage>> {
        self.alive()?;
        match self.node(path)? {
            Node::File(state) => Ok(self.file(state)),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change_at("rename", from)?;
        assert_eq!(from.parent(), to.parent(), "the writer only renames within a directory");
        let (dir, old) = self.place(from)?;
        let new = to.file_name().unwrap().to_owned();
        let mut dir = lock(&dir);
        if let Some(Node::Dir(existing)) = dir.live.get(&new)
            && !lock(existing).live.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let node = dir.live.remove(&old).ok_or(io::ErrorKind::NotFound)?;
        dir.live.insert(new, node);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change_at("remove", path)?;
        let (dir, name) = self.place(path)?;
        lock(&dir).live.remove(&name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        // As the real one: entry by entry, so that it can die half-way.
        let dir = self.dir(path)?;
        let children: Vec<_> = lock(&dir).live.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        for (name, node) in children {
            match node {
                Node::Dir(_) => self.remove_tree(&path.join(name))?,
                Node::File(_) => self.remove_file(&path.join(name))?,
            }
        }
        self.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change_at("sync", path)?;
        let dir = self.dir(path)?;
        let mut dir = lock(&dir);
        dir.durable = dir.live.clone();
        Ok(())
    }

    fn lock_dir(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.alive()?;
        self.dir(path)?;
        Ok(Box::new(NoLock))
    }

    fn same_file_system(&self, _: &Path, _: &Path) -> io::Result<bool> {
        Ok(true)
    }
}

#[derive(Debug)]
struct CrashFile {
    fs: CrashFs,
    state: Arc<Mutex<FileState>>,
}

impl Storage for CrashFile {
    fn len(&self) -> io::Result<u64> {
        self.fs.alive()?;
        Ok(lock(&self.state).live.len as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.fs.alive()?;
        lock(&self.state).live.read(buf, offset as usize)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.fs.change()?;
        lock(&self.state).live.write(buf, offset as usize);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fs.change()?;
        lock(&self.state).live.resize(len as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.change()?;
        let mut state = lock(&self.state);
        state.durable = state.live.clone();
        Ok(())
    }
}

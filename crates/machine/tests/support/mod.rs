//! What the domain's tests share: a host on the simulated engine, and packages made from nothing but our writers.
//!
//! Included by the integration tests and by the crate's own unit tests, so it names the crate from outside.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::panic, reason = "as above")]
#![allow(unreachable_pub, reason = "included in several crates")]
#![allow(missing_docs, reason = "for tests only")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::sim::SimEngine;
use machine::config::{self, Identity};
use machine::define::DefineRequest;
use machine::export::{ExportRequest, Exported};
use machine::finding::{Finding, Severity};
use machine::planned::ImportRequest;
use machine::report::HostFacts;
use machine::settings::{Adapter, Controller, ControllerKind, Drive, Generation, Hardware, Media, Settings};
use machine::{Host, HostOptions, MachineView};
use store::{MemoryStore, Store};
use uuid::{Uuid, uuid};
use vmcx::Tree;

pub const MIB: u64 = 1 << 20;
/// How long anything may take before a test gives up; nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);
const IDE: Uuid = uuid!("83f8638b-8dca-4152-9eda-2ca8b33039b4");

/// A host on a simulated engine, with its directories.
pub struct Lab {
    pub root: tempfile::TempDir,
    pub sim: SimEngine,
    pub store: Arc<MemoryStore>,
    pub facts: HostFacts,
    /// The boot of the operating system that the host is told.
    pub boot: String,
    host: Option<Arc<Host>>,
}

/// A directory for a test; in memory where there is such a thing: what is proven here is not durability.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl Lab {
    pub fn new() -> Self {
        let bridges = vec!["br0".to_owned()];
        Self::with(HostFacts { processors: 64, memory_mib: 1 << 18, uefi: true, tpm: true, bridges })
    }

    pub fn with(facts: HostFacts) -> Self {
        let mut lab = Self {
            root: scratch(),
            sim: SimEngine::new(),
            store: Arc::new(MemoryStore::new()),
            facts,
            boot: "first boot".to_owned(),
            host: None,
        };
        lab.open();
        lab
    }

    fn open(&mut self) {
        self.host = Some(self.second_host());
    }

    fn second_host(&self) -> Arc<Host> {
        let store: Arc<MemoryStore> = Arc::clone(&self.store);
        Host::open(HostOptions {
            data: self.path("data"),
            runtime: self.path("run"),
            store,
            engine: Arc::new(self.sim.clone()),
            facts: Some(self.facts.clone()),
            jobs: job::Options::default(),
            boot: Some(self.boot.clone()),
        })
        .unwrap()
    }

    /// Closes the host and opens it again on the same store, directories and guests.
    pub fn reopen(&mut self) {
        let gone = Arc::downgrade(&self.host.take().unwrap());
        while gone.strong_count() > 0 {
            std::thread::yield_now();
        }
        self.open();
    }

    pub fn host(&self) -> &Arc<Host> {
        self.host.as_ref().unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Waits for the end of a job.
    pub fn job(&self, id: Uuid) -> job::Status {
        let status = self.host().jobs().wait(job::JobId(id), PATIENCE).unwrap();
        assert!(status.state.is_finished(), "{status:?}");
        status
    }

    /// Imports and realizes.
    pub fn import(&self, request: &ImportRequest) -> MachineView {
        let planned = self.host().import(request).unwrap();
        let job = self.host().realize(planned.record.id, "test").unwrap();
        let status = self.job(job);
        assert!(status.state.is_success(), "{status:?}");
        self.host().machine(planned.record.id).unwrap()
    }

    /// Exports to `name` and waits.
    pub fn export_as(&self, id: Uuid, request: &ExportRequest) -> job::Status {
        let job = self.host().export(id, request, "test").unwrap();
        self.job(job)
    }

    /// Exports all to `name`, which must succeed.
    pub fn export(&self, id: Uuid, name: &str) -> PathBuf {
        let dir = self.path(name);
        let status = self.export_as(id, &ExportRequest::new(dir.clone()));
        exported(&status);
        dir
    }

    pub fn revision(&self) -> u64 {
        self.store.revision().unwrap()
    }
}

pub fn exported(status: &job::Status) -> Exported {
    assert!(status.state.is_success(), "{status:?}");
    serde_json::from_value(status.output.clone().unwrap()).unwrap()
}

/// An import of `path` with everything else as it is by default.
pub fn import_of(path: impl Into<PathBuf>) -> ImportRequest {
    ImportRequest { path: path.into(), ..ImportRequest::default() }
}

/// A machine to define, with nothing in it.
pub fn blank(name: &str, generation: Generation) -> DefineRequest {
    DefineRequest {
        name: name.to_owned(),
        generation,
        id: None,
        processors: None,
        memory_mib: None,
        secure_boot: None,
        tpm: false,
        disks: Vec::new(),
        dvd: None,
        adapters: Vec::new(),
        hardware: Hardware::default(),
    }
}

/// Bytes of a disk: blocks of 1 MiB, of which every third is empty and the others are alike in no two places.
pub fn content(seed: u8, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    for (n, block) in bytes.chunks_mut(MIB as usize).enumerate() {
        if n % 3 == 1 {
            continue;
        }
        let mut state = u64::from(seed) << 32 | (n as u64 + 1);
        for word in block.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let fresh = (state >> 8).to_le_bytes();
            word.copy_from_slice(&fresh[..word.len()]);
        }
    }
    bytes
}

/// How a disk of a package is made.
#[derive(Clone, Copy)]
pub struct Shape {
    pub fixed: bool,
    pub block_size: u32,
    pub logical: u32,
}

pub const DYNAMIC: Shape = Shape { fixed: false, block_size: MIB as u32, logical: 512 };

fn create_options(shape: Shape, size: u64) -> vhdx::CreateOptions {
    vhdx::CreateOptions {
        virtual_size: size,
        block_size: shape.block_size,
        logical_sector_size: shape.logical,
        physical_sector_size: 4096,
        kind: if shape.fixed { vhdx::DiskKind::Fixed } else { vhdx::DiskKind::Dynamic },
        disk_id: Uuid::new_v4(),
    }
}

/// Writes a VHDX that holds `bytes`; empty MiB are not touched.
pub fn make_vhdx(path: &Path, shape: Shape, bytes: &[u8]) {
    let storage = Arc::new(vhdx::FileStorage::create_new(path).unwrap());
    let writer = vhdx::Writer::create(storage, &create_options(shape, bytes.len() as u64)).unwrap();
    for (n, block) in bytes.chunks(MIB as usize).enumerate() {
        if block.iter().any(|b| *b != 0) {
            writer.write_at(block, n as u64 * MIB).unwrap();
        }
    }
    writer.finish().unwrap();
}

/// Writes a VHD that holds `bytes`.
pub fn make_vhd(path: &Path, fixed: bool, bytes: &[u8]) {
    let storage = Arc::new(vhdx::FileStorage::create_new(path).unwrap());
    let shape = Shape { fixed, block_size: 0, logical: 512 };
    let options =
        vhdx::CreateOptions { physical_sector_size: 512, ..create_options(shape, bytes.len() as u64) };
    let writer = vhdx::VhdWriter::create(storage, &options).unwrap();
    for (n, block) in bytes.chunks(MIB as usize).enumerate() {
        if block.iter().any(|b| *b != 0) {
            writer.write_at(block, n as u64 * MIB).unwrap();
        }
    }
    writer.finish().unwrap();
}

/// Turns the VHDX at `path` into a child of the one at `parent`, named by `relative` in its locator: what is empty in it
/// shows the parent. (MS-VHDX 2.6.2: file parameters, parent locator.)
pub fn make_child(path: &Path, parent: &Path, relative: &str) {
    let base = vhdx::Image::open(parent, &vhdx::ImageOptions::default()).unwrap();
    let linkage = base.layers()[0].info.data_write_id.unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let region = 2 * MIB;
    let mut table = vec![0; 64 << 10];
    file.read_exact_at(&mut table, region).unwrap();
    assert_eq!(&table[..8], b"metadata");
    let count = u16::from_le_bytes([table[10], table[11]]) as usize;
    let mut end = 0;
    for n in 0..count {
        let at = 32 + 32 * n;
        let field = |o: usize| u32::from_le_bytes(table[at + o..at + o + 4].try_into().unwrap());
        end = end.max(field(16) + field(20));
        if table[at..at + 16] == uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b").to_bytes_le() {
            file.write_all_at(&2_u32.to_le_bytes(), region + u64::from(field(16)) + 4).unwrap();
        }
    }
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let pairs = [("parent_linkage", format!("{{{linkage}}}")), ("relative_path", relative.to_owned())];
    let mut locator = uuid!("b04aefb7-d19e-4a81-b789-25b8e9445913").to_bytes_le().to_vec();
    locator.extend([0, 0, pairs.len() as u8, 0]);
    let mut text: Vec<u8> = Vec::new();
    for (key, value) in &pairs {
        let (key, value) = (utf16(key), utf16(value));
        let at = (20 + 12 * pairs.len() + text.len()) as u32;
        locator.extend(at.to_le_bytes());
        locator.extend((at + key.len() as u32).to_le_bytes());
        locator.extend((key.len() as u16).to_le_bytes());
        locator.extend((value.len() as u16).to_le_bytes());
        text.extend(key);
        text.extend(value);
    }
    locator.extend(text);
    let at = 32 + 32 * count;
    table[at..at + 16].copy_from_slice(&uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").to_bytes_le());
    table[at + 16..at + 20].copy_from_slice(&end.to_le_bytes());
    table[at + 20..at + 24].copy_from_slice(&(locator.len() as u32).to_le_bytes());
    table[at + 24..at + 28].copy_from_slice(&4_u32.to_le_bytes());
    table[10..12].copy_from_slice(&(count as u16 + 1).to_le_bytes());
    file.write_all_at(&table, region).unwrap();
    file.write_all_at(&locator, region + u64::from(end)).unwrap();
}

type Edit = Box<dyn Fn(&mut Tree)>;

/// A package being made.
pub struct Package {
    pub dir: PathBuf,
    pub id: Uuid,
    pub settings: Settings,
    pub guest_state: Option<Vec<u8>>,
    pub runtime_state: Vec<u8>,
    paths: BTreeMap<Uuid, String>,
    edits: Vec<Edit>,
}

impl Package {
    pub fn new(dir: PathBuf, generation: Generation) -> Self {
        for sub in ["Virtual Machines", "Virtual Hard Disks", "Snapshots"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let settings = Settings::new("Web server", generation);
        Self {
            dir,
            id: Uuid::new_v4(),
            runtime_state: vmcx::write_container(&vmcx::empty_runtime_state(settings.config_version))
                .unwrap(),
            settings,
            guest_state: None,
            paths: BTreeMap::new(),
            edits: Vec::new(),
        }
    }

    pub fn disk_dir(&self) -> PathBuf {
        self.dir.join("Virtual Hard Disks")
    }

    /// A drive whose disk the configuration finds at `path`; no file is made.
    pub fn drive(mut self, path: &str) -> Self {
        let id = Uuid::new_v4();
        self.plug(Media::Disk { disk: id });
        self.paths.insert(id, path.to_owned());
        self
    }

    pub fn plug(&mut self, media: Media) {
        let (kind, instance, slots) = match self.settings.generation {
            Generation::One => (ControllerKind::Ide, IDE, 2),
            Generation::Two => (ControllerKind::Scsi, Uuid::new_v4(), 64),
        };
        let controllers = &mut self.settings.controllers;
        if controllers.last().is_none_or(|c| c.drives.len() as u32 == slots) {
            let number = controllers.len() as u32;
            controllers.push(Controller { kind, instance, number, drives: Vec::new() });
        }
        let drives = &mut controllers.last_mut().unwrap().drives;
        drives.push(Drive { slot: drives.len() as u32, media });
    }

    /// A dynamic VHDX with `bytes`.
    pub fn vhdx(self, name: &str, bytes: &[u8]) -> Self {
        self.shaped(name, DYNAMIC, bytes)
    }

    pub fn shaped(self, name: &str, shape: Shape, bytes: &[u8]) -> Self {
        make_vhdx(&self.disk_dir().join(name), shape, bytes);
        self.drive(&format!(r"C:\Disks\{name}"))
    }

    pub fn vhd(self, name: &str, fixed: bool, bytes: &[u8]) -> Self {
        make_vhd(&self.disk_dir().join(name), fixed, bytes);
        self.drive(&format!(r"C:\Disks\{name}"))
    }

    /// An adapter on the source's switch `switch`; none when empty.
    pub fn adapter(mut self, switch: &str) -> Self {
        self.settings.adapters.push(Adapter {
            instance: Uuid::new_v4(),
            name: "Network Adapter".to_owned(),
            mac: None,
            mac_static: false,
            switch: None,
            source_switch: (!switch.is_empty()).then(|| switch.to_owned()),
            port: None,
            vlan: None,
            legacy: false,
        });
        self
    }

    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// A change of the configuration tree, after everything else.
    pub fn tree(mut self, change: impl Fn(&mut Tree) + 'static) -> Self {
        self.edits.push(Box::new(change));
        self
    }

    /// Sets one key of the configuration tree.
    pub fn set(self, path: &str, value: impl Into<vmcx::Value>) -> Self {
        let (path, value) = (format!("configuration/{path}"), value.into());
        self.tree(move |tree| drop(tree.set(&path, value.clone()).unwrap()))
    }

    pub fn guest_state(mut self, bytes: Vec<u8>) -> Self {
        self.guest_state = Some(bytes);
        self
    }

    /// Writes the configuration and what lies beside it.
    pub fn write(self) -> Self {
        let name = |disk: Uuid| self.paths.get(&disk).map(|p| machine::disk::file_name(p).to_owned());
        let mut tree = config::fresh(self.id, jiff::Timestamp::UNIX_EPOCH, &self.settings);
        config::apply(&mut tree, &self.settings, &Identity { id: self.id, disk_name: &name }).unwrap();
        for c in &self.settings.controllers {
            for d in &c.drives {
                if let Media::Disk { disk } = d.media {
                    let node = format!("configuration/_{}_/controller{}", c.instance, c.number);
                    let path = vmcx::Value::from(self.paths[&disk].as_str());
                    tree.set(&format!("{node}/drive{}/pathname", d.slot), path).unwrap();
                }
            }
        }
        for edit in &self.edits {
            edit(&mut tree);
        }
        fs::write(self.member("vmcx"), vmcx::write_container(&tree).unwrap()).unwrap();
        fs::write(self.member("VMRS"), &self.runtime_state).unwrap();
        if let Some(bytes) = &self.guest_state {
            fs::write(self.member("vmgs"), bytes).unwrap();
        }
        self
    }

    /// The path of `<id>.<extension>` among the configurations.
    pub fn member(&self, extension: &str) -> PathBuf {
        member(&self.dir, self.id, extension)
    }

    pub fn request(&self) -> ImportRequest {
        import_of(&self.dir)
    }
}

pub fn member(package: &Path, id: Uuid, extension: &str) -> PathBuf {
    let name = id.hyphenated().to_string().to_ascii_uppercase();
    package.join("Virtual Machines").join(format!("{name}.{extension}"))
}

/// Everything below `dir`: relative path, and for files the hash of their bytes.
pub fn listing(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let what = if kind.is_dir() {
                open.push(entry.path());
                "directory".to_owned()
            } else if kind.is_file() {
                blake3::hash(&fs::read(entry.path()).unwrap()).to_hex().to_string()
            } else {
                "other".to_owned()
            };
            found.insert(entry.path().strip_prefix(dir).unwrap().to_owned(), what);
        }
    }
    found
}

/// Files below `dir`, relative.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    listing(dir).into_iter().filter(|(_, what)| what != "directory").map(|(path, _)| path).collect()
}

/// The whole content of a VHD or VHDX.
pub fn read_image(path: &Path) -> Vec<u8> {
    let image = vhdx::Image::open(path, &vhdx::ImageOptions::default()).unwrap();
    let mut bytes = vec![0; image.virtual_size() as usize];
    image.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// The layer that a machine writes, of its disk number `n`.
pub fn leaf(view: &MachineView, n: usize) -> &Path {
    &view.disks[n].leaf().unwrap().path
}

pub fn finding<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    findings.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("no {id} among {findings:#?}"))
}

pub fn has(findings: &[Finding], id: &str) -> bool {
    findings.iter().any(|f| f.id == id)
}

pub fn errors(findings: &[Finding]) -> Vec<&str> {
    findings.iter().filter(|f| f.severity == Severity::Error).map(|f| f.id.as_str()).collect()
}

/// Held by tests of one program of which one starts processes and the other takes a file lock again that it just let go
/// of: between fork and exec a child holds the locks of its parent.
pub fn no_forks() -> std::sync::MutexGuard<'static, ()> {
    static FORKS: std::sync::Mutex<()> = std::sync::Mutex::new(());
    FORKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether QEMU's image tools are here; says so when not.
#[allow(clippy::print_stdout, reason = "a test that is skipped says why")]
pub fn has_qemu() -> bool {
    let found = std::process::Command::new("qemu-img").arg("--version").output().is_ok();
    if !found {
        println!("skipped: qemu-img is not installed");
    }
    found
}

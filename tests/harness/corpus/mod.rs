//! The generator of hostile packages: what somebody may put into a package to reach, fill, stall or fool this host.
//!
//! Each [`Case`] is one trick in an otherwise sound package of a generation 1 machine with one disk, next to a folder `outside`
//! that nothing in the package may lead to. The same cases are made every time: no clock, no random ids. They are kept, as
//! [`Bundle`]s, in `tests/hostile`, with an index that says what each command is expected to say; the ones that would take much
//! room there are made when they are needed. What is hostile about running clients is not here.

mod chains;
mod configurations;
mod containers;
mod disks;
pub mod formats;
mod manifests;
mod paths;
mod places;

use crate::bundle::{Bundle, Entry, Sparse};
use serde_json::{Value, json};
use vmcx::{Tree, Value as Key};

/// What a command says: its exit code, and the id of the error or finding that is the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code.
    pub exit: i32,
    /// Id; empty when there is nothing to say.
    pub reason: String,
}

/// What the commands say of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// `inspect`: a finding that is an error, or its own failure.
    pub inspect: Outcome,
    /// `verify`.
    pub verify: Outcome,
    /// `import`, with and without `--dry-run`.
    pub import: Outcome,
}

/// One hostile package.
#[derive(Clone, Debug)]
pub struct Case {
    /// Unique, and fit for a file name.
    pub name: String,
    /// The tree: `package`, and `outside`.
    pub bundle: Bundle,
    /// What is said of `package`.
    pub expected: Expected,
    /// It is in the repository; others would take too much room there.
    pub kept: bool,
}

impl Case {
    /// Its line of the index.
    #[must_use]
    pub fn row(&self) -> Value {
        let outcome = |o: &Outcome| json!({ "exit": o.exit, "reason": o.reason });
        json!({
            "name": self.name,
            "what": self.bundle.about,
            "kept": self.kept,
            "inspect": outcome(&self.expected.inspect),
            "verify": outcome(&self.expected.verify),
            "import": outcome(&self.expected.import),
        })
    }
}

/// The groups of cases, by what is hostile in them.
pub const GROUPS: [&str; 7] =
    ["paths", "configurations", "containers", "disks", "chains", "manifests", "places"];

/// The cases of a group.
///
/// # Panics
/// When there is no such group.
#[must_use]
pub fn group(name: &str) -> Vec<Case> {
    match name {
        "paths" => paths::cases(),
        "configurations" => configurations::cases(),
        "containers" => containers::cases(),
        "disks" => disks::cases(),
        "chains" => chains::cases(),
        "manifests" => manifests::cases(),
        "places" => places::cases(),
        _ => panic!("no group {name}"),
    }
}

/// Every case, by name.
///
/// # Panics
/// When two have one name.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = GROUPS.into_iter().flat_map(group).collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = cases.windows(2).find(|pair| pair[0].name == pair[1].name) {
        panic!("two cases are called {}", pair[0].name);
    }
    cases
}

/// The machine's id in every case.
pub const ID: &str = "0E570000-0000-4000-8000-00000000BAD1";
/// The folder of configurations, from the top of the tree.
const MACHINES: &str = "package/Virtual Machines";
/// The folder of disks.
const DISKS: &str = "package/Virtual Hard Disks";
/// A disk of somebody else's.
const SECRET: &str = "outside/secret.vhdx";

/// A package being made; sound until something is changed.
#[derive(Clone, Debug)]
struct Site {
    entries: Vec<Entry>,
}

impl Site {
    /// Nothing but what lies outside.
    fn empty() -> Self {
        let mut site = Self { entries: Vec::new() };
        site.file(SECRET, formats::vhdx::Disk::small().build());
        site
    }

    /// A package with this configuration, in the XML form, and no disk.
    fn of(tree: &Tree) -> Self {
        let mut site = Self::empty();
        let bytes = vmcx::write_xml(tree).expect("it has a spelling");
        site.file(&format!("{MACHINES}/{ID}.xml"), Sparse::from(bytes));
        site
    }

    /// The same as a container.
    fn container(tree: &Tree) -> Self {
        Self::of_container(vmcx::write_container(tree).expect("it is small"))
    }

    /// A package whose configuration is this container.
    fn of_container(bytes: Vec<u8>) -> Self {
        let mut site = Self::empty();
        site.file(&format!("{MACHINES}/{ID}.vmcx"), Sparse::from(bytes));
        site
    }

    /// A package whose configuration is this text, in UTF-16.
    fn of_xml(text: &str) -> Self {
        let mut site = Self::empty();
        let bytes: Vec<u8> =
            [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        site.file(&format!("{MACHINES}/{ID}.xml"), Sparse::from(bytes));
        site
    }

    /// The sound package with `disk` as its disk.
    fn with_disk(disk: Sparse) -> Self {
        let mut site = Self::of(&machine(&[r"C:\VMs\disk.vhdx"]));
        site.file(&format!("{DISKS}/disk.vhdx"), disk);
        site
    }

    /// The sound package.
    fn sound() -> Self {
        Self::with_disk(formats::vhdx::Disk::small().build())
    }

    fn file(&mut self, path: &str, content: impl Into<Sparse>) -> &mut Self {
        self.entries.push(Entry::File(path.into(), content.into()));
        self
    }

    fn add(&mut self, entry: Entry) -> &mut Self {
        self.entries.push(entry);
        self
    }

    fn link(&mut self, path: &str, to: &str) -> &mut Self {
        self.add(Entry::Link(path.into(), to.into()))
    }

    fn case(self, name: &str, about: &str, expected: Expected) -> Case {
        let bundle = Bundle { about: about.to_owned(), entries: self.entries };
        Case { name: name.to_owned(), bundle, expected, kept: true }
    }
}

fn outcome(exit: i32, reason: &str) -> Outcome {
    Outcome { exit, reason: reason.to_owned() }
}

/// `inspect` finds `finding`, so that `import` refuses; `verify` ends with `verify`, which is empty when it is content.
fn found(finding: &str, verify: &str) -> Expected {
    Expected {
        inspect: outcome(0, finding),
        verify: outcome(if verify.is_empty() { 0 } else { 4 }, verify),
        import: outcome(4, "not-compatible"),
    }
}

/// Nobody takes it for a package; `verify` says `verify`.
fn refused(verify: &str) -> Expected {
    let no = outcome(4, "bad-package");
    Expected { inspect: no.clone(), verify: outcome(4, verify), import: no }
}

/// The formats are right, so `verify` is content; what they say makes no machine.
fn misunderstood() -> Expected {
    Expected { verify: outcome(0, ""), ..refused("") }
}

/// It comes in, and what was meant to do harm does nothing; `verify` may know better.
fn harmless(verify: &str) -> Expected {
    Expected {
        inspect: outcome(0, ""),
        verify: outcome(if verify.is_empty() { 0 } else { 4 }, verify),
        import: outcome(0, ""),
    }
}

/// The configuration of a generation 1 machine with these files in its first IDE drives.
fn machine(paths: &[&str]) -> Tree {
    let mut tree = Tree::new();
    let set = |tree: &mut Tree, key: &str, value: Key| {
        tree.set(&format!("configuration/{key}"), value).expect("a new key");
    };
    set(&mut tree, "properties/global_id", ID.into());
    set(&mut tree, "properties/name", "hostile".into());
    set(&mut tree, "properties/subtype", Key::Int(0));
    set(&mut tree, "properties/version", Key::Int(0x0900));
    set(&mut tree, "settings/processors/count", Key::Int(1));
    set(&mut tree, "settings/memory/bank/size", Key::Int(64));
    for (n, path) in paths.iter().enumerate() {
        plug(&mut tree, n / 2, n % 2, "VHD", path);
    }
    tree
}

/// The machine's IDE controller, whose device and instance ids are one.
const IDE: &str = "_83f8638b-8dca-4152-9eda-2ca8b33039b4_";

/// Puts a file into a drive.
fn plug(tree: &mut Tree, controller: usize, drive: usize, kind: &str, path: &str) {
    let key = format!("configuration/{IDE}/controller{controller}/drive{drive}");
    tree.set(&format!("{key}/type"), kind).expect("a new key");
    tree.set(&format!("{key}/pathname"), path).expect("a new key");
}

//! Configurations and state in the binary container, bent where its tables name each other.

use super::formats::vmgs;
use super::{Case, ID, MACHINES, Site, found, harmless, machine, misunderstood, refused};
use crate::bundle::Sparse;
use vmcx::{Entry, Tree, Value as Key};

/// The root object table.
const OBJECTS: usize = 8192;
/// Bytes of one of its entries.
const OBJECT: usize = 18;
/// Kinds of objects.
const OBJECT_TABLE: u8 = 1;
const KEY_TABLE: u8 = 2;
const FILE: u8 = 3;

/// A container whose bytes are ours to bend.
struct Bent(Vec<u8>);

impl Bent {
    fn new() -> Self {
        Self::of(&machine(&[]))
    }

    fn of(tree: &Tree) -> Self {
        Self(vmcx::write_container(tree).expect("it is small"))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.0.resize(self.0.len().max(end), 0);
        self.0[at..end].copy_from_slice(bytes);
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    /// The checksum of `from..to` into its field at `at`.
    fn seal(&mut self, from: usize, to: usize, at: usize) {
        self.put(at, &[0; 4]);
        let crc = crc32fast::hash(&self.0[from..to]);
        self.put(at, &crc.to_le_bytes());
    }

    /// Both headers' checksums.
    fn seal_headers(&mut self) {
        for at in [0, 4096] {
            self.seal(at, at + 46, at + 4);
        }
    }

    /// Slot, kind, offset and size of every object.
    fn objects(&self) -> Vec<(usize, u8, u64, u32)> {
        let object = |slot: usize| {
            let at = OBJECTS + 8 + OBJECT * slot;
            (slot, self.0[at], self.u64(at + 5), self.u32(at + 13))
        };
        (0..self.u32(OBJECTS + 4) as usize).map(object).collect()
    }

    fn object(&mut self, slot: usize, kind: u8, offset: u64, size: u32) {
        let at = OBJECTS + 8 + OBJECT * slot;
        self.put(at, &[kind]);
        self.put(at + 5, &offset.to_le_bytes());
        self.put(at + 13, &size.to_le_bytes());
        self.put(at + 17, &[1]);
        self.seal(at, at + OBJECT, at + 1);
    }

    fn free_slot(&self) -> usize {
        self.objects().iter().position(|o| o.1 == 0).expect("an empty entry")
    }

    /// Offset of the first entry with that key.
    fn key(&self, name: &str) -> usize {
        let wanted = [&[name.len() as u8 + 1], name.as_bytes(), &[0]].concat();
        self.0.windows(wanted.len()).position(|w| w == wanted).expect("the key") - 20
    }

    /// A key's checksum, over `data` bytes behind its name.
    fn seal_key(&mut self, at: usize, data: usize) {
        let end = at + 21 + self.0[at + 20] as usize + data;
        self.seal(at, end, at + 12);
    }

    fn log(&self) -> usize {
        self.u64(26) as usize
    }

    /// One pending entry in the log: what it writes, where.
    fn pend(&mut self, destination: u64, size: u32, source: u64) {
        let log = self.log();
        self.put(log + 8, &1_u32.to_le_bytes());
        self.seal(log, log + 34, log + 4);
        let at = log + 34;
        self.put(at, &destination.to_le_bytes());
        self.put(at + 8, &size.to_le_bytes());
        self.put(at + 12, &source.to_le_bytes());
        let data =
            self.0.get(log + source as usize..).and_then(|d| d.get(..size as usize)).unwrap_or_default();
        let crc = crc32fast::hash(data);
        self.put(at + 24, &crc.to_le_bytes());
        self.seal(at, at + 28, at + 20);
    }

    fn case(self, name: &str, about: &str) -> Case {
        Site::of_container(self.0).case(&format!("container-{name}"), about, refused("package.configuration"))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![noise(), cut(), version(), checksum(), endless(), own_ancestor()];
    cases.extend(tables());
    cases.extend(keys());
    cases.extend(logs());
    cases.extend(state());
    cases
}

fn noise() -> Case {
    let mut bytes = crate::scratch::noise(1, 9000);
    bytes[..4].copy_from_slice(&0x0128_2014_u32.to_le_bytes());
    Bent(bytes).case("noise", "A signature, and noise behind it.")
}

fn cut() -> Case {
    let mut bent = Bent::new();
    bent.0.truncate(8192 + 100);
    bent.case("cut", "A container that ends in its first table.")
}

fn version() -> Case {
    let mut bent = Bent::new();
    for at in [0, 4096] {
        bent.put(at + 10, &0x7fff_u32.to_le_bytes());
    }
    bent.seal_headers();
    bent.case("version", "A version of the container that there is not.")
}

fn checksum() -> Case {
    let mut bent = Bent::new();
    let at = bent.key("name");
    bent.0[at + 30] ^= 1;
    bent.case("checksum", "A value that was changed, and its checksum was not.")
}

fn endless() -> Case {
    let mut site = Site::empty();
    let mut file = Sparse::from(Bent::new().0);
    file.size = 1 << 42;
    site.file(&format!("{MACHINES}/{ID}.vmcx"), file);
    let expected = refused("package.configuration");
    site.case(
        "container-of-four-terabytes",
        "A sound container, and a hole of four terabytes behind it.",
        expected,
    )
}

fn own_ancestor() -> Case {
    let tree = Tree { entries: vec![Entry::node("top", vec![Entry::node("below", vec![])])] };
    let mut bent = Bent::of(&tree);
    let (top, below) = (bent.key("top"), bent.key("below"));
    let table =
        bent.objects().into_iter().find(|o| o.1 == KEY_TABLE).map(|o| o.2 as usize).expect("a key table");
    bent.put(top + 6, &1_u16.to_le_bytes());
    bent.put(top + 8, &((below - table) as u32).to_le_bytes());
    bent.seal_key(top, 12);
    bent.case("own-ancestor", "Two keys, each of which hangs below the other.")
}

fn tables() -> Vec<Case> {
    let mut circle = Bent::new();
    let last = circle.objects().len() - 1;
    circle.object(last, OBJECT_TABLE, OBJECTS as u64, 4096);
    let mut middle = Bent::new();
    let slot = middle.free_slot();
    middle.object(slot, OBJECT_TABLE, 4096, 4096);
    let mut count = Bent::new();
    count.put(OBJECTS + 4, &u32::MAX.to_le_bytes());
    let mut outside = Bent::new();
    let slot = outside.free_slot();
    outside.object(slot, KEY_TABLE, 1 << 60, 4096);
    let mut over = Bent::new();
    let slot = over.free_slot();
    let first = over.0.len();
    for n in 0..40 {
        let at = first + n * 4096;
        let rest = (40 - n) * 4096;
        over.put(at, &2_u16.to_le_bytes());
        over.put(at + 2, &(n as u16 + 100).to_le_bytes());
        over.put(at + 4, &[1, 0]);
        over.seal(at, at + 10, at + 6);
        over.put(at + 10, &[1, 0]);
        over.put(at + 12, &(rest as u32 - 10).to_le_bytes());
        over.0.resize(first + 40 * 4096, 0);
        over.object(slot + n, KEY_TABLE, at as u64, rest as u32);
    }
    let mut huge = Bent::new();
    let (slot, _, offset, _) = huge.objects().into_iter().find(|o| o.1 == KEY_TABLE).expect("a key table");
    huge.object(slot, KEY_TABLE, offset, u32::MAX);
    vec![
        circle.case("table-circle", "A table of objects that goes on in itself."),
        middle.case("table-in-the-middle", "A table of objects that goes on from its middle."),
        count.case("table-count", "A table of four thousand million objects."),
        outside.case("table-outside", "A table of keys behind the end of the file."),
        over.case("tables-over-each-other", "Tables of keys that each claim all that follows."),
        huge.case("table-size", "A table of keys of four gigabytes."),
    ]
}

fn keys() -> Vec<Case> {
    let mut outside = {
        let mut tree = machine(&[]);
        tree.set("configuration/large", Key::Array(vec![7; 5000])).expect("a new key");
        Bent::of(&tree)
    };
    let at = outside.key("large");
    outside.put(at + 21 + 6, &u32::MAX.to_le_bytes());
    outside.seal_key(at, 12);
    let mut many = {
        let mut tree = machine(&[]);
        tree.set("configuration/large", Key::Array(vec![7; 60_000])).expect("a new key");
        for n in 0..60 {
            tree.set(&format!("configuration/v{n:02}"), Key::Array(vec![7; 8])).expect("a new key");
        }
        Bent::of(&tree)
    };
    let (_, _, offset, _) = many.objects().into_iter().find(|o| o.1 == FILE).expect("a file object");
    for n in 0..60 {
        // A small value takes as many bytes as the place of a large one.
        let at = many.key(&format!("v{n:02}"));
        many.put(at + 1, &[Entry::FILE_OBJECT]);
        many.put(at + 25, &60_000_u32.to_le_bytes());
        many.put(at + 29, &offset.to_le_bytes());
        many.seal_key(at, 12);
    }
    let mut long = Bent::new();
    let at = long.key("name");
    long.put(at + 26, &0x7fff_ffff_u32.to_le_bytes());
    let mut parent = Bent::new();
    let at = parent.key("name");
    parent.put(at + 6, &0xffff_u16.to_le_bytes());
    parent.seal_key(at, 4 + 14);
    let mut unterminated = Bent::new();
    let at = unterminated.key("name");
    unterminated.put(at + 25, b"x");
    let mut foreign = Bent::new();
    let at = foreign.key("name");
    foreign.put(at + 21, &[0xff, 0xfe]);
    vec![
        outside.case("value-outside", "A value of four gigabytes in an object of some thousand bytes."),
        many.case("values-multiplied", "Sixty keys that all hold one large value."),
        long.case("value-length", "A text of two gigabytes in a table of some thousand bytes."),
        parent.case("orphan", "A key whose parent is in no table."),
        unterminated.case("name-without-end", "A key's name that does not end."),
        foreign.case("name-of-no-encoding", "A key's name that is no UTF-8."),
    ]
}

fn logs() -> Vec<Case> {
    let mut itself = Bent::new();
    let log = itself.log() as u64;
    itself.pend(log, 28, 4096);
    let mut beyond = Bent::new();
    beyond.pend(1 << 62, 28, 4096);
    let mut source = Bent::new();
    source.pend(8192, 28, 1 << 40);
    let mut count = Bent::new();
    let log = count.log();
    count.put(log + 8, &u32::MAX.to_le_bytes());
    count.put(log + 13, &u32::MAX.to_le_bytes());
    count.seal(log, log + 34, log + 4);
    let mut place = Bent::new();
    for at in [0, 4096] {
        place.put(at + 26, &(u64::MAX - 10).to_le_bytes());
    }
    place.seal_headers();
    vec![
        itself.case("log-into-itself", "A log that writes into itself."),
        beyond.case("log-beyond", "A log that writes four exabytes behind the end."),
        source.case("log-without-data", "A log whose data is not in it."),
        count.case("log-count", "A log of four thousand million entries."),
        place.case("log-place", "A log at the end of all numbers."),
    ]
}

/// The files beside the configuration.
fn state() -> Vec<Case> {
    let with = |extension: &str, content: Sparse| {
        let mut site = Site::sound();
        site.file(&format!("{MACHINES}/{ID}.{extension}"), content);
        site
    };
    let lying = vmgs::build(4 << 20, 0, &[(1, 4, 1, 1 << 40), (3, u32::MAX, u32::MAX, u64::MAX)]);
    let locked = vmgs::build(4 << 20, 1, &[(1, 4, 1, 100)]);
    let over = vmgs::build(4 << 20, 0, &[(0, 2, 1, 4096), (1, 2, 1, 4096), (3, 2, 1, 4096)]);
    let huge = vmgs::build(65 << 20, 0, &[]);
    vec![
        with("vmrs", Sparse::from(crate::scratch::noise(2, 500))).case(
            "state-of-noise",
            "Noise where the runtime state should be: memory may have been in it.",
            found("saved-state", ""),
        ),
        with("vmrs", Sparse::new(1 << 42)).case(
            "state-of-four-terabytes",
            "A runtime state of four terabytes.",
            found("saved-state", ""),
        ),
        with("vmgs", Sparse::from(crate::scratch::noise(3, 500))).case(
            "guest-state-of-noise",
            "Noise where the guest state should be.",
            harmless(""),
        ),
        with("vmgs", lying).case(
            "guest-state-lies",
            "A guest state whose files are larger than it.",
            harmless(""),
        ),
        with("vmgs", over).case(
            "guest-state-over-itself",
            "A guest state whose files lie in its table.",
            harmless(""),
        ),
        with("vmgs", locked).case(
            "guest-state-locked",
            "A guest state that is encrypted.",
            found("shielded", ""),
        ),
        with("vmgs", huge).case(
            "guest-state-huge",
            "A guest state larger than is kept of one.",
            misunderstood(),
        ),
        with("bin", Sparse::new(0)).case(
            "memory-of-2012",
            "Memory as it was saved before 2016.",
            found("saved-state", ""),
        ),
    ]
}

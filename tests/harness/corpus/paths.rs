//! Names and paths in configurations: where they lead, and what they do to whoever shows them.

use super::formats::vhdx;
use super::{Case, DISKS, ID, IDE, MACHINES, Site, found, harmless, machine, misunderstood, plug, refused};
use crate::bundle::Entry;
use vmcx::{Text, Tree, Value as Key};

/// A disk path, in which form of configuration it stands, and what is said of it.
const PATHS: &[(&str, &str, &str, &str)] = &[
    ("up", r"..\..\outside\secret.vhdx", "disk-outside-package", "a relative path that leads out"),
    (
        "up-after-a-drive",
        r"C:\a\..\..\..\outside\secret.vhdx",
        "disk-outside-package",
        "an absolute path that climbs",
    ),
    ("up-with-slashes", "../../outside/secret.vhdx", "disk-outside-package", "the same as Unix spells it"),
    (
        "up-behind-the-name",
        r"C:\VMs\secret.vhdx\..\..\outside\secret.vhdx",
        "disk-outside-package",
        "through a file",
    ),
    ("of-unix", "/root/secret.vhdx", "disk-missing", "an absolute path of Unix"),
    ("of-unix-with-a-drive", "C:/root/secret.vhdx", "disk-missing", "the same behind a drive letter"),
    ("of-a-share", r"\\server\share\secret.vhdx", "disk-missing", "a path to another host"),
    ("of-a-device", r"\\.\PhysicalDrive0", "disk-missing", "a whole disk of the host"),
    (
        "of-a-raw-device",
        r"\\?\GLOBALROOT\Device\Harddisk0\DR0",
        "disk-missing",
        "the same by its kernel name",
    ),
    ("of-a-reserved-name", r"C:\CON.vhdx", "disk-missing", "a name that is a device on Windows"),
    ("of-a-stream", r"C:\VMs\secret.vhdx::$DATA", "disk-missing", "an alternate stream"),
    ("of-a-drive", r"C:\", "disk-missing", "a drive and no file"),
    ("of-a-dot", ".", "disk-missing", "the folder itself"),
    ("of-two-dots", "..", "disk-outside-package", "the folder above"),
    ("of-a-slash", "/", "disk-missing", "the root"),
    ("with-wild-cards", r"C:\VMs\*.vhdx", "disk-missing", "a pattern, which must not be expanded"),
    ("with-a-command", "C:\\VMs\\$(touch x)`touch x`;touch x.vhdx", "disk-missing", "what a shell would run"),
    ("with-an-option", "--disks.vhdx", "disk-missing", "what a command would take for an option"),
    ("that-turns", "C:\\VMs\\\u{202e}xdhv.exe", "disk-missing", "a name that is shown backwards"),
    ("that-hides", "C:\\VMs\\disk\u{200b}.vhdx", "disk-missing", "a name with a space that nobody sees"),
    (
        "that-looks-alike",
        "C:\\VMs\\d\u{456}sk.vhdx",
        "disk-missing",
        "a name with a letter of another script",
    ),
    ("that-ends-in-a-dot", r"C:\VMs\disk.vhdx.", "disk-missing", "what Windows would cut off"),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = PATHS
        .iter()
        .map(|(name, path, finding, what)| {
            let mut site = Site::of(&machine(&[path]));
            // One that would be taken if the path were washed clean.
            site.file(&format!("{DISKS}/other.vhdx"), vhdx::Disk::small().build());
            // Only a path that ends as a disk's does is one for who checks without importing.
            let verify = if is_a_disks_name(path) { "package.disk-missing" } else { "" };
            site.case(&format!("path-{name}"), &format!("The disk's path is {what}."), found(finding, verify))
        })
        .collect();
    cases.extend(only_in_a_container());
    cases.extend(lengths());
    cases.extend(names());
    cases.extend(many());
    cases.extend(others());
    cases
}

fn is_a_disks_name(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && end.eq_ignore_ascii_case("vhdx"))
}

/// XML has no spelling for these.
fn only_in_a_container() -> Vec<Case> {
    let nul = machine(&["C:\\VMs\\disk.vhdx\0.txt"]);
    let escape = machine(&["C:\\VMs\\\u{1b}[2J\u{1b}[31mdisk.vhdx"]);
    let mut half = machine(&["x"]);
    let unpaired = Text::from_utf16le(&[0x41, 0, 0, 0xd8, 0x2e, 0, 0x76, 0, 0x68, 0, 0x64, 0]).expect("even");
    let key = format!("configuration/{IDE}/controller0/drive0/pathname");
    half.set(&key, Key::String(unpaired)).expect("it is there");
    let line = machine(&["C:\\VMs\\dis\nk.vhdx"]);
    [
        ("with-a-nul", nul, "", "a path with a NUL in it"),
        ("with-escapes", escape, "package.disk-missing", "what clears a terminal"),
        ("with-half-a-character", half, "package.disk-missing", "half of a surrogate pair"),
        ("with-a-line-break", line, "package.disk-missing", "a path of two lines"),
    ]
    .map(|(name, tree, verify, what)| {
        let site = Site::container(&tree);
        site.case(
            &format!("path-{name}"),
            &format!("The disk's path is {what}."),
            found("disk-missing", verify),
        )
    })
    .into()
}

fn lengths() -> Vec<Case> {
    let long_name = format!(r"C:\VMs\{}.vhdx", "n".repeat(300));
    let deep = format!("{}x.vhdx", "a\\".repeat(16_000));
    let endless = format!("{}x.vhdx", "a\\".repeat(20_000));
    // 255 bytes, the most that a name has here; the copy's working name would be longer.
    let longest = format!("{}.vhdx", "é".repeat(125));
    let mut fits = Site::of(&machine(&[&format!(r"C:\VMs\{longest}")]));
    fits.file(&format!("{DISKS}/{longest}"), vhdx::Disk::small().build());
    vec![
        Site::of(&machine(&[&long_name])).case(
            "path-with-a-long-name",
            "The disk's name is longer than any file's here.",
            found("disk-missing", "package.disk-missing"),
        ),
        Site::of(&machine(&[&deep])).case(
            "path-very-deep",
            "The disk's path has sixteen thousand folders.",
            found("disk-missing", "package.disk-missing"),
        ),
        Site::of(&machine(&[&endless])).case(
            "path-endless",
            "The disk's path is longer than Windows could have written.",
            refused("package.disk-missing"),
        ),
        fits.case("path-of-255-bytes", "The disk's name is as long as a name can be.", harmless("")),
    ]
}

/// The machine's own name.
fn names() -> Vec<Case> {
    let named = |name: &str, text: &str, what: &str, expected| {
        let mut tree = machine(&[]);
        tree.set("configuration/properties/name", text).expect("it is there");
        let about = format!("The machine's name is {what}.");
        Site::container(&tree).case(&format!("name-{name}"), &about, expected)
    };
    let bad = || found("setting-invalid", "");
    vec![
        named("with-slashes", r"..\..\a/b", "a path", harmless("")),
        named("of-two-dots", "..", "the folder above", harmless("")),
        named("of-a-device", "LPT1", "a device on Windows", harmless("")),
        named("with-a-command", "$(touch x)'\"`;&|", "what a shell would run", harmless("")),
        named("of-an-option", "--data=/", "what a command would take for an option", harmless("")),
        named("that-turns", "\u{202e}nimda", "shown backwards", harmless("")),
        named("of-240-bytes", &"é".repeat(120), "as long as it may be", harmless("")),
        named("too-long", &"n".repeat(241), "longer than a folder's may be", bad()),
        named("of-a-megabyte", &"n".repeat(1 << 20), "a megabyte long", bad()),
        named("empty", " ", "a space", bad()),
        named("of-two-lines", "a\nb", "two lines", bad()),
        named("with-escapes", "\u{1b}[2J", "what clears a terminal", bad()),
        named("with-a-nul", "a\0b", "cut by a NUL", bad()),
    ]
}

/// More of everything than a machine can have.
fn many() -> Vec<Case> {
    let plugged = |count: usize, per: usize, path: &dyn Fn(usize) -> String| {
        let mut tree = machine(&[]);
        for n in 0..count {
            plug(&mut tree, n / per, n % per, "VHD", &path(n));
        }
        tree
    };
    let missing = |n: usize| format!(r"C:\VMs\{n}.vhdx");
    let mut twice = Site::of(&machine(&[r"C:\VMs\disk.vhdx", r"D:\Elsewhere\DISK.VHDX"]));
    twice.file(&format!("{DISKS}/disk.vhdx"), vhdx::Disk::small().build());
    let mut linked = Site::of(&machine(&[r"C:\VMs\disk.vhdx", r"C:\VMs\other.vhdx"]));
    linked.file(&format!("{DISKS}/disk.vhdx"), vhdx::Disk::small().build());
    linked.add(Entry::Same(format!("{DISKS}/other.vhdx").into(), format!("{DISKS}/disk.vhdx").into()));
    let adapters = {
        let mut tree = machine(&[]);
        for n in 0..65 {
            let key = format!("configuration/_{n:08x}-0000-4000-8000-000000000000_/MacAddress");
            tree.set(&key, "00-15-5D-00-00-01").expect("a new key");
        }
        tree
    };
    let all_missing = "package.disk-missing";
    vec![
        Site::of(&plugged(60, 2, &missing)).case(
            "many-disks",
            "The machine has more disks than are imported, none of which is there.",
            found("disk-missing", all_missing),
        ),
        Site::of(&plugged(65, 65, &missing)).case(
            "many-drives",
            "A controller has more drives than any has.",
            refused(all_missing),
        ),
        Site::of(&plugged(65, 1, &missing)).case(
            "many-controllers",
            "The machine has more controllers than any has.",
            refused(all_missing),
        ),
        Case {
            kept: false,
            ..Site::of(&plugged(400, 2, &missing)).case(
                "many-paths",
                "The configuration names more disks than are looked for.",
                refused("package.configuration"),
            )
        },
        Site::of(&adapters).case("many-adapters", "The machine has 65 network adapters.", misunderstood()),
        twice.case("disk-in-two-drives", "Two drives hold one disk.", found("disk-twice", "")),
        linked.case(
            "disk-in-two-drives-by-hard-link",
            "Two drives hold one disk under two names.",
            found("disk-twice", ""),
        ),
    ]
}

/// Paths that are not those of disks.
fn others() -> Vec<Case> {
    let with = |change: &dyn Fn(&mut Tree)| {
        let mut tree = machine(&[r"C:\VMs\disk.vhdx"]);
        change(&mut tree);
        let mut site = Site::of(&tree);
        site.file(&format!("{DISKS}/disk.vhdx"), vhdx::Disk::small().build());
        site
    };
    let dvd = with(&|tree| plug(tree, 1, 0, "ISO", r"..\..\outside\secret.vhdx"));
    let guest_state = with(&|tree| {
        let key = "configuration/_917bd8cb-3bb6-4124-9383-b7d21ac07f79_/StateFilePath";
        tree.set(key, r"..\..\outside\secret.vhdx").expect("a new key");
    });
    let snapshots = with(&|tree| {
        tree.set("configuration/global_settings/snapshots/list/size", Key::Int(i64::MAX)).expect("a new key");
    });
    let folder = with(&|tree| {
        let key = "configuration/global_settings/snapshots/data_root";
        tree.set(key, r"..\..\outside").expect("a new key");
    });
    let notes = with(&|tree| {
        tree.set("configuration/properties/notes", "notes ".repeat(30_000)).expect("a new key");
    });
    let mut checkpoint = with(&|_| {});
    let tree = machine(&[r"..\..\outside\secret.vhdx"]);
    let bytes = vmcx::write_container(&tree).expect("it is small");
    checkpoint.file("package/Snapshots/49C4BAF3-4B25-4406-8C4B-D39E65C32385.vmcx", bytes);
    let mut exp = Site::empty();
    exp.file(&format!("{MACHINES}/{ID}.exp"), b"<DECLARATIONS/>".to_vec());
    vec![
        dvd.case("path-of-a-dvd", "The path of a DVD image leads out.", harmless("package.disk-missing")),
        guest_state.case("path-of-guest-state", "The path of the guest state leads out.", harmless("")),
        snapshots.case(
            "count-of-checkpoints",
            "The configuration claims nine quintillion checkpoints.",
            found("snapshots-left", ""),
        ),
        folder.case("path-of-checkpoints", "The folder of checkpoints lies outside.", harmless("")),
        notes.case("notes-without-end", "The machine's notes are longer than a record may be.", harmless("")),
        checkpoint.case(
            "path-in-a-checkpoint",
            "The disk of a checkpoint lies outside.",
            found("snapshots-left", "package.disk-missing"),
        ),
        exp.case(
            "configuration-of-2008",
            "The configuration is one of 2008, which is not read.",
            misunderstood(),
        ),
    ]
}

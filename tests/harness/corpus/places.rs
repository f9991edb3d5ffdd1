//! What is no file where a file should be, and links that lead out, round, or nowhere.

use super::formats::vhdx;
use super::{Case, DISKS, ID, MACHINES, Site, found, harmless, machine, refused};
use crate::bundle::Entry;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = configuration();
    cases.extend(disks());
    cases
}

fn configuration() -> Vec<Case> {
    let path = || format!("{MACHINES}/{ID}.vmcx").into_bytes();
    let with = |entry: Entry| {
        let mut site = Site::empty();
        site.file(&format!("{DISKS}/disk.vhdx"), vhdx::Disk::small().build());
        site.add(entry);
        site
    };
    let case = |name: &str, about: &str, site: Site| {
        site.case(&format!("configuration-{name}"), about, refused("bad-package"))
    };
    let container = || vmcx::write_container(&machine(&[r"C:\VMs\disk.vhdx"])).expect("it is small");
    let mut outside = with(Entry::Link(path(), b"../../outside/machine.vmcx".to_vec()));
    outside.file("outside/machine.vmcx", container());
    let mut folder = with(Entry::Link(MACHINES.into(), b"../outside".to_vec()));
    folder.file(&format!("outside/{ID}.vmcx"), container());
    // A link that stays inside is nobody's harm.
    let mut inside = with(Entry::Link(path(), b"../here/machine".to_vec()));
    inside.file("package/here/machine", container());
    vec![
        case("is-a-link", "The configuration is a link that leads out.", outside),
        case("in-a-folder-outside", "The folder of configurations is a link that leads out.", folder),
        case(
            "is-a-link-to-itself",
            "The configuration is a link to itself.",
            with(Entry::Link(path(), format!("{ID}.vmcx").into())),
        ),
        case(
            "in-a-circle",
            "The folder of configurations is a link to itself.",
            with(Entry::Link(MACHINES.into(), b"Virtual Machines".to_vec())),
        ),
        case("is-a-pipe", "The configuration is a pipe.", with(Entry::Pipe(path()))),
        case("is-a-socket", "The configuration is a socket.", with(Entry::Socket(path()))),
        case("is-a-folder", "The configuration is a folder.", with(Entry::Dir(path()))),
        case(
            "is-a-device",
            "The configuration is a device.",
            with(Entry::Link(path(), b"/dev/zero".to_vec())),
        ),
        case("is-nowhere", "There is no configuration.", with(Entry::Dir(MACHINES.into()))),
        inside.case(
            "configuration-is-a-link-inside",
            "The configuration is a link that stays in the package.",
            harmless(""),
        ),
    ]
}

fn disks() -> Vec<Case> {
    let path = || format!("{DISKS}/disk.vhdx").into_bytes();
    let with = |entry: Entry| {
        let mut site = Site::of(&machine(&[r"C:\VMs\disk.vhdx"]));
        site.add(entry);
        site
    };
    let case = |name: &str, about: &str, site: Site, finding: &str| {
        site.case(&format!("disk-{name}"), about, found(finding, "package.disk-missing"))
    };
    let outside = "disk-outside-package";
    let missing = "disk-missing";
    let mut folder = with(Entry::Link(DISKS.into(), b"../outside".to_vec()));
    folder.file("outside/disk.vhdx", vhdx::Disk::small().build());
    let mut letters =
        with(Entry::Link(format!("{DISKS}/DISK.VHDX").into(), b"../../outside/secret.vhdx".to_vec()));
    letters.link(&format!("{DISKS}/Disk.vhdx"), "../../outside/secret.vhdx");
    let mut two = with(Entry::Dir(DISKS.into()));
    for name in ["DISK.vhdx", "Disk.vhdx"] {
        two.file(&format!("{DISKS}/{name}"), vhdx::Disk::small().build());
    }
    let mut strange = Site::sound();
    strange.add(Entry::File([DISKS.as_bytes(), b"/\xff\xfe.vhdx"].concat(), vhdx::Disk::small().build()));
    strange
        .add(Entry::File(format!("{DISKS}/a\nb\u{1b}[2J\u{202e}.vhdx").into(), vhdx::Disk::small().build()));
    let mut round = Site::sound();
    round.link("package/round", ".");
    round.link(&format!("{DISKS}/round"), "../..");
    let mut inside = with(Entry::Link(path(), b"../here/real.vhdx".to_vec()));
    inside.file("package/here/real.vhdx", vhdx::Disk::small().build());
    vec![
        case(
            "is-a-link",
            "The disk is a link that leads out.",
            with(Entry::Link(path(), b"../../outside/secret.vhdx".to_vec())),
            outside,
        ),
        case(
            "is-a-link-by-the-root",
            "The disk is a link by an absolute path.",
            with(Entry::Link(path(), b"/etc/passwd".to_vec())),
            outside,
        ),
        case(
            "is-a-device",
            "The disk is a device.",
            with(Entry::Link(path(), b"/dev/zero".to_vec())),
            outside,
        ),
        case("in-a-folder-outside", "The folder of disks is a link that leads out.", folder, outside),
        case("is-a-link-in-other-letters", "The disk is a link, and spelled otherwise.", letters, outside),
        case(
            "is-a-link-to-itself",
            "The disk is a link to itself.",
            with(Entry::Link(path(), b"disk.vhdx".to_vec())),
            missing,
        ),
        case(
            "is-a-link-to-nothing",
            "The disk is a link to nothing.",
            with(Entry::Link(path(), b"nothing".to_vec())),
            missing,
        ),
        case("is-a-pipe", "The disk is a pipe.", with(Entry::Pipe(path())), missing),
        case("is-a-socket", "The disk is a socket.", with(Entry::Socket(path())), missing),
        case("is-a-folder", "The disk is a folder.", with(Entry::Dir(path())), missing),
        case(
            "in-two-spellings",
            "Two disks differ only in case, and neither is spelled as asked.",
            two,
            missing,
        ),
        strange.case(
            "names-of-no-encoding",
            "Disks beside the machine's, with names that are no text.",
            harmless(""),
        ),
        round.case("links-round", "Links that lead back into the package.", harmless("")),
        inside.case("disk-is-a-link-inside", "The disk is a link that stays in the package.", harmless("")),
    ]
}

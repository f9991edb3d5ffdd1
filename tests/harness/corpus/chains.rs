//! Parents: where a child says that its parent is, and chains that do not end.

use super::formats::{guid_text, vhd, vhdx};
use super::{Case, DISKS, SECRET, Site, found, machine};
use crate::bundle::{Entry, Sparse};

/// The machine's disk is the last of these children.
fn chain(files: &[(&str, Sparse)]) -> Site {
    let mut site = Site::of(&machine(&[&format!(r"C:\VMs\{}", files[0].0)]));
    for (name, file) in files {
        site.file(&format!("{DISKS}/{name}"), file.clone());
    }
    site
}

fn child(path: &str) -> vhdx::Disk {
    vhdx::Disk::child(2, 1, path)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = out();
    cases.extend(links());
    cases.extend(circles());
    cases.extend(locators());
    cases.extend(vhds());
    cases
}

/// Parents outside.
fn out() -> Vec<Case> {
    let of = |name: &str, path: &str, about: &str, finding: &str| {
        let site = chain(&[("leaf.avhdx", child(path).build())]);
        site.case(&format!("parent-{name}"), about, found(finding, "disk.chain"))
    };
    let outside = "disk-outside-package";
    let missing = "disk-parent-missing";
    let mut volume = child(r".\nowhere.vhdx");
    volume.locator.push((
        "volume_path".to_owned(),
        r"\\?\Volume{00000000-0000-0000-0000-000000000000}\..\..\outside\secret.vhdx".to_owned(),
    ));
    vec![
        of("up", r"..\..\outside\secret.vhdx", "The parent's relative path leads out.", outside),
        of("up-with-slashes", "../../outside/secret.vhdx", "The same as Unix spells it.", outside),
        of("of-unix", "/etc/passwd", "The parent's relative path is an absolute one of Unix.", missing),
        of("of-a-drive", r"C:\outside\secret.vhdx", "The parent's relative path is absolute.", missing),
        of("of-a-share", r"\\server\share\secret.vhdx", "The parent is on another host.", missing),
        of("of-nothing", "", "The parent's path is empty.", "disk-unreadable"),
        of("of-two-dots", "..", "The parent is a folder.", missing),
        of("with-a-line-break", ".\\a\nb.vhdx", "The parent's name has two lines.", missing),
        chain(&[("leaf.avhdx", volume.build())]).case(
            "parent-of-a-volume",
            "The parent's path on its volume leads out.",
            found(missing, "disk.chain"),
        ),
    ]
}

/// Parents that are links, or no files.
fn links() -> Vec<Case> {
    let leaf = || chain(&[("leaf.avhdx", child(r".\parent.vhdx").build())]);
    let case = |site: Site, name: &str, about: &str, finding: &str| {
        site.case(&format!("parent-{name}"), about, found(finding, "disk.chain"))
    };
    let with = |entry: Entry| {
        let mut site = leaf();
        site.add(entry);
        site
    };
    let at = |path: &str| format!("{DISKS}/{path}").into_bytes();
    let parent = || at("parent.vhdx");
    // Found by name only, in a folder where parents of checkpoints are looked for.
    let elsewhere = {
        let mut site = chain(&[("leaf.avhdx", child(r"Z:\x\secret.vhdx").build())]);
        site.link("package/Snapshots/secret.vhdx", "../../outside/secret.vhdx");
        site
    };
    let folder = {
        let mut site = chain(&[("leaf.avhdx", child(r"Z:\x\secret.vhdx").build())]);
        site.link("package/Snapshots", "../outside");
        site
    };
    let top = {
        let mut site = chain(&[("leaf.avhdx", child(r"Z:\x\SECRET.VHDX").build())]);
        site.link("package/secret.vhdx", "../outside/secret.vhdx");
        site
    };
    vec![
        case(
            with(Entry::Link(parent(), b"../../outside/secret.vhdx".to_vec())),
            "link",
            "The parent is a link that leads out.",
            "disk-outside-package",
        ),
        case(
            elsewhere,
            "link-in-snapshots",
            "The parent is a link among the checkpoints that leads out.",
            "disk-outside-package",
        ),
        case(
            folder,
            "folder-of-snapshots",
            "The folder of checkpoints is a link that leads out.",
            "disk-parent-missing",
        ),
        case(
            top,
            "link-at-the-top",
            "The parent is a link at the top, in other letters.",
            "disk-outside-package",
        ),
        case(
            with(Entry::Link(parent(), b"/dev/zero".to_vec())),
            "device",
            "The parent is a device.",
            "disk-outside-package",
        ),
        case(
            with(Entry::Link(parent(), b"parent.vhdx".to_vec())),
            "link-to-itself",
            "The parent is a link to itself.",
            "disk-parent-missing",
        ),
        case(with(Entry::Pipe(parent())), "pipe", "The parent is a pipe.", "disk-unreadable"),
        case(with(Entry::Socket(parent())), "socket", "The parent is a socket.", "disk-unreadable"),
        case(with(Entry::Dir(parent())), "folder", "The parent is a folder.", "disk-unreadable"),
        case(
            with(Entry::File(parent(), Sparse::new(1 << 40))),
            "hole",
            "The parent is a hole of a terabyte.",
            "disk-unreadable",
        ),
    ]
}

fn circles() -> Vec<Case> {
    let link = |identity: u32, parent: u32, name: &str| {
        vhdx::Disk::child(identity, parent, &format!(r".\{name}")).build()
    };
    let own = chain(&[("a.avhdx", link(1, 1, "a.avhdx"))]);
    let two = chain(&[("a.avhdx", link(1, 2, "b.avhdx")), ("b.avhdx", link(2, 1, "a.avhdx"))]);
    let three = chain(&[
        ("a.avhdx", link(1, 2, "b.avhdx")),
        ("b.avhdx", link(2, 3, "c.avhdx")),
        ("c.avhdx", link(3, 1, "a.avhdx")),
    ]);
    let mut alias = chain(&[("a.avhdx", link(1, 1, "b.avhdx"))]);
    alias.add(Entry::Same(format!("{DISKS}/b.avhdx").into(), format!("{DISKS}/a.avhdx").into()));
    let case = |site: Site, name: &str, about: &str| {
        site.case(&format!("chain-{name}"), about, found("disk-unreadable", "disk.chain"))
    };
    // 129 layers would take more room than they are worth.
    let mut deep = Site::of(&machine(&[r"C:\VMs\0.avhdx"]));
    for n in 0..130 {
        deep.file(&format!("{DISKS}/{n}.avhdx"), link(n + 1, n + 2, &format!("{}.avhdx", n + 1)));
    }
    vec![
        case(own, "of-one", "A disk that is its own parent."),
        case(two, "of-two", "Two disks, each the parent of the other."),
        case(three, "of-three", "Three disks in a circle."),
        case(alias, "of-one-by-hard-link", "A disk that is its own parent under another name."),
        Case { kept: false, ..case(deep, "of-130", "A chain of 130 disks, and none at its end.") },
    ]
}

fn locators() -> Vec<Case> {
    let of = |locator: Vec<(&str, String)>| {
        let locator = locator.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        chain(&[("leaf.avhdx", vhdx::Disk { locator, ..child("x") }.build())])
    };
    let case = |site: Site, name: &str, about: &str, finding: &str, rule: &str| {
        site.case(&format!("locator-{name}"), about, found(finding, rule))
    };
    let linkage = || ("parent_linkage", guid_text(1));
    let none = chain(&[("leaf.avhdx", vhdx::Disk { locator: Vec::new(), ..child("x") }.build())]);
    let many: Vec<_> =
        std::iter::once(linkage()).chain((0..200).map(|_| ("relative_path", "x".to_owned()))).collect();
    let long = vec![linkage(), ("relative_path", "..\\".repeat(10_000) + "outside\\secret.vhdx")];
    let twice = vec![
        linkage(),
        ("relative_path", r".\inside.vhdx".to_owned()),
        ("relative_path", r"..\..\outside\secret.vhdx".to_owned()),
    ];
    let other = {
        let mut site = chain(&[("leaf.avhdx", child(r".\parent.vhdx").build())]);
        let parent = vhdx::Disk { identity: 9, ..vhdx::Disk::small() };
        site.file(&format!("{DISKS}/parent.vhdx"), parent.build());
        site
    };
    let sectors = {
        let mut site = chain(&[("leaf.avhdx", child(r".\parent.vhdx").build())]);
        let parent = vhdx::Disk { sector: 4096, ..vhdx::Disk::small() };
        site.file(&format!("{DISKS}/parent.vhdx"), parent.build());
        site
    };
    let mixed = {
        let mut site = chain(&[("leaf.avhdx", child(r".\parent.vhd").build())]);
        site.file(&format!("{DISKS}/parent.vhd"), vhd::Disk::small().build());
        site
    };
    let lying = {
        let mut file = child(r".\parent.vhdx").build();
        // The last item of the metadata table is the locator: its first text is four gigabytes away.
        let at = vhdx::METADATA + (64 << 10) + 40;
        file.put(at + 20, &u32::MAX.to_le_bytes());
        chain(&[("leaf.avhdx", file)])
    };
    vec![
        case(none, "missing", "A child that names no parent.", "disk-unreadable", "vhdx.unreadable"),
        case(
            of(vec![("relative_path", r".\x.vhdx".to_owned())]),
            "without-linkage",
            "A child that does not say which parent it was made for.",
            "disk-unreadable",
            "vhdx.unreadable",
        ),
        case(
            of(vec![("parent_linkage", r"..\..\outside".to_owned())]),
            "with-a-path-for-an-id",
            "A child whose parent's id is a path.",
            "disk-unreadable",
            "vhdx.unreadable",
        ),
        case(of(many), "crowd", "Two hundred paths of one parent.", "disk-unreadable", "vhdx.unreadable"),
        case(
            of(long),
            "endless",
            "A relative path of thirty thousand characters.",
            "disk-parent-missing",
            "disk.chain",
        ),
        case(
            of(twice),
            "twice",
            "Two relative paths, the second of which leads out.",
            "disk-parent-missing",
            "disk.chain",
        ),
        case(
            lying,
            "outside",
            "A text four gigabytes behind the locator.",
            "disk-unreadable",
            "vhdx.unreadable",
        ),
        case(
            other,
            "of-another",
            "A parent that is not the one the child was made for.",
            "disk-parent-missing",
            "disk.chain",
        ),
        case(sectors, "of-other-sectors", "A parent with other sectors.", "disk-unreadable", "disk.chain"),
        case(mixed, "of-another-format", "A parent of another format.", "disk-unreadable", "disk.chain"),
    ]
}

fn vhds() -> Vec<Case> {
    let of = |disk: &vhd::Disk| chain(&[("leaf.avhd", disk.build())]);
    let case = |site: Site, name: &str, about: &str, finding: &str| {
        site.case(&format!("parent-vhd-{name}"), about, found(finding, "disk.chain"))
    };
    let up = vhd::Disk::child(2, 1, r"..\..\outside\secret.vhd");
    let mut site = of(&up);
    site.file(&SECRET.replace(".vhdx", ".vhd"), vhd::Disk::small().build());
    let absolute =
        vhd::Disk { locators: vec![(b"W2ku", r"C:\..\..\outside\secret.vhd".to_owned())], ..up.clone() };
    let named =
        vhd::Disk { locators: Vec::new(), parent_name: "../../outside/secret.vhd".to_owned(), ..up.clone() };
    let own = vhd::Disk::child(1, 1, r".\leaf.avhd");
    let linked = {
        let mut site = of(&vhd::Disk::child(2, 1, r".\parent.vhd"));
        site.file(&SECRET.replace(".vhdx", ".vhd"), vhd::Disk::small().build());
        site.link(&format!("{DISKS}/parent.vhd"), "../../outside/secret.vhd");
        site
    };
    vec![
        case(site, "up", "The parent's relative path leads out.", "disk-outside-package"),
        case(of(&absolute), "absolute", "The parent's absolute path climbs.", "disk-parent-missing"),
        case(of(&named), "named", "The parent's name is a path that leads out.", "disk-parent-missing"),
        case(linked, "link", "The parent is a link that leads out.", "disk-outside-package"),
        of(&own).case(
            "chain-vhd-of-one",
            "A disk that is its own parent.",
            found("disk-unreadable", "vhd.parent.id"),
        ),
    ]
}

//! Our own manifest, as somebody else writes it. An import does not rely on it; `verify` does.

use super::formats::vhdx;
use super::{Case, DISKS, Expected, ID, Site, harmless, outcome};
use crate::bundle::{Entry, Sparse};
use serde_json::{Value, json};

const MANIFEST: &str = "package/Slipway/manifest.json";

/// A manifest that nothing is wrong with, apart from its digests.
fn manifest() -> Value {
    let zeros = "0".repeat(64);
    json!({
        "format": "slipway-package",
        "version": 1,
        "tool": "hostile",
        "created": "2026-01-01T00:00:00Z",
        "machine": { "id": ID.to_lowercase(), "name": "hostile" },
        "files": [{ "path": format!("Virtual Machines/{ID}.xml"), "size": 1, "blake3": zeros }],
        "disks": [{
            "path": "Virtual Hard Disks/disk.vhdx",
            "format": "vhdx",
            "virtual_size": 4 << 20,
            "block_size": 1 << 20,
            "logical_sector_size": 512,
            "physical_sector_size": 4096,
            "disk_id": "00000004-0000-4000-8000-0000000000d1",
            "file_size": 5 << 20,
            "digest": { "algorithm": "b3-chunks-v1", "chunk_size": 1 << 20, "root": zeros }
        }]
    })
}

/// The sound package with this file as its manifest.
fn site(text: impl Into<Vec<u8>>) -> Site {
    let mut site = Site::sound();
    site.file(MANIFEST, text.into());
    site
}

/// The manifest is no reason not to import; whoever relies on it is told.
fn bad() -> Expected {
    harmless("bad-package")
}

pub(super) fn cases() -> Vec<Case> {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = manifest();
        change(&mut value);
        site(value.to_string())
    };
    let mut cases: Vec<Case> = fields()
        .into_iter()
        .map(|(name, about, pointer, value)| {
            let changed = changed(&|m| *m.pointer_mut(pointer).expect("it is there") = value.clone());
            let case = changed.case(&format!("manifest-{name}"), about, bad());
            Case { kept: name != "crowd", ..case }
        })
        .collect();
    cases.extend(texts());
    cases.extend(places());
    let found = |name: &str, about: &str, site: Site, finding: &str| {
        site.case(&format!("manifest-{name}"), about, harmless(finding))
    };
    cases.extend([
        found(
            "size",
            "A file said to have all bytes that there can be.",
            changed(&|m| m["files"][0]["size"] = json!(u64::MAX)),
            "package.size",
        ),
        found("digest", "Digests of something else.", changed(&|_| {}), "package.size"),
        found(
            "missing",
            "A file that is not there.",
            changed(&|m| m["files"][0]["path"] = json!("nowhere")),
            "package.missing",
        ),
        found(
            "folder",
            "A folder in place of a file.",
            changed(&|m| m["files"][0]["path"] = json!("Virtual Machines")),
            "package.not-a-file",
        ),
        found(
            "geometry",
            "A disk that is said to be larger.",
            changed(&|m| m["disks"][0]["virtual_size"] = json!(64_u64 << 40)),
            "disk.geometry",
        ),
        // Where it says so the manifest is believed: a flat disk cannot say it itself.
        changed(&|m| m["disks"][0]["format"] = json!("raw")).case(
            "manifest-format",
            "A disk that is said to be raw.",
            super::found("disk-unreadable", "disk.geometry"),
        ),
    ]);
    let mut link = changed(&|m| m["files"][0]["path"] = json!("link"));
    link.link("package/link", "../outside/secret.vhdx");
    let mut disk = changed(&|m| m["disks"][0]["path"] = json!("link.vhdx"));
    disk.link("package/link.vhdx", "../outside/secret.vhdx");
    let mut list = changed(&|m| m["disks"][0]["digest"]["chunks"] = json!("Slipway/list"));
    list.link("package/Slipway/list", "../../outside/secret.vhdx");
    let mut noise = changed(&|m| m["disks"][0]["digest"]["chunks"] = json!("Slipway/list"));
    noise.file("package/Slipway/list", crate::scratch::noise(9, 300));
    let mut hole = changed(&|m| m["disks"][0]["digest"]["chunks"] = json!("Slipway/list"));
    hole.file("package/Slipway/list", Sparse::new(1 << 40));
    cases.extend([
        found("link", "A file that is a link out of the package.", link, "package.escapes"),
        found("link-to-a-disk", "A disk that is a link out of the package.", disk, "package.escapes"),
        found(
            "link-to-a-list",
            "A list of digests that is a link out of the package.",
            list,
            "package.escapes",
        ),
        found("list-of-noise", "A list of digests that is noise.", noise, "package.digest-list"),
        found(
            "list-of-a-terabyte",
            "A list of digests that is a hole of a terabyte.",
            hole,
            "package.digest-list",
        ),
    ]);
    cases
}

/// One field, and what it says.
fn fields() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let file = "/files/0/path";
    let disk = "/disks/0";
    let entry = |path: &str| json!({ "path": path, "size": 1, "blake3": "0".repeat(64) });
    vec![
        ("path-up", "A file's path leads out.", file, json!("../outside/secret.vhdx")),
        ("path-absolute", "A file's path is absolute.", file, json!("/etc/passwd")),
        ("path-of-windows", "A file's path is one of Windows.", file, json!(r"..\outside\secret.vhdx")),
        ("path-with-a-drive", "A file's path has a drive.", file, json!("C:secret.vhdx")),
        ("path-with-a-dot", "A file's path has a dot for a name.", file, json!("a/./b")),
        ("path-with-nothing", "A file's path has an empty name.", file, json!("a//b")),
        ("path-with-a-nul", "A file's path has a NUL.", file, json!("a\0b")),
        ("path-with-a-line-break", "A file's path has two lines.", file, json!("a\nb")),
        ("path-of-300-bytes", "A file's name is longer than any.", file, json!("n".repeat(300))),
        ("path-of-a-kilobyte", "A file's path is longer than any.", file, json!("nnn/".repeat(300) + "n")),
        ("path-of-itself", "The manifest lists itself.", file, json!("slipway/MANIFEST.json")),
        ("path-twice", "A file is there twice.", "/files", json!([entry("a"), entry("A")])),
        (
            "crowd",
            "Ten thousand and one files.",
            "/files",
            (0..10_001).map(|n| entry(&n.to_string())).collect(),
        ),
        ("disk-path-up", "A disk's path leads out.", "/disks/0/path", json!("../outside/secret.vhdx")),
        ("disk-size", "A disk of all bytes that there can be.", "/disks/0/virtual_size", json!(u64::MAX)),
        ("disk-sectors", "A disk of sectors without bytes.", "/disks/0/logical_sector_size", json!(0)),
        ("disk-format", "A disk of QEMU's.", "/disks/0/format", json!("qcow2")),
        (
            "disk-list-up",
            "A list of digests lies outside.",
            "/disks/0/digest",
            json!({ "algorithm": "b3-chunks-v1", "chunk_size": 1 << 20, "root": "0".repeat(64), "chunks": "../outside/secret.vhdx" }),
        ),
        (
            "disk-algorithm",
            "Digests of an algorithm that there is not.",
            "/disks/0/digest/algorithm",
            json!("none"),
        ),
        ("disk-chunk", "Chunks of no bytes.", "/disks/0/digest/chunk_size", json!(0)),
        ("disk-root", "A digest that is none.", "/disks/0/digest/root", json!("../../outside")),
        ("disk-of-nothing", "A disk without anything.", disk, json!({})),
        ("version", "A version that there is not.", "/version", json!(4_000_000_000_u32)),
        ("version-of-nothing", "No version.", "/version", json!(0)),
        ("kind", "Another kind of file.", "/format", json!("zip")),
        ("tool", "A program's name of a megabyte.", "/tool", json!("n".repeat(1 << 20))),
        ("machine-id", "A machine whose id is a path.", "/machine/id", json!("../../outside")),
    ]
}

fn texts() -> Vec<Case> {
    let whole = manifest().to_string();
    let huge = |at: u64, text: &str| {
        let mut file = Sparse::new(at);
        file.put(0, text.as_bytes());
        let mut site = Site::sound();
        site.file(MANIFEST, file);
        site
    };
    let of = |name: &str, about: &str, site: Site| site.case(&format!("manifest-{name}"), about, bad());
    vec![
        of("empty", "An empty file.", site("")),
        of("noise", "Noise.", site(crate::scratch::noise(8, 300))),
        of("cut", "A manifest that ends in the middle.", site(&whole[..whole.len() / 2])),
        of("deep", "A hundred thousand brackets.", site("[".repeat(100_000))),
        of(
            "deep-inside",
            "A hundred thousand brackets in a field that nobody knows.",
            site(whole.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(100_000), "]".repeat(100_000)), 1)),
        ),
        of("twice", "A field that is there twice.", site(whole.replacen('{', "{\"version\":1,", 1))),
        of(
            "number",
            "A number with a million digits.",
            site(whole.replacen("\"version\":1", &format!("\"version\":{}", "1".repeat(1 << 20)), 1)),
        ),
        of(
            "of-no-encoding",
            "Bytes that are no UTF-8.",
            site(whole.replace("hostile", "\u{e9}").chars().map(|c| c as u8).collect::<Vec<u8>>()),
        ),
        of("of-two-values", "Two manifests in one file.", site(whole.repeat(2))),
        of("of-a-terabyte", "A manifest, and a hole of a terabyte behind it.", huge(1 << 40, &whole)),
    ]
}

/// The manifest's own place.
fn places() -> Vec<Case> {
    let with = |entry: Entry| {
        let mut site = Site::sound();
        site.add(entry);
        site
    };
    let path = || MANIFEST.as_bytes().to_vec();
    let mut folder = Site::sound();
    folder.file("outside/manifest.json", manifest().to_string().into_bytes());
    folder.link("package/Slipway", "../outside");
    // Without a configuration it is no package, but what a manifest lists could be missing from one.
    let mut alone = Site::empty();
    alone.file("outside/manifest.json", manifest().to_string().into_bytes());
    alone.file(&format!("{DISKS}/disk.vhdx"), vhdx::Disk::small().build());
    alone.link(MANIFEST, "../../outside/manifest.json");
    let mut partial = Site::sound();
    partial.file("package/Slipway/progress.json", b"{}".to_vec());
    let mut unfinished = Site::sound();
    unfinished.link("package/Slipway/progress.json", "../../outside/secret.vhdx");
    let nothing = || Expected { verify: outcome(4, "bad-package"), ..super::refused("bad-package") };
    vec![
        with(Entry::Link(path(), b"../../outside/secret.vhdx".to_vec())).case(
            "manifest-is-a-link",
            "The manifest is a link that leads out.",
            harmless("package.escapes"),
        ),
        with(Entry::Link(path(), b"manifest.json".to_vec())).case(
            "manifest-is-a-link-to-itself",
            "The manifest is a link to itself.",
            harmless("package.escapes"),
        ),
        with(Entry::Pipe(path())).case("manifest-is-a-pipe", "The manifest is a pipe.", bad()),
        with(Entry::Dir(path())).case("manifest-is-a-folder", "The manifest is a folder.", bad()),
        folder.case(
            "manifest-in-a-folder-outside",
            "The folder of the manifest is a link that leads out.",
            harmless("package.escapes"),
        ),
        alone.case("manifest-without-configuration", "A manifest that is a link, and no machine.", nothing()),
        partial.case("unfinished", "An export that did not finish.", nothing()),
        unfinished.case(
            "unfinished-by-a-link",
            "An export that looks unfinished by a link that leads out.",
            nothing(),
        ),
    ]
}

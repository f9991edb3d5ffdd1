//! What the tests of this crate share: real samples, the independent oracle, and tools to damage containers.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use vmcx::{Entry, Tree, Value};

/// A folder of the real samples, when `SLIPWAY_SAMPLES` names one.
pub(crate) fn samples(folder: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("SLIPWAY_SAMPLES") else {
        println!("skipped: SLIPWAY_SAMPLES names no directory of samples");
        return None;
    };
    let path = Path::new(&root).join(folder);
    if !path.is_dir() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Every container among the samples, as (name, bytes).
pub(crate) fn sample_containers() -> Vec<(String, Vec<u8>)> {
    let Some(folder) = samples("vmcx") else { return Vec::new() };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let container = |p: &PathBuf| {
        p.extension().is_some_and(|e| e.eq_ignore_ascii_case("vmcx") || e.eq_ignore_ascii_case("vmrs"))
    };
    paths.retain(container);
    let name = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|p| (name(p), std::fs::read(p).unwrap())).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The tree in the form of `oracle_dissect.py --ordered`.
pub(crate) fn ordered(tree: &Tree) -> Json {
    fn entry(e: &Entry) -> Json {
        let hashed = |b: &[u8]| json!({"$len": b.len(), "$sha256": sha256(b)});
        let value = match &e.value {
            Value::Node(c) => c.iter().map(entry).collect(),
            Value::Int(v) => json!(v),
            Value::Uint(v) => json!(v),
            Value::Double(v) => json!(v),
            Value::String(v) => json!(v.to_string_exact().expect("the oracle prints paired surrogates only")),
            Value::Array(v) => hashed(v),
            Value::Bool(v) => json!(v),
            Value::Unknown { data, .. } => hashed(data),
        };
        json!([e.name, e.value.type_name(), e.flags, value])
    }
    tree.entries.iter().map(entry).collect()
}

/// The oracle, in this repository.
pub(crate) fn oracle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/oracle_dissect.py")
}

fn python() -> std::ffi::OsString {
    std::env::var_os("SLIPWAY_PYTHON").unwrap_or_else(|| "python3".into())
}

fn run(args: &[&str], file: &Path) -> Option<Output> {
    match Command::new(python()).arg(oracle()).args(args).arg(file).output() {
        Ok(output) => Some(output),
        Err(e) => {
            println!("skipped: python3 does not start: {e}");
            None
        }
    }
}

fn in_file<T>(bytes: &[u8], f: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.vmcx");
    std::fs::write(&path, bytes).unwrap();
    f(&path)
}

/// The errors that the strict audit finds; none when there is no Python.
pub(crate) fn audit(bytes: &[u8]) -> Vec<String> {
    in_file(bytes, |path| {
        let Some(output) = run(&["--strict", "--audit-only"], path) else { return Vec::new() };
        let told: Json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        told["audit"]["errors"].as_array().unwrap().iter().map(|e| e.as_str().unwrap().to_owned()).collect()
    })
}

/// The tree as the oracle reads it; `None` when there is no Python.
pub(crate) fn oracle_ordered(bytes: &[u8]) -> Option<Json> {
    in_file(bytes, |path| {
        let output = run(&["--ordered"], path)?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    })
}

/// The tree as dissect.hypervisor reads it, nested objects; `None` when that is not installed.
pub(crate) fn dissect(bytes: &[u8]) -> Option<Json> {
    let installed = Command::new(python()).args(["-c", "import dissect.hypervisor"]).output();
    if !installed.is_ok_and(|o| o.status.success()) {
        println!("skipped: dissect.hypervisor is not installed (pip install dissect.hypervisor==3.21)");
        return None;
    }
    in_file(bytes, |path| {
        let output = run(&[], path)?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    })
}

/// A configuration with every type, repeated names, flags and values on both sides of the file object's threshold.
pub(crate) fn rich_tree() -> Tree {
    let flagged = |name: &str, flags: u8, value: Value| Entry { name: name.to_owned(), flags, value };
    let metric = |guid: &str, v: i64| {
        Entry::node("metric", vec![flagged("guid", Entry::SUBCOMPONENT, guid.into()), Entry::new("value", v)])
    };
    Tree {
        entries: vec![Entry::node(
            "configuration",
            vec![
                Entry::new("int", i64::MIN),
                Entry::new("uint", Value::Uint(u64::MAX)),
                Entry::new("double", Value::Double(-0.5)),
                Entry::new("string", "Zwölf \u{1f600}"),
                Entry::new("empty", ""),
                Entry::new("yes", true),
                flagged("tracked", Entry::CHANGE_TRACKING, false.into()),
                flagged("odd flags", 0xf8, 7.into()),
                Entry::new("small", vec![7; 2047]),
                Entry::new("large", vec![8; 2048]),
                Entry::new("larger", vec![9; 10_000]),
                Entry::new("long", "x".repeat(1024)),
                Entry::node("metrics", vec![metric("a", 1), metric("b", 2), metric("a", 3)]),
                Entry::node("nothing", vec![]),
            ],
        )],
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub(crate) fn put(bytes: &mut [u8], at: usize, data: &[u8]) {
    bytes[at..at + data.len()].copy_from_slice(data);
}

/// Recomputes the checksum at `field` over `from..to`.
pub(crate) fn seal(bytes: &mut [u8], from: usize, to: usize, field: usize) {
    put(bytes, field, &[0; 4]);
    let crc = crc32fast::hash(&bytes[from..to]);
    put(bytes, field, &crc.to_le_bytes());
}

/// Offset of the replay log.
pub(crate) fn log_offset(bytes: &[u8]) -> usize {
    u64_at(bytes, 26) as usize
}

/// Sets the count of pending log entries.
pub(crate) fn set_pending(bytes: &mut [u8], pending: u32) {
    let log = log_offset(bytes);
    put(bytes, log + 8, &pending.to_le_bytes());
    seal(bytes, log, log + 34, log + 4);
}

/// The used objects of the root table, as (slot, type, offset, size).
pub(crate) fn objects(bytes: &[u8]) -> Vec<(usize, u8, usize, usize)> {
    let object = |slot: usize| {
        let at = 8200 + 18 * slot;
        (slot, bytes[at], u64_at(bytes, at + 5) as usize, u32_at(bytes, at + 13) as usize)
    };
    (0..u32_at(bytes, 8196) as usize).map(object).filter(|o| o.1 != 0).collect()
}

/// Overwrites an entry of the root object table.
pub(crate) fn set_object(bytes: &mut [u8], slot: usize, kind: u8, offset: u64, size: u32, flags: u8) {
    let at = 8200 + 18 * slot;
    bytes[at] = kind;
    put(bytes, at + 5, &offset.to_le_bytes());
    put(bytes, at + 13, &size.to_le_bytes());
    bytes[at + 17] = flags;
    seal(bytes, at, at + 18, at + 1);
}

/// The offset of the first key entry of that name.
pub(crate) fn key_at(bytes: &[u8], name: &str) -> usize {
    let wanted = [&[name.len() as u8 + 1], name.as_bytes(), &[0]].concat();
    bytes.windows(wanted.len()).position(|w| w == wanted).unwrap() - 20
}

/// Recomputes a key entry's checksum over `data` bytes behind the name.
pub(crate) fn seal_key(bytes: &mut [u8], at: usize, data: usize) {
    let end = at + 21 + bytes[at + 20] as usize + data;
    seal(bytes, at, end, at + 12);
}

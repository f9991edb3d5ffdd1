//! Readers that are not ours: libvhdi and dissect.hypervisor through Python, qemu-img, and the container audit.

use crate::binary::{Ran, run};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// SHA-256 of bytes, lower-case hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a whole file.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn sha256_file(path: &Path) -> String {
    let mut file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("tools")
}

/// A Python that has the independent readers.
///
/// # Errors
/// Why there is none.
pub fn python() -> Result<PathBuf, String> {
    python_with(&["pyvhdi", "dissect.hypervisor"])
}

/// A Python that has `modules`.
///
/// # Errors
/// Why there is none.
pub fn python_with(modules: &[&str]) -> Result<PathBuf, String> {
    let python = PathBuf::from(std::env::var_os("SLIPWAY_PYTHON").unwrap_or_else(|| "python3".into()));
    let modules = modules.join(", ");
    let probe = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    match probe {
        Ok(out) if out.status.success() => Ok(python),
        _ => Err(format!(
            "{} lacks {modules}; ./x install makes an interpreter that has them (SLIPWAY_PYTHON)",
            python.display()
        )),
    }
}

/// Metrics as Prometheus' own client for Python reads them: name, labels and value of each sample.
///
/// # Errors
/// Why there is no such reader.
///
/// # Panics
/// When it cannot read them.
pub fn metrics(text: &str) -> Result<Vec<Value>, String> {
    const READ: &str = "import json, sys
from prometheus_client.parser import text_string_to_metric_families as read
print(json.dumps([[s.name, s.labels, s.value] for f in read(open(sys.argv[1]).read()) for s in f.samples]))";
    let python = python()?;
    if !Command::new(&python)
        .args(["-c", "import prometheus_client"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        return Err(
            "the Python of the independent readers lacks prometheus_client; ./x install brings it".into()
        );
    }
    let file = crate::Scratch::new();
    std::fs::write(file.join("metrics"), text).expect("written");
    let read = run(Command::new(python).args(["-c", READ]).arg(file.join("metrics"))).json();
    Ok(read.as_array().cloned().unwrap_or_default())
}

/// A program of the system.
///
/// # Errors
/// Why it is not there.
pub fn program(name: &str) -> Result<String, String> {
    match Command::new(name).arg("--version").output() {
        Ok(_) => Ok(name.to_owned()),
        Err(e) => Err(format!("{name} does not start ({e}); ./x install brings it")),
    }
}

/// Hash and size of a disk's whole content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// Virtual size in bytes.
    pub size: u64,
}

/// What `slipway disk hash` prints.
///
/// # Panics
/// When the line is not of the form `HASH  SIZE`.
#[must_use]
#[track_caller]
pub fn parse_hash(ran: &Ran) -> Content {
    let line = ran.ok();
    let parsed = line.strip_suffix('\n').and_then(|l| l.split_once("  ")).and_then(|(hash, size)| {
        let size = size.parse().ok()?;
        (hash.len() == 64).then(|| Content { sha256: hash.to_owned(), size })
    });
    parsed.unwrap_or_else(|| panic!("not one line of hash, two spaces, size: {ran}"))
}

const LIBVHDI: &str = "
import hashlib, sys, pyvhdi
f = pyvhdi.file(); f.open(sys.argv[1]); size = f.get_media_size(); h = hashlib.sha256(); n = 0
while n < size:
    b = f.read_buffer(min(1 << 22, size - n)); n += len(b); h.update(b)
    if not b: sys.exit('short read at %d' % n)
print(h.hexdigest() + '  %d' % size)
";

/// Reads the whole disk through libvhdi.
///
/// # Panics
/// When libvhdi refuses the file.
#[must_use]
#[track_caller]
pub fn libvhdi(python: &Path, disk: &Path) -> Content {
    parse_hash(&run(Command::new(python).args(["-c", LIBVHDI]).arg(disk)))
}

/// Reads the whole disk through dissect.hypervisor.
///
/// # Panics
/// When dissect refuses the file.
#[must_use]
#[track_caller]
pub fn dissect(python: &Path, disk: &Path) -> Content {
    let read = run(Command::new(python).arg(tools().join("oracle_dissect.py")).arg(disk)).json();
    let size = read["virtual_size"].as_u64().expect("a size");
    Content { sha256: read["sha256"].as_str().expect("a hash").to_owned(), size }
}

/// Compares a disk with a raw file through `qemu-img`, whose word is "identical", size and content.
///
/// # Panics
/// When they differ or qemu-img refuses one.
#[track_caller]
pub fn qemu_says_identical(disk: &Path, format: &str, raw: &Path) {
    let ran = run(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", format]).arg(raw).arg(disk));
    // It compares what both have and only warns when one is longer.
    assert!(!ran.ok().contains("size mismatch") && !ran.stderr.contains("size mismatch"), "{ran}");
}

/// Reads `length` bytes at each offset through libvhdi; the hash of each piece.
///
/// # Panics
/// When libvhdi refuses the file.
#[must_use]
#[track_caller]
pub fn libvhdi_pieces(python: &Path, disk: &Path, offsets: &[u64], length: usize) -> Vec<String> {
    const PIECES: &str = "
import hashlib, sys, pyvhdi
f = pyvhdi.file(); f.open(sys.argv[1]); n = int(sys.argv[2])
for o in sys.argv[3:]: print(hashlib.sha256(f.read_buffer_at_offset(n, int(o))).hexdigest())
";
    let offsets = offsets.iter().map(u64::to_string);
    let ran = run(Command::new(python).args(["-c", PIECES]).arg(disk).arg(length.to_string()).args(offsets));
    ran.ok().lines().map(str::to_owned).collect()
}

/// The container audit: every checksum, exact table fill, linkage. Returns the number of entries.
///
/// # Panics
/// When the audit finds an error.
#[track_caller]
pub fn audit(python: &Path, container: &Path) -> u64 {
    let ran = run(Command::new(python)
        .arg(tools().join("oracle_dissect.py"))
        .args(["--strict", "--audit-only"])
        .arg(container));
    let audit = &ran.json()["audit"];
    assert!(audit["errors"].as_array().is_some_and(Vec::is_empty), "the audit finds errors: {ran}");
    audit["entries"].as_u64().expect("a count of entries")
}

/// The tree as read without us: `[name, "node", flags, [children…]]` and `[name, type, flags, value]`.
///
/// # Panics
/// When the container cannot be read.
#[must_use]
#[track_caller]
pub fn ordered_tree(python: &Path, container: &Path) -> Value {
    run(Command::new(python).arg(tools().join("oracle_dissect.py")).arg("--ordered").arg(container)).json()
}

/// dissect.hypervisor's own parser reads the container.
///
/// # Panics
/// When it does not.
#[must_use]
#[track_caller]
pub fn dissect_tree(python: &Path, container: &Path) -> Value {
    run(Command::new(python).arg(tools().join("oracle_dissect.py")).arg(container)).json()
}

/// What `slipway config dump --json` printed, in the form of [`ordered_tree`].
///
/// # Panics
/// When an entry lacks a field it must have.
#[must_use]
pub fn as_ordered(dump: &Value) -> Value {
    let entries = dump.as_array().unwrap_or_else(|| panic!("a dump is an array: {dump}"));
    Value::Array(entries.iter().map(entry).collect())
}

fn entry(entry: &Value) -> Value {
    use base64::Engine as _;
    let kind = entry["type"].as_str().unwrap_or_else(|| panic!("no type: {entry}"));
    let value = match kind {
        "node" => as_ordered(&entry["children"]),
        "array" => bytes_of(entry),
        kind if kind.starts_with("unknown:") => bytes_of(entry),
        _ => entry["value"].clone(),
    };
    return Value::Array(vec![entry["name"].clone(), kind.into(), entry["flags"].clone(), value]);

    fn bytes_of(entry: &Value) -> Value {
        let text = entry["value"].as_str().unwrap_or_else(|| panic!("no bytes: {entry}"));
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("bytes are base64");
        serde_json::json!({ "$len": bytes.len(), "$sha256": sha256(&bytes) })
    }
}

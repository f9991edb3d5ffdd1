//! Whether a file is open in some other process.
//!
//! QEMU's own locks guard against a second QEMU, nothing guards against an editor or a copy tool; `/proc` tells. It sees
//! processes of other users only as root, so "nobody" means "nobody that may be seen".

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The process that has `path` open, if one is seen; our own does not count.
pub(crate) fn opened_by(path: &Path) -> Option<u32> {
    let me = std::process::id();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if pid == me {
            continue;
        }
        for fd in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            // Following the link compares the file itself, under whatever name it was opened.
            if same_file(&fd.path(), path) {
                return Some(pid);
            }
        }
    }
    None
}

/// Whether two names lead to one file; not when either leads nowhere.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

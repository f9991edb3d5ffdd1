//! Windows paths of clients: whatever they spell, they lead below their root or nowhere, and back to themselves.

#![no_main]

use std::path::{Component, PathBuf};
use std::sync::LazyLock;

use hyperv::{PathMap, Root};
use libfuzzer_sys::fuzz_target;

/// A folder with links out of it and into it, and the map that has it as two roots.
static ROOTS: LazyLock<(PathBuf, PathMap)> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("slipway-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("in/a")).expect("made");
    std::fs::create_dir_all(folder.join("out")).expect("made");
    for (to, at) in [("../out", "in/o"), ("/", "in/r"), ("a", "in/b"), ("nowhere", "in/n")] {
        std::os::unix::fs::symlink(to, folder.join(at)).expect("linked");
    }
    let root = |windows: &str| Root { windows: windows.into(), folder: folder.join("in") };
    let map = PathMap::new(vec![root("C:"), root(r"\\nas\vm")]).expect("a map");
    (folder.join("in").canonicalize().expect("there"), map)
});

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (folder, map) = &*ROOTS;
    let Ok(path) = map.resolve(&text) else { return };
    assert!(path.starts_with(folder.parent().expect("not the root")), "{text:?}: {}", path.display());
    assert!(!path.components().any(|part| matches!(part, Component::ParentDir)), "{text:?}");
    // What is there of it, links followed, is below the root.
    let there = path.ancestors().find(|at| at.symlink_metadata().is_ok()).expect("the root is there");
    let real = there.canonicalize().expect("what a client names can be followed");
    assert!(real.starts_with(folder), "{text:?} leads to {}", real.display());
    let again = map.resolve(&map.shown(&path)).expect("what is shown is a path of ours");
    assert_eq!(again, path, "{text:?}");
});

//! Disk paths from configurations: no panic, and nothing outside the package is ever found.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use transfer::Package;

/// A package beside a file that nobody may reach; made once.
fn package() -> &'static Package {
    static PACKAGE: OnceLock<Package> = OnceLock::new();
    PACKAGE.get_or_init(|| {
        let top: PathBuf = std::env::temp_dir().join(format!("slipway-fuzz-{}", std::process::id()));
        for file in [
            "secret.vhdx",
            "p/Virtual Machines/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx",
            "p/Virtual Hard Disks/a.vhdx",
            "p/Virtual Hard Disks/b/a.vhdx",
            "p/c.vhdx",
        ] {
            let path = top.join(file);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("temporary directory");
            fs::write(path, "x").expect("temporary file");
        }
        let link = top.join("p/Virtual Hard Disks/secret.vhdx");
        let _ = std::os::unix::fs::symlink("../../secret.vhdx", link);
        Package::open(&top.join("p")).expect("a package")
    })
}

fuzz_target!(|data: &[u8]| {
    let wanted = String::from_utf8_lossy(data);
    if let Ok(found) = package().resolve_disk(&wanted, &[]) {
        let found = fs::canonicalize(found).expect("what is found exists");
        assert!(found.starts_with(&package().root), "{wanted:?} found {}", found.display());
    }
});

//! Manifests: no panic; what is accepted names only paths inside the package, and survives writing and reading.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::Manifest;

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = Manifest::parse(data) else { return };
    for path in manifest.paths() {
        assert!(!path.starts_with('/') && !path.contains(['\\', '\0', ':']), "{path:?}");
        assert!(path.split('/').all(|name| !name.is_empty() && name != "." && name != ".."), "{path:?}");
    }
    // Pretty printing may exceed the limit on size; what is written must be right.
    let Ok(bytes) = manifest.to_bytes() else { return };
    assert_eq!(Manifest::parse(&bytes).expect("what is written can be read"), manifest);
});

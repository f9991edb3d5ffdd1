//! Object paths: no panic, and what is written is the same path.

#![no_main]

use cim::ObjectPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Ok(path) = text.parse::<ObjectPath>() else { return };
    let written = path.to_string();
    assert_eq!(written.parse().as_ref(), Ok(&path), "{written}");
});

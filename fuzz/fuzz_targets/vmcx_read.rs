//! Containers: no panic, and what is read strictly can be written and read back as the same tree.
//!
//! Checksums would stop nearly every mutation at the door, so each input is tried a second time leniently.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmcx::{Document, Form};

fuzz_target!(|data: &[u8]| {
    for read in [vmcx::read(data), vmcx::read_lenient(data)].into_iter().flatten() {
        if read.form == Form::Container {
            unchanged_by_writing(&read);
        }
    }
});

fn unchanged_by_writing(read: &Document) {
    // Limits may refuse it, a large value of an unknown type for one; what is written must be right.
    let Ok(bytes) = read.write() else { return };
    let again = vmcx::read(&bytes).expect("what is written can be read");
    assert_eq!(vmcx::diff(&read.tree, &again.tree), []);
    assert_eq!(again.write().expect("what was read can be written"), bytes);
}

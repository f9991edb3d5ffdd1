//! The XML form: no panic, and what is read can be written and read back as the same tree.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmcx::Form;

fuzz_target!(|data: &[u8]| {
    let Ok(read) = vmcx::read(data) else { return };
    if read.form != Form::Xml {
        return;
    }
    let Ok(bytes) = read.write() else { return };
    let again = vmcx::read(&bytes).expect("what is written can be read");
    assert_eq!(read.tree, again.tree);
    // Into a container and out again.
    if let Ok(container) = vmcx::write_container(&read.tree) {
        let again = vmcx::read(&container).expect("what is written can be read");
        assert_eq!(vmcx::diff(&read.tree, &again.tree), []);
    }
});

//! VMGS: no panic in headers, file table and variables.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(vmgs) = vmcx::vmgs::parse(data) else { return };
    for file in vmgs.files() {
        let content = vmgs.content(file.id).expect("a listed file lies in the file");
        assert_eq!(content.len() as u64, file.size);
    }
    let _ = vmgs.nvram();
});

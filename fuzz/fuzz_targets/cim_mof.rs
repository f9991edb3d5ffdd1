//! MOF: no panic, neither for schemas nor for instances, and a schema that compiles is one.

#![no_main]

use cim::mof::{self, Compiler};
use libfuzzer_sys::fuzz_target;

const QUALIFIERS: &str = include_str!("../../crates/hyperv/schema/qualifiers.mof");

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut compiler = Compiler::new();
    compiler.add("qualifiers.mof", QUALIFIERS).expect("ours");
    let read = compiler.add("fuzz.mof", &text);
    let Ok(schema) = compiler.finish() else { return };
    if read.is_ok() {
        for class in schema.classes() {
            assert!(schema.is_a(class.name.as_str(), class.name.as_str()));
            assert!(schema.family(class.name.as_str()).contains(&class));
        }
    }
    let _ = mof::instances(&text, &schema);
});

//! Embedded instances: no panic, and what is written is read back as the same.

#![no_main]

use std::sync::OnceLock;

use cim::mof::Compiler;
use cim::{Schema, embedded};
use libfuzzer_sys::fuzz_target;

/// A class with a property of every kind.
fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut compiler = Compiler::new();
        compiler.add("qualifiers.mof", include_str!("../../crates/hyperv/schema/qualifiers.mof")).expect("ours");
        let class = r#"
            class A {
                [Key] string S; boolean T; uint8 U; sint64 V; real32 W; char16 X; datetime Y; string Z[]; uint16 N[];
                [CIMType("ref:A")] string R; [CIMType("object:A")] string O; [CIMType("object:A")] string P[];
            };
        "#;
        compiler.add("class", class).expect("ours");
        compiler.finish().expect("ours")
    })
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Ok(instance) = embedded::read(&text, schema()) else { return };
    // MOF has characters that XML has not, and paths that say less than they could: after once through XML all is said.
    let Ok(instance) = embedded::read(&embedded::write(&instance, schema()), schema()) else { return };
    let written = embedded::write(&instance, schema());
    let again = embedded::read(&written, schema()).expect("what is written can be read");
    assert_eq!(embedded::write(&again, schema()), written);
});

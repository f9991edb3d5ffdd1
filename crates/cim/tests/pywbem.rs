//! An independent reader of CIM-XML: pywbem reads the instance that we wrote, writes it in its own way, and we read that.

use std::io::Write;
use std::process::{Command, Stdio};

use cim::mof::Compiler;
use cim::{Datetime, Instance, ObjectPath, Schema, Value, embedded};

const PROGRAM: &str = "
import sys
from pywbem._tupleparse import TupleParser
from pywbem._tupletree import xml_to_tupletree_sax
print(TupleParser().parse_instance(xml_to_tupletree_sax(sys.stdin.read(), 'ours')).tocimxmlstr(), end='')
";

fn schema() -> Schema {
    let mut compiler = Compiler::new();
    let text = r#"
        Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
        Qualifier CIMType : string = null, Scope(property, parameter);
        class Test_All {
            [Key] string Id; boolean Truth; uint8 Byte; sint64 Signed; uint64 Large; real64 Real; char16 Letter;
            datetime Time; datetime Never; string Texts[]; uint32 Numbers[]; uint32 None[];
            [CIMType("ref:Test_All")] string Reference; [CIMType("object:Test_All")] string Object;
            [CIMType("object:Test_All")] string Objects[];
        };
    "#;
    compiler.add("test", text).expect("the test's own schema");
    compiler.finish().expect("the test's own schema")
}

#[test]
fn pywbem_reads_what_we_write_and_we_what_it_writes() {
    let python = std::env::var_os("SLIPWAY_PYTHON").unwrap_or_else(|| "python3".into());
    let found = Command::new(&python).args(["-c", "import pywbem"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("skipped: the Python module pywbem is not installed (SLIPWAY_PYTHON names the interpreter)");
        return;
    }
    let mut path =
        ObjectPath::new("Test_All").with("Id", "Microsoft:A\\B \"x\"").within("root/virtualization/v2");
    path.host = Some("node".to_owned());
    let inside = Instance::new("Test_All").with("Id", "in & <side>");
    let mut instance = Instance::new("Test_All")
        .with("Id", "a \"b\" & <c>\n\td ")
        .with("Truth", true)
        .with("Byte", u8::MAX)
        .with("Signed", i64::MIN)
        .with("Large", u64::MAX)
        .with("Real", 0.5)
        .with("Letter", Value::Char16(0x263a))
        .with("Time", Datetime::utc(1_795_564_800_000_000))
        .with("Texts", vec!["one", "two"])
        .with("Numbers", vec![1_u32, u32::MAX])
        .with("Reference", path)
        .with("Object", inside.clone())
        .with("Objects", vec![inside.clone(), inside]);
    instance.set("Never", None);
    instance.set("None", None);

    let mut command = Command::new(&python);
    command.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let written = embedded::write(&instance, &schema());
    child.stdin.take().unwrap().write_all(written.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{written}\n{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8(output.stdout).unwrap();
    assert_eq!(embedded::read(&theirs, &schema()), Ok(instance), "{theirs}");
}

//! The schema files of the service, read here and by pywbem's MOF compiler: both must see the same classes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cim::{Schema, Type};
use hyperv::schema;

fn schema_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name)
}

/// The type as CIM has it, which knows no objects and no references outside associations: both are strings that carry
/// WMI's qualifier.
fn described(ty: &Type, array: bool, wmi: bool) -> String {
    let (keyword, class) = match ty {
        Type::Object(_) => ("string", "-"),
        Type::Reference(_) if wmi => ("string", "-"),
        Type::Reference(class) => ("reference", class.as_str()),
        other => (other.keyword(), "-"),
    };
    format!("{keyword}{} {class}", if array { "[]" } else { "" })
}

/// The lines that tools/oracle_pywbem.py prints.
fn told(schema: &Schema) -> String {
    let mut classes: Vec<_> = schema.classes().collect();
    classes.sort_by_key(|class| class.name.as_str().to_ascii_lowercase());
    let mut text = String::new();
    for class in classes {
        let superclass = class.superclass.as_ref().map_or("-", |name| name.as_str());
        write!(text, "class {} {superclass}", class.name).expect("a String takes everything");
        for (kind, is) in [(" Abstract", class.is_abstract()), (" Association", class.is_association())] {
            text.push_str(if is { kind } else { "" });
        }
        text.push('\n');
        let mut properties: Vec<_> = class.properties.iter().collect();
        properties.sort_by_key(|property| property.name.as_str().to_ascii_lowercase());
        for property in properties {
            let shape = described(&property.ty, property.array, property.qualifier("CIMType").is_some());
            let key = if property.is_key() { "key" } else { "-" };
            writeln!(text, " property {} {shape} {key}", property.name).expect("a String takes everything");
        }
        let mut methods: Vec<_> = class.methods.iter().collect();
        methods.sort_by_key(|method| method.name.as_str().to_ascii_lowercase());
        for method in methods {
            writeln!(text, " method {} {}", method.name, method.returns.keyword())
                .expect("a String takes everything");
            for parameter in &method.parameters {
                let shape =
                    described(&parameter.ty, parameter.array, parameter.qualifier("CIMType").is_some());
                let (input, output) = (parameter.input, parameter.output);
                let (input, output) = (if input { " In" } else { "" }, if output { " Out" } else { "" });
                writeln!(text, "  parameter {} {shape}{input}{output}", parameter.name)
                    .expect("a String takes everything");
            }
        }
    }
    text
}

#[test]
fn pywbem_sees_the_classes_that_we_see() {
    let python = std::env::var_os("SLIPWAY_PYTHON").unwrap_or_else(|| "python3".into());
    let found = Command::new(&python).args(["-c", "import pywbem, pywbem_mock"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("skipped: the Python module pywbem is not installed (SLIPWAY_PYTHON names the interpreter)");
        return;
    }
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/oracle_pywbem.py");
    for (namespace, file, ours) in [
        ("root/virtualization/v2", "virtualization_v2.mof", schema::virtualization().unwrap()),
        ("root/virtualization", "virtualization.mof", schema::virtualization_v1().unwrap()),
        ("root/cimv2", "cimv2.mof", schema::cimv2().unwrap()),
        ("root/interop", "interop.mof", schema::interop().unwrap()),
    ] {
        let mut command = Command::new(&python);
        command.arg(&oracle).arg(namespace).args(["qualifiers.mof", file].map(schema_file));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8(output.stdout).unwrap();
        let ours = told(&ours);
        let differ = ours.lines().zip(theirs.lines()).enumerate().find(|(_, (ours, theirs))| ours != theirs);
        assert_eq!(differ, None, "{file}: (line, (ours, pywbem's))");
        assert_eq!(ours.lines().count(), theirs.lines().count(), "{file}");
    }
}

#[test]
fn a_host_has_the_classes_that_clients_ask_for() {
    let schema = schema::virtualization().unwrap();
    assert!(schema.classes().count() >= 303);
    assert!(schema.is_a("Msvm_ComputerSystem", "CIM_ManagedElement"));
    assert!(schema.family("CIM_ConcreteJob").iter().any(|class| class.name == "Msvm_StorageJob"));
    let service = schema.class("Msvm_VirtualSystemManagementService").unwrap();
    let define = service.method("DefineSystem").unwrap();
    assert_eq!(define.meaning(&4096_u32.into()), Some("Method Parameters Checked - Job Started"));
    assert_eq!(
        define.parameter("ResourceSettings").unwrap().embedded(),
        Some("Msvm_ResourceAllocationSettingData")
    );
    let summary = service.method("GetSummaryInformation").unwrap().parameter("SummaryInformation").unwrap();
    assert_eq!(summary.ty, Type::Object(Some("Msvm_SummaryInformationBase".into())));
    let system = schema.class("Msvm_ComputerSystem").unwrap();
    assert_eq!(system.keys().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["Name", "CreationClassName"]);
    let state = system.property("EnabledState").unwrap();
    assert_eq!(state.meaning(&2_u16.into()), Some("Enabled"));
    let job = schema.class("Msvm_ConcreteJob").unwrap().property("JobState").unwrap();
    assert_eq!(job.meaning(&40_000_u16.into()), Some("Vendor Reserved"));

    let host = schema::cimv2().unwrap();
    assert_eq!(host.class("Win32_OperatingSystem").unwrap().keys().count(), 0);
    assert!(host.class("Win32_ComputerSystemProcessor").unwrap().is_association());
}

/// How long a daemon reads its schema when it starts:
/// `cargo test --release -p slipway-hyperv --test schema -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn measure_reading_the_schema() {
    let start = std::time::Instant::now();
    std::hint::black_box((schema::virtualization().unwrap(), schema::cimv2().unwrap()));
    println!("both namespaces read in {:?}", start.elapsed());
}

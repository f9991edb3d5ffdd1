use super::{Place, Query, Related, Select};
use crate::mof::Compiler;
use crate::{Datetime, Instance, Name, ObjectPath, Schema, Value};

fn schema() -> Schema {
    let mut compiler = Compiler::new();
    let text = r#"
        Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
        class CIM_System { [Key] string Name; string Caption; };
        class Msvm_ComputerSystem : CIM_System {
            uint16 EnabledState; boolean Healthy; datetime Since; datetime Up; uint64 Memory; real64 Load; char16 Letter;
            string Note; uint16 OperationalStatus[]; CIM_System REF Host; string Embedded;
        };
        class Msvm_Other : CIM_System {};
    "#;
    compiler.add("test", text).unwrap();
    compiler.finish().unwrap()
}

fn machine() -> Instance {
    Instance::new("Msvm_ComputerSystem")
        .with("Name", "3F2A9B0C-7A54")
        .with("Caption", "Virtual Machine")
        .with("EnabledState", 2_u16)
        .with("Healthy", true)
        .with("Since", "20260101120000.000000+060".parse::<Datetime>().unwrap())
        .with("Up", "00000001000000.000000:000".parse::<Datetime>().unwrap())
        .with("Memory", 18_446_744_073_709_551_615_u64)
        .with("Load", 1.5)
        .with("Letter", Value::Char16(65))
        .with("OperationalStatus", vec![2_u16])
        .with("Host", ObjectPath::new("CIM_System").with("Name", "node"))
        .with("Embedded", Instance::new("Msvm_Other").with("Caption", "inside"))
}

fn select(text: &str) -> Select {
    match text.parse::<Query>() {
        Ok(Query::Select(select)) => select,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn conditions_say_which_instances_are_meant() {
    let schema = schema();
    let place = Place { schema: &schema, server: "NODE-1", namespace: "root/virtualization/v2" };
    for (condition, expected) in [
        ("EnabledState = 2", true),
        ("2 = EnabledState", true),
        ("EnabledState = '2'", true),
        ("EnabledState = 0x2", true),
        ("EnabledState != 2", false),
        ("EnabledState <> 3", true),
        ("EnabledState > 1 AND EnabledState >= 2 AND EnabledState < 3 AND EnabledState <= 2", true),
        ("Memory = 18446744073709551615", true),
        ("Memory > 18446744073709551614", true),
        ("Memory = '18446744073709551615'", true),
        ("Memory = '18446744073709551614'", false),
        ("Load > 1", true),
        ("Load = 1.5", true),
        ("Load < -1", false),
        ("Name = '3f2a9b0c-7a54'", true),
        ("Name = \"3f2a9b0c-7a54\"", true),
        ("name < '4'", true),
        ("Caption = 'virtual machine'", true),
        ("Caption = 'It''s'", false),
        ("Healthy = TRUE AND Healthy = 1 AND Healthy = 'true'", true),
        ("Healthy = false", false),
        ("Since = '20260101110000.000000+000'", true),
        ("Since < '20260101110000.000001+000'", true),
        ("Since > '00000001000000.000000:000'", false),
        ("Since = 'soon'", false),
        ("Up >= '00000000230000.000000:000'", true),
        ("Letter = 'a'", true),
        ("Letter = 65", true),
        ("Note IS NULL", true),
        ("Note = NULL", true),
        ("Note IS NOT NULL", false),
        ("Caption <> NULL", true),
        ("Note = 'x'", false),
        ("NOT Note = 'x'", false),
        ("Note <> 'x' OR EnabledState = 2", true),
        ("OperationalStatus = 2", false),
        ("Caption LIKE 'Virtual%'", true),
        ("Caption NOT LIKE 'Virtual%'", false),
        ("EnabledState LIKE '[123]'", true),
        ("NOT (EnabledState = 2 OR EnabledState = 3)", false),
        ("EnabledState = 2 OR EnabledState = 3 AND Name = 'x'", true),
        ("(EnabledState = 2 OR EnabledState = 3) AND Name = 'x'", false),
        ("__CLASS = 'Msvm_ComputerSystem'", true),
        ("'msvm_computersystem' = __class", true),
        ("__THIS ISA 'CIM_System'", true),
        ("__THIS ISA Msvm_Other", false),
        ("Host ISA \"CIM_System\"", true),
        ("Embedded ISA Msvm_Other", true),
        ("Embedded.Caption = 'inside'", true),
        ("Msvm_ComputerSystem.EnabledState = 2", true),
        ("Host = 'CIM_System.Name=\"NODE\"'", true),
        ("Host = 'CIM_System=\"node\"'", true),
        ("Host <> 'CIM_System.Name=\"other\"'", true),
        ("Name != __SERVER", true),
        ("__SERVER = 'node-1'", true),
        ("__RELPATH = 'Msvm_ComputerSystem.Name=\"3F2A9B0C-7A54\"'", true),
        (r#"__PATH = '\\\\NODE-1\\root\\virtualization\\v2:Msvm_ComputerSystem.Name="3F2A9B0C-7A54"'"#, true),
        (r"__NAMESPACE = 'root\\virtualization\\v2'", true),
        ("__SUPERCLASS = 'CIM_System'", true),
        ("Caption = Caption", true),
    ] {
        let query = select(&format!("select * from Msvm_ComputerSystem where {condition}"));
        assert_eq!(query.matches(&machine(), &place), expected, "{condition}");
        assert_eq!(query.check(&schema), Ok(()), "{condition}");
        let again = select(&query.to_string());
        assert_eq!(again, query, "{condition}");
    }
    assert!(select("SELECT * FROM CIM_System").matches(&machine(), &place));
    assert!(!select("SELECT * FROM Msvm_Other").matches(&machine(), &place));
}

#[test]
fn columns_are_those_asked_for() {
    let query = select(
        "SELECT elementname, Name,__PATH, v.EnabledState FROM Msvm_ComputerSystem AS v WHERE v.Name='x'",
    );
    let some = query.projected(machine());
    let names: Vec<&str> = some.properties.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Name", "EnabledState"]);
    assert_eq!(query.required("NAME"), Some(&Value::from("x")));
    let error = query.check(&schema()).unwrap_err();
    assert_eq!(error.to_string(), "Msvm_ComputerSystem has no property elementname");
    assert_eq!(select("select v.* from X v").columns, None);
    assert_eq!(select("select * from X where InstanceID='1' or Name='2'").required("InstanceID"), None);
    assert_eq!(
        select("SELECT * FROM Nope").check(&schema()).unwrap_err().to_string(),
        "there is no class Nope"
    );
}

#[test]
fn associations_are_asked_for_as_libvirt_does() {
    let text = "associators of {Msvm_ComputerSystem.CreationClassName='Msvm_ComputerSystem',Name='3F2A'} \
                where AssocClass = Msvm_SettingsDefineState ResultClass = 'Msvm_VirtualSystemSettingData' Role=A \
                ResultRole = B RequiredQualifier=Q RequiredAssocQualifier=R KeysOnly classdefsonly";
    let Ok(Query::Related(related)) = text.parse() else { panic!() };
    let name = |text: &str| Some(Name::from(text));
    let path = ObjectPath::new("Msvm_ComputerSystem")
        .with("CreationClassName", "Msvm_ComputerSystem")
        .with("Name", "3F2A");
    let expected = Related {
        association: name("Msvm_SettingsDefineState"),
        result: name("Msvm_VirtualSystemSettingData"),
        role: name("A"),
        result_role: name("B"),
        required_qualifier: name("Q"),
        required_association_qualifier: name("R"),
        classes_only: true,
        keys_only: true,
        ..Related::new(path, false)
    };
    assert_eq!(related, expected);
    assert_eq!(expected.to_string().parse(), Ok(Query::Related(expected)));
    let plain = r#"REFERENCES OF {\\node\root\cimv2:Win32_ComputerSystem.Name="a}b\"c"}"#;
    let Ok(Query::Related(related)) = plain.parse() else { panic!() };
    assert!(related.references);
    assert_eq!(related.path.text("Name"), Some("a}b\"c"));
    assert_eq!(related.to_string(), plain);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, message) in [
        ("", "column 1: expected SELECT, ASSOCIATORS OF or REFERENCES OF, found the end"),
        ("selekt * from X", "column 1: expected SELECT"),
        ("select * X", "column 11: expected FROM, found the end"),
        ("select from X", "column 8: expected `*` or the name of a property, found `from`"),
        ("select a b from X", "column 10: expected `,` or FROM, found `b`"),
        ("select * from", "column 14: expected the name of a class, found the end"),
        ("select * from 'X'", "column 15: expected the name of a class, found 'X'"),
        (
            "select * from X where",
            "column 22: expected a property, a text in quotes or a number, found the end",
        ),
        ("select * from X where a", "column 24: expected a comparison, found the end"),
        ("select * from X where a = ", "expected a property, a text in quotes or a number"),
        ("select * from X where a = 'x", "column 27: the text has no closing quote"),
        ("select * from X where a == 1", "column 26: expected a property"),
        ("select * from X where (a = 1", "column 29: expected `)`, AND or OR, found the end"),
        ("select * from X where a = 1)", "column 28: expected the end, found `)`"),
        ("select * from X where a < NULL", "column 27: NULL is neither more nor less"),
        ("select * from X where a is 1", "column 28: expected NULL, found `1`"),
        ("select * from X where a not = 1", "column 29: expected LIKE"),
        ("select * from X where a like b", "column 30: expected a pattern in quotes, found `b`"),
        ("select * from X where 'a' isa B", "column 23: a property or __THIS stands before ISA"),
        ("select * from X where a isa '0T'", "column 29: expected the name of a class, found '0T'"),
        ("select * from X where a = 1x", "column 27: `1x` is no number"),
        ("select * from X where a ? 1", "column 25: `?` has no meaning in a query"),
        ("select * from X where X.not = 1", "column 25: `not` is no name of a property here"),
        ("select * from X order by a", "column 17: expected the end, found `order`"),
        ("select * from meta_class", "column 15: queries for classes are not answered"),
        ("select * from E within soon where a = 1", "column 24: expected a number of seconds, found `soon`"),
        ("select * from E within 2 group within 5", "column 26: events are not gathered into groups here"),
        ("associators of Msvm_X", "column 16: expected `{` and an object path"),
        ("associators of {Msvm_X.", "column 16: the brace is not closed"),
        ("associators of {Msvm_X.K=}", "column 26: expected a text in quotes"),
        ("associators of {X} where", "column 25: expected a condition, found the end"),
        ("associators of {X} where a", "column 26: expected AssocClass, ResultClass"),
        ("associators of {X} where Role", "column 30: expected `=`"),
        (
            "associators of {X} where Role=A and ResultRole=B",
            "column 33: conditions stand here one after the other",
        ),
        ("associators of {X} where Role=A Role=B", "column 33: role stands here twice"),
        ("references of {X} where AssocClass=A", "column 25: assocclass is no condition of REFERENCES OF"),
    ] {
        let error = text.parse::<Query>().unwrap_err().to_string();
        assert!(error.contains(message), "{text}\n{error}");
    }
    let deep = format!("select * from X where {}a = 1{}", "(".repeat(65), ")".repeat(65));
    assert!(deep.parse::<Query>().unwrap_err().to_string().contains("nested more than 64 deep"));
    let wide = format!("select * from X where a = 1{}", " or a = 1".repeat(5000));
    assert!(wide.parse::<Query>().is_ok());
}

#[test]
fn a_query_for_events_says_how_soon_and_about_what() {
    let text = "SELECT * FROM __InstanceModificationEvent WITHIN 0.5 WHERE TargetInstance ISA 'Msvm_X' AND \
                TargetInstance.EnabledState = 2";
    let Query::Select(select) = text.parse::<Query>().unwrap() else { panic!("a select") };
    assert_eq!(select.within, Some(0.5));
    assert_eq!(select.required_class("TargetInstance"), Some(&Name::from("Msvm_X")));
    assert_eq!(select.required_class("PreviousInstance"), None);
    let again = select.to_string();
    assert_eq!(again.parse::<Query>().unwrap(), Query::Select(select), "{again}");
}

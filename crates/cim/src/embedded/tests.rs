use super::{read, read_all, write};
use crate::mof::Compiler;
use crate::{Datetime, Instance, ObjectPath, Schema, Value};

fn schema() -> Schema {
    let mut compiler = Compiler::new();
    let text = r#"
        Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
        Qualifier CIMType : string = null, Scope(property, parameter);
        class Msvm_VirtualSystemSettingData {
            [Key] string InstanceID; string ElementName; uint16 BootOrder[]; boolean Turbo; uint64 Limit; char16 Letter;
            datetime Since; string Notes[]; real64 Ratio;
            [CIMType("ref:Msvm_VirtualSystemSettingData")] string Parent;
            [CIMType("object:Msvm_VirtualSystemSettingData")] string Inside;
            [CIMType("object:Msvm_VirtualSystemSettingData")] string All[];
        };
    "#;
    compiler.add("test", text).unwrap();
    compiler.finish().unwrap()
}

const CLASS: &str = "Msvm_VirtualSystemSettingData";

/// What every text of the next test says.
fn expected() -> Instance {
    Instance::new(CLASS)
        .with("ElementName", "new & <1>")
        .with("BootOrder", vec![3_u16, 2])
        .with("Turbo", true)
        .with("Limit", u64::MAX)
}

#[test]
fn instances_are_read_in_every_form_that_clients_send() {
    let plain = r#"<INSTANCE CLASSNAME="Msvm_VirtualSystemSettingData">
        <PROPERTY NAME="ElementName" TYPE="string"><VALUE>new &amp; &lt;1&gt;</VALUE></PROPERTY>
        <PROPERTY.ARRAY NAME="BootOrder" TYPE="uint16"><VALUE.ARRAY><VALUE>3</VALUE><VALUE>2</VALUE></VALUE.ARRAY></PROPERTY.ARRAY>
        <PROPERTY NAME="Turbo" TYPE="boolean"><VALUE>TRUE</VALUE></PROPERTY>
        <PROPERTY NAME="Limit" TYPE="uint64"><VALUE>18446744073709551615</VALUE></PROPERTY>
        </INSTANCE>"#;
    // libvirt: a declaration, and no types.
    let libvirt = format!("<?xml version=\"1.0\"?>\n{}", plain.replace(" TYPE=\"uint16\"", ""));
    // PowerShell: UTF-16 by its own word, attributes of all kinds, qualifiers.
    let powershell = format!("<?xml version=\"1.0\" encoding=\"utf-16\"?>{plain}")
        .replace(
            "TYPE=\"boolean\"",
            "PROPAGATED=\"true\" MODIFIED=\"TRUE\" CLASSORIGIN=\"X\" TYPE=\"string\"",
        )
        .replace(
            "<VALUE>TRUE",
            "<QUALIFIER NAME=\"write\" TYPE=\"boolean\"><VALUE>TRUE</VALUE></QUALIFIER><VALUE>true",
        );
    // WMI's DTD: system properties.
    let wmi = plain.replacen(
        "<PROPERTY ",
        "<QUALIFIER NAME=\"dynamic\"/><PROPERTY NAME=\"__GENUS\" CLASSORIGIN=\"___SYSTEM\" TYPE=\"sint32\"><VALUE>2</VALUE>\
         </PROPERTY><PROPERTY ",
        1,
    );
    let wrapped = format!(
        "<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><DECLARATION><DECLGROUP><VALUE.OBJECT>{plain}</VALUE.OBJECT></DECLGROUP>\
         </DECLARATION></CIM>"
    );
    let mof = "\ninstance of Msvm_VirtualSystemSettingData\n{\n\tElementName = \"new & <1>\";\n\tBootOrder = {3, 2};\n\
               \tTurbo = TRUE;\n\tLimit = \"18446744073709551615\";\n};\n\0";
    let lower = plain.replace(CLASS, "msvm_virtualsystemsettingdata").replace("\"Turbo\"", "\"TURBO\"");
    for text in [plain, &libvirt, &powershell, &wmi, &wrapped, mof, &lower] {
        assert_eq!(read(text, &schema()), Ok(expected()), "{text}");
    }
    let both = Value::Array(vec![plain.into(), expected().into()]);
    assert_eq!(read_all(&both, &schema()), Ok(vec![expected(), expected()]));
}

#[test]
fn what_has_no_value_is_null() {
    let text = r#"<INSTANCE CLASSNAME="Msvm_VirtualSystemSettingData"><PROPERTY NAME="ElementName" TYPE="string"/>
        <PROPERTY NAME="Limit"><VALUE/></PROPERTY><PROPERTY.ARRAY NAME="BootOrder"></PROPERTY.ARRAY>
        <PROPERTY.ARRAY NAME="Notes"><VALUE.ARRAY><VALUE/><VALUE.NULL/></VALUE.ARRAY></PROPERTY.ARRAY>
        <PROPERTY NAME="InstanceID"><VALUE></VALUE></PROPERTY></INSTANCE>"#;
    let instance = read(text, &schema()).unwrap();
    assert_eq!(instance.property("ElementName"), Some(None));
    assert_eq!(instance.property("Limit"), Some(None));
    assert_eq!(instance.property("BootOrder"), Some(None));
    assert_eq!(instance.get("Notes"), Some(&Value::Array(vec!["".into()])));
    assert_eq!(instance.text("InstanceID"), Some(""));
    assert_eq!(instance.property("Turbo"), None);
}

#[test]
fn references_and_instances_are_read_inside() {
    let reference = |inside: &str| {
        format!(
            "<INSTANCE CLASSNAME=\"{CLASS}\"><PROPERTY.REFERENCE NAME=\"Parent\" REFERENCECLASS=\"{CLASS}\">{inside}\
             </PROPERTY.REFERENCE></INSTANCE>"
        )
    };
    let keys = format!(
        "<INSTANCENAME CLASSNAME=\"{CLASS}\"><KEYBINDING NAME=\"instanceid\"><KEYVALUE VALUETYPE=\"string\">a\\b</KEYVALUE>\
         </KEYBINDING></INSTANCENAME>"
    );
    let path = ObjectPath::new(CLASS).with("InstanceID", "a\\b");
    let local = path.clone().within("root/virtualization/v2");
    let mut whole = local.clone();
    whole.host = Some("node".to_owned());
    let space = "<LOCALNAMESPACEPATH><NAMESPACE NAME=\"root\"/><NAMESPACE NAME=\"virtualization\"/><NAMESPACE NAME=\"v2\"/>\
                 </LOCALNAMESPACEPATH>";
    for (inside, path) in [
        (format!("<VALUE.REFERENCE>{keys}</VALUE.REFERENCE>"), path),
        (
            format!(
                "<VALUE.REFERENCE><LOCALINSTANCEPATH>{space}{keys}</LOCALINSTANCEPATH></VALUE.REFERENCE>"
            ),
            local,
        ),
        (
            format!(
                "<VALUE.REFERENCE><INSTANCEPATH><NAMESPACEPATH><HOST>node</HOST>{space}</NAMESPACEPATH>{keys}\
                 </INSTANCEPATH></VALUE.REFERENCE>"
            ),
            whole.clone(),
        ),
        (format!("<VALUE>\\\\node\\root\\virtualization\\v2:{CLASS}.InstanceID=\"a\\\\b\"</VALUE>"), whole),
    ] {
        let instance = read(&reference(&inside), &schema()).unwrap();
        assert_eq!(instance.get("Parent"), Some(&Value::from(path)), "{inside}");
    }
    let inner = format!(
        "<INSTANCE CLASSNAME=\"{CLASS}\"><PROPERTY NAME=\"ElementName\"><VALUE>in</VALUE></PROPERTY></INSTANCE>"
    );
    let escaped = inner.replace('<', "&lt;");
    for property in [
        format!("<PROPERTY.OBJECT NAME=\"Inside\"><VALUE.OBJECT>{inner}</VALUE.OBJECT></PROPERTY.OBJECT>"),
        format!("<PROPERTY NAME=\"Inside\" EmbeddedObject=\"instance\"><VALUE>{escaped}</VALUE></PROPERTY>"),
        format!("<PROPERTY NAME=\"Inside\"><VALUE>{inner}</VALUE></PROPERTY>"),
        format!(
            "<PROPERTY NAME=\"Inside\"><VALUE>instance of {CLASS} {{ ElementName = \"in\"; }};</VALUE></PROPERTY>"
        ),
    ] {
        let instance =
            read(&format!("<INSTANCE CLASSNAME=\"{CLASS}\">{property}</INSTANCE>"), &schema()).unwrap();
        let inside = instance.get("Inside").and_then(Value::as_instance).unwrap();
        assert_eq!(inside.text("ElementName"), Some("in"), "{property}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut parent =
        ObjectPath::new(CLASS).with("InstanceID", "Microsoft:A\\B \"x\"").within("root/virtualization/v2");
    parent.host = Some("node".to_owned());
    let mut instance = expected()
        .with("Notes", vec!["one\r\ntwo", "", " three "])
        .with("Ratio", 0.1)
        .with("Letter", Value::Char16(u16::from(b'7')))
        .with("Since", Datetime::utc(1_795_564_800_000_000))
        .with("Parent", parent)
        .with("Inside", expected().with("Inside", expected()))
        .with("All", vec![expected(), Instance::new(CLASS)]);
    instance.set("InstanceID", None);
    let text = write(&instance, &schema());
    assert_eq!(read(&text, &schema()), Ok(instance), "{text}");
    let control = Instance::new(CLASS).with("ElementName", "bell \x07");
    let back = read(&write(&control, &schema()), &schema()).unwrap();
    assert_eq!(back.text("ElementName"), Some("bell \u{fffd}"));
    let short = Instance::new("Msvm_Error").with("ErrorType", 4_u16).with("Message", "no");
    assert_eq!(
        write(&short, &schema()),
        "<INSTANCE CLASSNAME=\"Msvm_Error\"><PROPERTY NAME=\"ErrorType\" TYPE=\"uint16\"><VALUE>4</VALUE></PROPERTY>\
         <PROPERTY NAME=\"Message\" TYPE=\"string\"><VALUE>no</VALUE></PROPERTY></INSTANCE>"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let of = |inside: &str| format!("<INSTANCE CLASSNAME=\"{CLASS}\">\n{inside}</INSTANCE>");
    for (text, message) in [
        (String::new(), "one instance is expected, found 0"),
        ("Msvm_X.K=1".to_owned(), "column 1: expected `class`, `instance`"),
        ("<INSTANCE".to_owned(), "this is no XML"),
        ("<!DOCTYPE x [<!ENTITY a \"b\">]><INSTANCE CLASSNAME=\"&a;\"/>".to_owned(), "this is no XML"),
        ("<PROPERTY/>".to_owned(), "expected INSTANCE, found `PROPERTY`"),
        ("<CIM><DECLARATION/></CIM>".to_owned(), "column 6: there is no INSTANCE in it"),
        ("<INSTANCE/>".to_owned(), "INSTANCE has no CLASSNAME"),
        ("<INSTANCE CLASSNAME=\"Msvm_None\"/>".to_owned(), "there is no class Msvm_None"),
        (of("<PROPERTY/>"), "line 2, column 1: PROPERTY has no NAME"),
        (
            of("<PROPERTY NAME=\"Nope\"/>"),
            "line 2, column 1: Msvm_VirtualSystemSettingData has no property Nope",
        ),
        (of("<PROPERTY NAME=\"Limit\"/><PROPERTY NAME=\"limit\"/>"), "line 2, column 25: Limit is set twice"),
        (of("<PROPERTY NAME=\"Limit\"><VALUE>-1</VALUE></PROPERTY>"), "line 2, column 24: `-1` is no uint64"),
        (
            of(
                "<PROPERTY.ARRAY NAME=\"Limit\"><VALUE.ARRAY><VALUE>1</VALUE><VALUE>2</VALUE></VALUE.ARRAY></PROPERTY.ARRAY>",
            ),
            "Msvm_VirtualSystemSettingData.Limit has one value, not 2",
        ),
        (
            of("<PROPERTY NAME=\"Inside\"><VALUE>x</VALUE></PROPERTY>"),
            "the instance inside is wrong: line 1, column 1",
        ),
        (
            of("<PROPERTY NAME=\"Parent\"><VALUE>C.</VALUE></PROPERTY>"),
            "the path is wrong: expected the name of a key",
        ),
    ] {
        let error = read(&text, &schema()).unwrap_err().to_string();
        assert!(error.contains(message), "{text}\n{error}");
    }
    let open = format!("<INSTANCE CLASSNAME=\"{CLASS}\"><PROPERTY.OBJECT NAME=\"Inside\"><VALUE.OBJECT>");
    let close = "</VALUE.OBJECT></PROPERTY.OBJECT></INSTANCE>";
    let text = open.repeat(40) + &format!("<INSTANCE CLASSNAME=\"{CLASS}\"/>") + &close.repeat(40);
    assert!(read(&text, &schema()).unwrap_err().problem.contains("nested more than 16 deep"));
    let text = "<CIM>".repeat(100_000) + &"</CIM>".repeat(100_000);
    assert!(read(&text, &schema()).is_err());
}

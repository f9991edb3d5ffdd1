//! What is written is read back as the same, whatever it is.

use cim::mof::Compiler;
use cim::{Datetime, Instance, Name, ObjectPath, Query, Schema, Value, embedded};
use proptest::prelude::*;

const CLASS: &str = "Test_All";
/// Names that are no keyword and not the class.
const NAME: &str = "P[A-Za-z0-9_]{0,8}";

/// A class with a property of every type, and an array of most.
fn schema() -> Schema {
    let mut compiler = Compiler::new();
    let text = r#"
        Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
        Qualifier CIMType : string = null, Scope(property, parameter);
        class Test_All {
            [Key] string Id; [Key] uint16 Slot;
            boolean Truth; uint8 Byte; sint64 Signed; uint64 Large; real64 Real; char16 Letter; datetime Time;
            [CIMType("ref:Test_All")] string Reference; [CIMType("object:Test_All")] string Object;
            string Texts[]; uint32 Numbers[]; datetime Times[]; [CIMType("object:Test_All")] string Objects[];
        };
    "#;
    compiler.add("test", text).expect("the test's own schema");
    compiler.finish().expect("the test's own schema")
}

/// Texts with what is escaped somewhere, and nothing that XML cannot carry.
fn text() -> impl Strategy<Value = String> + Clone {
    "[a-zA-Zäß0-9 '\"\\\\<>&{}%_\\[\\]\r\n\t;:,.=/-]{0,20}"
}

fn time() -> impl Strategy<Value = Datetime> {
    prop_oneof![
        any::<i64>().prop_map(Datetime::utc),
        any::<std::time::Duration>().prop_map(Datetime::interval),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    NAME.prop_map(Name::from)
}

fn path() -> impl Strategy<Value = ObjectPath> {
    (
        proptest::option::of("[a-z0-9.-]{1,12}"),
        proptest::option::of("[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,2}"),
        text(),
        any::<u16>(),
    )
        .prop_map(|(host, namespace, id, slot)| ObjectPath {
            host: host.filter(|_| namespace.is_some()),
            namespace,
            ..ObjectPath::new(CLASS).with("Id", id).with("Slot", slot)
        })
}

fn instance() -> impl Strategy<Value = Instance> {
    let plain = prop_oneof![
        text().prop_map(|value| ("Id", Some(value.into()))),
        any::<bool>().prop_map(|value| ("Truth", Some(value.into()))),
        any::<u8>().prop_map(|value| ("Byte", Some(value.into()))),
        any::<i64>().prop_map(|value| ("Signed", Some(value.into()))),
        any::<u64>().prop_map(|value| ("Large", Some(value.into()))),
        any::<f64>()
            .prop_filter("NaN is not itself", |value| !value.is_nan())
            .prop_map(|value| ("Real", Some(value.into()))),
        any::<u16>().prop_map(|value| ("Letter", Some(Value::Char16(value)))),
        time().prop_map(|value| ("Time", Some(value.into()))),
        path().prop_map(|value| ("Reference", Some(value.into()))),
        proptest::collection::vec(text(), 0..4).prop_map(|value| ("Texts", Some(value.into()))),
        proptest::collection::vec(any::<u32>(), 0..4).prop_map(|value| ("Numbers", Some(value.into()))),
        proptest::collection::vec(time(), 0..4).prop_map(|value| ("Times", Some(value.into()))),
        proptest::sample::select(vec!["Slot", "Truth", "Time", "Texts", "Reference", "Object", "Objects"])
            .prop_map(|name| (name, None)),
    ];
    let made = |properties: Vec<(&str, Option<Value>)>| {
        let mut instance = Instance::new(CLASS);
        for (name, value) in properties {
            instance.set(name, value);
        }
        instance
    };
    proptest::collection::vec(plain, 0..6).prop_map(made).prop_recursive(3, 8, 2, |inside| {
        (inside.clone(), proptest::collection::vec(inside, 0..3))
            .prop_map(|(one, all)| Instance::new(CLASS).with("Object", one).with("Objects", all))
    })
}

/// A condition as somebody might write it.
fn condition() -> impl Strategy<Value = String> {
    let quoted =
        text().prop_map(|text: String| format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\"\"")));
    let literal = prop_oneof![
        quoted.clone(),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| format!("{number:#x}")),
        (-1e9..1e9).prop_map(|number: f64| format!("{number:?}")),
        Just("TRUE".to_owned()),
    ];
    let property = NAME;
    let comparison =
        prop_oneof![Just("="), Just("<>"), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
    let plain = prop_oneof![
        (property, comparison.clone(), literal.clone()).prop_map(|(a, by, b)| format!("{a}{by}{b}")),
        (literal, comparison, property).prop_map(|(a, by, b)| format!("{a} {by} K.{b}")),
        (property, quoted).prop_map(|(a, pattern)| format!("{a} like {pattern}")),
        property.prop_map(|a| format!("{a} is not null")),
        property.prop_map(|a| format!("{a} = NULL")),
        property.prop_map(|a| format!("Inside.{a} isa '{a}'")),
    ];
    plain.prop_recursive(4, 16, 4, |inside| {
        prop_oneof![
            proptest::collection::vec(inside.clone(), 1..4)
                .prop_map(|all| format!("({})", all.join(" AND "))),
            proptest::collection::vec(inside.clone(), 1..4).prop_map(|all| format!("({})", all.join(" or "))),
            inside.prop_map(|one| format!("not ({one})")),
        ]
    })
}

proptest! {
    #[test]
    fn paths(path in path()) {
        let read: ObjectPath = path.to_string().parse().expect("a path");
        prop_assert_eq!(read.resolved(&schema()), Ok(path));
    }

    #[test]
    fn instances(instance in instance()) {
        let text = embedded::write(&instance, &schema());
        prop_assert_eq!(embedded::read(&text, &schema()), Ok(instance), "{}", text);
    }

    #[test]
    fn selects(columns in proptest::collection::vec(name(), 0..4), condition in condition()) {
        let columns = columns.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
        let columns = if columns.is_empty() { "*" } else { &columns };
        let query: Query = format!("select {columns} from K where {condition}").parse().expect("a query");
        prop_assert_eq!(query.to_string().parse(), Ok(query));
    }

    #[test]
    fn walks(path in path(), references in any::<bool>(), result in proptest::option::of(name()), keys in any::<bool>()) {
        let mut related = cim::query::Related::new(path, references);
        related.result = result;
        related.keys_only = keys;
        let Ok(Query::Related(read)) = related.to_string().parse() else { panic!("no walk: {related}") };
        prop_assert_eq!(read.path.resolved(&schema()), Ok(related.path));
        prop_assert_eq!((read.result, read.keys_only), (related.result, related.keys_only));
    }
}

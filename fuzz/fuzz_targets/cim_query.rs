//! Queries: no panic in reading or answering, and what is written is the same query.

#![no_main]

use cim::query::Place;
use cim::{Instance, ObjectPath, Query, Schema, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Ok(query) = text.parse::<Query>() else { return };
    let written = query.to_string();
    assert_eq!(written.parse().as_ref(), Ok(&query), "{written}");
    let Query::Select(select) = query else { return };
    let instance = Instance::new(select.class.clone())
        .with("A", "text")
        .with("B", 2_u16)
        .with("C", true)
        .with("D", 1.5)
        .with("E", Value::Char16(65))
        .with("F", ObjectPath::new("X").with("K", "v"))
        .with("G", vec![1_u8])
        .with("H", cim::Datetime::utc(0))
        .with("I", Instance::new("X").with("A", "text"));
    let schema = Schema::default();
    let place = Place { schema: &schema, server: "node", namespace: "root/cimv2" };
    let _ = select.matches(&instance, &place);
    let _ = select.projected(instance);
});

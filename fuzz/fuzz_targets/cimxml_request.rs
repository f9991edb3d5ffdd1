//! Requests of CIM-XML: no panic, and a reply that is a message, or a refusal with its word.

#![no_main]

use std::sync::{Arc, LazyLock};

use cim::{Instance, Name, ObjectPath, Schema, Value};
use cimxml::Responder;
use libfuzzer_sys::fuzz_target;
use wsman::server::Request;
use wsman::{Audit, Call, Done, Failure, Instances, Operations, Output, Principal, Walk};

/// A namespace with one machine.
struct Small(Schema);

impl Small {
    fn one() -> Instance {
        Instance::new("Msvm_ComputerSystem").with("Name", "web").with("EnabledState", 2_u16)
    }
}

impl Operations for Small {
    fn does(&self, _: &str, _: &str, _: Option<&str>) -> &'static str {
        "call"
    }

    fn schema(&self, _: &str) -> Option<&Schema> {
        Some(&self.0)
    }

    fn get(&self, _: &Call, _: &str, _: &ObjectPath) -> Result<Instance, Failure> {
        Ok(Self::one())
    }

    fn instances(&self, _: &Call, _: &str, _: &str) -> Result<Instances, Failure> {
        Ok(Box::new([Self::one(), Self::one()].into_iter().map(Ok)))
    }

    fn associators(&self, _: &Call, _: &str, _: &ObjectPath, _: &Walk) -> Result<Instances, Failure> {
        Ok(Box::new(std::iter::once(Ok(Self::one()))))
    }

    fn references(&self, _: &Call, _: &str, _: &ObjectPath, _: &Walk) -> Result<Instances, Failure> {
        Ok(Box::new(std::iter::once(Ok(Self::one()))))
    }

    fn invoke(
        &self,
        _: &Call,
        _: &str,
        path: &ObjectPath,
        _: &str,
        parameters: Vec<(Name, Option<Value>)>,
    ) -> Result<Output, Failure> {
        let given = parameters.into_iter().next().and_then(|(_, value)| value);
        Ok(Output::new(0_u32).with("Job", Some(path.clone().into())).with("Text", given))
    }

    fn modify(&self, _: &Call, _: &str, _: &ObjectPath, changed: &Instance) -> Result<Instance, Failure> {
        Ok(changed.clone())
    }
}

impl Audit for Small {
    fn done(&self, _: &Principal, _: &Done) {}
}

static RESPONDER: LazyLock<Responder> = LazyLock::new(|| {
    let mut compiler = cim::mof::Compiler::new();
    let text = r#"
        Qualifier Association : boolean = false, Scope(association);
        Qualifier CIMType : string = null, Scope(property, parameter);
        Qualifier In : boolean = true, Scope(parameter);
        Qualifier Key : boolean = false, Scope(property, reference);
        Qualifier Out : boolean = false, Scope(parameter);
        class CIM_ComputerSystem { [Key] string Name; };
        class Msvm_ComputerSystem : CIM_ComputerSystem {
            uint16 EnabledState; datetime Time; char16 Letter; real64 Real; boolean Truth; sint64 Numbers[];
            uint32 RequestStateChange([In] uint16 RequestedState, [In] datetime Time, [In] string Texts[],
                [In] Msvm_ComputerSystem REF System, [Out, In(false)] Msvm_ComputerSystem REF Job, [Out] string Text);
        };
        [Association] class Msvm_Pair { [Key] Msvm_ComputerSystem REF One; [Key] Msvm_ComputerSystem REF Other; };
    "#;
    compiler.add("small.mof", text).expect("our own");
    let schema = compiler.finish().expect("our own");
    Responder::new(Arc::new(Small(schema.clone())), Arc::new(Small(schema)), "host")
});

fuzz_target!(|data: &[u8]| {
    // Headers that go with the body, where it is one: what contradicts is refused before it is looked at.
    let text = String::from_utf8_lossy(data);
    let attribute = |tag: &str| {
        let (_, rest) = text.split_once(tag)?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let method = attribute("METHODCALL NAME=\"").unwrap_or_default();
    let spaces: Vec<&str> =
        text.split("<NAMESPACE NAME=\"").skip(1).filter_map(|s| Some(s.split_once('"')?.0)).collect();
    let object = attribute("CIMObject: ").unwrap_or_else(|| spaces.join("/"));
    let request = Request {
        principal: Some(Principal { user: "ada".into(), from: "here".into() }),
        host: String::new(),
        method: "POST".into(),
        path: "/cimom".into(),
        content_type: String::new(),
        headers: vec![
            ("cimoperation".into(), "MethodCall".into()),
            ("cimmethod".into(), method),
            ("cimobject".into(), object),
        ],
        body: data.to_vec(),
        received: std::time::Instant::now(),
    };
    let reply = RESPONDER.respond(&request);
    match reply.status {
        200 => {
            let Ok(text) = String::from_utf8(reply.body) else { return };
            let bounds = cim::xml::Bounds { depth: 1000, elements: 10_000_000, ..cimxml::limits::BOUNDS };
            assert!(bounds.parse(&text).is_ok(), "{text}");
        }
        400 | 501 => assert!(reply.headers.iter().any(|(name, _)| *name == "cimerror")),
        other => panic!("{other}"),
    }
});

//! A responder over the small host in memory that `wsman` is tested with, and requests for it.

#![allow(clippy::unwrap_used, dead_code, reason = "this is test code, and each test uses some of it")]

#[path = "../../../wsman/tests/memory/mod.rs"]
pub(crate) mod memory;

use std::path::Path;
use std::sync::Arc;

use cimxml::Responder;
use memory::{Memory, NAMESPACE, Unheard};
use wsman::Principal;
use wsman::server::{Reply, Request};

/// A host and what answers for it.
pub(crate) fn responder(memory: Memory) -> (Arc<Memory>, Responder) {
    let memory = Arc::new(memory);
    let responder = Responder::new(Arc::clone(&memory) as _, Arc::new(Unheard), "HOST");
    (memory, responder)
}

/// A request as HTTP has it.
pub(crate) fn request(headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Request {
    let find = |name: &str| headers.iter().find(|(there, _)| *there == name).map(|(_, value)| *value);
    Request {
        principal: Some(Principal { user: "ada".into(), from: "127.0.0.1".into() }),
        host: "127.0.0.1:5988".into(),
        method: "POST".into(),
        path: "/cimom".into(),
        content_type: find("content-type").unwrap_or("application/xml; charset=\"utf-8\"").to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.into(),
        received: std::time::Instant::now(),
    }
}

/// An operation of CIM itself, with the `IPARAMVALUE`s in `parameters`.
pub(crate) fn message(operation: &str, parameters: &str) -> String {
    let spaces: String = NAMESPACE.split('/').map(|part| format!("<NAMESPACE NAME=\"{part}\"/>")).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE ID=\"7\" \
         PROTOCOLVERSION=\"1.0\"><SIMPLEREQ><IMETHODCALL NAME=\"{operation}\"><LOCALNAMESPACEPATH>{spaces}\
         </LOCALNAMESPACEPATH>{parameters}</IMETHODCALL></SIMPLEREQ></MESSAGE></CIM>"
    )
}

/// Sends it with the headers that go with it.
pub(crate) fn ask(responder: &Responder, operation: &str, parameters: &str) -> String {
    let headers = [("cimoperation", "MethodCall"), ("cimmethod", operation), ("cimobject", NAMESPACE)];
    text(responder.respond(&request(&headers, message(operation, parameters))))
}

/// The body of a reply that is a message.
pub(crate) fn text(reply: Reply) -> String {
    assert_eq!(reply.status, 200, "{:?}", reply.headers);
    assert!(reply.headers.contains(&("cimoperation", "MethodResponse".to_owned())));
    String::from_utf8(reply.body).unwrap()
}

/// The requests of a recording.
pub(crate) fn recorded(name: &str) -> Vec<Request> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests").join(name);
    let file = std::fs::read_to_string(&path).unwrap();
    let sections = file.split("\n### ").skip(1);
    sections
        .map(|section| {
            let (head, body) = section.split_once("\n\n").unwrap();
            let headers = head.lines().skip(2).filter_map(|line| line.split_once(": "));
            let headers: Vec<(String, String)> =
                headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
            let borrowed: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            request(&borrowed, body.trim())
        })
        .collect()
}

/// The names of all recordings.
pub(crate) fn recordings() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests");
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

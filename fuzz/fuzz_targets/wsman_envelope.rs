//! Requests of WS-Management, over the host in memory that the protocol's tests have: no panic, and every reply is an
//! envelope, in the request's encoding and no larger than the client takes.

#![no_main]

#[path = "../../crates/wsman/tests/memory/mod.rs"]
mod memory;

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use memory::Memory;
use wsman::{Principal, Responder};

static HOST: LazyLock<(Arc<Memory>, Responder)> = LazyLock::new(|| Memory::new().responder());

fuzz_target!(|data: &[u8]| {
    let (memory, responder) = &*HOST;
    let who = Principal { user: "ada".into(), from: "here".into() };
    let answers = [Some("application/soap+xml;charset=UTF-16"), None].map(|content_type| {
        let answer = responder.answer(&who, data, content_type);
        (responder.identify(data, content_type), answer)
    });
    for answer in answers.into_iter().flat_map(|(one, other)| [one, other]) {
        assert!(matches!(answer.status, 200 | 500), "{}", answer.status);
        assert_eq!(answer.status == 500, answer.done.fault.is_some());
        let text = match answer.content_type.ends_with("UTF-16") {
            true => {
                let pairs = answer.body.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                String::from_utf16(&pairs.collect::<Vec<_>>()).expect("UTF-16")
            }
            false => String::from_utf8(answer.body).expect("UTF-8"),
        };
        let bounds = cim::xml::Bounds {
            depth: 1000,
            elements: 10_000_000,
            attributes: 1000,
            declarations: 10_000_000,
        };
        assert!(bounds.parse(text.trim_start_matches('\u{feff}')).is_ok(), "{text}");
    }
    // Methods that were called are kept for tests; here they would only grow.
    memory.called.lock().expect("nothing panics there").clear();
});

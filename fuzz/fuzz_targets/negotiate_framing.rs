//! Sealed bodies: no panic, and what was read is there. The first line is the `Content-Type`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use negotiate::framing;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (content_type, body) =
        (String::from_utf8_lossy(&data[..end]), data.get(end + 1..).unwrap_or_default());
    let Ok(read) = framing::read(&content_type, body) else { return };
    assert!(framing::is_sealed(&content_type) && read.signature.len() + read.data.len() < body.len());
    let written = framing::write(read.content_type, read.length, read.signature, read.data);
    assert_eq!(framing::read(framing::CONTENT_TYPE, &written), Ok(read));
});

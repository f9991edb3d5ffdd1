//! What a client may send before it has proven anything: as its first token, and as the one after a challenge. No panic, and
//! nothing is proven by bytes that nobody made from a hash.

#![no_main]

use libfuzzer_sys::fuzz_target;
use negotiate::{Acceptor, Fresh, Settings, Turn};

fuzz_target!(|data: &[u8]| {
    let fresh = Fresh { nonce: [7; 8], time: 0x01dd_79bb_0000_0000 };
    for sealing in [false, true] {
        let settings =
            Settings { computer: "VMS".into(), host: "vms.example".into(), sealing, binding: None };
        // The first byte says where the first token ends; the second follows.
        let (at, data) = data.split_first().unwrap_or((&0, data));
        let (first, second) = data.split_at(usize::from(*at).min(data.len()));
        let mut acceptor = Acceptor::new(settings);
        let mut legs = vec![first, second];
        if first.is_empty() {
            legs[0] = b"NTLMSSP\0\x01\0\0\0\x37\x82\x08\xe2";
        }
        for token in legs {
            if let Ok(Turn::Attempt(attempt)) = acceptor.step(token, fresh) {
                assert!(attempt.user().len() <= 2048);
                assert!(attempt.prove(&[1; 16]).is_err());
            }
        }
    }
});

//! What an NBD server may send: every decode function, and whole replies put together from a stream of chunks.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nbd::Command;
use nbd::proto::{
    BlockStatus, ChunkError, ChunkKind, Greeting, Info, InfoRequest, MetaContext, MetaQuery, OffsetHole,
    OptionReply, OptionRequest, ReplyHeader, Request, ServerItem, option,
};
use nbd::reply::{Answer, Assembly, read_header};

/// Long enough for several chunks, short enough to be quick.
const LENGTH: u32 = 512;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let _ = ReplyHeader::decode(data);
    let _ = OffsetHole::decode(data);
    let _ = BlockStatus::decode(data);
    let _ = ServerItem::decode(data);
    let _ = MetaContext::decode(data);
    let _ = MetaQuery::decode(data);
    let _ = Info::decode(data);
    let _ = InfoRequest::decode(data);
    for kind in [ChunkKind::Error, ChunkKind::ErrorOffset, ChunkKind::UnknownError(0x8003)] {
        let _ = ChunkError::decode(kind, data);
    }
    if let Some(bytes) = data.first_chunk() {
        let _ = Greeting::decode(bytes);
    }
    if let Some(bytes) = data.first_chunk() {
        let _ = OptionReply::decode(bytes);
    }
    if let Some(bytes) = data.first_chunk() {
        let _ = OptionRequest::decode_header(bytes);
    }
    if let Some(bytes) = data.first_chunk() {
        let _ = Request::decode(bytes);
    }
    if let Some(bytes) = data.first_chunk() {
        let _ = option::decode_export_name_reply(bytes);
    }

    let command = match choice & 3 {
        0 => Command::Read,
        1 => Command::BlockStatus,
        2 => Command::Write,
        _ => Command::Flush,
    };
    let mut assembly = Assembly::new(command, 4096, LENGTH, choice & 4 == 0, 0);
    let mut input = data;
    while let Ok(Some(header)) = read_header(&mut input) {
        match assembly.receive(&header, &mut input) {
            Ok(false) => {}
            Ok(true) => {
                if let Ok(Ok(Answer::Data(bytes))) = assembly.finish() {
                    assert_eq!(bytes.len(), LENGTH as usize);
                }
                return;
            }
            Err(_) => return,
        }
    }
});

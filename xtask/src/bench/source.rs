//! The disk that is exported: mixed data between holes, the same at every run.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use crate::outside::{Outcome, at};

/// Size of the disk in bytes.
const SIZE: u64 = 8 << 30;
/// Bytes of one run of data or of a hole, at most.
const MAX_RUN: u64 = 24 << 20;
/// Bytes written at a time.
const PIECE: usize = 1 << 20;
/// Share of the disk that is data, in percent.
const DATA_PERCENT: u64 = 37;

/// Writes the disk; how many bytes of it are data.
pub(super) fn make(path: &Path) -> Outcome<u64> {
    let mut file = File::create(path).map_err(at(path))?;
    file.set_len(SIZE).map_err(at(path))?;
    let mut random = Random(0x5119_a4e1);
    let mut piece = vec![0; PIECE];
    let (mut offset, mut data) = (0, 0);
    while offset < SIZE {
        let length = ((random.next() % MAX_RUN) + PIECE as u64).next_multiple_of(64 << 10).min(SIZE - offset);
        if random.next() % 100 < DATA_PERCENT {
            file.seek(SeekFrom::Start(offset)).map_err(at(path))?;
            let kind = random.next() % 100;
            let mut left = length;
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                fill(&mut piece[..now], kind, &mut random);
                file.write_all(&piece[..now]).map_err(at(path))?;
                left -= now as u64;
            }
            data += length;
        }
        offset += length;
    }
    file.sync_all().map_err(at(path))?;
    Ok(data)
}

/// About a third random, half like text, the rest zeros that were written.
fn fill(piece: &mut [u8], kind: u64, random: &mut Random) {
    match kind {
        0..35 => {
            for word in piece.chunks_mut(8) {
                let bytes = random.next().to_le_bytes();
                word.copy_from_slice(&bytes[..word.len()]);
            }
        }
        35..88 => {
            for word in piece.chunks_mut(8) {
                let text = [b'a' + (random.next() % 20) as u8; 8];
                word.copy_from_slice(&text[..word.len()]);
            }
        }
        _ => piece.fill(0),
    }
}

/// xorshift: fast, seeded, good enough to be incompressible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

//! VHDX files made by hand, independent of the crate's own encoders: any block state, any locator, any log.
//!
//! The layout is on purpose not Windows': table at 1 MiB, log at 3 MiB, metadata at 4 MiB.

use uuid::Uuid;
use vhdx::Storage;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const BAT: u64 = MIB;
pub(crate) const LOG: u64 = 3 * MIB;
pub(crate) const METADATA: u64 = 4 * MIB;
/// Where blocks begin.
pub(crate) const BLOCKS: u64 = 5 * MIB;
pub(crate) const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
pub(crate) const TABLES: [u64; 2] = [192 << 10, 256 << 10];

/// One block of a made file.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    /// A state without data, and the stale offset in MiB that the entry carries.
    State(u8, u64),
    /// All here; the byte makes the content.
    Full(u8),
    /// Here where the bit of the sector is set.
    Partial(u8, Vec<bool>),
}

#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) size: u64,
    pub(crate) block: u64,
    pub(crate) sector: u64,
    /// bit 0 fixed, bit 1 has parent.
    pub(crate) flags: u32,
    pub(crate) pairs: Vec<(String, String)>,
    pub(crate) data_write: Uuid,
    pub(crate) log: Uuid,
    pub(crate) sequences: [u64; 2],
    /// From block 0 on; the rest has state 0.
    pub(crate) blocks: Vec<Block>,
}

impl Spec {
    pub(crate) fn dynamic(size: u64) -> Self {
        Self {
            size,
            block: MIB,
            sector: 512,
            flags: 0,
            pairs: Vec::new(),
            data_write: Uuid::from_u128(1),
            log: Uuid::nil(),
            sequences: [7, 8],
            blocks: Vec::new(),
        }
    }

    /// A child of the disk with data write id `parent`, which is recorded at `path`.
    pub(crate) fn child(size: u64, parent: Uuid, path: &str) -> Self {
        let name = path.rsplit('\\').next().unwrap();
        let pair = |key: &str, value: String| (key.to_owned(), value);
        Self {
            flags: 2,
            // The five pairs of a real AVHDX, in its order.
            pairs: vec![
                pair("parent_linkage", format!("{{{parent}}}")),
                pair("absolute_win32_path", format!("C:\\VMs\\{name}")),
                pair("relative_path", path.to_owned()),
                pair("volume_path", format!("\\\\?\\Volume{{{}}}\\VMs\\{name}", Uuid::from_u128(5))),
                pair("parent_linkage2", format!("{{{}}}", Uuid::nil())),
            ],
            ..Self::dynamic(size)
        }
    }

    fn ratio(&self) -> u64 {
        (1 << 23) * self.sector / self.block
    }
}

/// What byte `offset` of the disk is in a block made with `seed`.
pub(crate) fn byte(seed: u8, offset: u64) -> u8 {
    seed.wrapping_mul(31).wrapping_add((offset / 512) as u8).wrapping_add((offset % 512 / 5) as u8) | 1
}

pub(crate) fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let crc = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

pub(crate) fn header(spec: &Spec, sequence: u64) -> Vec<u8> {
    let mut out = b"head\0\0\0\0".to_vec();
    out.extend(sequence.to_le_bytes());
    out.extend(Uuid::from_u128(2).to_bytes_le());
    out.extend(spec.data_write.to_bytes_le());
    out.extend(spec.log.to_bytes_le());
    out.extend([0, 0, 1, 0]);
    out.extend((MIB as u32).to_le_bytes());
    out.extend(LOG.to_le_bytes());
    out.resize(4096, 0);
    seal(&mut out);
    out
}

pub(crate) fn region_table(entries: &[(&str, u64, u32, u32)]) -> Vec<u8> {
    let mut out = b"regi\0\0\0\0".to_vec();
    out.extend((entries.len() as u32).to_le_bytes());
    out.extend([0; 4]);
    for (id, offset, length, required) in entries {
        out.extend(Uuid::try_parse(id).unwrap().to_bytes_le());
        out.extend(offset.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(required.to_le_bytes());
    }
    out.resize(64 << 10, 0);
    seal(&mut out);
    out
}

pub(crate) const ID_BAT: &str = "2dc27766-f623-4200-9d64-115e9bfd4a08";
pub(crate) const ID_METADATA: &str = "8b7ca206-4790-4b9a-b8fe-575f050f886e";

fn locator(pairs: &[(String, String)]) -> Vec<u8> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut out = Uuid::try_parse("b04aefb7-d19e-4a81-b789-25b8e9445913").unwrap().to_bytes_le().to_vec();
    out.extend([0; 2]);
    out.extend((pairs.len() as u16).to_le_bytes());
    let mut text = Vec::new();
    let base = 20 + 12 * pairs.len();
    for (key, value) in pairs {
        let (key, value) = (utf16(key), utf16(value));
        out.extend(((base + text.len()) as u32).to_le_bytes());
        out.extend(((base + text.len() + key.len()) as u32).to_le_bytes());
        out.extend((key.len() as u16).to_le_bytes());
        out.extend((value.len() as u16).to_le_bytes());
        text.extend(key);
        text.extend(value);
    }
    out.extend(text);
    out
}

pub(crate) fn metadata(spec: &Spec) -> Vec<u8> {
    let mut items: Vec<(&str, u32, Vec<u8>)> = vec![
        ("beca12ab-b2e6-4523-93ef-c309e000c746", 6, Uuid::from_u128(3).to_bytes_le().to_vec()),
        (
            "caa16737-fa36-4d43-b3b6-33f0aa44e76b",
            4,
            [(spec.block as u32).to_le_bytes(), spec.flags.to_le_bytes()].concat(),
        ),
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", 6, spec.size.to_le_bytes().to_vec()),
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", 6, (spec.sector as u32).to_le_bytes().to_vec()),
        ("cda348c7-445d-4471-9cc9-e9885251c556", 6, 4096_u32.to_le_bytes().to_vec()),
    ];
    if !spec.pairs.is_empty() {
        items.push(("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", 4, locator(&spec.pairs)));
    }
    let mut out = b"metadata\0\0".to_vec();
    out.extend((items.len() as u16).to_le_bytes());
    out.resize(32, 0);
    let mut data = Vec::new();
    for (id, flags, bytes) in items {
        out.extend(Uuid::try_parse(id).unwrap().to_bytes_le());
        out.extend(((64 << 10) + data.len() as u32).to_le_bytes());
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(flags.to_le_bytes());
        out.extend([0; 4]);
        data.extend(bytes);
    }
    out.resize(64 << 10, 0);
    out.extend(data);
    out
}

/// Writes the file.
pub(crate) fn build(spec: &Spec, out: &dyn Storage) {
    let put = |offset: u64, bytes: &[u8]| out.write_at(bytes, offset).unwrap();
    let mut identifier = b"vhdxfile".to_vec();
    identifier.extend("made by a test".encode_utf16().flat_map(u16::to_le_bytes));
    put(0, &identifier);
    for (sequence, offset) in spec.sequences.into_iter().zip(HEADERS) {
        put(offset, &header(spec, sequence));
    }
    let table = region_table(&[(ID_BAT, BAT, 2 << 20, 1), (ID_METADATA, METADATA, 1 << 20, 1)]);
    for offset in TABLES {
        put(offset, &table);
    }
    put(METADATA, &metadata(spec));

    let ratio = spec.ratio();
    let mut end = BLOCKS;
    let mut bitmaps: Vec<Option<u64>> = Vec::new();
    for (number, block) in (0_u64..).zip(&spec.blocks) {
        let chunk = (number / ratio) as usize;
        bitmaps.resize(bitmaps.len().max(chunk + 1), None);
        let base = number * spec.block;
        let used = spec.block.min(spec.size - base);
        let entry = match block {
            Block::State(state, stale) => u64::from(*state) | stale << 20,
            Block::Full(seed) => {
                let bytes: Vec<u8> = (base..base + used).map(|at| byte(*seed, at)).collect();
                put(end, &bytes);
                let entry = 6 | end;
                end += spec.block;
                entry
            }
            Block::Partial(seed, bits) => {
                let bitmap = *bitmaps[chunk].get_or_insert_with(|| {
                    end += MIB;
                    end - MIB
                });
                let sectors = spec.block / spec.sector;
                let mut map = vec![0_u8; (sectors / 8) as usize];
                for (index, bit) in (0_u64..sectors).zip(bits) {
                    let at = base + index * spec.sector;
                    if *bit && at < spec.size {
                        map[(index / 8) as usize] |= 1 << (index % 8);
                        let bytes: Vec<u8> = (at..at + spec.sector).map(|at| byte(*seed, at)).collect();
                        put(end + index * spec.sector, &bytes);
                    }
                }
                put(bitmap + (number % ratio) * sectors / 8, &map);
                let entry = 7 | end;
                end += spec.block;
                entry
            }
        };
        put(BAT + (number + number / ratio) * 8, &entry.to_le_bytes());
    }
    for (chunk, bitmap) in (0_u64..).zip(&bitmaps) {
        if let Some(offset) = bitmap {
            put(BAT + (chunk * (ratio + 1) + ratio) * 8, &(6 | offset).to_le_bytes());
        }
    }
    out.set_len(end).unwrap();
}

/// A log entry: sectors to write and ranges to zero, in this order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) tail: u32,
    pub(crate) sectors: Vec<(u64, Vec<u8>)>,
    pub(crate) zeros: Vec<(u64, u64)>,
    pub(crate) flushed: u64,
    pub(crate) last: u64,
}

impl Entry {
    pub(crate) fn encode(&self, log: Uuid) -> Vec<u8> {
        let count = self.sectors.len() + self.zeros.len();
        let table = (64 + 32 * count).next_multiple_of(4096);
        let length = table + 4096 * self.sectors.len();
        let mut out = b"loge\0\0\0\0".to_vec();
        out.extend((length as u32).to_le_bytes());
        out.extend(self.tail.to_le_bytes());
        out.extend(self.sequence.to_le_bytes());
        out.extend((count as u32).to_le_bytes());
        out.extend([0; 4]);
        out.extend(log.to_bytes_le());
        out.extend(self.flushed.to_le_bytes());
        out.extend(self.last.to_le_bytes());
        for (offset, length) in &self.zeros {
            out.extend(b"zero\0\0\0\0");
            out.extend(length.to_le_bytes());
            out.extend(offset.to_le_bytes());
            out.extend(self.sequence.to_le_bytes());
        }
        for (offset, bytes) in &self.sectors {
            out.extend(b"desc");
            out.extend(&bytes[4092..]);
            out.extend(&bytes[..8]);
            out.extend(offset.to_le_bytes());
            out.extend(self.sequence.to_le_bytes());
        }
        out.resize(table, 0);
        for (_, bytes) in &self.sectors {
            out.extend(b"data");
            out.extend(((self.sequence >> 32) as u32).to_le_bytes());
            out.extend(&bytes[8..4092]);
            out.extend((self.sequence as u32).to_le_bytes());
        }
        seal(&mut out);
        out
    }
}

/// Writes `bytes` into the log from `offset` in it, round the end if need be.
pub(crate) fn put_log(out: &dyn Storage, offset: u64, bytes: &[u8]) {
    for (index, sector) in (0_u64..).zip(bytes.chunks(4096)) {
        out.write_at(sector, LOG + (offset + index * 4096) % MIB).unwrap();
    }
}

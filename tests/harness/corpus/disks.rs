//! Disks that show more than they hold, lie about their parts, or are none.

use super::formats::{utf16, vhd, vhdx};
use super::{Case, Expected, Site, found, harmless, outcome};
use crate::bundle::Sparse;
use vhdx::{FULL, MIB, TABLE};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = no_disks();
    cases.extend(vhdx_structures());
    cases.extend(vhdx_blocks());
    cases.extend(vhdx_logs());
    cases.extend(vhds());
    cases
}

/// A disk that cannot be read; `verify` says it by the rule `rule`.
fn unreadable(name: &str, about: &str, disk: Sparse, rule: &str) -> Case {
    Site::with_disk(disk).case(&format!("disk-{name}"), about, found("disk-unreadable", rule))
}

fn no_disks() -> Vec<Case> {
    let mut qcow2 = b"QFI\xfb\0\0\0\x03".to_vec();
    qcow2.extend(33_u64.to_be_bytes());
    qcow2.extend(19_u32.to_be_bytes());
    qcow2.resize(512, 0);
    let name = b"/etc/passwd";
    qcow2.splice(33..33 + name.len(), *name);
    let no = "disk.unreadable";
    vec![
        unreadable("empty", "A disk's name on an empty file.", Sparse::new(0), no),
        unreadable("of-noise", "Noise in place of a disk.", Sparse::from(crate::scratch::noise(5, 4096)), no),
        unreadable("of-qcow2", "A disk of QEMU's, with another file below it.", Sparse::from(qcow2), no),
        unreadable("of-zeros", "Four terabytes of zeros.", Sparse::new(1 << 42), no),
        unreadable(
            "of-a-signature",
            "A signature and nothing else.",
            Sparse::from(b"vhdxfile".to_vec()),
            "vhdx.header.missing",
        ),
    ]
}

/// The small disk, changed.
fn changed(change: impl FnOnce(&mut Sparse)) -> Sparse {
    let mut file = vhdx::Disk::small().build();
    change(&mut file);
    file
}

fn vhdx_structures() -> Vec<Case> {
    let of = |change: &dyn Fn(&mut vhdx::Disk)| {
        let mut disk = vhdx::Disk::small();
        change(&mut disk);
        disk.build()
    };
    let regions = |table: (u64, u64), metadata: (u64, u64)| {
        changed(|file| {
            for at in vhdx::REGIONS {
                file.put(at, &vhdx::regions_at(table, metadata));
            }
        })
    };
    let header = |field: usize, value: &[u8]| {
        changed(|file| {
            for at in vhdx::HEADERS {
                let mut bytes = file.get(at, 4096);
                bytes[field..field + value.len()].copy_from_slice(value);
                vhdx::seal(&mut bytes);
                file.put(at, &bytes);
            }
        })
    };
    let metadata = |at: u64, bytes: &[u8]| changed(|file| file.put(vhdx::METADATA + at, bytes));
    let unreadable =
        |name: &str, about: &str, disk, rule: &str| unreadable(&format!("vhdx-{name}"), about, disk, rule);
    let mib = MIB;
    vec![
        unreadable(
            "size",
            "A disk of eight exabytes.",
            of(&|d| d.size = 1 << 63),
            "vhdx.metadata.virtual-size",
        ),
        unreadable(
            "block",
            "Blocks of three bytes.",
            metadata(64 << 10, &3_u32.to_le_bytes()),
            "vhdx.metadata.block-size",
        ),
        unreadable(
            "block-of-nothing",
            "Blocks of no bytes.",
            metadata(64 << 10, &[0; 4]),
            "vhdx.metadata.block-size",
        ),
        unreadable(
            "sector",
            "Sectors of a byte.",
            metadata((64 << 10) + 16, &1_u32.to_le_bytes()),
            "vhdx.metadata.sector-size",
        ),
        unreadable(
            "sector-of-nothing",
            "Sectors of no bytes.",
            metadata((64 << 10) + 16, &[0; 4]),
            "vhdx.metadata.sector-size",
        ),
        unreadable(
            "items",
            "Sixty-five thousand items of metadata.",
            metadata(10, &[0xff; 2]),
            "vhdx.metadata.table",
        ),
        unreadable(
            "item-outside",
            "An item of metadata behind its region.",
            metadata(32 + 16, &u32::MAX.to_le_bytes()),
            "vhdx.metadata.item-place",
        ),
        unreadable(
            "item-unknown",
            "An item of metadata that nobody knows and all must.",
            metadata(32, &[0xee; 16]),
            "vhdx.metadata.unknown",
        ),
        unreadable(
            "item-twice",
            "An item of metadata that is there twice.",
            changed(|f| {
                let item = f.get(vhdx::METADATA + 32, 16);
                f.put(vhdx::METADATA + 64, &item);
            }),
            "vhdx.metadata.duplicate",
        ),
        unreadable(
            "table-outside",
            "A table behind the end of the file.",
            regions((1 << 46, mib), (vhdx::METADATA, mib)),
            "vhdx.region.outside",
        ),
        unreadable(
            "table-over-headers",
            "A table where the headers are.",
            regions((0, mib), (vhdx::METADATA, mib)),
            "vhdx.region.place",
        ),
        unreadable(
            "table-beyond-all",
            "A table at the end of all numbers.",
            regions((u64::MAX - mib + 1, mib), (vhdx::METADATA, mib)),
            "vhdx.region.place",
        ),
        unreadable(
            "metadata-outside",
            "Metadata behind the end of the file.",
            regions((TABLE, mib), (1 << 46, mib)),
            "vhdx.region.outside",
        ),
        unreadable(
            "table-short",
            "A table too short for the disk.",
            of(&|d| d.size = 64 << 40).clone_with_regions((TABLE, mib)),
            "vhdx.unreadable",
        ),
        unreadable(
            "version",
            "A version of the format that there is not.",
            header(66, &[0xff; 2]),
            "vhdx.header.version",
        ),
        unreadable(
            "sequence",
            "No header that counts.",
            changed(|f| {
                for at in vhdx::HEADERS {
                    f.put(at, b"HEAD");
                }
            }),
            "vhdx.header.missing",
        ),
        unreadable(
            "checksum",
            "Headers that were changed, and their checksums were not.",
            changed(|f| {
                for at in vhdx::HEADERS {
                    f.put(at + 100, b"x");
                }
            }),
            "vhdx.header.checksum",
        ),
    ]
}

impl Sparse {
    /// The same file with its table said to be somewhere else.
    fn clone_with_regions(mut self, table: (u64, u64)) -> Self {
        for at in vhdx::REGIONS {
            self.put(at, &vhdx::regions_at(table, (vhdx::METADATA, MIB)));
        }
        self
    }
}

fn vhdx_blocks() -> Vec<Case> {
    let overlap = |name: &str, about: &str, disk: &vhdx::Disk| {
        let expected = found("disk-overlap", "vhdx.bat.overlap");
        Site::with_disk(disk.build()).case(&format!("disk-vhdx-{name}"), about, expected)
    };
    let end = |disk: &vhdx::Disk| TABLE + disk.table_length();
    let small = vhdx::Disk::small();
    // 64 TiB, every block of which is the same 256 MiB of a file that is nearly all hole.
    let mut bomb = vhdx::Disk { size: 64 << 40, block: 256 << 20, blocks: 256 << 20, ..small.clone() };
    let block = FULL | end(&bomb);
    // With the entries between them that a disk without a parent has no use for.
    bomb.table = (0..(64_u64 << 40) / (256 << 20) * 17 / 16).map(|n| (n, block)).collect();
    let twice = vhdx::Disk { table: vec![(0, FULL | end(&small)), (2, FULL | end(&small))], ..small.clone() };
    let over_itself = vhdx::Disk { table: vec![(0, FULL | TABLE)], ..small.clone() };
    let behind = vhdx::Disk { table: vec![(0, FULL | (1 << 50))], ..small.clone() };
    let before = vhdx::Disk { table: vec![(0, FULL)], ..small.clone() };
    let state = vhdx::Disk { table: vec![(0, 5 | end(&small))], ..small.clone() };
    let partial = vhdx::Disk { table: vec![(0, vhdx::PARTIAL | end(&small))], ..small.clone() };
    let huge = vhdx::Disk { size: 8 << 40, table: Vec::new(), blocks: 0, ..small.clone() };
    let reserved = vhdx::Disk { table: vec![(0, FULL | end(&small) | 0xf_fff8)], ..small.clone() };
    let outside = "vhdx.bat.outside";
    vec![
        overlap("bomb", "Sixty-four terabytes in a file of some hundred kilobytes.", &bomb),
        overlap("blocks-over-each-other", "Two blocks in one place.", &twice),
        overlap("block-over-the-table", "A block that is the table itself.", &over_itself),
        unreadable(
            "vhdx-block-behind-the-end",
            "A block behind the end of the file.",
            behind.build(),
            outside,
        ),
        unreadable("vhdx-block-over-headers", "A block where the headers are.", before.build(), outside),
        unreadable(
            "vhdx-block-state",
            "A block in a state that there is not.",
            state.build(),
            "vhdx.bat.state-unknown",
        ),
        unreadable(
            "vhdx-block-partial",
            "A block that is partly its parent's, which the disk has not.",
            partial.build(),
            "vhdx.bat.state-illegal",
        ),
        Site::with_disk(huge.build()).case(
            "disk-vhdx-of-eight-terabytes",
            "Eight terabytes of nothing.",
            harmless(""),
        ),
        Site::with_disk(reserved.build()).case(
            "disk-vhdx-reserved-bits",
            "Bits set that must not be.",
            harmless("vhdx.bat.reserved"),
        ),
    ]
}

fn vhdx_logs() -> Vec<Case> {
    let of = |entry: Vec<u8>| vhdx::Disk { log: Some(vec![entry]), ..vhdx::Disk::small() }.build();
    let at = |offset: u64| of(vhdx::log_entry(&[(offset, [0xee; 4096])], &[], 5 * MIB));
    let zeros = |offset: u64, length: u64, last: u64| of(vhdx::log_entry(&[], &[(offset, length)], last));
    let unreadable = |name: &str, about: &str, disk, rule: &str| {
        unreadable(&format!("vhdx-log-{name}"), about, disk, rule)
    };
    // The whole log full of entries that each claim all of it.
    let mut over = vhdx::Disk { log: Some(Vec::new()), ..vhdx::Disk::small() }.build();
    let mut entry = vhdx::log_entry(&[], &[], 5 * MIB);
    entry[8..12].copy_from_slice(&(MIB as u32).to_le_bytes());
    for n in 0..256 {
        over.put(vhdx::LOG + n * 4096, &entry);
    }
    let mut region = vhdx::regions_at((TABLE, MIB), (1 << 46, MIB));
    region.truncate(4096);
    let region = of(vhdx::log_entry(&[(vhdx::REGIONS[0], region.try_into().expect("4 KiB"))], &[], 5 * MIB));
    let invalid = "vhdx.log.invalid";
    vec![
        unreadable(
            "over-headers",
            "A log that writes over the headers.",
            at(vhdx::HEADERS[1]),
            "vhdx.log.target",
        ),
        unreadable(
            "over-the-identifier",
            "A log that clears the file's first bytes.",
            zeros(0, 64 << 10, 5 * MIB),
            "vhdx.log.target",
        ),
        unreadable("into-itself", "A log that writes into itself.", at(vhdx::LOG), "vhdx.unreadable"),
        unreadable("beyond", "A log that writes far behind the end.", at(1 << 46), invalid),
        unreadable(
            "grows",
            "A log by which the file grows to four exabytes.",
            zeros(TABLE, 4096, 1 << 62),
            invalid,
        ),
        unreadable("over-itself", "A log of entries that each claim all of it.", over, invalid),
        unreadable(
            "empty",
            "A log that is in use and has no entry.",
            vhdx::Disk { log: Some(Vec::new()), ..vhdx::Disk::small() }.build(),
            "vhdx.log.sequence",
        ),
        unreadable("over-regions", "A log that damages a region table.", region, "vhdx.region.outside"),
        unreadable(
            "clears-all",
            "A log that clears metadata and table.",
            zeros(vhdx::METADATA, 2 * MIB, 5 * MIB),
            "vhdx.metadata.table",
        ),
    ]
}

fn vhds() -> Vec<Case> {
    let of = |change: &dyn Fn(&mut vhd::Disk)| {
        let mut disk = vhd::Disk::small();
        change(&mut disk);
        disk.build()
    };
    let footer = |field: usize, value: &[u8]| {
        let mut file = vhd::Disk::small().build();
        for at in [0, file.size - 512] {
            let mut bytes = file.get(at, 512);
            bytes[field..field + value.len()].copy_from_slice(value);
            vhd::seal(&mut bytes, 64);
            file.put(at, &bytes);
        }
        file
    };
    let header = |field: usize, value: &[u8]| {
        let mut file = vhd::Disk::small().build();
        let mut bytes = file.get(vhd::HEADER, 1024);
        bytes[field..field + value.len()].copy_from_slice(value);
        vhd::seal(&mut bytes, 36);
        file.put(vhd::HEADER, &bytes);
        file
    };
    let unreadable =
        |name: &str, about: &str, disk, rule: &str| unreadable(&format!("vhd-{name}"), about, disk, rule);
    // A table of zeros, which costs nothing and says that every block is at the start of the file.
    let bomb = vhd::Disk { size: 2040 << 30, block: 512, table: None, ..vhd::Disk::small() }.build();
    let twice = of(&|d| {
        d.blocks = 3 << 20;
        d.table = Some(vec![8, 8]);
    });
    let behind = of(&|d| d.table = Some(vec![u32::MAX - 1]));
    let mut fixed = vhd::Disk { kind: 2, ..vhd::Disk::small() }.build();
    fixed.put(8, &utf16("what the guest sees"));
    let case = |name: &str, about: &str, disk, expected| {
        Site::with_disk(disk).case(&format!("disk-vhd-{name}"), about, expected)
    };
    vec![
        unreadable(
            "size",
            "A disk of eight exabytes.",
            footer(48, &(1_u64 << 63).to_be_bytes()),
            "vhd.footer.size",
        ),
        unreadable("size-of-nothing", "A disk of no bytes.", footer(48, &[0; 8]), "vhd.footer.size"),
        unreadable(
            "kind",
            "A kind of disk that there is not.",
            footer(60, &99_u32.to_be_bytes()),
            "vhd.footer.type",
        ),
        unreadable(
            "header-outside",
            "A header behind the end of the file.",
            footer(16, &(1_u64 << 60).to_be_bytes()),
            "vhd.header.outside",
        ),
        unreadable(
            "header-at-the-end",
            "A header at the end of all numbers.",
            footer(16, &(u64::MAX - 1).to_be_bytes()),
            "vhd.header.outside",
        ),
        unreadable(
            "block",
            "Blocks of three bytes.",
            header(32, &3_u32.to_be_bytes()),
            "vhd.header.block-size",
        ),
        unreadable("block-of-nothing", "Blocks of no bytes.", header(32, &[0; 4]), "vhd.header.block-size"),
        unreadable("entries", "A table of no entries.", header(28, &[0; 4]), "vhd.bat.entries"),
        unreadable(
            "table-outside",
            "A table behind the end of the file.",
            header(16, &(1_u64 << 60).to_be_bytes()),
            "vhd.bat.outside",
        ),
        unreadable(
            "block-behind-the-end",
            "A block behind the end of the file.",
            behind,
            "vhd.block.outside",
        ),
        unreadable("cut", "A fixed disk whose data is not there.", fixed, "vhd.fixed.truncated"),
        case(
            "bomb",
            "Two terabytes of blocks in one place, in a table that is a hole.",
            bomb,
            Expected { verify: outcome(4, "vhd.bat.too-many"), ..found("disk-overlap", "x") },
        ),
        case(
            "blocks-over-each-other",
            "Two blocks in one place.",
            twice,
            found("disk-overlap", "vhd.block.overlap"),
        ),
    ]
}

//! Boot entries: `Boot####`, `BootOrder`, and the device paths in them (UEFI specification 3.1.3 and 10.3).
//!
//! Entries are written in short form, `HD(…)/File(…)`: firmware finds the partition on whatever controller it sits, which
//! is what lets a disk move between machines. Adding an entry twice leaves one: steps of a job may run again.

use uuid::Uuid;

use super::{GLOBAL, NV_BS_RT, VarStore, Variable};

const ACTIVE: u32 = 1;
const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;
const FILE_PATH: u8 = 4;
const END: u8 = 0x7f;
/// Bytes of a hard drive node.
const HARD_DRIVE_NODE: usize = 42;
/// Most nodes of a device path that are followed.
const MAX_NODES: usize = 64;
/// Most boot entries carried over from another firmware.
pub const MAX_CARRIED: usize = 64;

/// What a new boot entry leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootEntry {
    /// What the firmware's menu shows.
    pub description: String,
    /// Partition number, from 1.
    pub partition: u32,
    /// First sector.
    pub start_sector: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// How the partition is known.
    pub identity: PartitionIdentity,
    /// Path on the partition, with backslashes: `\EFI\debian\shimx64.efi`.
    pub loader: String,
}

/// How a partition is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionIdentity {
    /// The partition's own GUID.
    Gpt(Uuid),
    /// The disk's signature.
    Mbr(u32),
}

impl BootEntry {
    fn to_bytes(&self) -> Vec<u8> {
        let mut path = vec![MEDIA, HARD_DRIVE, 42, 0];
        path.extend(self.partition.to_le_bytes());
        path.extend(self.start_sector.to_le_bytes());
        path.extend(self.sectors.to_le_bytes());
        match self.identity {
            PartitionIdentity::Gpt(id) => {
                path.extend(id.to_bytes_le());
                path.extend([2, 2]);
            }
            PartitionIdentity::Mbr(signature) => {
                path.extend(signature.to_le_bytes());
                path.extend([0; 12]);
                path.extend([1, 1]);
            }
        }
        let file: Vec<u8> = self.loader.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        path.extend([MEDIA, FILE_PATH]);
        path.extend(((file.len() + 4) as u16).to_le_bytes());
        path.extend(file);
        path.extend([END, 0xff, 4, 0]);
        option(ACTIVE, &self.description, &path, &[])
    }
}

fn option(attributes: u32, description: &str, path: &[u8], optional: &[u8]) -> Vec<u8> {
    let mut out = attributes.to_le_bytes().to_vec();
    out.extend((path.len() as u16).to_le_bytes());
    out.extend(description.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    out.extend(path);
    out.extend(optional);
    out
}

/// A boot entry as it is in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOption {
    /// Whether the firmware tries it.
    pub active: bool,
    /// What the firmware's menu shows.
    pub description: String,
    /// The partition its path leads to: number and identity.
    pub partition: Option<(u32, PartitionIdentity)>,
    /// The file on it, as the path spells it.
    pub loader: Option<String>,
}

/// Where in the boot order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Tried before all others.
    First,
    /// Tried after all others.
    Last,
}

/// The parts of a load option, as they lie in it.
struct Parts<'a> {
    attributes: u32,
    description: String,
    path: &'a [u8],
    optional: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(load_option: &'a [u8]) -> Option<Self> {
        let attributes = u32::from_le_bytes(load_option.get(..4)?.try_into().ok()?);
        let length = usize::from(u16::from_le_bytes(load_option.get(4..6)?.try_into().ok()?));
        let rest = load_option.get(6..)?;
        let end = rest.chunks_exact(2).position(|c| c == [0, 0])? * 2;
        let description = super::utf16(&rest[..end])?;
        let (path, optional) = rest[end + 2..].split_at_checked(length)?;
        Some(Self { attributes, description, path, optional })
    }

    /// The nodes of the first path, each with its header; `None` when one is cut off or no end comes.
    fn nodes(&self) -> Option<Vec<&'a [u8]>> {
        let mut nodes = Vec::new();
        let mut rest = self.path;
        while nodes.len() < MAX_NODES {
            let [kind, _, low, high] = *rest.first_chunk()?;
            let size = usize::from(u16::from_le_bytes([low, high]));
            if size < 4 {
                return None;
            }
            let (node, after) = rest.split_at_checked(size)?;
            if kind == END {
                return Some(nodes);
            }
            nodes.push(node);
            rest = after;
        }
        None
    }

    /// The nodes from the partition on, if they are a partition and files on it.
    fn short(&self) -> Option<Vec<&'a [u8]>> {
        let nodes = self.nodes()?;
        let at =
            nodes.iter().position(|n| n.starts_with(&[MEDIA, HARD_DRIVE]) && n.len() == HARD_DRIVE_NODE)?;
        let short = nodes[at..].to_vec();
        let files = short[1..].iter().all(|n| n.starts_with(&[MEDIA, FILE_PATH]));
        (files && short.len() > 1).then_some(short)
    }
}

fn loader(files: &[&[u8]]) -> Option<String> {
    let parts: Option<Vec<String>> = files.iter().map(|n| super::utf16(&n[4..])).collect();
    Some(parts?.join("\\").replace("\\\\", "\\"))
}

impl LoadOption {
    /// Reads a `Boot####` value; `None` when it makes no sense.
    pub fn parse(load_option: &[u8]) -> Option<Self> {
        let parts = Parts::of(load_option)?;
        parts.nodes()?;
        let short = parts.short();
        let partition = short.as_ref().and_then(|nodes| {
            let drive = nodes[0];
            let identity = match drive[40..42] {
                [2, 2] => PartitionIdentity::Gpt(Uuid::from_bytes_le(drive[24..40].try_into().ok()?)),
                [1, 1] => PartitionIdentity::Mbr(u32::from_le_bytes(drive[24..28].try_into().ok()?)),
                _ => return None,
            };
            Some((u32::from_le_bytes(drive[4..8].try_into().ok()?), identity))
        });
        Some(Self {
            active: parts.attributes & ACTIVE != 0,
            description: parts.description,
            partition,
            loader: short.and_then(|nodes| loader(&nodes[1..])),
        })
    }
}

/// Whether two load options start the same file with the same words. Firmware tells partitions by number and signature;
/// where they begin only helps people, and names of files on FAT have no case.
fn same(a: &[u8], b: &[u8]) -> bool {
    let key = |bytes: &[u8]| -> Option<(u32, PartitionIdentity, String, Vec<u8>)> {
        let option = LoadOption::parse(bytes).filter(|o| o.active)?;
        let (number, identity) = option.partition?;
        Some((number, identity, option.loader?.to_lowercase(), Parts::of(bytes)?.optional.to_vec()))
    };
    a == b || key(a).is_some_and(|a| key(b) == Some(a))
}

/// A variable of another firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignVariable<'a> {
    /// Name space.
    pub vendor: Uuid,
    /// Name.
    pub name: &'a str,
    /// Value.
    pub data: &'a [u8],
}

/// The load options among another firmware's variables that lead to a file on a partition, in their boot order, as they
/// would be written here: in short form.
pub fn portable_entries(variables: &[ForeignVariable<'_>]) -> Vec<Vec<u8>> {
    let find = |name: &str| variables.iter().find(|v| v.vendor == GLOBAL && v.name == name);
    let listed: Vec<u16> = find("BootOrder").map(|v| numbers(v.data)).unwrap_or_default();
    let mut all: Vec<u16> = listed;
    for v in variables.iter().filter(|v| v.vendor == GLOBAL) {
        if let Some(n) = number_of(v.name)
            && !all.contains(&n)
        {
            all.push(n);
        }
    }
    all.iter()
        .filter_map(|n| find(&format!("Boot{n:04X}")).and_then(|v| shorten(v.data)))
        .take(MAX_CARRIED)
        .collect()
}

/// A load option with its device path cut to `HD(…)/File(…)`; `None` when it has no such part, or is switched off. What
/// the loader is handed is kept.
pub fn shorten(load_option: &[u8]) -> Option<Vec<u8>> {
    let parts = Parts::of(load_option).filter(|p| p.attributes & ACTIVE != 0)?;
    let mut path = parts.short()?.concat();
    path.extend([END, 0xff, 4, 0]);
    Some(option(parts.attributes, &parts.description, &path, parts.optional))
}

fn numbers(data: &[u8]) -> Vec<u16> {
    data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect()
}

/// `Boot0007` is number 7.
fn number_of(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?;
    (digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)))
        .then(|| u16::from_str_radix(digits, 16).ok())?
}

impl VarStore {
    /// The order in which firmware tries boot entries.
    pub fn boot_order(&self) -> Vec<u16> {
        self.get(GLOBAL, "BootOrder").map(|v| numbers(&v.data)).unwrap_or_default()
    }

    /// The boot entries that make sense, by number.
    pub fn boot_entries(&self) -> Vec<(u16, LoadOption)> {
        let mut all: Vec<_> = self
            .variables()
            .iter()
            .filter(|v| v.vendor == GLOBAL)
            .filter_map(|v| Some((number_of(&v.name)?, LoadOption::parse(&v.data)?)))
            .collect();
        all.sort_by_key(|(n, _)| *n);
        all
    }

    /// Adds a boot entry as [`VarStore::add_load_option`] does; its number.
    pub fn add_boot_entry(&mut self, entry: &BootEntry) -> u16 {
        self.add_load_option(entry.to_bytes())
    }

    /// Adds a load option, as [`portable_entries`] gives it; its number. In the boot order it comes after all entries
    /// that lead to a file on a partition and before the firmware's own (setup, shell, whole disks, network), which some
    /// templates bring along and which would start first otherwise. An entry that leads to the same file is taken instead
    /// of a new one, and keeps its place.
    pub fn add_load_option(&mut self, load_option: Vec<u8>) -> u16 {
        let number = self.put(load_option);
        let mut order = self.boot_order();
        if !order.contains(&number) {
            let installed = |n: u16| {
                let entry =
                    self.get(GLOBAL, &format!("Boot{n:04X}")).and_then(|v| LoadOption::parse(&v.data));
                entry.is_some_and(|e| e.loader.is_some())
            };
            let at = order.iter().position(|n| !installed(*n)).unwrap_or(order.len());
            order.insert(at, number);
            self.set_order(&order);
        }
        number
    }

    /// Puts an entry first or last in the boot order, moving it if it is there.
    pub fn place(&mut self, number: u16, place: Place) {
        let mut order = self.boot_order();
        order.retain(|n| *n != number);
        match place {
            Place::First => order.insert(0, number),
            Place::Last => order.push(number),
        }
        self.set_order(&order);
    }

    /// Removes an entry, from the order too; whether it was there.
    pub fn remove_boot_entry(&mut self, number: u16) -> bool {
        let mut order = self.boot_order();
        order.retain(|n| *n != number);
        self.set_order(&order);
        self.delete(GLOBAL, &format!("Boot{number:04X}"))
    }

    fn set_order(&mut self, order: &[u16]) {
        let data = order.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.set(GLOBAL, "BootOrder", NV_BS_RT, data);
    }

    fn put(&mut self, load_option: Vec<u8>) -> u16 {
        let known = |v: &&Variable| v.vendor == GLOBAL && same(&v.data, &load_option);
        let there = self.variables().iter().filter(known).find_map(|v| number_of(&v.name));
        there.unwrap_or_else(|| {
            let free = |n: &u16| self.get(GLOBAL, &format!("Boot{n:04X}")).is_none();
            // Some number is free: there are fewer variables than numbers (`MAX_VARIABLES`).
            let number = (0..=u16::MAX).find(free).unwrap_or(u16::MAX);
            self.set(GLOBAL, &format!("Boot{number:04X}"), NV_BS_RT, load_option);
            number
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> BootEntry {
        BootEntry {
            description: "debian".into(),
            partition: 1,
            start_sector: 2048,
            sectors: 192_512,
            identity: PartitionIdentity::Mbr(0x51ab_0001),
            loader: r"\EFI\debian\shimx64.efi".into(),
        }
    }

    #[test]
    fn a_long_path_is_cut_to_the_part_that_moves_with_the_disk() {
        let short = entry().to_bytes();
        let path_at = 6 + 2 * ("debian".len() + 1);
        // ACPI root and a VMBus device in front, as Hyper-V's firmware writes them.
        let mut path = vec![2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0];
        path.extend([1, 4, 24, 0]);
        path.extend([9; 20]);
        path.extend(&short[path_at..]);
        let long = option(1, "debian", &path, &[]);
        assert_eq!(shorten(&long), Some(short.clone()));
        assert_eq!(shorten(&short), Some(short.clone()));
        let network = option(1, "net", &[3, 11, 6, 0, 1, 2, END, 0xff, 4, 0], &[]);
        assert_eq!(shorten(&network), None);
        for cut in 0..long.len() {
            let _ = shorten(&long[..cut]);
            for at in 0..cut {
                let mut bent = long.clone();
                bent[at] ^= 1 << (cut % 8);
                let _ = (shorten(&bent), LoadOption::parse(&bent));
            }
        }
        let off = option(0, "off", &short[path_at..], &[]);
        assert_eq!(shorten(&off), None, "what was switched off stays off");
        // Windows hands its loader a word, which has to come along.
        let windows = option(1, "Windows Boot Manager", &path, b"WINDOWS\0");
        assert!(shorten(&windows).unwrap().ends_with(b"\x7f\xff\x04\0WINDOWS\0"));
    }

    #[test]
    fn entries_of_another_firmware_come_in_its_order() {
        let (a, b) = (entry().to_bytes(), BootEntry { description: "b".into(), ..entry() }.to_bytes());
        let v = |name, data| ForeignVariable { vendor: GLOBAL, name, data };
        let order = [2, 0, 1, 0];
        let list = [v("Boot0001", &a), v("Boot0002", &b), v("BootOrder", &order), v("BootNext", &order)];
        assert_eq!(portable_entries(&list), [b, a]);
    }

    #[test]
    fn entries_are_added_once_and_moved_in_the_order() {
        let path = std::path::Path::new("/usr/share/OVMF/OVMF_VARS_4M.fd");
        if !path.exists() {
            println!("skipped: {} is not installed", path.display());
            return;
        }
        let mut store = VarStore::read(path).unwrap();
        let first = store.add_boot_entry(&entry());
        let gpt = PartitionIdentity::Gpt(Uuid::from_u128(0x51ab_0001));
        let other = BootEntry { identity: gpt, loader: r"\EFI\redhat\shimx64.efi".into(), ..entry() };
        let second = store.add_boot_entry(&other);
        assert_eq!((store.boot_order(), first, second), (vec![0, 1], 0, 1));
        // The same file under another name and spelling is the same entry.
        let again =
            BootEntry { description: "x".into(), loader: r"\efi\DEBIAN\shimx64.efi".into(), ..entry() };
        assert_eq!(store.add_boot_entry(&again), first);
        assert_eq!(store.boot_order(), [0, 1]);
        store.place(second, Place::First);
        assert_eq!(store.boot_order(), [1, 0]);
        let entries = store.boot_entries();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].1.partition, Some((1, gpt)));
        assert_eq!(entries[0].1.partition, Some((1, PartitionIdentity::Mbr(0x51ab_0001))));
        assert_eq!(entries[0].1.loader.as_deref(), Some(r"\EFI\debian\shimx64.efi"));
        assert!(store.remove_boot_entry(first) && !store.remove_boot_entry(first));
        assert_eq!(store.boot_order(), [1]);
        assert_eq!(store.add_boot_entry(&entry()), first, "a free number is used again");
    }
}

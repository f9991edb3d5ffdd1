//! Boot entries: `Boot####`, `BootOrder`, and the device paths in them (UEFI specification 3.1.3 and 10.3).
//!
//! Entries are written in short form, `HD(…)/File(…)`: firmware finds the partition on whatever controller it sits, which
//! is what lets a disk move between machines.

use uuid::Uuid;

use super::{GLOBAL, NV_BS_RT, VarStore, Variable};

const ACTIVE: u32 = 1;
const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;
const FILE_PATH: u8 = 4;
const END: u8 = 0x7f;
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

/// A load option with its device path cut to `HD(…)/File(…)`; `None` when it has no such part.
pub fn shorten(load_option: &[u8]) -> Option<Vec<u8>> {
    let attributes = u32::from_le_bytes(load_option.get(..4)?.try_into().ok()?);
    let length = usize::from(u16::from_le_bytes(load_option.get(4..6)?.try_into().ok()?));
    let rest = load_option.get(6..)?;
    let end = rest.chunks_exact(2).position(|c| c == [0, 0])? * 2;
    let description = super::utf16(&rest[..end])?;
    let path = rest.get(end + 2..end + 2 + length)?;
    let optional = rest.get(end + 2 + length..)?;
    let mut at = 0;
    for _ in 0..MAX_NODES {
        let [kind, subtype, low, high] = *path.get(at..at + 4)? else { return None };
        let size = usize::from(u16::from_le_bytes([low, high]));
        if size < 4 || kind == END && subtype == 0xff {
            return None;
        }
        let node = path.get(at..at + size)?;
        if kind == MEDIA && subtype == HARD_DRIVE {
            let file = &path[at + size..];
            if file.first() != Some(&MEDIA) || file.get(1) != Some(&FILE_PATH) {
                return None;
            }
            debug_assert_eq!(node.len(), size);
            return Some(option(attributes | ACTIVE, &description, &path[at..], optional));
        }
        at += size;
    }
    None
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

    /// Adds a boot entry at the end of the boot order; its number.
    pub fn add_boot_entry(&mut self, entry: &BootEntry) -> u16 {
        self.add_load_option(entry.to_bytes())
    }

    /// Adds a load option, as [`portable_entries`] gives it, at the end of the boot order; its number. One that is there
    /// already is not added twice.
    pub fn add_load_option(&mut self, load_option: Vec<u8>) -> u16 {
        let known = |v: &Variable| v.vendor == GLOBAL && v.data == load_option;
        let there = self.variables().iter().filter(|v| known(v)).find_map(|v| number_of(&v.name));
        let number = there.unwrap_or_else(|| {
            let free = |n: &u16| self.get(GLOBAL, &format!("Boot{n:04X}")).is_none();
            (0..=u16::MAX).find(free).unwrap_or(u16::MAX)
        });
        self.set(GLOBAL, &format!("Boot{number:04X}"), NV_BS_RT, load_option);
        let mut order = self.boot_order();
        if !order.contains(&number) {
            order.push(number);
        }
        let data = order.into_iter().flat_map(u16::to_le_bytes).collect();
        self.set(GLOBAL, "BootOrder", NV_BS_RT, data);
        number
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
        }
    }

    #[test]
    fn entries_of_another_firmware_come_in_its_order() {
        let (a, b) = (entry().to_bytes(), BootEntry { description: "b".into(), ..entry() }.to_bytes());
        let v = |name, data| ForeignVariable { vendor: GLOBAL, name, data };
        let order = [2, 0, 1, 0];
        let list = [v("Boot0001", &a), v("Boot0002", &b), v("BootOrder", &order), v("BootNext", &order)];
        assert_eq!(portable_entries(&list), [b, a]);
    }
}

//! A UEFI variable store as OVMF keeps it in its `VARS` flash file: read, change, write back.
//!
//! ```text
//!  firmware volume header  "_FVH", NV data GUID
//!  variable store header   authenticated-variable GUID, size, formatted, healthy
//!  variables               0x55AA, state, attributes, count, time, key, name, data; each aligned to 4; free space is 0xFF
//! ```
//!
//! The layout is EDK II's (`MdeModulePkg/Include/Guid/VariableFormat.h`, PI specification volume 3). Only the variable
//! region is ever changed; keys for Secure Boot are variables like others here and stay as the template has them. What a
//! boot entry should lead to is decided above; [`boot`] only writes it down.
//!
//! Firmware appends records and clears state bits of old ones, because flash bytes cannot be written twice; when the
//! region is full it *reclaims*: writes the living records anew, without gaps. We replace the whole file at once and so
//! always write as after a reclaim. The guest must be off: a running QEMU keeps the file it opened.

pub mod boot;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use uuid::{Uuid, uuid};

/// Largest store file that is read, in bytes (OVMF's are 528 KiB).
pub const MAX_FILE: u64 = 16 << 20;
/// Most variables of one store.
pub const MAX_VARIABLES: usize = 4096;
/// Longest name that is written, in UTF-16 units without the NUL.
pub const MAX_NAME: usize = 1024;
/// Longest value that is written, in bytes; OVMF itself takes 33 KiB at most.
pub const MAX_DATA: usize = 0x8000;
/// Bytes of the region that we leave to the firmware's own variables: with less it cannot even note a boot.
const FIRMWARE_RESERVE: usize = 8 << 10;

const NV_DATA: Uuid = uuid!("fff12b8d-7696-4c8b-a985-2747075b4f50");
const AUTHENTICATED: Uuid = uuid!("aaf32c78-947b-439a-a180-2e144ec37792");
/// Vendor of `Boot####`, `BootOrder`, `SecureBoot`, …
pub const GLOBAL: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
/// Non-volatile, visible to boot services and at run time.
pub const NV_BS_RT: u32 = 7;

const STORE_HEADER: usize = 28;
const VARIABLE_HEADER: usize = 60;
const ALIGNMENT: usize = 4;
const START: u16 = 0x55aa;
const ADDED: u8 = 0x3f;
/// Added, and its replacement is being written: still the value that counts if the replacement never came.
const REPLACING: u8 = 0x3e;
/// Set in the state of a record whose header was still being written.
const HEADER_UNFINISHED: u8 = 0x80;
/// Sizes of a volume header that are believed; the checksum runs over all of it.
const VOLUME_HEADER: std::ops::RangeInclusive<usize> = 72..=4096;

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Name space.
    pub vendor: Uuid,
    /// Name.
    pub name: String,
    /// Attribute bits of the UEFI specification.
    pub attributes: u32,
    /// Value.
    pub data: Vec<u8>,
    /// Monotonic count, time stamp and key index of the record, kept as they are.
    authentication: [u8; 28],
}

/// Why a file is no variable store, or cannot take a change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VarStoreError {
    /// The file cannot be read or written.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A rule of the layout is broken.
    #[error("not a UEFI variable store: {rule} (byte {offset})")]
    Layout {
        /// The rule.
        rule: &'static str,
        /// Where.
        offset: usize,
    },
    /// The variables do not fit.
    #[error("the variable store is full: {needed} bytes are needed, {size} are there")]
    Full {
        /// Bytes needed by all variables.
        needed: usize,
        /// Bytes of the region, less what the firmware needs for itself.
        size: usize,
    },
    /// A variable is longer than any firmware takes.
    #[error(
        "variable {name:?} has a name of {units} characters and a value of {bytes} bytes; {MAX_NAME} and {MAX_DATA} are allowed"
    )]
    TooLarge {
        /// The variable.
        name: String,
        /// UTF-16 units of its name.
        units: usize,
        /// Bytes of its value.
        bytes: usize,
    },
}

/// A store, in memory.
#[derive(Clone, Debug)]
pub struct VarStore {
    bytes: Vec<u8>,
    /// First byte of the variables, and one past their region.
    region: std::ops::Range<usize>,
    variables: Vec<Variable>,
}

impl VarStore {
    /// Reads the store at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or is no store.
    pub fn read(path: &Path) -> Result<Self, VarStoreError> {
        let at = |source| VarStoreError::Io { doing: "read", path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(at)?;
        Self::parse(bytes)
    }

    /// Reads a store from its bytes.
    ///
    /// # Errors
    /// A rule of the layout is broken.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, VarStoreError> {
        let broken = |rule, offset| VarStoreError::Layout { rule, offset };
        if bytes.len() as u64 > MAX_FILE {
            return Err(broken("the file is too large", 0));
        }
        if bytes.starts_with(b"QFI\xfb") {
            return Err(broken("it is a qcow2 image; convert it to raw", 0));
        }
        if guid(&bytes, 16) != Some(NV_DATA) || bytes.get(40..44) != Some(b"_FVH") {
            return Err(broken("it does not begin with a firmware volume of variables", 0));
        }
        let header = usize::from(u16_at(&bytes, 48).unwrap_or(0));
        if !VOLUME_HEADER.contains(&header) || !header.is_multiple_of(ALIGNMENT) {
            return Err(broken("the volume header's length is wrong", 48));
        }
        let words = bytes.get(..header).unwrap_or_default().chunks_exact(2);
        if words.fold(0_u16, |sum, w| sum.wrapping_add(u16::from_le_bytes([w[0], w[1]]))) != 0 {
            return Err(broken("the volume header's checksum is wrong", 50));
        }
        if guid(&bytes, header) != Some(AUTHENTICATED) {
            return Err(broken("the variables are not in the authenticated format", header));
        }
        let size = u32_at(&bytes, header + 16).unwrap_or(0) as usize;
        let end = header.checked_add(size).filter(|e| *e <= bytes.len() && size > STORE_HEADER);
        let end = end.ok_or_else(|| broken("the store is larger than the file", header + 16))?;
        if bytes.get(header + 20..header + 22) != Some(&[0x5a, 0xfe]) {
            return Err(broken("the store is not formatted and healthy", header + 20));
        }
        let region = header + STORE_HEADER..end;
        let variables = parse_variables(&bytes, region.clone())?;
        Ok(Self { bytes, region, variables })
    }

    /// The variables that are in force.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The variable `name` of `vendor`.
    pub fn get(&self, vendor: Uuid, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|v| v.vendor == vendor && v.name == name)
    }

    /// Sets a variable; one that is there keeps its authentication fields. An empty value deletes, as it does for
    /// firmware. Whether all of it fits is told by [`VarStore::to_bytes`].
    pub fn set(&mut self, vendor: Uuid, name: &str, attributes: u32, data: Vec<u8>) {
        if data.is_empty() {
            self.delete(vendor, name);
            return;
        }
        match self.variables.iter_mut().find(|v| v.vendor == vendor && v.name == name) {
            Some(v) => {
                v.attributes = attributes;
                v.data = data;
            }
            None => self.variables.push(Variable {
                vendor,
                name: name.to_owned(),
                attributes,
                data,
                authentication: [0; 28],
            }),
        }
    }

    /// Removes a variable; whether it was there.
    pub fn delete(&mut self, vendor: Uuid, name: &str) -> bool {
        let before = self.variables.len();
        self.variables.retain(|v| v.vendor != vendor || v.name != name);
        self.variables.len() != before
    }

    /// The file's bytes with the variables as they are now, written without gaps (what firmware calls reclaiming).
    ///
    /// # Errors
    /// They do not fit, or one is too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, VarStoreError> {
        let mut out = Vec::new();
        for v in &self.variables {
            let name: Vec<u8> = v.name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            let units = name.len() / 2 - 1;
            // Firmware's own may be larger; what came in goes out again.
            if (units > MAX_NAME || v.data.len() > MAX_DATA) && v.authentication == [0; 28] {
                return Err(VarStoreError::TooLarge { name: v.name.clone(), units, bytes: v.data.len() });
            }
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0xff);
            out.extend(START.to_le_bytes());
            out.extend([ADDED, 0]);
            out.extend(v.attributes.to_le_bytes());
            out.extend(v.authentication);
            out.extend((name.len() as u32).to_le_bytes());
            out.extend((v.data.len() as u32).to_le_bytes());
            out.extend(v.vendor.to_bytes_le());
            out.extend(name);
            out.extend(&v.data);
        }
        let size = self.region.len().saturating_sub(FIRMWARE_RESERVE);
        if out.len() > size {
            return Err(VarStoreError::Full { needed: out.len(), size });
        }
        out.resize(self.region.len(), 0xff);
        let mut bytes = self.bytes.clone();
        bytes[self.region.clone()].copy_from_slice(&out);
        Ok(bytes)
    }

    /// Writes the store to `path`: the old file or the new one is there, whole, whenever we die. The permissions of a
    /// file that was there are kept; a new one is for its owner only.
    ///
    /// # Errors
    /// The variables do not fit, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), VarStoreError> {
        let bytes = self.to_bytes()?;
        let at = |source| VarStoreError::Io { doing: "write", path: path.to_owned(), source };
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(at)?;
        file.write_all(&bytes).map_err(at)?;
        match fs::metadata(path) {
            Ok(old) => file.as_file().set_permissions(old.permissions()).map_err(at)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(at(e)),
        }
        file.as_file().sync_all().map_err(at)?;
        file.persist(path).map_err(|e| at(e.error))?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(at)
    }
}

fn parse_variables(bytes: &[u8], region: std::ops::Range<usize>) -> Result<Vec<Variable>, VarStoreError> {
    let broken = |rule, offset| VarStoreError::Layout { rule, offset };
    let mut found: Vec<(u8, Variable)> = Vec::new();
    let mut at = region.start.next_multiple_of(ALIGNMENT);
    while at + VARIABLE_HEADER <= region.end && u16_at(bytes, at) == Some(START) {
        let field = |offset: usize| u32_at(bytes, at + offset).unwrap_or(0) as usize;
        let (name_size, data_size) = (field(36), field(40));
        let name_at = at + VARIABLE_HEADER;
        let next = name_size
            .checked_add(data_size)
            .and_then(|n| n.checked_add(name_at))
            .filter(|n| *n <= region.end);
        let state = bytes[at + 2];
        let Some(next) = next else {
            // The firmware was stopped amid the header; nothing can follow it.
            if state & HEADER_UNFINISHED != 0 {
                break;
            }
            return Err(broken("a variable reaches beyond the store", at));
        };
        if matches!(state, ADDED | REPLACING) {
            let name = utf16(&bytes[name_at..name_at + name_size])
                .ok_or_else(|| broken("a variable's name is not UTF-16", name_at))?;
            let mut authentication = [0; 28];
            authentication.copy_from_slice(&bytes[at + 8..at + 36]);
            let variable = Variable {
                vendor: guid(bytes, at + 44).unwrap_or_default(),
                name,
                attributes: field(4) as u32,
                data: bytes[name_at + name_size..next].to_vec(),
                authentication,
            };
            // A value whose replacement is complete gives way to it, in whichever order they stand.
            match found.iter_mut().find(|(_, v)| v.vendor == variable.vendor && v.name == variable.name) {
                Some(earlier) if state == ADDED => *earlier = (state, variable),
                Some(_) => {}
                None => found.push((state, variable)),
            }
            if found.len() > MAX_VARIABLES {
                return Err(broken("more variables than any firmware writes", at));
            }
        }
        at = next.next_multiple_of(ALIGNMENT);
    }
    Ok(found.into_iter().map(|(_, v)| v).collect())
}

fn utf16(bytes: &[u8]) -> Option<String> {
    let units: Vec<u16> =
        bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).take_while(|u| *u != 0).collect();
    String::from_utf16(&units).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn guid(bytes: &[u8], at: usize) -> Option<Uuid> {
    Some(Uuid::from_bytes_le(bytes.get(at..at.checked_add(16)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Option<VarStore> {
        let path = Path::new("/usr/share/OVMF/OVMF_VARS_4M.ms.fd");
        if !path.exists() {
            println!("skipped: {} is not installed", path.display());
            return None;
        }
        Some(VarStore::read(path).unwrap())
    }

    #[test]
    fn the_real_template_is_read_and_written_back_alike() {
        let Some(store) = template() else { return };
        for name in ["PK", "KEK"] {
            assert!(store.get(GLOBAL, name).is_some_and(|v| v.data.len() > 500), "{name}");
        }
        let again = VarStore::parse(store.to_bytes().unwrap()).unwrap();
        assert_eq!(again.variables(), store.variables());
    }

    #[test]
    fn a_change_survives_and_nothing_outside_the_region_moves() {
        let Some(mut store) = template() else { return };
        let before = store.to_bytes().unwrap();
        store.set(GLOBAL, "SlipwayTest", NV_BS_RT, vec![1, 0]);
        let after = store.to_bytes().unwrap();
        let region = store.region.clone();
        assert_eq!(before[..region.start], after[..region.start]);
        assert_eq!(before[region.end..], after[region.end..]);
        let mut again = VarStore::parse(after).unwrap();
        assert_eq!(again.get(GLOBAL, "SlipwayTest").unwrap().data, [1, 0]);
        assert!(again.delete(GLOBAL, "SlipwayTest") && !again.delete(GLOBAL, "SlipwayTest"));
        assert_eq!(again.to_bytes().unwrap(), before);
    }

    #[test]
    fn a_full_store_says_so() {
        let Some(mut store) = template() else { return };
        store.set(GLOBAL, "Huge", NV_BS_RT, vec![0; 1 << 20]);
        assert!(matches!(store.to_bytes(), Err(VarStoreError::TooLarge { .. })));
        store.delete(GLOBAL, "Huge");
        for i in 0..9 {
            store.set(GLOBAL, &format!("Large{i}"), NV_BS_RT, vec![i; 30_000]);
        }
        assert!(matches!(store.to_bytes(), Err(VarStoreError::Full { .. })));
    }

    /// A store of two states of one variable and a torn record, as a firmware leaves it that was stopped.
    #[test]
    fn of_two_states_the_finished_one_counts_and_a_torn_header_ends_the_store() {
        let Some(mut store) = template() else { return };
        store.set(GLOBAL, "Twice", NV_BS_RT, vec![1; 5]);
        store.set(GLOBAL, "Other", NV_BS_RT, vec![7]);
        let mut bytes = store.to_bytes().unwrap();
        let record = |bytes: &[u8], name: &str| {
            let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            bytes.windows(name.len()).position(|w| w == name).unwrap() - VARIABLE_HEADER
        };
        // The old one is being replaced by a copy that says 2, which stands at the end.
        let at = record(&bytes, "Twice");
        let length = VARIABLE_HEADER + 12 + 5;
        let mut copy = bytes[at..at + length].to_vec();
        copy[length - 5..].fill(2);
        bytes[at + 2] = REPLACING;
        let alone = VarStore::parse(bytes.clone()).unwrap();
        assert_eq!(alone.get(GLOBAL, "Twice").unwrap().data, [1; 5], "the new one never came");
        let end = (record(&bytes, "Other") + VARIABLE_HEADER + 12 + 1).next_multiple_of(ALIGNMENT);
        bytes[end..end + length].copy_from_slice(&copy);
        let both = VarStore::parse(bytes.clone()).unwrap();
        assert_eq!(both.get(GLOBAL, "Twice").unwrap().data, [2; 5]);
        let torn = (end + length).next_multiple_of(ALIGNMENT);
        bytes[torn..torn + 2].copy_from_slice(&START.to_le_bytes());
        let torn = VarStore::parse(bytes.clone()).unwrap();
        assert_eq!(torn.variables(), both.variables());
        assert_eq!(VarStore::parse(torn.to_bytes().unwrap()).unwrap().variables(), both.variables());
        // Deleted ones are gone.
        bytes[at + 2] = ADDED & 0xfd;
        bytes[end + 2] = ADDED & 0xfd;
        assert_eq!(VarStore::parse(bytes).unwrap().get(GLOBAL, "Twice"), None);
    }

    #[test]
    fn a_file_is_replaced_with_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let Some(mut store) = template() else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vars.fd");
        store.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        store.set(GLOBAL, "X", NV_BS_RT, vec![1]);
        store.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(VarStore::read(&path).unwrap().variables(), store.variables());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        store.set(GLOBAL, "Huge", NV_BS_RT, vec![0; 1 << 20]);
        store.write(&path).unwrap_err();
        assert!(VarStore::read(&path).unwrap().get(GLOBAL, "X").is_some());
    }

    #[test]
    fn garbage_is_refused_and_damage_never_panics() {
        assert!(VarStore::parse(Vec::new()).is_err());
        assert!(VarStore::parse(vec![0xff; 1 << 16]).is_err());
        let Some(store) = template() else { return };
        let good = store.to_bytes().unwrap();
        for at in (0..store.region.start + 4096).step_by(3) {
            let mut bad = good.clone();
            bad[at] ^= 0x81;
            let _ = VarStore::parse(bad);
        }
    }
}

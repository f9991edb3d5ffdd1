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

pub mod boot;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::{Uuid, uuid};

/// Largest store file that is read, in bytes (OVMF's are 528 KiB).
pub const MAX_FILE: u64 = 16 << 20;
/// Most variables of one store.
pub const MAX_VARIABLES: usize = 4096;

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
        /// Bytes of the region.
        size: usize,
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
        let length = fs::metadata(path).map_err(at)?.len();
        if length > MAX_FILE {
            return Err(VarStoreError::Layout { rule: "the file is too large", offset: 0 });
        }
        Self::parse(fs::read(path).map_err(at)?)
    }

    /// Reads a store from its bytes.
    ///
    /// # Errors
    /// A rule of the layout is broken.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, VarStoreError> {
        let broken = |rule, offset| VarStoreError::Layout { rule, offset };
        if guid(&bytes, 16) != Some(NV_DATA) || bytes.get(40..44) != Some(b"_FVH") {
            return Err(broken("it does not begin with a firmware volume of variables", 0));
        }
        let header = usize::from(u16_at(&bytes, 48).unwrap_or(0));
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

    /// Sets a variable; one that is there keeps its authentication fields.
    pub fn set(&mut self, vendor: Uuid, name: &str, attributes: u32, data: Vec<u8>) {
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
    /// They do not fit.
    pub fn to_bytes(&self) -> Result<Vec<u8>, VarStoreError> {
        let mut out = Vec::new();
        for v in &self.variables {
            let name: Vec<u8> = v.name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
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
        if out.len() > self.region.len() {
            return Err(VarStoreError::Full { needed: out.len(), size: self.region.len() });
        }
        out.resize(self.region.len(), 0xff);
        let mut bytes = self.bytes.clone();
        bytes[self.region.clone()].copy_from_slice(&out);
        Ok(bytes)
    }

    /// Writes the store to `path`: the old file or the new one is there, whole, whenever we die.
    ///
    /// # Errors
    /// The variables do not fit, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), VarStoreError> {
        let bytes = self.to_bytes()?;
        let at = |source| VarStoreError::Io { doing: "write", path: path.to_owned(), source };
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(at)?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(at)?;
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
        let Some(next) = next else {
            return Err(broken("a variable reaches beyond the store", at));
        };
        let state = bytes[at + 2];
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
        assert!(matches!(store.to_bytes(), Err(VarStoreError::Full { .. })));
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

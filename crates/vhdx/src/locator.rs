//! The parent locator: key and value pairs that say which file the parent is.
//!
//! Values are somebody else's words: `chain` decides what to make of the paths.

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::error::Fault;
use crate::format::{LOCATOR_VHDX, LocatorEntry, LocatorHeader};
use crate::info::ParentRef;
use crate::limits::MAX_LOCATOR_ENTRIES;

/// The key of the parent's data write id.
pub(crate) const LINKAGE: &str = "parent_linkage";
/// The key of a second accepted id.
pub(crate) const LINKAGE2: &str = "parent_linkage2";
/// The keys of paths, in search order ([MS-VHDX] 2.6.2.6.3).
pub(crate) const PATHS: [&str; 3] = ["relative_path", "volume_path", "absolute_win32_path"];

/// All pairs, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locator {
    pub(crate) pairs: Vec<(String, String)>,
}

/// Takes the item at file offset `at` apart.
pub(crate) fn parse(item: &[u8], at: u64) -> Result<Locator, Fault> {
    let what = "parent locator";
    let (header, rest) = LocatorHeader::ref_from_prefix(item)
        .map_err(|_| Fault::invalid(what, at, "shorter than its header"))?;
    if header.kind != LOCATOR_VHDX {
        return Err(Fault::unsupported(what, at, format!("locator type {}", header.kind.to_uuid())));
    }
    if header.count.get() > MAX_LOCATOR_ENTRIES {
        let problem = format!("{} entries, at most {MAX_LOCATOR_ENTRIES}", header.count.get());
        return Err(Fault::invalid(what, at, problem));
    }
    let (entries, _) = <[LocatorEntry]>::ref_from_prefix_with_elems(rest, usize::from(header.count.get()))
        .map_err(|_| Fault::invalid(what, at, format!("{} entries do not fit", header.count.get())))?;
    let text = |offset: u32, length: u16| {
        let start = offset as usize;
        let bytes =
            start.checked_add(usize::from(length)).and_then(|end| item.get(start..end)).ok_or_else(|| {
                Fault::invalid(what, at, format!("{length} bytes of text at {offset} leave the item"))
            })?;
        if length == 0 || bytes.len() % 2 != 0 {
            return Err(Fault::invalid(what, at, format!("text of {length} bytes at {offset}")));
        }
        let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let text: String =
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        // The text has no NUL by the rules; some makers end it with one.
        Ok(text.trim_end_matches('\0').to_owned())
    };
    let pairs = entries
        .iter()
        .map(|entry| {
            let key = text(entry.key_offset.get(), entry.key_length.get())?;
            let value = text(entry.value_offset.get(), entry.value_length.get())?;
            Ok((key, value))
        })
        .collect::<Result<Vec<_>, Fault>>()?;
    Ok(Locator { pairs })
}

impl Locator {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The id under `key`: `{guid}`, in whatever letters and with or without braces.
    pub(crate) fn id(&self, key: &str) -> Option<Result<Uuid, uuid::Error>> {
        self.get(key).map(|text| Uuid::try_parse(text.trim()))
    }

    /// What the chain needs; the locator lies at file offset `at`.
    pub(crate) fn parent(&self, at: u64) -> Result<ParentRef, Fault> {
        let bad = |key: &str| Fault::invalid("parent locator", at, format!("{key} is no GUID"));
        let linkage = match self.id(LINKAGE) {
            Some(id) => id.map_err(|_| bad(LINKAGE))?,
            None => return Err(Fault::invalid("parent locator", at, format!("no {LINKAGE}"))),
        };
        let linkage2 = self.id(LINKAGE2).transpose().map_err(|_| bad(LINKAGE2))?.filter(|id| !id.is_nil());
        let own = |key: &str| self.pairs.iter().find(|(known, _)| known == key).cloned();
        let paths = PATHS.iter().filter_map(|key| own(key)).collect();
        Ok(ParentRef { linkage, linkage2, paths })
    }
}

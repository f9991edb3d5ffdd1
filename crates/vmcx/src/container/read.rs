//! From a container's bytes to the tree.
//!
//! Two steps: tables and entries are gathered and verified one by one, then linked by parent and ordered by insertion
//! sequence. Pending log entries are applied before anything else is looked at ([`super::log`]).

use std::collections::{HashMap, HashSet};

use zerocopy::FromBytes;

use super::format::{
    Checksummed, FORMAT_VERSION, FileHeader, FilePointer, HEADER_OFFSETS, HEADER_SIGNATURE,
    KEY_TABLE_SIGNATURE, KeyHeader, KeyTableHeader, LEAF_SLACK, MAX_ALIGNMENT, MIN_ALIGNMENT, NodeData,
    OBJECT_TABLE_SIGNATURE, ObjectEntry, ObjectTableHeader, ROOT_TABLE, key, object,
};
use super::source::{Image, Source};
use super::{ContainerOrigin, log};
use crate::document::MAX_NOTES;
use crate::error::{ReadError, ReadErrorKind};
use crate::{Entry, MAX_DEPTH, MAX_FILE, Note, Omitted, Text, Tree, Value};

/// Most objects that the object tables of one file may name.
const MAX_OBJECTS: usize = 1 << 22;
/// Largest key table, in bytes; real ones have 4096.
const MAX_KEY_TABLE: u32 = 16 << 20;
/// Largest replay log that a rewrite takes over, in bytes.
const MAX_LOG_KEPT: u64 = 1 << 20;

/// What to do about a wrong checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksums {
    /// Refuse the file.
    Verify,
    /// Make a note and go on.
    Note,
}

/// How to read.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) checksums: Checksums,
    /// Values in file objects above this many bytes are left out.
    pub(crate) max_value: u32,
    /// Most keys.
    pub(crate) max_entries: usize,
}

/// What was read.
pub(crate) struct Container {
    pub(crate) tree: Tree,
    pub(crate) origin: ContainerOrigin,
    pub(crate) omitted: Vec<Omitted>,
    pub(crate) notes: Vec<Note>,
}

/// Reads a whole container.
pub(crate) fn read(source: &dyn Source, options: Options) -> Result<Container, ReadError> {
    let image = Image::new(source)?;
    let budget = image.len();
    let mut r = Reader { image, options, notes: Vec::new(), budget };
    let header = r.current_header()?;
    log::replay(&mut r, &header)?;
    let objects = r.objects()?;
    let mut records = Vec::new();
    // Tables do not overlap, so together they are no larger than the file; nor than what a file of keys may be.
    let mut room = r.image.len().min(MAX_FILE);
    for table in r.current_key_tables(&objects)? {
        room = room.checked_sub(table.size.into()).ok_or_else(|| {
            ReadError::limit(table.offset, "the key tables together are larger than the file can hold")
        })?;
        r.key_table(&table, &objects, &mut records)?;
    }
    let (tree, omitted) = link(records)?;
    let origin = ContainerOrigin {
        sequence: header.sequence.get(),
        data_version: header.data_version.get(),
        flags: header.flags.get(),
        alignment: header.alignment.get(),
        log_size: header.log_size.get().min(MAX_LOG_KEPT),
    };
    Ok(Container { tree, origin, omitted, notes: r.notes })
}

/// The error for a checksum that does not match.
pub(super) fn checksum_error(offset: u64, what: &str, stored: u32, computed: u32) -> ReadError {
    let message = format!("the checksum of {what} is wrong: stored {stored:08x}, computed {computed:08x}");
    ReadError::new(ReadErrorKind::Checksum, offset, message)
}

/// The image being read, and what is remarked on the way.
pub(super) struct Reader<'a> {
    pub(super) image: Image<'a>,
    options: Options,
    notes: Vec<Note>,
    /// Bytes of values that may still be taken from file objects, so that many entries pointing at one object do not
    /// multiply the file in memory.
    budget: u64,
}

/// What the object tables name.
struct Objects {
    key_tables: Vec<(u64, u32)>,
    files: HashMap<u64, u32>,
}

/// A key table that is current for its index.
struct KeyTable {
    index: u16,
    offset: u64,
    size: u32,
}

/// An entry before it is linked.
struct Record {
    at: (u16, u32),
    parent: (u16, u32),
    insertion: u32,
    offset: u64,
    omitted: Option<u32>,
    entry: Entry,
}

impl Reader<'_> {
    pub(super) fn note(&mut self, offset: u64, message: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(Note { offset: Some(offset), message });
        }
    }

    /// True when wrong checksums are only noted.
    pub(super) fn tolerant(&self) -> bool {
        self.options.checksums == Checksums::Note
    }

    /// The end that no write of the log may pass.
    pub(super) fn max_len(&self) -> u64 {
        self.image.source_len().max(MAX_FILE)
    }

    /// True when the checksum is right; when it is not, a note or an error.
    pub(super) fn verify<T: Checksummed>(
        &mut self,
        at: u64,
        what: &str,
        value: &T,
    ) -> Result<bool, ReadError> {
        self.verify_as(at, what, value.stored(), value.computed())
    }

    fn verify_as(&mut self, at: u64, what: &str, stored: u32, computed: u32) -> Result<bool, ReadError> {
        if stored == computed {
            return Ok(true);
        }
        let error = checksum_error(at, what, stored, computed);
        if !self.tolerant() {
            return Err(error);
        }
        self.note(at, error.to_string());
        Ok(false)
    }

    /// The valid header with the higher sequence. One torn copy is what the pair is there for, so it is only noted.
    fn current_header(&mut self) -> Result<FileHeader, ReadError> {
        let mut best: Option<(bool, FileHeader)> = None;
        let mut first_error = None;
        for at in HEADER_OFFSETS {
            let header = match self.header_at(at) {
                Ok(found) => found,
                Err(e) => {
                    first_error.get_or_insert(e);
                    continue;
                }
            };
            let valid = header.stored() == header.computed();
            if !valid {
                first_error.get_or_insert(checksum_error(
                    at,
                    "the file header",
                    header.stored(),
                    header.computed(),
                ));
            }
            let rank = |v: bool, h: &FileHeader| (v, h.sequence.get());
            if best.as_ref().is_none_or(|(v, h)| rank(valid, &header) > rank(*v, h)) {
                best = Some((valid, header));
            }
        }
        let header = match (best, first_error) {
            (Some((true, header)), None) => header,
            (Some((true, header)), Some(e)) => {
                self.note(e.offset().unwrap_or(0), format!("one of the two headers was passed over: {e}"));
                header
            }
            (Some((false, header)), e) if self.tolerant() => {
                let message = e.map_or_else(String::new, |e| e.to_string());
                self.note(0, format!("no header is valid, the later one is used: {message}"));
                header
            }
            (_, Some(e)) => return Err(e),
            (_, None) => return Err(ReadError::corrupt(0, "there is no file header")),
        };
        let version = header.format.get();
        if version != FORMAT_VERSION {
            let message =
                format!("container version {}.{} is not known, only 4.0 is", version >> 8, version & 0xff);
            return Err(ReadError::new(ReadErrorKind::Version, 0, message));
        }
        let alignment = header.alignment.get();
        if !(MIN_ALIGNMENT..=MAX_ALIGNMENT).contains(&alignment) || !alignment.is_power_of_two() {
            return Err(ReadError::corrupt(
                0,
                format!("the header asks for an alignment of {alignment} bytes"),
            ));
        }
        Ok(header)
    }

    fn header_at(&self, at: u64) -> Result<FileHeader, ReadError> {
        let bytes = self.image.read(at, size_of::<FileHeader>(), "the file header")?;
        match FileHeader::read_from_bytes(&bytes) {
            Ok(header) if header.signature.get() == HEADER_SIGNATURE => Ok(header),
            _ => Err(ReadError::corrupt(at, "the file header has a wrong signature")),
        }
    }

    /// Follows the chain of object tables.
    fn objects(&mut self) -> Result<Objects, ReadError> {
        let mut found = Objects { key_tables: Vec::new(), files: HashMap::new() };
        let mut seen = HashSet::new();
        let mut total = 0;
        let mut next = Some(ROOT_TABLE);
        while let Some(at) = next.take() {
            if !seen.insert(at) {
                return Err(ReadError::corrupt(at, "the chain of object tables leads back to this one"));
            }
            let bytes = self.image.read(at, size_of::<ObjectTableHeader>(), "an object table header")?;
            let header = ObjectTableHeader::read_from_bytes(&bytes).ok();
            let Some(header) = header.filter(|h| h.signature.get() == OBJECT_TABLE_SIGNATURE) else {
                return Err(ReadError::corrupt(at, "an object table has a wrong signature"));
            };
            let count = header.count.get() as usize;
            total += count;
            if total > MAX_OBJECTS {
                return Err(ReadError::limit(
                    at,
                    format!("the object tables name more than {MAX_OBJECTS} objects"),
                ));
            }
            let start = at + size_of::<ObjectTableHeader>() as u64;
            let entries =
                self.image.read(start, count * size_of::<ObjectEntry>(), "an object table")?.into_owned();
            for (i, bytes) in entries.chunks_exact(size_of::<ObjectEntry>()).enumerate() {
                let Ok(entry) = ObjectEntry::read_from_bytes(bytes) else { continue };
                let entry_at = start + (i * size_of::<ObjectEntry>()) as u64;
                self.verify(entry_at, "an object table entry", &entry)?;
                let (offset, size) = (entry.offset.get(), entry.size.get());
                match entry.kind {
                    object::EMPTY | object::FREE => {}
                    object::OBJECT_TABLE if i + 1 != count => {
                        let message = "an object table goes on from an entry that is not its last";
                        return Err(ReadError::corrupt(entry_at, message));
                    }
                    object::OBJECT_TABLE => next = Some(offset),
                    object::KEY_TABLE => found.key_tables.push((offset, size)),
                    object::FILE => {
                        found.files.insert(offset, size);
                    }
                    kind => self.note(entry_at, format!("an object of unknown type {kind} was passed over")),
                }
            }
        }
        Ok(found)
    }

    /// Of several key tables with one index the one with the highest sequence, in the order of indices.
    fn current_key_tables(&mut self, objects: &Objects) -> Result<Vec<KeyTable>, ReadError> {
        let mut current: HashMap<u16, (u16, KeyTable)> = HashMap::new();
        for (offset, size) in &objects.key_tables {
            let bytes =
                self.image.read(*offset, size_of::<KeyTableHeader>(), "a key table header")?.into_owned();
            let header = KeyTableHeader::read_from_bytes(&bytes).ok();
            let Some(header) = header.filter(|h| h.signature.get() == KEY_TABLE_SIGNATURE) else {
                return Err(ReadError::corrupt(*offset, "a key table has a wrong signature"));
            };
            let (index, sequence) = (header.index.get(), header.sequence.get());
            self.verify(*offset, &format!("key table {index}"), &header)?;
            if index == 0 {
                return Err(ReadError::corrupt(*offset, "a key table has index 0"));
            }
            let candidate = KeyTable { index, offset: *offset, size: *size };
            match current.get(&index) {
                Some((best, _)) if *best >= sequence => {}
                _ => {
                    current.insert(index, (sequence, candidate));
                }
            }
        }
        let mut tables: Vec<KeyTable> = current.into_values().map(|(_, t)| t).collect();
        tables.sort_by_key(|t| t.index);
        Ok(tables)
    }

    /// Every entry of a key table; they must fill it exactly.
    fn key_table(&mut self, t: &KeyTable, objects: &Objects, out: &mut Vec<Record>) -> Result<(), ReadError> {
        if t.size > MAX_KEY_TABLE {
            return Err(ReadError::limit(t.offset, format!("key table {} has {} bytes", t.index, t.size)));
        }
        let table = self.image.read(t.offset, t.size as usize, "a key table")?.into_owned();
        let mut pos = size_of::<KeyTableHeader>();
        while pos < table.len() {
            let at = t.offset + pos as u64;
            let rest = &table[pos..];
            let Ok((header, _)) = KeyHeader::read_from_prefix(rest) else {
                let message = format!("key table {} ends inside an entry's header", t.index);
                return Err(ReadError::corrupt(at, message));
            };
            let size = header.size.get() as usize;
            let Some(whole) = rest.get(..size).filter(|w| w.len() >= size_of::<KeyHeader>()) else {
                let message =
                    format!("an entry of {size} bytes does not fit the rest of key table {}", t.index);
                return Err(ReadError::corrupt(at, message));
            };
            if header.kind == key::FREE {
                // Hyper-V zeroes it; anything else is a key whose type was damaged.
                self.verify_as(at, "a free entry", header.stored(), 0)?;
            } else {
                let most = self.options.max_entries;
                if out.len() == most {
                    return Err(ReadError::limit(at, format!("the file holds more than {most} keys")));
                }
                let place = (t.index, pos as u32);
                out.push(self.entry(at, place, &header, &whole[size_of::<KeyHeader>()..], objects)?);
            }
            pos += size;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        at: u64,
        place: (u16, u32),
        header: &KeyHeader,
        body: &[u8],
        objects: &Objects,
    ) -> Result<Record, ReadError> {
        let split = body.split_at_checked(header.name_length.into());
        let Some(([name @ .., 0], rest)) =
            split.filter(|(name, _)| !name[..name.len().max(1) - 1].contains(&0))
        else {
            return Err(ReadError::corrupt(at, "a key's name is not terminated"));
        };
        let Ok(name) = std::str::from_utf8(name) else {
            return Err(ReadError::corrupt(at, "a key's name is not UTF-8"));
        };
        let mut hasher = header.hasher();
        hasher.update(&body[..header.name_length.into()]);
        let in_file = header.flags & Entry::FILE_OBJECT != 0;
        let what = format!("key \"{}\"", name.escape_debug());
        let length = match header.kind {
            _ if in_file => size_of::<FilePointer>(),
            key::INT | key::UINT | key::DOUBLE => 8,
            key::BOOL => 4,
            key::NODE => size_of::<NodeData>(),
            key::STRING | key::ARRAY => match rest.first_chunk::<4>() {
                Some(n) => (u32::from_le_bytes(*n) as usize).saturating_add(4),
                None => usize::MAX,
            },
            _ => self.unknown_length(rest, &hasher, header.stored()),
        };
        let Some(data) = rest.get(..length) else {
            return Err(ReadError::corrupt(at, format!("the value of {what} is larger than its entry")));
        };
        hasher.update(data);
        self.verify_as(at, &what, header.stored(), hasher.finalize())?;
        let (value, omitted) = if in_file {
            self.file_value(at, &what, header.kind, data, objects)?
        } else {
            (inline_value(at, &what, header.kind, data)?, None)
        };
        Ok(Record {
            at: place,
            parent: (header.parent_table.get(), header.parent_offset.get()),
            insertion: header.insertion.get(),
            offset: at,
            omitted,
            entry: Entry { name: name.to_owned(), flags: header.flags, value },
        })
    }

    /// The checksum covers the data without its slack: for a type whose data has no known length it tells the length.
    fn unknown_length(&self, rest: &[u8], prefix: &crc32fast::Hasher, stored: u32) -> usize {
        let matches = |length: usize| {
            let mut hasher = prefix.clone();
            hasher.update(&rest[..length]);
            hasher.finalize() == stored
        };
        let usual = rest.len().checked_sub(LEAF_SLACK);
        if let Some(length) = usual.into_iter().chain([rest.len()]).find(|l| matches(*l)) {
            return length;
        }
        let mut hasher = prefix.clone();
        for (length, byte) in rest.iter().enumerate() {
            if hasher.clone().finalize() == stored {
                return length;
            }
            hasher.update(&[*byte]);
        }
        rest.len()
    }

    /// A value that lies in a file object, and its size when it is left out.
    fn file_value(
        &mut self,
        at: u64,
        what: &str,
        kind: u8,
        data: &[u8],
        objects: &Objects,
    ) -> Result<(Value, Option<u32>), ReadError> {
        let Ok(pointer) = FilePointer::read_from_bytes(data) else {
            return Err(ReadError::corrupt(at, format!("the value of {what} is larger than its entry")));
        };
        let (offset, size) = (pointer.offset.get(), pointer.size.get());
        if objects.files.get(&offset).is_none_or(|held| *held < size) {
            let message =
                format!("{what} points to {size} bytes at offset {offset}, where no file object holds them");
            return Err(ReadError::corrupt(at, message));
        }
        if size > self.options.max_value && matches!(kind, key::STRING | key::ARRAY) {
            let empty =
                if kind == key::STRING { Value::String(Text::default()) } else { Value::Array(Vec::new()) };
            return Ok((empty, Some(size)));
        }
        self.budget = self.budget.checked_sub(size.into()).ok_or_else(|| {
            ReadError::limit(at, "the values in file objects are larger than the whole file")
        })?;
        let bytes = self.image.read(offset, size as usize, "a file object")?;
        let value = match kind {
            key::NODE => {
                return Err(ReadError::corrupt(at, format!("{what} is a node and yet in a file object")));
            }
            key::STRING => text(at, what, &bytes)?,
            key::ARRAY => Value::Array(bytes.into_owned()),
            key::INT | key::UINT | key::DOUBLE | key::BOOL => inline_value(at, what, kind, &bytes)?,
            type_id => Value::Unknown { type_id, data: bytes.into_owned() },
        };
        Ok((value, None))
    }
}

fn text(at: u64, what: &str, bytes: &[u8]) -> Result<Value, ReadError> {
    match Text::from_utf16le(bytes) {
        Some(text) => Ok(Value::String(text)),
        None => Err(ReadError::corrupt(at, format!("the string of {what} has an odd number of bytes"))),
    }
}

/// A value from data that was cut to the type's length; that of strings and arrays starts with their own length.
fn inline_value(at: u64, what: &str, kind: u8, data: &[u8]) -> Result<Value, ReadError> {
    let wrong = || ReadError::corrupt(at, format!("the value of {what} has {} bytes", data.len()));
    let eight = || <[u8; 8]>::try_from(data).map_err(|_| wrong());
    Ok(match kind {
        key::INT => Value::Int(i64::from_le_bytes(eight()?)),
        key::UINT => Value::Uint(u64::from_le_bytes(eight()?)),
        key::DOUBLE => Value::Double(f64::from_le_bytes(eight()?)),
        key::BOOL => Value::Bool(<[u8; 4]>::try_from(data).map_err(|_| wrong())? != [0; 4]),
        key::STRING => text(at, what, data.get(4..).ok_or_else(wrong)?)?,
        key::ARRAY => Value::Array(data.get(4..).ok_or_else(wrong)?.to_vec()),
        key::NODE => Value::Node(Vec::new()),
        type_id => Value::Unknown { type_id, data: data.to_vec() },
    })
}

/// Puts every entry under its parent, in the order of insertion.
fn link(records: Vec<Record>) -> Result<(Tree, Vec<Omitted>), ReadError> {
    let places: HashMap<(u16, u32), usize> = records.iter().enumerate().map(|(i, r)| (r.at, i)).collect();
    let mut children: Vec<Vec<usize>> = records.iter().map(|_| Vec::new()).collect();
    let mut roots = Vec::new();
    for (i, r) in records.iter().enumerate() {
        if r.parent == (0, 0) {
            roots.push(i);
            continue;
        }
        match places.get(&r.parent) {
            Some(parent) if records[*parent].entry.value.is_node() => children[*parent].push(i),
            _ => {
                let message = format!("key \"{}\" has a parent that is no node", r.entry.name.escape_debug());
                return Err(ReadError::corrupt(r.offset, message));
            }
        }
    }
    let order = |list: &mut Vec<usize>| list.sort_by_key(|i| (records[*i].insertion, records[*i].at));
    children.iter_mut().for_each(order);
    order(&mut roots);
    let offsets: Vec<u64> = records.iter().map(|r| r.offset).collect();
    let records = records.into_iter().map(Some).collect();
    let mut linker = Linker { records, children, taken: 0, omitted: HashMap::new() };
    let tree = Tree { entries: linker.take(roots, 0)? };
    // Entries that are their own ancestors hang on no root.
    if let Some(lost) = linker.records.iter().position(Option::is_some) {
        return Err(ReadError::corrupt(offsets[lost], "a key is its own ancestor"));
    }
    let mut omitted = Vec::new();
    if !linker.omitted.is_empty() {
        let sized =
            tree.walk().enumerate().filter_map(|(i, (path, _))| Some((path, *linker.omitted.get(&i)?)));
        omitted.extend(sized.map(|(path, size)| Omitted { path, size: size.into() }));
    }
    Ok((tree, omitted))
}

struct Linker {
    records: Vec<Option<Record>>,
    children: Vec<Vec<usize>>,
    /// Entries taken so far: the next one's rank in document order.
    taken: usize,
    /// Sizes of values left out, by rank.
    omitted: HashMap<usize, u32>,
}

impl Linker {
    fn take(&mut self, list: Vec<usize>, depth: usize) -> Result<Vec<Entry>, ReadError> {
        let mut out = Vec::with_capacity(list.len());
        for i in list {
            let Some(record) = self.records.get_mut(i).and_then(Option::take) else { continue };
            if depth >= MAX_DEPTH {
                return Err(ReadError::limit(record.offset, format!("keys nest more than {MAX_DEPTH} deep")));
            }
            if let Some(size) = record.omitted {
                self.omitted.insert(self.taken, size);
            }
            self.taken += 1;
            let mut entry = record.entry;
            let below = self.children.get_mut(i).map(std::mem::take).unwrap_or_default();
            if !below.is_empty() {
                entry.value = Value::Node(self.take(below, depth + 1)?);
            }
            out.push(entry);
        }
        Ok(out)
    }
}

//! From the tree to a new container.
//!
//! Laid out as Hyper-V would on a single pass: headers, root object table, key tables in preorder, file objects, further
//! object tables, and the empty replay log at the end. The bytes depend on the tree and the origin only.

use std::borrow::Cow;

use zerocopy::IntoBytes;

use super::ContainerOrigin;
use super::format::{
    Checksummed, FILE_OBJECT_FROM, FORMAT_VERSION, FileHeader, FilePointer, HEADER_OFFSETS, HEADER_SIGNATURE,
    KEY_TABLE_SIGNATURE, KeyHeader, KeyTableHeader, LEAF_SLACK, LOG_ENTRIES, LOG_HEADER_SIZE, LOG_SIGNATURE,
    LogHeader, MAX_ALIGNMENT, MIN_ALIGNMENT, NodeData, OBJECT_ALLOCATED, OBJECT_TABLE_ENTRIES,
    OBJECT_TABLE_SIGNATURE, ObjectEntry, ObjectTableHeader, ROOT_TABLE, key, object,
};
use crate::error::{WriteError, WriteErrorKind};
use crate::tree::join;
use crate::{Entry, MAX_DEPTH, MAX_ENTRIES, MAX_FILE, MAX_NAME, Tree, Value};

/// The tree as a container.
pub(crate) fn write(tree: &Tree, origin: &ContainerOrigin) -> Result<Vec<u8>, WriteError> {
    let alignment = if origin.alignment.is_power_of_two() { origin.alignment } else { MIN_ALIGNMENT };
    let alignment = alignment.clamp(MIN_ALIGNMENT, MAX_ALIGNMENT);
    let mut keys =
        Keys { records: Vec::new(), files: Vec::new(), tables: Vec::new(), alignment: alignment as usize };
    keys.gather("", &tree.entries, None, 0)?;
    keys.place()?;
    layout(keys, origin)
}

fn error(kind: WriteErrorKind, path: &str, reason: impl Into<String>) -> WriteError {
    WriteError::new(kind, "a container", path, reason)
}

/// An entry ready to be placed.
struct Record<'a> {
    name: &'a str,
    kind: u8,
    flags: u8,
    parent: Option<usize>,
    insertion: u32,
    data: Data<'a>,
    /// Where it came to lie: table index, offset in the table.
    place: (u16, usize),
    /// Whole size with slack.
    size: usize,
}

enum Data<'a> {
    Inline(Cow<'a, [u8]>),
    /// Index of the file object.
    File(usize),
}

/// A key table being filled.
#[derive(Default)]
struct Table {
    records: Vec<usize>,
    used: usize,
    /// Size of the free entry at the end; zero when there is none.
    free: usize,
}

struct Keys<'a> {
    records: Vec<Record<'a>>,
    files: Vec<Cow<'a, [u8]>>,
    tables: Vec<Table>,
    alignment: usize,
}

impl<'a> Keys<'a> {
    /// Flattens the tree in preorder, so that parents lie before their children.
    fn gather(
        &mut self,
        prefix: &str,
        list: &'a [Entry],
        parent: Option<usize>,
        depth: usize,
    ) -> Result<(), WriteError> {
        if depth > MAX_DEPTH || (depth == MAX_DEPTH && !list.is_empty()) {
            return Err(error(
                WriteErrorKind::Shape,
                prefix,
                format!("keys nest more than {MAX_DEPTH} deep"),
            ));
        }
        for (i, entry) in list.iter().enumerate() {
            let path = || join(prefix, &entry.name, 0);
            if entry.name.len() > MAX_NAME || entry.name.contains('\0') {
                let reason = format!("a name has at most {MAX_NAME} bytes and no NUL");
                return Err(error(WriteErrorKind::Name, &path(), reason));
            }
            if self.records.len() == MAX_ENTRIES {
                return Err(error(WriteErrorKind::Limit, prefix, format!("more than {MAX_ENTRIES} keys")));
            }
            let insertion = u32::try_from(i + 1)
                .map_err(|_| error(WriteErrorKind::Limit, prefix, "a node has too many keys"))?;
            let (kind, data) = self.encode(entry).map_err(|(kind, reason)| error(kind, &path(), reason))?;
            let file_flag = if matches!(data, Data::File(_)) { Entry::FILE_OBJECT } else { 0 };
            self.records.push(Record {
                name: &entry.name,
                kind,
                flags: entry.flags & !Entry::FILE_OBJECT | file_flag,
                parent,
                insertion,
                data,
                place: (0, 0),
                size: 0,
            });
            if let Value::Node(children) = &entry.value {
                let this = self.records.len() - 1;
                self.gather(&path(), children, Some(this), depth + 1)?;
            }
        }
        Ok(())
    }

    fn encode(&mut self, entry: &'a Entry) -> Result<(u8, Data<'a>), (WriteErrorKind, String)> {
        let inline = |bytes: Vec<u8>| Data::Inline(Cow::Owned(bytes));
        Ok(match &entry.value {
            Value::Int(v) => (key::INT, inline(v.to_le_bytes().to_vec())),
            Value::Uint(v) => (key::UINT, inline(v.to_le_bytes().to_vec())),
            Value::Double(v) => (key::DOUBLE, inline(v.to_le_bytes().to_vec())),
            Value::Bool(v) => (key::BOOL, inline(u32::from(*v).to_le_bytes().to_vec())),
            Value::String(v) => (key::STRING, self.sized(entry, Cow::Owned(v.to_utf16le()))?),
            Value::Array(v) => (key::ARRAY, self.sized(entry, Cow::Borrowed(v))?),
            Value::Node(children) => {
                let next = u32::try_from(children.len()).unwrap_or(u32::MAX - 1);
                let next = if next == 0 { 0 } else { next.saturating_add(1) };
                let node = NodeData { change_sequence: 0.into(), next_insertion: next.into() };
                (key::NODE, inline(node.as_bytes().to_vec()))
            }
            Value::Unknown { type_id, data } => {
                if matches!(*type_id, key::FREE | key::INT..=key::NODE) {
                    let reason = format!("type {type_id} is not an unknown one");
                    return Err((WriteErrorKind::Value, reason));
                }
                let fits = entry_size(&entry.name, data.len(), LEAF_SLACK) <= self.capacity();
                let data = if entry.flags & Entry::FILE_OBJECT != 0 {
                    self.file(Cow::Borrowed(data))?
                } else if fits {
                    Data::Inline(Cow::Borrowed(data))
                } else {
                    let reason = format!("{} bytes of an unknown type do not fit a key table", data.len());
                    return Err((WriteErrorKind::Value, reason));
                };
                (*type_id, data)
            }
        })
    }

    /// A value with its length before it; a file object when it is large, or lay in one and may as well stay there.
    fn sized(&mut self, entry: &Entry, value: Cow<'a, [u8]>) -> Result<Data<'a>, (WriteErrorKind, String)> {
        if value.len() >= FILE_OBJECT_FROM || entry.flags & Entry::FILE_OBJECT != 0 {
            return self.file(value);
        }
        let mut data = (value.len() as u32).to_le_bytes().to_vec();
        data.extend_from_slice(&value);
        Ok(Data::Inline(Cow::Owned(data)))
    }

    fn file(&mut self, value: Cow<'a, [u8]>) -> Result<Data<'a>, (WriteErrorKind, String)> {
        if value.len() as u64 > MAX_FILE {
            let reason = format!("the value has {} bytes, more than {MAX_FILE}", value.len());
            return Err((WriteErrorKind::Limit, reason));
        }
        self.files.push(value);
        Ok(Data::File(self.files.len() - 1))
    }

    /// Size of a key table; an object, so a multiple of the alignment.
    fn table_size(&self) -> usize {
        self.alignment
    }

    fn capacity(&self) -> usize {
        self.table_size() - size_of::<KeyTableHeader>()
    }

    /// Gives every record its place and size: tables are filled in order and exactly.
    fn place(&mut self) -> Result<(), WriteError> {
        let capacity = self.capacity();
        let mut tables: Vec<Table> = vec![Table::default()];
        for i in 0..self.records.len() {
            let record = &self.records[i];
            let (data, slack) = match &record.data {
                // A node and a pointer never grow.
                Data::Inline(data) if record.kind == key::NODE => (data.len(), 0),
                Data::Inline(data) => (data.len(), LEAF_SLACK),
                Data::File(_) => (size_of::<FilePointer>(), 0),
            };
            let size = entry_size(record.name, data, slack);
            if tables.last().is_none_or(|t| t.used + size > capacity) {
                tables.push(Table::default());
            }
            let index = u16::try_from(tables.len())
                .map_err(|_| error(WriteErrorKind::Limit, "", "more than 65535 key tables are needed"))?;
            let Some(table) = tables.last_mut() else { continue };
            self.records[i].place = (index, size_of::<KeyTableHeader>() + table.used);
            self.records[i].size = size;
            table.used += size;
            table.records.push(i);
        }
        for table in &mut tables {
            let gap = capacity - table.used;
            match table.records.last() {
                // Too small for a free entry: the last entry takes it as slack.
                Some(last) if gap <= size_of::<KeyHeader>() => self.records[*last].size += gap,
                _ => table.free = gap,
            }
        }
        self.tables = tables;
        Ok(())
    }

    /// The bytes of one table, once file objects have their offsets.
    fn table_bytes(&self, index: usize, file_offsets: &[u64]) -> Vec<u8> {
        let table = &self.tables[index];
        let header = KeyTableHeader {
            signature: KEY_TABLE_SIGNATURE.into(),
            index: (index as u16 + 1).into(),
            sequence: 1.into(),
            checksum: 0.into(),
        };
        let mut out = Vec::with_capacity(self.table_size());
        out.extend_from_slice(header.sealed().as_bytes());
        for i in &table.records {
            self.put_entry(&self.records[*i], file_offsets, &mut out);
        }
        if table.free > 0 {
            let header = KeyHeader {
                kind: key::FREE,
                flags: 0,
                size: (table.free as u32).into(),
                parent_table: 0.into(),
                parent_offset: 0.into(),
                checksum: 0.into(),
                insertion: 0.into(),
                name_length: 0,
            };
            out.extend_from_slice(header.as_bytes());
        }
        out.resize(self.table_size(), 0);
        out
    }

    fn put_entry(&self, record: &Record<'_>, file_offsets: &[u64], out: &mut Vec<u8>) {
        let pointer;
        let data: &[u8] = match &record.data {
            Data::Inline(data) => data,
            Data::File(i) => {
                let size = self.files[*i].len() as u32;
                pointer = FilePointer { size: size.into(), offset: file_offsets[*i].into() };
                pointer.as_bytes()
            }
        };
        let (table, offset) = record.parent.map_or((0, 0), |p| self.records[p].place);
        let mut header = KeyHeader {
            kind: record.kind,
            flags: record.flags,
            size: (record.size as u32).into(),
            parent_table: table.into(),
            parent_offset: (offset as u32).into(),
            checksum: 0.into(),
            insertion: record.insertion.into(),
            name_length: record.name.len() as u8 + 1,
        };
        let mut hasher = header.hasher();
        hasher.update(record.name.as_bytes());
        hasher.update(&[0]);
        hasher.update(data);
        header.store(hasher.finalize());
        let end = out.len() + record.size;
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(record.name.as_bytes());
        out.push(0);
        out.extend_from_slice(data);
        out.resize(end, 0);
    }
}

fn entry_size(name: &str, data: usize, slack: usize) -> usize {
    size_of::<KeyHeader>() + name.len() + 1 + data + slack
}

/// Assigns offsets and puts the file together.
fn layout(keys: Keys<'_>, origin: &ContainerOrigin) -> Result<Vec<u8>, WriteError> {
    let alignment = keys.alignment as u64;
    let table_bytes = u64::from(MIN_ALIGNMENT).next_multiple_of(alignment);
    let mut end = (ROOT_TABLE + table_bytes).next_multiple_of(alignment);
    let mut allocate = |size: u64| {
        let at = end;
        end += size.next_multiple_of(alignment);
        at
    };
    let mut objects = Vec::with_capacity(keys.tables.len() + keys.files.len());
    let key_offsets: Vec<u64> = keys.tables.iter().map(|_| allocate(keys.table_size() as u64)).collect();
    objects.extend(key_offsets.iter().map(|at| (object::KEY_TABLE, *at, keys.table_size() as u64)));
    // An empty value still gets an object of its own: two objects may not share an offset.
    let file_sizes: Vec<u64> =
        keys.files.iter().map(|f| (f.len() as u64).max(1).next_multiple_of(alignment)).collect();
    let file_offsets: Vec<u64> = file_sizes.iter().map(|size| allocate(*size)).collect();
    objects.extend(file_offsets.iter().zip(&file_sizes).map(|(at, size)| (object::FILE, *at, *size)));

    // All tables but the last give their last entry to the chain.
    let mut table_offsets = vec![ROOT_TABLE];
    let mut rest = objects.len();
    while rest > OBJECT_TABLE_ENTRIES {
        rest -= OBJECT_TABLE_ENTRIES - 1;
        table_offsets.push(allocate(table_bytes));
    }
    let log_size = origin.log_size.max(2 * u64::from(LOG_HEADER_SIZE)).next_multiple_of(alignment);
    let log_offset = allocate(log_size);
    if end > MAX_FILE {
        let reason = format!("the file would have {end} bytes, more than {MAX_FILE}");
        return Err(error(WriteErrorKind::Limit, "", reason));
    }

    let mut out = vec![0; end as usize];
    let mut put = |at: u64, bytes: &[u8]| out[at as usize..][..bytes.len()].copy_from_slice(bytes);
    let current = origin.sequence.max(2);
    for (at, sequence) in HEADER_OFFSETS.into_iter().zip([current, current - 1]) {
        let header = FileHeader {
            signature: HEADER_SIGNATURE.into(),
            checksum: 0.into(),
            sequence: sequence.into(),
            format: FORMAT_VERSION.into(),
            data_version: origin.data_version.into(),
            flags: origin.flags.into(),
            alignment: (alignment as u32).into(),
            log_offset: log_offset.into(),
            log_size: log_size.into(),
            log_header_size: LOG_HEADER_SIZE.into(),
        };
        put(at, header.sealed().as_bytes());
    }
    let mut objects = objects.into_iter();
    for (i, at) in table_offsets.iter().enumerate() {
        put(*at, &object_table(&mut objects, table_offsets.get(i + 1).copied(), table_bytes));
    }
    for (i, at) in key_offsets.iter().enumerate() {
        put(*at, &keys.table_bytes(i, &file_offsets));
    }
    for (at, data) in file_offsets.iter().zip(&keys.files) {
        put(*at, data);
    }
    let log = LogHeader {
        signature: LOG_SIGNATURE.into(),
        checksum: 0.into(),
        pending: 0.into(),
        reserved: 0,
        max_entries: (LOG_ENTRIES as u32).into(),
        change_tracking: 0,
        change_buffer_offset: 0.into(),
        change_buffer_size: 0.into(),
        change_buffer_used: 0.into(),
    };
    put(log_offset, log.sealed().as_bytes());
    Ok(out)
}

/// One object table, filled from `objects`; the last entry leads to the table at `next`.
fn object_table(
    objects: &mut impl Iterator<Item = (u8, u64, u64)>,
    next: Option<u64>,
    table_bytes: u64,
) -> Vec<u8> {
    let count = (OBJECT_TABLE_ENTRIES as u32).into();
    let header = ObjectTableHeader { signature: OBJECT_TABLE_SIGNATURE.into(), count };
    let mut out = header.as_bytes().to_vec();
    let own = OBJECT_TABLE_ENTRIES - usize::from(next.is_some());
    let chain = next.map(|at| (object::OBJECT_TABLE, at, table_bytes));
    for i in 0..OBJECT_TABLE_ENTRIES {
        let object = if i < own { objects.next() } else { chain };
        let (kind, offset, size) = object.unwrap_or((object::EMPTY, 0, 0));
        let entry = ObjectEntry {
            kind,
            checksum: 0.into(),
            offset: offset.into(),
            size: (size as u32).into(),
            flags: if kind == object::EMPTY { 0 } else { OBJECT_ALLOCATED },
        };
        out.extend_from_slice(entry.sealed().as_bytes());
    }
    out
}

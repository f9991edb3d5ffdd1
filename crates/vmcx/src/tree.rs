//! The ordered key tree: what a configuration *says*, apart from how a file spells it.
//!
//! Siblings keep their order and may share a name (real VMRS files repeat `devicetype` and `metric`), so this is an
//! ordered multimap. Paths are `/`-separated names from the root, `configuration/properties/name`; each step takes the
//! first sibling of that name, `metric[2]` takes the third. What differs between two trees is the business of
//! [`crate::diff()`], turning keys into typed machine settings that of the crates above.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::{EditError, Text};

/// A whole tree: the children of the virtual root, in insertion order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tree {
    /// Top-level entries; a machine configuration has exactly one, `configuration`.
    pub entries: Vec<Entry>,
}

/// One key: a name, its flags and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name, not unique among siblings.
    pub name: String,
    /// Flags as stored: see [`Entry::SUBCOMPONENT`] and [`Entry::CHANGE_TRACKING`]. Unknown bits are kept. Always zero
    /// for a tree read from XML, which has no place for them.
    pub flags: u8,
    /// What the key holds.
    pub value: Value,
}

/// What a key holds.
#[derive(Clone, Debug)]
pub enum Value {
    /// A node with its children in insertion order.
    Node(Vec<Entry>),
    /// Type 3, XML `integer`.
    Int(i64),
    /// Type 4; becomes `integer` in XML.
    Uint(u64),
    /// Type 5, XML `double`. Compared by bits, so that NaN equals itself.
    Double(f64),
    /// Type 6, XML `string`.
    String(Text),
    /// Type 7, XML `bytes`.
    Array(Vec<u8>),
    /// Type 8, XML `bool`.
    Bool(bool),
    /// A type this crate does not know, kept byte for byte, and where it lay ([`Entry::FILE_OBJECT`]).
    Unknown {
        /// Type number as stored; never 1 (free) nor one of the known ones.
        type_id: u8,
        /// The data: what the entry's checksum covers after the name, or the file object's content.
        data: Vec<u8>,
    },
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Node(a), Value::Node(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Uint(a), Value::Uint(b)) => a == b,
            (Value::Double(a), Value::Double(b)) => a.to_bits() == b.to_bits(),
            (Value::String(a), Value::String(b)) => a == b,
            (Value::Array(a), Value::Array(b)) => a == b,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Unknown { type_id: t, data: a }, Value::Unknown { type_id: u, data: b }) => {
                t == u && a == b
            }
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Value {
    /// The type's name in dumps: `node`, `int`, `uint`, `double`, `string`, `array`, `bool` or `unknown:N`.
    pub fn type_name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Value::Node(_) => "node",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Bool(_) => "bool",
            Value::Unknown { type_id, .. } => return Cow::Owned(format!("unknown:{type_id}")),
        })
    }

    /// True for a node.
    pub fn is_node(&self) -> bool {
        matches!(self, Value::Node(_))
    }

    /// The children; empty for a leaf.
    pub fn children(&self) -> &[Entry] {
        match self {
            Value::Node(c) => c,
            _ => &[],
        }
    }

    /// The integer, from either integer type when it fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(v) => Some(*v),
            Value::Uint(v) => i64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// The integer, from either integer type when it is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Int(v) => u64::try_from(*v).ok(),
            Value::Uint(v) => Some(*v),
            _ => None,
        }
    }

    /// The floating point number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Double(v) => Some(*v),
            _ => None,
        }
    }

    /// The truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(v) => Some(*v),
            _ => None,
        }
    }

    /// The text.
    pub fn as_text(&self) -> Option<&Text> {
        match self {
            Value::String(v) => Some(v),
            _ => None,
        }
    }

    /// The byte array.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Array(v) => Some(v),
            _ => None,
        }
    }
}

impl From<i64> for Value {
    fn from(v: i64) -> Value {
        Value::Int(v)
    }
}

impl From<i32> for Value {
    fn from(v: i32) -> Value {
        Value::Int(v.into())
    }
}

impl From<u32> for Value {
    fn from(v: u32) -> Value {
        Value::Int(v.into())
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Value {
        Value::Bool(v)
    }
}

impl From<&str> for Value {
    fn from(v: &str) -> Value {
        Value::String(Text::from(v))
    }
}

impl From<String> for Value {
    fn from(v: String) -> Value {
        Value::String(Text::from(v))
    }
}

impl From<Text> for Value {
    fn from(v: Text) -> Value {
        Value::String(v)
    }
}

impl From<Vec<u8>> for Value {
    fn from(v: Vec<u8>) -> Value {
        Value::Array(v)
    }
}

impl From<Vec<Entry>> for Value {
    fn from(v: Vec<Entry>) -> Value {
        Value::Node(v)
    }
}

impl Entry {
    /// Flag bit 0: the value lies in a file object, a matter of storage and not of meaning. Reading keeps it; writing
    /// sets it on large values, leaves it on strings, arrays and unknown types, and clears it elsewhere. Nobody else
    /// need care.
    pub const FILE_OBJECT: u8 = 1;
    /// Flag bit 1: the key names its node among repeated siblings (`guid`, `typecode`).
    pub const SUBCOMPONENT: u8 = 2;
    /// Flag bit 2: the key takes part in change tracking.
    pub const CHANGE_TRACKING: u8 = 4;

    /// A leaf or node without flags.
    pub fn new(name: impl Into<String>, value: impl Into<Value>) -> Entry {
        Entry { name: name.into(), flags: 0, value: value.into() }
    }

    /// A node with these children, without flags.
    pub fn node(name: impl Into<String>, children: Vec<Entry>) -> Entry {
        Entry::new(name, Value::Node(children))
    }

    /// The children; empty for a leaf.
    pub fn children(&self) -> &[Entry] {
        self.value.children()
    }

    /// The entry at `path` below this one.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        find(self.children(), path)
    }

    /// The value at `path` below this entry.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.entry(path).map(|e| &e.value)
    }

    /// As [`Tree::get_i64`], below this entry.
    pub fn get_i64(&self, path: &str) -> Option<i64> {
        self.get(path)?.as_i64()
    }

    /// As [`Tree::get_u64`], below this entry.
    pub fn get_u64(&self, path: &str) -> Option<u64> {
        self.get(path)?.as_u64()
    }

    /// As [`Tree::get_bool`], below this entry.
    pub fn get_bool(&self, path: &str) -> Option<bool> {
        self.get(path)?.as_bool()
    }

    /// As [`Tree::get_str`], below this entry.
    pub fn get_str(&self, path: &str) -> Option<String> {
        self.get(path)?.as_text().map(Text::to_string_lossy)
    }

    /// As [`Tree::get_bytes`], below this entry.
    pub fn get_bytes(&self, path: &str) -> Option<&[u8]> {
        self.get(path)?.as_bytes()
    }

    /// As [`Tree::set`], below this entry, which must be a node.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> Result<Option<Value>, EditError> {
        match &mut self.value {
            Value::Node(c) => set_in(c, path, value.into()),
            _ => Err(EditError::not_a_node(path, &self.name)),
        }
    }

    /// As [`Tree::remove`], below this entry.
    pub fn remove(&mut self, path: &str) -> Option<Entry> {
        match &mut self.value {
            Value::Node(c) => remove_in(c, path),
            _ => None,
        }
    }

    /// As [`Tree::children_with_prefix`], of this entry.
    pub fn children_with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.children().iter().filter(move |e| e.name.starts_with(prefix))
    }
}

impl Tree {
    /// An empty tree.
    pub fn new() -> Tree {
        Tree::default()
    }

    /// The entry at `path`, first match at every step.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        find(&self.entries, path)
    }

    /// The entry at `path`, to be changed in place: its position and flags stay.
    pub fn entry_mut(&mut self, path: &str) -> Option<&mut Entry> {
        let (list, at) = find_slot(&mut self.entries, path)?;
        list.get_mut(at)
    }

    /// The value at `path`.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.entry(path).map(|e| &e.value)
    }

    /// The value at `path`, to be changed in place.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Value> {
        self.entry_mut(path).map(|e| &mut e.value)
    }

    /// True when there is an entry at `path`.
    pub fn contains(&self, path: &str) -> bool {
        self.entry(path).is_some()
    }

    /// The children of the node at `path` (of the root for `""`); empty when it is absent or a leaf.
    pub fn children(&self, path: &str) -> &[Entry] {
        if path.is_empty() { &self.entries } else { self.entry(path).map_or(&[], Entry::children) }
    }

    /// The children of the node at `path` (of the root for `""`), to be changed; `None` when absent or a leaf.
    pub fn children_mut(&mut self, path: &str) -> Option<&mut Vec<Entry>> {
        if path.is_empty() {
            return Some(&mut self.entries);
        }
        match self.get_mut(path)? {
            Value::Node(c) => Some(c),
            _ => None,
        }
    }

    /// The children of the node at `path` whose name starts with `prefix`, in order: `vdev`, `drive`, `controller`.
    pub fn children_with_prefix<'a>(
        &'a self,
        path: &str,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.children(path).iter().filter(move |e| e.name.starts_with(prefix))
    }

    /// The integer at `path`, from either integer type when it fits.
    pub fn get_i64(&self, path: &str) -> Option<i64> {
        self.get(path)?.as_i64()
    }

    /// The integer at `path`, from either integer type when it is not negative.
    pub fn get_u64(&self, path: &str) -> Option<u64> {
        self.get(path)?.as_u64()
    }

    /// The floating point number at `path`.
    pub fn get_f64(&self, path: &str) -> Option<f64> {
        self.get(path)?.as_f64()
    }

    /// The truth value at `path`.
    pub fn get_bool(&self, path: &str) -> Option<bool> {
        self.get(path)?.as_bool()
    }

    /// The string at `path` as a Rust string; a trailing NUL is dropped, unpaired surrogates become U+FFFD.
    pub fn get_str(&self, path: &str) -> Option<String> {
        self.get(path)?.as_text().map(Text::to_string_lossy)
    }

    /// The string at `path`, exact.
    pub fn get_text(&self, path: &str) -> Option<&Text> {
        self.get(path)?.as_text()
    }

    /// The byte array at `path`.
    pub fn get_bytes(&self, path: &str) -> Option<&[u8]> {
        self.get(path)?.as_bytes()
    }

    /// Sets the value at `path` and returns the former one.
    ///
    /// An existing key keeps its position and flags; a new one, and every node missing on the way, is appended after
    /// its siblings without flags. A step `name[n]` only ever names an existing key.
    ///
    /// # Errors
    /// When a step on the way is a leaf, a name is empty or longer than a container can hold, or `name[n]` is absent.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> Result<Option<Value>, EditError> {
        set_in(&mut self.entries, path, value.into())
    }

    /// As [`Tree::set`], but does nothing when a key is already there, whatever it holds.
    ///
    /// # Errors
    /// As [`Tree::set`].
    pub fn set_default(&mut self, path: &str, value: impl Into<Value>) -> Result<(), EditError> {
        if !self.contains(path) {
            self.set(path, value)?;
        }
        Ok(())
    }

    /// Removes and returns the first entry at `path`, with everything below it.
    pub fn remove(&mut self, path: &str) -> Option<Entry> {
        remove_in(&mut self.entries, path)
    }

    /// Every entry in document order, nodes before their children, with its path.
    pub fn walk(&self) -> Walk<'_> {
        Walk { stack: vec![Level { prefix: String::new(), rest: self.entries.iter(), seen: HashMap::new() }] }
    }

    /// Number of entries in the whole tree.
    pub fn len(&self) -> usize {
        fn count(list: &[Entry]) -> usize {
            list.iter().map(|e| 1 + count(e.children())).sum()
        }
        count(&self.entries)
    }

    /// True when there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Iterator of [`Tree::walk`]: `(path, entry)`; repeated names carry their index (`metric[1]`), so every path is unique.
#[derive(Debug)]
pub struct Walk<'a> {
    stack: Vec<Level<'a>>,
}

#[derive(Debug)]
struct Level<'a> {
    prefix: String,
    rest: std::slice::Iter<'a, Entry>,
    /// How many siblings of each name came already.
    seen: HashMap<&'a str, usize>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = (String, &'a Entry);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let level = self.stack.last_mut()?;
            let Some(entry) = level.rest.next() else {
                self.stack.pop();
                continue;
            };
            let rank = level.seen.entry(&entry.name).or_default();
            let path = join(&level.prefix, &entry.name, *rank);
            *rank += 1;
            if let Value::Node(children) = &entry.value {
                self.stack.push(Level { prefix: path.clone(), rest: children.iter(), seen: HashMap::new() });
            }
            return Some((path, entry));
        }
    }
}

/// Appends a step to a path; repeated siblings get their index.
pub(crate) fn join(prefix: &str, name: &str, index: usize) -> String {
    let slash = if prefix.is_empty() { "" } else { "/" };
    if index == 0 { format!("{prefix}{slash}{name}") } else { format!("{prefix}{slash}{name}[{index}]") }
}

/// Position of the child a step names: the first of that very name, else `name[n]` read as an index.
fn position(list: &[Entry], step: &str) -> Option<usize> {
    if let Some(at) = list.iter().position(|e| e.name == step) {
        return Some(at);
    }
    let (name, index) = split_index(step)?;
    list.iter().enumerate().filter(|(_, e)| e.name == name).nth(index).map(|(at, _)| at)
}

fn split_index(step: &str) -> Option<(&str, usize)> {
    let (name, index) = step.strip_suffix(']')?.rsplit_once('[')?;
    Some((name, index.parse().ok()?))
}

fn find<'a>(mut list: &'a [Entry], path: &str) -> Option<&'a Entry> {
    let mut steps = path.split('/').peekable();
    loop {
        let entry = list.get(position(list, steps.next()?)?)?;
        if steps.peek().is_none() {
            return Some(entry);
        }
        list = entry.children();
    }
}

fn find_slot<'a>(mut list: &'a mut Vec<Entry>, path: &str) -> Option<(&'a mut Vec<Entry>, usize)> {
    let mut steps = path.split('/').peekable();
    loop {
        let at = position(list, steps.next()?)?;
        if steps.peek().is_none() {
            return Some((list, at));
        }
        match &mut list.get_mut(at)?.value {
            Value::Node(c) => list = c,
            _ => return None,
        }
    }
}

fn set_in(mut list: &mut Vec<Entry>, path: &str, value: Value) -> Result<Option<Value>, EditError> {
    let mut steps = path.split('/').peekable();
    while let Some(step) = steps.next() {
        let last = steps.peek().is_none();
        let at = match position(list, step) {
            Some(at) => at,
            None => {
                check_new_name(path, step)?;
                if last {
                    list.push(Entry::new(step, value));
                    return Ok(None);
                }
                list.push(Entry::node(step, Vec::new()));
                list.len() - 1
            }
        };
        let Some(entry) = list.get_mut(at) else { break };
        if last {
            return Ok(Some(std::mem::replace(&mut entry.value, value)));
        }
        list = match &mut entry.value {
            Value::Node(c) => c,
            _ => return Err(EditError::not_a_node(path, step)),
        };
    }
    Err(EditError::bad_name(path, ""))
}

fn check_new_name(path: &str, step: &str) -> Result<(), EditError> {
    let fits = !step.is_empty() && step.len() <= crate::MAX_NAME && !step.contains('\0');
    if fits && split_index(step).is_none() { Ok(()) } else { Err(EditError::bad_name(path, step)) }
}

fn remove_in(list: &mut Vec<Entry>, path: &str) -> Option<Entry> {
    let (list, at) = find_slot(list, path)?;
    Some(list.remove(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        let metric = |v: i64| Entry::node("metric", vec![Entry::new("value", v)]);
        Tree {
            entries: vec![Entry::node(
                "configuration",
                vec![
                    Entry { name: "name".into(), flags: 2, value: Value::from("old") },
                    metric(1),
                    metric(2),
                    Entry::new("size", Value::Uint(7)),
                ],
            )],
        }
    }

    #[test]
    fn lookups_take_the_first_match_and_an_index_reaches_the_others() {
        let t = sample();
        assert_eq!(t.get_i64("configuration/metric/value"), Some(1));
        assert_eq!(t.get_i64("configuration/metric[1]/value"), Some(2));
        assert_eq!(t.get_i64("configuration/metric[2]/value"), None);
        assert_eq!(t.get_i64("configuration/size"), Some(7));
        assert_eq!(t.get_str("configuration/name").as_deref(), Some("old"));
        assert_eq!(t.get("configuration/name/below"), None);
        assert_eq!(t.get(""), None);
        assert_eq!(t.children("").len(), 1);
        assert_eq!(t.children_with_prefix("configuration", "met").count(), 2);
        assert_eq!(t.len(), 7);
    }

    #[test]
    fn set_keeps_position_and_flags_and_appends_what_is_new() {
        let mut t = sample();
        assert_eq!(t.set("configuration/name", "new").unwrap(), Some(Value::from("old")));
        assert_eq!(t.set("configuration/a/b", 5).unwrap(), None);
        let names: Vec<_> = t.children("configuration").iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["name", "metric", "metric", "size", "a"]);
        assert_eq!(t.entry("configuration/name").unwrap().flags, 2);
        t.set_default("configuration/a/b", 6).unwrap();
        assert_eq!(t.get_i64("configuration/a/b"), Some(5));
    }

    #[test]
    fn set_refuses_leaves_on_the_way_absent_indices_and_bad_names() {
        let mut t = sample();
        assert!(t.set("configuration/name/x", 1).unwrap_err().to_string().contains("name"));
        assert!(t.set("configuration/metric[9]/value", 1).is_err());
        assert!(t.set("", 1).is_err());
        assert!(t.set("configuration//x", 1).is_err());
        assert!(t.set(&"n".repeat(255), 1).is_err());
        assert!(t.set(&"n".repeat(254), 1).is_ok());
    }

    #[test]
    fn remove_takes_one_and_leaves_the_rest() {
        let mut t = sample();
        assert_eq!(t.remove("configuration/metric").unwrap().get_i64("value"), Some(1));
        assert_eq!(t.get_i64("configuration/metric/value"), Some(2));
        assert_eq!(t.remove("configuration/none"), None);
    }

    #[test]
    fn walk_gives_every_entry_a_unique_path_that_finds_it() {
        let t = sample();
        let all: Vec<_> = t.walk().collect();
        assert_eq!(all.len(), t.len());
        for (path, entry) in all {
            assert!(std::ptr::eq(t.entry(&path).unwrap(), entry), "{path}");
        }
    }
}

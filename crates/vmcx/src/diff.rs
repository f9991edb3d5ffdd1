//! What differs between two trees, leaf by leaf.
//!
//! Siblings are matched by name and by their rank among siblings of that name, so that a repeated `metric` is compared
//! with its counterpart. Order among differently named siblings is not compared: use `==` on the trees for that.

use std::collections::HashMap;

use crate::tree::join;
use crate::{Entry, Tree, Value};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where; repeated names carry their index, as in [`Tree::walk`].
    pub path: String,
    /// The value before; `None` when the key is new.
    pub before: Option<Value>,
    /// The value after; `None` when the key is gone. A key that was a leaf and is a node now, or the reverse, has an
    /// empty node on the node side, and the node's own leaves follow as changes of their own.
    pub after: Option<Value>,
    /// Flags before and after, when both sides exist and they differ.
    pub flags: Option<(u8, u8)>,
}

/// The differences from `a` to `b`, in the order of `a`, with what only `b` has after its siblings.
///
/// Nodes are listed only when they are empty on the one side that has them, or turned into or from a leaf.
pub fn diff(a: &Tree, b: &Tree) -> Vec<Change> {
    let mut out = Vec::new();
    compare("", &a.entries, &b.entries, &mut out);
    out
}

fn compare(prefix: &str, a: &[Entry], b: &[Entry], out: &mut Vec<Change>) {
    let in_b: HashMap<(&str, usize), &Entry> = ranked(b).collect();
    let in_a: HashMap<(&str, usize), &Entry> = ranked(a).collect();
    for (key, x) in ranked(a) {
        pair(&join(prefix, key.0, key.1), Some(x), in_b.get(&key).copied(), out);
    }
    for (key, y) in ranked(b).filter(|(key, _)| !in_a.contains_key(key)) {
        pair(&join(prefix, key.0, key.1), None, Some(y), out);
    }
}

/// Each entry with its name and its rank among the siblings of that name.
fn ranked(list: &[Entry]) -> impl Iterator<Item = ((&str, usize), &Entry)> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    list.iter().map(move |e| {
        let rank = seen.entry(e.name.as_str()).or_default();
        let key = (e.name.as_str(), *rank);
        *rank += 1;
        (key, e)
    })
}

fn pair(path: &str, a: Option<&Entry>, b: Option<&Entry>, out: &mut Vec<Change>) {
    let shallow = |e: Option<&Entry>| match e.map(|e| &e.value) {
        Some(Value::Node(_)) => Some(Value::Node(Vec::new())),
        other => other.cloned(),
    };
    let flags = match (a, b) {
        // Where a value is stored is not what it says.
        (Some(a), Some(b)) if (a.flags ^ b.flags) & !Entry::FILE_OBJECT != 0 => Some((a.flags, b.flags)),
        _ => None,
    };
    let (before, after) = (shallow(a), shallow(b));
    let (below_a, below_b) = (a.map_or(&[][..], Entry::children), b.map_or(&[][..], Entry::children));
    let node_with_leaves =
        |v: &Option<Value>, below: &[Entry]| v.as_ref().is_some_and(Value::is_node) && !below.is_empty();
    // A node that only one side has shows by its leaves.
    let told_below = (before.is_none() && node_with_leaves(&after, below_b))
        || (after.is_none() && node_with_leaves(&before, below_a));
    if (before != after && !told_below) || flags.is_some() {
        out.push(Change { path: path.to_owned(), before, after, flags });
    }
    if !below_a.is_empty() || !below_b.is_empty() {
        compare(path, below_a, below_b, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(leaves: &[(&str, i64)]) -> Tree {
        let mut t = Tree::new();
        for (path, v) in leaves {
            t.set(path, *v).unwrap();
        }
        t
    }

    fn told(a: &Tree, b: &Tree) -> Vec<(String, Option<Value>, Option<Value>)> {
        diff(a, b).into_iter().map(|c| (c.path, c.before, c.after)).collect()
    }

    #[test]
    fn lists_changed_added_and_removed_leaves() {
        let a = tree(&[("r/same", 1), ("r/changed", 1), ("r/gone/x", 1)]);
        let b = tree(&[("r/new/y/z", 3), ("r/same", 1), ("r/changed", 2)]);
        assert_eq!(
            told(&a, &b),
            [
                ("r/changed".into(), Some(Value::Int(1)), Some(Value::Int(2))),
                ("r/gone/x".into(), Some(Value::Int(1)), None),
                ("r/new/y/z".into(), None, Some(Value::Int(3))),
            ]
        );
        assert_eq!(diff(&a, &a), []);
    }

    #[test]
    fn repeated_names_are_matched_by_rank() {
        let m = |v| Entry::node("m", vec![Entry::new("v", v)]);
        let a = Tree { entries: vec![m(1), m(2)] };
        let b = Tree { entries: vec![m(1), m(3), m(4)] };
        assert_eq!(
            told(&a, &b),
            [
                ("m[1]/v".into(), Some(Value::Int(2)), Some(Value::Int(3))),
                ("m[2]/v".into(), None, Some(Value::Int(4))),
            ]
        );
    }

    #[test]
    fn leaf_to_node_empty_nodes_and_flags_show() {
        let a = tree(&[("k", 1)]);
        let b = tree(&[("k/x", 1)]);
        assert_eq!(
            told(&a, &b),
            [
                ("k".into(), Some(Value::Int(1)), Some(Value::Node(vec![]))),
                ("k/x".into(), None, Some(Value::Int(1))),
            ]
        );
        let empty = Tree { entries: vec![Entry::node("n", vec![])] };
        assert_eq!(told(&Tree::new(), &empty), [("n".into(), None, Some(Value::Node(vec![])))]);
        let mut flagged = a.clone();
        flagged.entries[0].flags = 4;
        assert_eq!(diff(&a, &flagged)[0].flags, Some((0, 4)));
    }
}

//! From the tree to XML, in the style that Hyper-V writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{MAX_XML, XmlOrigin, encoding, kind};
use crate::error::{WriteError, WriteErrorKind};
use crate::tree::join;
use crate::{Entry, MAX_DEPTH, MAX_NAME, Text, Tree, Value};

/// Characters of base64 on a line. The real samples have one line each, ended by a line break, which is how the Windows
/// routine that breaks at 64 leaves it.
const BASE64_LINE: usize = 64;

/// The tree as XML.
pub(crate) fn write(tree: &Tree, origin: &XmlOrigin) -> Result<Vec<u8>, WriteError> {
    let [root] = tree.entries.as_slice() else {
        let reason = format!("there must be one root, not {}", tree.entries.len());
        return Err(error(WriteErrorKind::Shape, "", reason));
    };
    if !root.value.is_node() {
        return Err(error(WriteErrorKind::Shape, &root.name, "the root must be a node"));
    }
    let mut writer = Writer { out: String::new(), newline: origin.newline.as_str(), indent: origin.indent };
    if !origin.declaration.is_empty() {
        writer.out.push_str(&origin.declaration);
        writer.out.push_str(writer.newline);
    }
    writer.entry("", root, 0)?;
    writer.out.push_str(&origin.trailing);
    let bytes = encoding::encode(&writer.out, origin.encoding, origin.bom);
    if bytes.len() > MAX_XML {
        let reason = format!("the file would have {} bytes, more than {MAX_XML}", bytes.len());
        return Err(error(WriteErrorKind::Limit, &root.name, reason));
    }
    Ok(bytes)
}

fn error(kind: WriteErrorKind, path: &str, reason: impl Into<String>) -> WriteError {
    WriteError::new(kind, "XML", path, reason)
}

struct Writer {
    out: String,
    newline: &'static str,
    indent: usize,
}

impl Writer {
    fn entry(&mut self, prefix: &str, entry: &Entry, depth: usize) -> Result<(), WriteError> {
        let path = join(prefix, &entry.name, 0);
        if depth >= MAX_DEPTH {
            return Err(error(WriteErrorKind::Shape, &path, format!("keys nest more than {MAX_DEPTH} deep")));
        }
        if !is_name(&entry.name) || entry.name.len() > MAX_NAME {
            return Err(error(WriteErrorKind::Name, &path, "the name is no XML name"));
        }
        let name = &entry.name;
        let (kind, text) = match &entry.value {
            Value::Node(children) => {
                self.open(name, None);
                for child in children {
                    self.line(depth + 1);
                    self.entry(&path, child, depth + 1)?;
                }
                if !children.is_empty() {
                    self.line(depth);
                }
                self.close(name);
                return Ok(());
            }
            Value::Int(v) => (kind::INTEGER, v.to_string()),
            Value::Uint(v) => (kind::INTEGER, v.to_string()),
            Value::Double(v) => (kind::DOUBLE, v.to_string()),
            Value::Bool(v) => (kind::BOOL, if *v { "True" } else { "False" }.to_owned()),
            Value::String(v) => {
                (kind::STRING, self.escaped(v).map_err(|r| error(WriteErrorKind::Value, &path, r))?)
            }
            Value::Array(v) => (kind::BYTES, self.base64(v)),
            Value::Unknown { type_id, .. } => {
                let reason = format!("values of type {type_id} have no spelling");
                return Err(error(WriteErrorKind::Value, &path, reason));
            }
        };
        self.open(name, Some(kind));
        self.out.push_str(&text);
        self.close(name);
        Ok(())
    }

    fn open(&mut self, name: &str, kind: Option<&str>) {
        self.out.push('<');
        self.out.push_str(name);
        if let Some(kind) = kind {
            for part in [" ", kind::ATTRIBUTE, "=\"", kind, "\""] {
                self.out.push_str(part);
            }
        }
        self.out.push('>');
    }

    fn close(&mut self, name: &str) {
        for part in ["</", name, ">"] {
            self.out.push_str(part);
        }
    }

    fn line(&mut self, depth: usize) {
        self.out.push_str(self.newline);
        self.out.extend(std::iter::repeat_n(' ', depth * self.indent));
    }

    /// Text as element content. A line feed becomes the file's line end, which every parser turns back; a carriage
    /// return needs a reference to survive. Other control characters have no spelling at all in XML 1.0.
    fn escaped(&self, text: &Text) -> Result<String, String> {
        let mut out = String::with_capacity(text.units().len());
        for c in char::decode_utf16(text.units().iter().copied()) {
            match c {
                Ok('&') => out.push_str("&amp;"),
                Ok('<') => out.push_str("&lt;"),
                Ok('>') => out.push_str("&gt;"),
                Ok('\n') => out.push_str(self.newline),
                Ok('\r') => out.push_str("&#13;"),
                Ok('\t') => out.push('\t'),
                Ok(c @ ('\0'..' ' | '\u{fffe}' | '\u{ffff}')) => {
                    return Err(format!("the string holds the character U+{:04X}", u32::from(c)));
                }
                Ok(c) => out.push(c),
                Err(e) => {
                    return Err(format!(
                        "the string holds half a surrogate pair, U+{:04X}",
                        e.unpaired_surrogate()
                    ));
                }
            }
        }
        Ok(out)
    }

    fn base64(&self, bytes: &[u8]) -> String {
        let mut out = String::new();
        for line in bytes.chunks(BASE64_LINE / 4 * 3) {
            STANDARD.encode_string(line, &mut out);
            out.push_str(self.newline);
        }
        out
    }
}

/// An XML name without a colon.
fn is_name(name: &str) -> bool {
    let start = |c: char| {
        matches!(c, 'A'..='Z' | 'a'..='z' | '_' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
            | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
            | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
            | '\u{10000}'..='\u{effff}')
    };
    let inner = |c: char| {
        start(c)
            || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
    };
    let mut characters = name.chars();
    characters.next().is_some_and(start) && characters.all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::read;

    fn leaf(value: impl Into<Value>) -> Tree {
        Tree { entries: vec![Entry::node("c", vec![Entry::new("v", value)])] }
    }

    fn text(tree: &Tree) -> String {
        let bytes = write(tree, &XmlOrigin::default()).unwrap();
        let units = bytes[2..].chunks(2).map(|p| u16::from_le_bytes([p[0], p[1]]));
        char::decode_utf16(units).map(Result::unwrap).collect()
    }

    #[test]
    fn the_style_is_hyper_vs() {
        assert_eq!(
            text(&leaf(vec![0; 49])),
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-16\" standalone=\"yes\"?>\r\n<c>\r\n  \
                 <v type=\"bytes\">{}\r\nAA==\r\n</v>\r\n</c>",
                "A".repeat(64)
            )
        );
        assert!(text(&leaf(true)).contains("<v type=\"bool\">True</v>"));
        assert!(text(&leaf("")).contains("<v type=\"string\"></v>"));
        assert!(text(&Tree { entries: vec![Entry::node("c", vec![])] }).ends_with("<c></c>"));
    }

    #[test]
    fn awkward_strings_come_back() {
        for s in ["<&>\"'", "]]>", " lead\ttab \r\n\n\r", "\u{85}\u{2028}\u{1f600}\u{7f}", "{{ packer }}"] {
            let t = leaf(s);
            let bytes = write(&t, &XmlOrigin::default()).unwrap();
            assert_eq!(read(&bytes).unwrap().tree, t, "{s:?}");
        }
    }

    #[test]
    fn what_has_no_spelling_is_refused_by_path() {
        let unpaired = Text::from_units(vec![0xd800]);
        for (tree, part) in [
            (leaf("\u{1}"), "U+0001"),
            (leaf("nul\0"), "U+0000"),
            (leaf("\u{ffff}"), "U+FFFF"),
            (leaf(unpaired), "U+D800"),
            (leaf(Value::Unknown { type_id: 2, data: vec![] }), "type 2"),
            (Tree::new(), "one root"),
            (Tree { entries: vec![Entry::new("c", 1)] }, "a node"),
            (Tree { entries: vec![Entry::node("a b", vec![])] }, "no XML name"),
            (Tree { entries: vec![Entry::node("a:b", vec![])] }, "no XML name"),
            (Tree { entries: vec![Entry::node("", vec![])] }, "no XML name"),
        ] {
            let e = write(&tree, &XmlOrigin::default()).unwrap_err();
            assert!(e.to_string().contains(part), "{e}");
        }
        let e = write(&leaf("\u{1}"), &XmlOrigin::default()).unwrap_err();
        assert_eq!(e.path(), "c/v");
    }
}

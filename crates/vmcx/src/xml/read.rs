//! From XML to the tree.
//!
//! Document types are refused altogether, and so are entities; size, nodes and nesting are bounded. Element text is taken
//! as XML has it (line ends become LF), so that Hyper-V and this reader see the same string.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use roxmltree::{Node, NodeType, ParsingOptions};

use super::{Encoding, MAX_XML, Newline, XmlOrigin, encoding, kind};
use crate::document::{MAX_NOTES, Origin};
use crate::error::{ReadError, ReadErrorKind};
use crate::{Document, Entry, Form, MAX_DEPTH, MAX_ENTRIES, MAX_NAME, Note, Text, Tree, Value};

/// Most elements, texts and comments together: as we write it, a key is an element, its text, and the space before it.
const MAX_NODES: u32 = 4 * MAX_ENTRIES as u32;
/// Longest tag in bytes of UTF-8: the parser compares attributes of one tag pair by pair.
const MAX_TAG: usize = 1024;
/// Most namespace declarations; real files have none. The parser's work grows with the cube of those in scope.
const MAX_NAMESPACES: usize = 64;
/// Most spaces a level that count as indentation.
const MAX_INDENT: usize = 16;

/// Reads the XML form.
pub(crate) fn read(bytes: &[u8]) -> Result<Document, ReadError> {
    if bytes.len() > MAX_XML {
        return Err(ReadError::limit(
            None,
            format!("the XML has {} bytes, more than {MAX_XML}", bytes.len()),
        ));
    }
    let (text, encoding, bom) = encoding::decode(bytes)?;
    check_counts(&text)?;
    check_tags(&text)?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = roxmltree::Document::parse_with_options(&text, options).map_err(|e| {
        let message = format!("the XML is malformed at line {}, column {}", e.pos().row, e.pos().col);
        ReadError::new(ReadErrorKind::Xml, None, message).caused_by(e)
    })?;
    let mut reader = Reader { document: &document, entries: 0, notes: Vec::new() };
    let root = document.root_element();
    let origin = reader.origin(&text, encoding, bom);
    let entry = reader.entry(root, 0)?;
    if !entry.value.is_node() {
        return Err(reader.error(root, "the root element holds a value, not keys"));
    }
    let outside = document.root().children().filter(|n| !n.is_element());
    for node in outside {
        reader.note(node, "a comment or instruction outside the root element is not kept");
    }
    Ok(Document {
        tree: Tree { entries: vec![entry] },
        form: Form::Xml,
        origin: Origin::Xml(origin),
        notes: reader.notes,
    })
}

/// Refuses more tags or attributes than [`MAX_NODES`] before the parser makes room for as many as there are `<` and `=`.
fn check_counts(text: &str) -> Result<(), ReadError> {
    let count = |wanted: u8| text.bytes().filter(|byte| *byte == wanted).count();
    if count(b'<') > MAX_NODES as usize || count(b'=') > MAX_NODES as usize {
        return Err(ReadError::limit(None, format!("the XML has more than {MAX_NODES} tags or attributes")));
    }
    Ok(())
}

/// Refuses what would keep the parser busy, before it meets it: overlong tags and many namespaces.
fn check_tags(text: &str) -> Result<(), ReadError> {
    let (mut rest, mut namespaces) = (text, 0);
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        let skip = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")]
            .into_iter()
            .find(|(s, _)| rest.starts_with(s));
        let end = match skip {
            Some((start, end)) => rest[start.len()..].find(end).map(|n| start.len() + n + end.len()),
            None => {
                let end = tag_end(rest.as_bytes());
                if end.unwrap_or(rest.len()) > MAX_TAG {
                    let row = text[..text.len() - rest.len()].matches('\n').count() + 1;
                    return Err(ReadError::limit(
                        None,
                        format!("a tag at line {row} has more than {MAX_TAG} bytes"),
                    ));
                }
                namespaces += rest[..end.unwrap_or(rest.len())].matches("xmlns").count();
                end
            }
        };
        if namespaces > MAX_NAMESPACES {
            let message = format!("the XML declares more than {MAX_NAMESPACES} namespaces");
            return Err(ReadError::limit(None, message));
        }
        match end.and_then(|end| rest.get(end..)) {
            Some(after) => rest = after,
            // Not closed: the parser says so better.
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Length of the tag that `rest` starts with, quoted values skipped.
fn tag_end(rest: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (i, b) in rest.iter().enumerate() {
        match (quote, b) {
            (None, b'>') => return Some(i + 1),
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(q), b) if q == b => quote = None,
            _ => {}
        }
    }
    None
}

struct Reader<'a, 'input> {
    document: &'a roxmltree::Document<'input>,
    entries: usize,
    notes: Vec<Note>,
}

impl<'a, 'input> Reader<'a, 'input> {
    fn place(&self, node: Node<'_, '_>) -> String {
        let pos = self.document.text_pos_at(node.range().start);
        format!("line {}, column {}", pos.row, pos.col)
    }

    fn error(&self, node: Node<'_, '_>, message: &str) -> ReadError {
        let name = node.tag_name().name();
        ReadError::new(
            ReadErrorKind::Xml,
            None,
            format!("element \"{name}\" at {}: {message}", self.place(node)),
        )
    }

    fn note(&mut self, node: Node<'_, '_>, message: &str) {
        if self.notes.len() < MAX_NOTES {
            let message = format!("{message} (at {})", self.place(node));
            self.notes.push(Note { offset: None, message });
        }
    }

    /// What a rewrite takes over.
    fn origin(&mut self, text: &str, encoding: Encoding, bom: bool) -> XmlOrigin {
        let declaration = match text.strip_prefix("<?xml").and_then(|rest| rest.find("?>")) {
            Some(end) => text[..end + "<?xml?>".len()].to_owned(),
            None => String::new(),
        };
        let newline = if text.contains("\r\n") { Newline::CrLf } else { Newline::Lf };
        let first = self.document.root_element().first_child().and_then(|n| n.text());
        let indent = first
            .and_then(|t| t.rsplit('\n').next())
            .filter(|s| !s.is_empty() && s.chars().all(|c| c == ' '));
        let root_end = self.document.root_element().range().end;
        let trailing =
            text.get(root_end..).filter(|t| t.len() <= MAX_TAG && t.trim().is_empty()).unwrap_or_default();
        let origin = XmlOrigin {
            encoding,
            bom,
            declaration,
            newline,
            indent: indent.map_or(2, str::len).min(MAX_INDENT),
            trailing: trailing.to_owned(),
        };
        if encoding == Encoding::Utf8 && origin.declaration.to_ascii_uppercase().contains("UTF-16") {
            let message =
                "the XML declares UTF-16 and is not; the bytes were believed, a rewrite is real UTF-16";
            self.notes.push(Note { offset: Some(0), message: message.to_owned() });
            return XmlOrigin { encoding: Encoding::Utf16Le, bom: true, ..origin };
        }
        origin
    }

    fn entry(&mut self, node: Node<'a, 'input>, depth: usize) -> Result<Entry, ReadError> {
        if depth >= MAX_DEPTH {
            return Err(ReadError::limit(
                None,
                format!("{} nests more than {MAX_DEPTH} deep", self.place(node)),
            ));
        }
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(ReadError::limit(None, format!("the XML holds more than {MAX_ENTRIES} keys")));
        }
        let name = node.tag_name().name();
        if name.len() > MAX_NAME {
            return Err(self.error(node, "the name is longer than a key's may be"));
        }
        if node.tag_name().namespace().is_some() || node.attributes().any(|a| a.name() != kind::ATTRIBUTE) {
            self.note(node, "namespaces and attributes other than \"type\" are not kept");
        }
        let value = match node.attribute(kind::ATTRIBUTE) {
            Some(kind) => self.leaf(node, kind)?,
            None => self.node_or_string(node, depth)?,
        };
        Ok(Entry { name: name.to_owned(), flags: 0, value })
    }

    /// The element's own text, in one piece whatever comments and CDATA sections cut it into.
    fn text(&mut self, node: Node<'a, 'input>) -> Result<String, ReadError> {
        let mut out = String::new();
        for child in node.children() {
            match child.node_type() {
                NodeType::Text => out.push_str(child.text().unwrap_or_default()),
                NodeType::Element => return Err(self.error(node, "a value has elements inside")),
                _ => self.note(child, "a comment or instruction is not kept"),
            }
        }
        Ok(out)
    }

    fn node_or_string(&mut self, node: Node<'a, 'input>, depth: usize) -> Result<Value, ReadError> {
        let blank = |n: &Node<'_, '_>| !n.is_text() || n.text().unwrap_or_default().trim().is_empty();
        if !node.children().all(|n| blank(&n)) {
            if node.children().any(|n| n.is_element()) {
                return Err(self.error(node, "it has text among its elements"));
            }
            self.note(node, "a value without a type was taken as a string");
            return Ok(Value::String(Text::from(self.text(node)?)));
        }
        let mut entries = Vec::new();
        for child in node.children() {
            match child.node_type() {
                NodeType::Element => entries.push(self.entry(child, depth + 1)?),
                NodeType::Text => {}
                _ => self.note(child, "a comment or instruction is not kept"),
            }
        }
        Ok(Value::Node(entries))
    }

    fn leaf(&mut self, node: Node<'a, 'input>, kind: &str) -> Result<Value, ReadError> {
        let text = self.text(node)?;
        let trimmed = text.trim();
        let is = |name: &str| kind.eq_ignore_ascii_case(name);
        if is(kind::STRING) {
            Ok(Value::String(Text::from(text)))
        } else if is(kind::INTEGER) {
            let signed = trimmed.parse().map(Value::Int);
            signed
                .or_else(|_| trimmed.parse().map(Value::Uint))
                .map_err(|e| self.value_error(node, "integer", e))
        } else if is(kind::BOOL) {
            match trimmed.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(Value::Bool(true)),
                "false" | "0" => Ok(Value::Bool(false)),
                _ => Err(self.error(node, "the value is neither True nor False")),
            }
        } else if is(kind::DOUBLE) {
            let number = trimmed.parse::<f64>().map_err(|e| self.value_error(node, "double", e))?;
            // The sign of "-nan" has no spelling on the way back.
            Ok(Value::Double(if number.is_nan() { f64::NAN } else { number }))
        } else if is(kind::BYTES) {
            let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
            let base64 = GeneralPurpose::new(&STANDARD, config);
            base64.decode(compact).map(Value::Array).map_err(|e| self.value_error(node, "base64", e))
        } else {
            Err(self.error(node, &format!("its type \"{}\" is not known", kind.escape_debug())))
        }
    }

    fn value_error(
        &self,
        node: Node<'_, '_>,
        what: &str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> ReadError {
        self.error(node, &format!("the value is no {what}")).caused_by(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(xml: &str) -> Result<Tree, ReadError> {
        read(xml.as_bytes()).map(|d| d.tree)
    }

    #[test]
    fn every_type_is_read() {
        let t = tree(
            "<?xml version='1.0'?><c><i type='integer'> -5 </i><u type='integer'>18446744073709551615</u>\
             <s type='string'> a\r\nb <![CDATA[<]]>&amp;&#13;</s><e type='string'/><b type='bool'>False</b>\
             <d type='double'>1.5</d><x type='bytes'>AAEC\r\n/w==\r\n</x><n/><m> <k type='bool'>True</k> </m></c>",
        )
        .unwrap();
        assert_eq!(t.get("c/i"), Some(&Value::Int(-5)));
        assert_eq!(t.get("c/u"), Some(&Value::Uint(u64::MAX)));
        assert_eq!(t.get("c/s"), Some(&Value::from(" a\nb <&\r")));
        assert_eq!(t.get("c/e"), Some(&Value::from("")));
        assert_eq!(t.get("c/b"), Some(&Value::Bool(false)));
        assert_eq!(t.get("c/d"), Some(&Value::Double(1.5)));
        assert_eq!(t.get("c/x"), Some(&Value::Array(vec![0, 1, 2, 255])));
        assert_eq!(t.get("c/n"), Some(&Value::Node(vec![])));
        assert_eq!(t.get("c/m/k"), Some(&Value::Bool(true)));
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_its_place() {
        for (xml, part) in [
            ("<c><i type='integer'>x</i></c>", "element \"i\" at line 1, column 4: the value is no integer"),
            ("<c><i type='integer'></i></c>", "no integer"),
            ("<c><b type='bool'>maybe</b></c>", "neither True nor False"),
            ("<c><x type='bytes'>?</x></c>", "no base64"),
            ("<c><x type='long'>1</x></c>", "type \"long\" is not known"),
            ("<c><x type='string'><y/></x></c>", "elements inside"),
            ("<c>text<y/></c>", "text among its elements"),
            ("<c type='string'>a</c>", "the root element holds a value"),
            ("<c>", "malformed at line 1"),
            ("<!DOCTYPE c [<!ENTITY a 'b'>]><c/>", "malformed"),
            ("<c>&undefined;</c>", "malformed"),
        ] {
            let e = tree(xml).unwrap_err();
            assert!(e.to_string().contains(part), "{xml}: {e}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let deep = "<a>".repeat(100_000) + &"</a>".repeat(100_000);
        assert_eq!(tree(&deep).unwrap_err().kind(), ReadErrorKind::Limit);
        let attributes: String = (0..100_000).map(|i| format!(" a{i}='>'")).collect();
        assert_eq!(tree(&format!("<c{attributes}/>")).unwrap_err().kind(), ReadErrorKind::Limit);
        let namespaces: String = (0..100_000).map(|i| format!("<a xmlns:n{i}='u'>")).collect();
        assert_eq!(tree(&namespaces).unwrap_err().kind(), ReadErrorKind::Limit);
        // The parser would make room for as many attributes, or elements, as this promises.
        for promise in ["=", "<"] {
            let text = format!("<c><a type='string'>{}</a></c>", promise.repeat(MAX_XML - 100));
            assert_eq!(tree(&text).unwrap_err().kind(), ReadErrorKind::Limit);
        }
        let laughs = "<!DOCTYPE z [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]><z>&b;</z>";
        assert_eq!(tree(laughs).unwrap_err().kind(), ReadErrorKind::Xml);
        let external = "<!DOCTYPE z SYSTEM 'file:///etc/passwd'><z/>";
        assert_eq!(tree(external).unwrap_err().kind(), ReadErrorKind::Xml);
    }

    #[test]
    fn untyped_text_is_a_string_and_told() {
        let d = read(b"<c><s>text</s><!-- gone --></c>").unwrap();
        assert_eq!(d.tree.get("c/s"), Some(&Value::from("text")));
        assert_eq!(d.notes.len(), 2);
    }
}

//! CIM-XML (DSP0201): the elements that carry instances, paths and values, and XML itself: written so that it can always
//! be read, read within limits.
//!
//! Messages are left to the protocols. [`crate::embedded`] makes texts of the same elements.

mod bounds;
mod read;
mod write;

use roxmltree::Node;

pub use bounds::{Bounds, BoundsError};
pub use read::Reader;
pub use write::{Writer, local_namespace, namespace, type_of};

/// A document being written. No character gets into it that XML 1.0 cannot carry, which libraries let through.
#[derive(Debug, Default)]
pub struct Xml {
    out: String,
}

impl Xml {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.out
    }

    /// What was written.
    #[must_use]
    pub fn into_string(self) -> String {
        self.out
    }

    /// Begins an element.
    pub fn open(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.start(tag, attributes);
        self.out.push('>');
    }

    /// Ends it.
    pub fn close(&mut self, tag: &str) {
        self.out.push_str("</");
        self.out.push_str(tag);
        self.out.push('>');
    }

    /// An element without content.
    pub fn empty(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.start(tag, attributes);
        self.out.push_str("/>");
    }

    /// An element with text in it.
    pub fn element(&mut self, tag: &str, text: &str) {
        self.open(tag, &[]);
        self.text(text);
        self.close(tag);
    }

    /// Text.
    pub fn text(&mut self, text: &str) {
        escape(&mut self.out, text, false);
    }

    /// XML that was written before.
    pub fn raw(&mut self, xml: &str) {
        self.out.push_str(xml);
    }

    fn start(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.out.push('<');
        self.out.push_str(tag);
        for (name, value) in attributes {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(&mut self.out, value, true);
            self.out.push('"');
        }
    }
}

/// True for a character that XML 1.0 has, escaped or not.
fn fits(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// What XML 1.0 cannot carry, not even escaped, becomes the replacement character: a string keeps its length, and the document
/// stays one.
fn escape(out: &mut String, text: &str, attribute: bool) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' if attribute => out.push_str("&quot;"),
            // A parser turns these into others unless they are escaped.
            '\r' => out.push_str("&#13;"),
            '\n' | '\t' if attribute => {
                out.push_str(if c == '\n' { "&#10;" } else { "&#9;" });
            }
            c if fits(c) => out.push(c),
            _ => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
}

/// The element's text: all of it, in whatever pieces, comments and CDATA borders left out, not that of elements inside.
#[must_use]
pub fn text(node: Node<'_, '_>) -> String {
    node.children().filter(Node::is_text).filter_map(|text| text.text()).collect()
}

/// The elements inside.
pub fn elements<'a, 'd>(node: Node<'a, 'd>) -> impl Iterator<Item = Node<'a, 'd>> {
    node.children().filter(Node::is_element)
}

#[cfg(test)]
mod tests {
    use super::Xml;

    #[test]
    fn what_is_written_is_read_back() {
        let hostile = "a<b>&\"'\r\n\t ]]> \u{1} \u{fffe} \u{1f600}";
        let mut xml = Xml::new();
        xml.open("e", &[("k", hostile)]);
        xml.text(hostile);
        xml.close("e");
        let document = roxmltree::Document::parse(xml.as_str()).unwrap();
        let expected = hostile.replace(['\u{1}', '\u{fffe}'], "\u{fffd}");
        assert_eq!(super::text(document.root_element()), expected);
        assert_eq!(document.root_element().attribute("k"), Some(expected.as_str()));
    }
}

//! XML: writing it, and the few questions that are asked of what was read.
//!
//! The writer's own: it escapes, and it lets no character through that XML 1.0 cannot carry, which libraries do.

use roxmltree::Node;

/// A document being written.
#[derive(Debug, Default)]
pub(crate) struct Xml {
    out: String,
}

impl Xml {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What was written so far.
    pub(crate) fn as_str(&self) -> &str {
        &self.out
    }

    pub(crate) fn into_string(self) -> String {
        self.out
    }

    /// Begins an element.
    pub(crate) fn open(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.start(tag, attributes);
        self.out.push('>');
    }

    /// Ends it.
    pub(crate) fn close(&mut self, tag: &str) {
        self.out.push_str("</");
        self.out.push_str(tag);
        self.out.push('>');
    }

    /// An element without content.
    pub(crate) fn empty(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.start(tag, attributes);
        self.out.push_str("/>");
    }

    /// An element with text in it.
    pub(crate) fn element(&mut self, tag: &str, text: &str) {
        self.open(tag, &[]);
        self.text(text);
        self.close(tag);
    }

    /// Text.
    pub(crate) fn text(&mut self, text: &str) {
        escape(&mut self.out, text, false);
    }

    /// XML that was written before.
    pub(crate) fn raw(&mut self, xml: &str) {
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
            '\n' | '\t' | ' '..='\u{fffd}' | '\u{10000}'.. => out.push(c),
            _ => out.push('\u{fffd}'),
        }
    }
}

/// The element's text: all of it, comments and CDATA borders left out, not that of elements inside.
pub(crate) fn text(node: Node<'_, '_>) -> String {
    node.children().filter(Node::is_text).filter_map(|text| text.text()).collect()
}

/// The elements inside.
pub(crate) fn elements<'a, 'd>(node: Node<'a, 'd>) -> impl Iterator<Item = Node<'a, 'd>> {
    node.children().filter(Node::is_element)
}

/// The first element of that name inside.
pub(crate) fn child<'a, 'd>(node: Node<'a, 'd>, namespace: &str, local: &str) -> Option<Node<'a, 'd>> {
    elements(node).find(|element| is(*element, namespace, local))
}

/// True for an element of that name.
pub(crate) fn is(node: Node<'_, '_>, namespace: &str, local: &str) -> bool {
    node.tag_name().name() == local && node.tag_name().namespace() == Some(namespace)
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

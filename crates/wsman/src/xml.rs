//! The few questions that are asked of what was read.

use cim::xml::elements;
use roxmltree::Node;

/// The first element of that name inside.
pub(crate) fn child<'a, 'd>(node: Node<'a, 'd>, namespace: &str, local: &str) -> Option<Node<'a, 'd>> {
    elements(node).find(|element| is(*element, namespace, local))
}

/// True for an element of that name.
pub(crate) fn is(node: Node<'_, '_>, namespace: &str, local: &str) -> bool {
    node.tag_name().name() == local && node.tag_name().namespace() == Some(namespace)
}

//! Filters: which instances an enumeration is about.
//!
//! All dialects come down to the instances of a class, or to those that an instance is associated with; WQL and CQL may then
//! leave some out.

use cim::xml::text;
use cim::{Class, Instance, Name, ObjectPath, Property, Schema, Value};
use roxmltree::Node;

use super::{Done, Responder, Turn, known_class};
use crate::fault::{Code, Fault};
use crate::limits::MAX_FILTER;
use crate::operations::{Failure, Walk};
use crate::query::{Asker, Found};
use crate::resource::{Selectors, reference_content};
use crate::uri;
use crate::xml::is;

/// Most of a query that is logged, in characters.
const LOGGED: usize = 500;

impl Turn<'_> {
    /// The instances that a filter means; without one, those of the class.
    pub(super) fn source(
        &self,
        namespace: &str,
        class: Option<&str>,
        filter: Option<Node<'_, '_>>,
        done: &mut Done,
    ) -> Result<Found, Fault> {
        let schema = self.schema(namespace)?;
        let Some(filter) = filter else {
            let class = class.ok_or_else(|| {
                cannot(
                    "all classes at once are not enumerated: name one in the resource URI, or send a query",
                )
            })?;
            let class = known_class(schema, class, namespace)?;
            let items = self.responder.operations.instances(self.call, namespace, class.name.as_str())?;
            return Ok(Found { class: Some(class.name.clone()), ..Found::all(items) });
        };
        let dialect = filter.attribute("Dialect").unwrap_or(uri::XPATH);
        let is_dialect = |uri: &str| dialect.eq_ignore_ascii_case(uri);
        if is_dialect(uri::WQL) || is_dialect(uri::CQL) {
            let text = text(filter);
            if text.len() > MAX_FILTER {
                return Err(Fault::limit("bytes in a filter", MAX_FILTER));
            }
            done.target = format!("{namespace}: {}", text.trim().chars().take(LOGGED).collect::<String>());
            Ok(self.asker(namespace, schema).query(&text)?)
        } else if is_dialect(uri::SELECTOR_FILTER) {
            let class = class.ok_or_else(|| cannot("a selector filter needs a class in the resource URI"))?;
            self.selected(namespace, schema, known_class(schema, class, namespace)?, filter)
        } else if is_dialect(uri::ASSOCIATION_FILTER) {
            self.associated(namespace, schema, filter)
        } else {
            let reason = format!(
                "the filter dialect {dialect} is not known: there are WQL, CQL, selector and association filters"
            );
            Err(Fault::new(Code::DialectUnavailable, reason))
        }
    }

    fn asker<'a>(&'a self, namespace: &'a str, schema: &'a Schema) -> Asker<'a> {
        let Responder { operations, settings, .. } = self.responder;
        Asker { operations: operations.as_ref(), call: self.call, namespace, schema, host: &settings.host }
    }

    fn selected(
        &self,
        namespace: &str,
        schema: &Schema,
        class: &Class,
        filter: Node<'_, '_>,
    ) -> Result<Found, Fault> {
        let set = filter
            .children()
            .find(|node| is(*node, uri::WSMAN, "SelectorSet"))
            .ok_or_else(|| cannot("a selector filter holds a wsman:SelectorSet"))?;
        let wanted = Selectors::read(set, 0, &self.responder.settings.default_namespace)?.keys;
        let mut path = ObjectPath::new(class.name.clone()).within(namespace);
        for (name, value) in &wanted {
            let property = class.property(name.as_str());
            let property =
                property.ok_or_else(|| cannot(&format!("{} has no property {name}", class.name)))?;
            if Property::is_key(property) {
                path.keys.push((name.clone(), value.clone()));
            }
        }
        let items = self.asker(namespace, schema).narrowed(&path)?;
        let meant = move |item: &Result<Instance, Failure>| {
            item.as_ref().map_or(true, |instance| {
                wanted.iter().all(|(name, value)| {
                    // References are told apart by the look at one instance.
                    matches!(value, Value::Reference(_))
                        || instance.get(name.as_str()).is_some_and(|is| spelled_alike(is, value))
                })
            })
        };
        Ok(Found { class: Some(class.name.clone()), ..Found::all(Box::new(items.filter(meant))) })
    }

    fn associated(&self, namespace: &str, schema: &Schema, filter: Node<'_, '_>) -> Result<Found, Fault> {
        let kind = |name| filter.children().find(|node| is(*node, uri::BINDING, name));
        let (kind, references) = match (kind("AssociatedInstances"), kind("AssociationInstances")) {
            (Some(kind), _) => (kind, false),
            (None, Some(kind)) => (kind, true),
            (None, None) => {
                return Err(cannot(
                    "an association filter holds AssociatedInstances or AssociationInstances",
                ));
            }
        };
        let (mut walk, mut object, mut selected) = (Walk::default(), None, Vec::new());
        for node in kind.children().filter(|node| node.tag_name().namespace() == Some(uri::BINDING)) {
            let name = || Some(text(node).trim().into()).filter(|name: &Name| *name != "");
            match node.tag_name().name() {
                "Object" => object = Some(node),
                "AssociationClassName" => walk.association = name(),
                "Role" => walk.role = name(),
                "ResultClassName" => walk.result = name(),
                "ResultRole" => walk.result_role = name(),
                "IncludeResultProperty" => selected.extend(name()),
                _ => {}
            }
        }
        let object = object.ok_or_else(|| cannot("an association filter names an Object"))?;
        // Some wrap what it holds.
        let wrapped = object.children().find(|node| is(*node, uri::ADDRESSING, "EndpointReference"));
        let default_namespace = &self.responder.settings.default_namespace;
        let path = reference_content(wrapped.unwrap_or(object), 0, default_namespace)?;
        let items = self.asker(namespace, schema).walk(&path, &walk, references)?;
        let selected = Some(selected).filter(|selected| !selected.is_empty());
        Ok(Found { selected, ..Found::all(items) })
    }
}

fn spelled_alike(is: &Value, wanted: &Value) -> bool {
    is.elements().iter().any(|is| is.to_string().eq_ignore_ascii_case(wanted.to_string().trim()))
}

fn cannot(why: &str) -> Fault {
    Fault::new(Code::CannotProcessFilter, why)
}

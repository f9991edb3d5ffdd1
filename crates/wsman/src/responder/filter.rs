//! Filters: which instances an enumeration is about.
//!
//! All dialects come down to the instances of a class, or to those that an instance is associated with; WQL and CQL may then
//! leave some out. A query that says plainly which keys it wants is a look at one instance and not at all of them: jobs are
//! polled that way, ten times a second.

use cim::query::{Place, Query, Related, Select};
use cim::{Class, Instance, Name, ObjectPath, Property, Schema, Value};
use roxmltree::Node;

use super::{Done, Turn, known_class};
use crate::fault::{Code, Fault};
use crate::limits::MAX_FILTER;
use crate::operations::{Failure, FailureKind, Instances, Walk};
use crate::resource::{Selectors, reference_content};
use crate::uri;
use crate::xml::{is, text};

/// Most of a query that is logged, in characters.
const LOGGED: usize = 500;

/// Instances, and what of them is shown.
pub(super) struct Source {
    pub(super) items: Instances,
    /// The class asked for, where it is one.
    pub(super) class: Option<Name>,
    pub(super) selected: Option<Vec<Name>>,
    pub(super) keys_only: bool,
}

impl Source {
    fn all(items: Instances) -> Self {
        Self { items, class: None, selected: None, keys_only: false }
    }
}

impl Turn<'_> {
    /// The instances that a filter means; without one, those of the class.
    pub(super) fn source(
        &self,
        namespace: &str,
        class: Option<&str>,
        filter: Option<Node<'_, '_>>,
        done: &mut Done,
    ) -> Result<Source, Fault> {
        let schema = self.schema(namespace)?;
        let Some(filter) = filter else {
            let class = class.ok_or_else(|| {
                cannot(
                    "all classes at once are not enumerated: name one in the resource URI, or send a query",
                )
            })?;
            let class = known_class(schema, class, namespace)?;
            let items = self.responder.operations.instances(self.call, namespace, class.name.as_str())?;
            return Ok(Source { class: Some(class.name.clone()), ..Source::all(items) });
        };
        let dialect = filter.attribute("Dialect").unwrap_or(uri::XPATH);
        let is_dialect = |uri: &str| dialect.eq_ignore_ascii_case(uri);
        if is_dialect(uri::WQL) || is_dialect(uri::CQL) {
            let text = text(filter);
            if text.len() > MAX_FILTER {
                return Err(Fault::limit("bytes in a filter", MAX_FILTER));
            }
            done.target = format!("{namespace}: {}", text.trim().chars().take(LOGGED).collect::<String>());
            self.query(namespace, schema, &text)
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

    fn query(&self, namespace: &str, schema: &Schema, text: &str) -> Result<Source, Fault> {
        match text.parse::<Query>().map_err(|e| cannot(&format!("the query is not understood: {e}")))? {
            Query::Select(select) => {
                select.check(schema).map_err(|e| cannot(&format!("the query cannot be answered: {e}")))?;
                let items = self.candidates(namespace, schema, &select)?;
                let class = schema.class(select.class.as_str()).map(|class| class.name.clone());
                let selected = select.columns.clone();
                let (schema, host) = (schema.clone(), self.responder.settings.host.clone());
                let namespace = namespace.to_owned();
                let meant = move |item: &Result<Instance, Failure>| {
                    let place = Place { schema: &schema, server: &host, namespace: &namespace };
                    item.as_ref().map_or(true, |instance| select.matches(instance, &place))
                };
                Ok(Source { class, selected, ..Source::all(Box::new(items.filter(meant))) })
            }
            Query::Related(related) => self.related(namespace, schema, related),
        }
    }

    /// Instances among which all are that a query means.
    fn candidates(&self, namespace: &str, schema: &Schema, select: &Select) -> Result<Instances, Fault> {
        let mut path = ObjectPath::new(select.class.clone()).within(namespace);
        let keys = schema.class(select.class.as_str()).into_iter().flat_map(|class| class.keys());
        path.keys = keys
            .filter_map(|key| Some((key.name.clone(), select.required(key.name.as_str())?.clone())))
            .collect();
        self.narrowed(namespace, schema, &path)
    }

    /// The one instance that a path's keys tell from all others; all of its class where they do not.
    fn narrowed(&self, namespace: &str, schema: &Schema, path: &ObjectPath) -> Result<Instances, Fault> {
        let operations = &self.responder.operations;
        if !path.keys.is_empty()
            && let Ok(path) = path.resolved(schema)
        {
            match operations.get(self.call, namespace, &path) {
                Ok(found) => return Ok(Box::new(std::iter::once(Ok(found)))),
                // What is not there is an empty result, and no failure.
                Err(failure) if failure.kind == FailureKind::NotFound => {
                    return Ok(Box::new(std::iter::empty()));
                }
                Err(failure) if tells_too_little(&failure.kind) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(operations.instances(self.call, namespace, path.class.as_str())?)
    }

    fn related(&self, namespace: &str, schema: &Schema, related: Related) -> Result<Source, Fault> {
        if related.classes_only {
            return Err(cannot("classes are not enumerated: leave ClassDefsOnly out"));
        }
        if related.required_association_qualifier.is_some() {
            return Err(cannot("RequiredAssocQualifier is not supported"));
        }
        let walk = Walk {
            association: related.association,
            result: related.result,
            role: related.role,
            result_role: related.result_role,
        };
        let items = self.walk(namespace, schema, &related.path, &walk, related.references)?;
        let items: Instances = match related.required_qualifier {
            Some(qualifier) => {
                let schema = schema.clone();
                let has = move |class: &Name| {
                    let class = schema.class(class.as_str());
                    class.is_some_and(|class| class.qualifier(qualifier.as_str()).is_some())
                };
                Box::new(items.filter(move |item| item.as_ref().map_or(true, |item| has(&item.class))))
            }
            None => items,
        };
        Ok(Source { keys_only: related.keys_only, ..Source::all(items) })
    }

    fn selected(
        &self,
        namespace: &str,
        schema: &Schema,
        class: &Class,
        filter: Node<'_, '_>,
    ) -> Result<Source, Fault> {
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
        let items = self.narrowed(namespace, schema, &path)?;
        let meant = move |item: &Result<Instance, Failure>| {
            item.as_ref().map_or(true, |instance| {
                wanted.iter().all(|(name, value)| {
                    // References are told apart by the look at one instance.
                    matches!(value, Value::Reference(_))
                        || instance.get(name.as_str()).is_some_and(|is| spelled_alike(is, value))
                })
            })
        };
        Ok(Source { class: Some(class.name.clone()), ..Source::all(Box::new(items.filter(meant))) })
    }

    fn associated(&self, namespace: &str, schema: &Schema, filter: Node<'_, '_>) -> Result<Source, Fault> {
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
        let items = self.walk(namespace, schema, &path, &walk, references)?;
        let selected = Some(selected).filter(|selected| !selected.is_empty());
        Ok(Source { selected, ..Source::all(items) })
    }

    fn walk(
        &self,
        namespace: &str,
        schema: &Schema,
        from: &ObjectPath,
        walk: &Walk,
        references: bool,
    ) -> Result<Instances, Fault> {
        let from = from
            .resolved(schema)
            .map_err(|e| cannot(&format!("the instance in the middle is not known: {e}")))?;
        for class in [&walk.association, &walk.result].into_iter().flatten() {
            if schema.class(class.as_str()).is_none() {
                return Err(cannot(&format!("there is no class {class}")));
            }
        }
        let operations = &self.responder.operations;
        let items = if references {
            operations.references(self.call, namespace, &from, walk)
        } else {
            operations.associators(self.call, namespace, &from, walk)
        };
        Ok(items?)
    }
}

/// Failures of a look at one instance after which all are looked at.
fn tells_too_little(kind: &FailureKind) -> bool {
    matches!(kind, FailureKind::Ambiguous | FailureKind::InvalidKeys | FailureKind::NotSupported)
}

fn spelled_alike(is: &Value, wanted: &Value) -> bool {
    is.elements().iter().any(|is| is.to_string().eq_ignore_ascii_case(wanted.to_string().trim()))
}

fn cannot(why: &str) -> Fault {
    Fault::new(Code::CannotProcessFilter, why)
}

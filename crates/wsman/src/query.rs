//! Queries, answered out of [`Operations`].
//!
//! A query that says plainly which keys it wants is a look at one instance and not at all of them: jobs are polled that way,
//! ten times a second.

use cim::query::{Place, Query, Related, Select};
use cim::{Instance, Name, ObjectPath, Schema};

use crate::operations::{Call, Failure, FailureKind, Instances, Operations, Walk};

/// Who asks, and where.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// Who has the instances.
    pub operations: &'a dyn Operations,
    /// The request.
    pub call: &'a Call,
    /// The namespace.
    pub namespace: &'a str,
    /// Its classes.
    pub schema: &'a Schema,
    /// The host's name, which a query may compare with.
    pub host: &'a str,
}

impl std::fmt::Debug for Asker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Instances, and what of them is asked for.
pub struct Found {
    /// The instances, whole.
    pub items: Instances,
    /// The class asked for, where it is one.
    pub class: Option<Name>,
    /// The properties asked for; none for all.
    pub selected: Option<Vec<Name>>,
    /// Only the keys.
    pub keys_only: bool,
}

impl Found {
    /// All of some instances.
    pub(crate) fn all(items: Instances) -> Self {
        Self { items, class: None, selected: None, keys_only: false }
    }
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryFailure {
    /// It is none.
    #[error("the query is not understood: {0}")]
    Syntax(String),
    /// It asks for what there is not.
    #[error("the query cannot be answered: {0}")]
    Unanswerable(String),
    /// The operations refused.
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl Asker<'_> {
    /// The instances that a query means.
    ///
    /// # Errors
    /// It is none, cannot be answered, or the operations refuse.
    pub fn query(&self, text: &str) -> Result<Found, QueryFailure> {
        match text.parse::<Query>().map_err(|e| QueryFailure::Syntax(e.to_string()))? {
            Query::Select(select) => {
                let schema = self.schema;
                if select.within.is_some() {
                    let events = "it asks for events, which a subscription gives: leave WITHIN out";
                    return Err(QueryFailure::Unanswerable(events.to_owned()));
                }
                select.check(schema).map_err(|e| QueryFailure::Unanswerable(e.to_string()))?;
                let items = self.candidates(&select)?;
                let class = schema.class(select.class.as_str()).map(|class| class.name.clone());
                let selected = select.columns.clone();
                let (schema, host) = (schema.clone(), self.host.to_owned());
                let namespace = self.namespace.to_owned();
                let meant = move |item: &Result<Instance, Failure>| {
                    let place = Place { schema: &schema, server: &host, namespace: &namespace };
                    item.as_ref().map_or(true, |instance| select.matches(instance, &place))
                };
                Ok(Found { class, selected, ..Found::all(Box::new(items.filter(meant))) })
            }
            Query::Related(related) => self.related(related),
        }
    }

    /// Instances among which all are that a query means.
    fn candidates(&self, select: &Select) -> Result<Instances, Failure> {
        let mut path = ObjectPath::new(select.class.clone()).within(self.namespace);
        let keys = self.schema.class(select.class.as_str()).into_iter().flat_map(|class| class.keys());
        path.keys = keys
            .filter_map(|key| Some((key.name.clone(), select.required(key.name.as_str())?.clone())))
            .collect();
        self.narrowed(&path)
    }

    /// The one instance that a path's keys tell from all others; all of its class where they do not.
    ///
    /// # Errors
    /// What the operations refuse.
    pub(crate) fn narrowed(&self, path: &ObjectPath) -> Result<Instances, Failure> {
        if !path.keys.is_empty()
            && let Ok(path) = path.resolved(self.schema)
        {
            match self.operations.get(self.call, self.namespace, &path) {
                Ok(found) => return Ok(Box::new(std::iter::once(Ok(found)))),
                // What is not there is an empty result, and no failure.
                Err(failure) if failure.kind == FailureKind::NotFound => {
                    return Ok(Box::new(std::iter::empty()));
                }
                Err(failure) if tells_too_little(&failure.kind) => {}
                Err(failure) => return Err(failure),
            }
        }
        self.operations.instances(self.call, self.namespace, path.class.as_str())
    }

    fn related(&self, related: Related) -> Result<Found, QueryFailure> {
        let cannot = |why: &str| Err(QueryFailure::Unanswerable(why.to_owned()));
        if related.classes_only {
            return cannot("classes are not enumerated: leave ClassDefsOnly out");
        }
        if related.required_association_qualifier.is_some() {
            return cannot("RequiredAssocQualifier is not supported");
        }
        let walk = Walk {
            association: related.association,
            result: related.result,
            role: related.role,
            result_role: related.result_role,
        };
        let items = self.walk(&related.path, &walk, related.references)?;
        let items: Instances = match related.required_qualifier {
            Some(qualifier) => {
                let schema = self.schema.clone();
                let has = move |class: &Name| {
                    let class = schema.class(class.as_str());
                    class.is_some_and(|class| class.qualifier(qualifier.as_str()).is_some())
                };
                Box::new(items.filter(move |item| item.as_ref().map_or(true, |item| has(&item.class))))
            }
            None => items,
        };
        Ok(Found { keys_only: related.keys_only, ..Found::all(items) })
    }

    /// What an instance is associated with, or the associations themselves.
    ///
    /// # Errors
    /// The path or a class of the walk is not known here, or the operations refuse.
    pub(crate) fn walk(
        &self,
        from: &ObjectPath,
        walk: &Walk,
        references: bool,
    ) -> Result<Instances, QueryFailure> {
        let cannot = |why: String| QueryFailure::Unanswerable(why);
        let from = from
            .resolved(self.schema)
            .map_err(|e| cannot(format!("the instance in the middle is not known: {e}")))?;
        for class in [&walk.association, &walk.result].into_iter().flatten() {
            if self.schema.class(class.as_str()).is_none() {
                return Err(cannot(format!("there is no class {class}")));
            }
        }
        Ok(if references {
            self.operations.references(self.call, self.namespace, &from, walk)?
        } else {
            self.operations.associators(self.call, self.namespace, &from, walk)?
        })
    }
}

/// Failures of a look at one instance after which all are looked at.
fn tells_too_little(kind: &FailureKind) -> bool {
    matches!(kind, FailureKind::Ambiguous | FailureKind::InvalidKeys | FailureKind::NotSupported)
}

//! The operations of `wsman`, over the namespaces.

use std::sync::Arc;

use cim::query::Select;
use cim::{Instance, Name, ObjectPath, Schema, Value};
use machine::Host;
use wsman::{Call, Events, Failure, FailureKind, Instances, Operations, Output, Walk};

use crate::events::Publisher;
use crate::provider::{Namespace, VIRTUALIZATION};
use crate::settings::Settings;
use crate::tasks::Tasks;
use crate::world::World;
use crate::{interop, schema, v1};

/// Hyper-V's classes over a host.
pub struct Hyperv {
    world: Arc<World>,
    namespaces: [Arc<Namespace>; 4],
    publisher: Arc<Publisher>,
}

impl Hyperv {
    /// The classes over `host`.
    ///
    /// # Errors
    /// None that a test does not find: the schema is part of the program.
    pub fn new(host: Arc<Host>, settings: Settings) -> Result<Self, schema::Error> {
        let schema = schema::virtualization()?;
        let virtualization = Arc::new(Namespace::virtualization(schema.clone()));
        let cimv2 = Arc::new(Namespace::cimv2(schema::cimv2()?));
        let first = Arc::new(v1::namespace(schema::virtualization_v1()?, Arc::clone(&virtualization)));
        let interop = Arc::new(interop::namespace(schema::interop()?, Arc::clone(&virtualization)));
        let tasks = Tasks::new(Arc::clone(&host));
        let world = Arc::new(World { host, settings, tasks, agents: Arc::default(), schema });
        let publisher = Publisher::new(Arc::clone(&world), Arc::clone(&virtualization));
        Ok(Self { world, namespaces: [virtualization, first, cimv2, interop], publisher })
    }

    /// The namespace, by a name in any case and with slashes of either kind.
    fn namespace(&self, name: &str) -> Result<&Arc<Namespace>, Failure> {
        let name = name.trim_matches(['/', '\\']).replace('\\', "/");
        let name = if name.eq_ignore_ascii_case(interop::ALIAS) { interop::INTEROP.to_owned() } else { name };
        self.namespaces.iter().find(|n| n.name.eq_ignore_ascii_case(&name)).ok_or_else(|| {
            let there = self.namespaces.each_ref().map(|n| format!("`{}`", n.name)).join(", ");
            let message = format!("there is no namespace `{name}` here, only {there}");
            Failure::new(FailureKind::NoSuchNamespace, message)
        })
    }

    /// `path` as the schema of its namespace spells it.
    fn resolved(namespace: &Namespace, path: &ObjectPath) -> Result<ObjectPath, Failure> {
        path.resolved(&namespace.schema).map_err(|e| {
            let kind = match e {
                cim::PathError::Class(_) => FailureKind::NoSuchClass,
                _ => FailureKind::InvalidKeys,
            };
            Failure::new(kind, e.to_string())
        })
    }

    fn class<'n>(namespace: &'n Namespace, class: &str) -> Result<&'n Arc<cim::Class>, Failure> {
        namespace.schema.class(class).ok_or_else(|| {
            Failure::new(FailureKind::NoSuchClass, format!("{} has no class `{class}`", namespace.name))
        })
    }
}

impl Operations for Hyperv {
    fn schema(&self, namespace: &str) -> Option<&Schema> {
        self.namespace(namespace).ok().map(|namespace| &namespace.schema)
    }

    fn get(&self, call: &Call, namespace: &str, path: &ObjectPath) -> Result<Instance, Failure> {
        let namespace = self.namespace(namespace)?;
        let path = Self::resolved(namespace, path)?;
        if Self::class(namespace, path.class.as_str())?.is_association() {
            return namespace.association(&self.world, call, &path);
        }
        namespace.find(&self.world, call, &path).map(|(instance, _)| instance)
    }

    fn instances(&self, call: &Call, namespace: &str, class: &str) -> Result<Instances, Failure> {
        let namespace = self.namespace(namespace)?;
        let class = Self::class(namespace, class)?;
        if class.is_association() {
            return namespace.list_associations(&self.world, call, class.name.as_str());
        }
        namespace.list(&self.world, call, class.name.as_str())
    }

    fn associators(
        &self,
        call: &Call,
        namespace: &str,
        from: &ObjectPath,
        walk: &Walk,
    ) -> Result<Instances, Failure> {
        let namespace = self.namespace(namespace)?;
        let from = Self::resolved(namespace, from)?;
        namespace.associators(&self.world, call, &from, walk)
    }

    fn references(
        &self,
        call: &Call,
        namespace: &str,
        from: &ObjectPath,
        walk: &Walk,
    ) -> Result<Instances, Failure> {
        let namespace = self.namespace(namespace)?;
        let from = Self::resolved(namespace, from)?;
        namespace.references(&self.world, call, &from, walk)
    }

    fn invoke(
        &self,
        call: &Call,
        namespace: &str,
        path: &ObjectPath,
        method: &str,
        parameters: Vec<(Name, Option<Value>)>,
    ) -> Result<Output, Failure> {
        let namespace = self.namespace(namespace)?;
        let path = Self::resolved(namespace, path)?;
        crate::method::invoke(namespace, &self.world, call, &path, method, parameters)
    }

    fn subscribe(&self, call: &Call, namespace: &str, select: Select) -> Result<Box<dyn Events>, Failure> {
        let namespace = self.namespace(namespace)?;
        if namespace.name != VIRTUALIZATION {
            let message = format!("nothing in {} is told of", namespace.name);
            return Err(Failure::new(FailureKind::NotSupported, message));
        }
        self.publisher.subscribe(call, select)
    }

    fn does(&self, namespace: &str, class: &str, method: Option<&str>) -> &'static str {
        let needs = |method| Some(crate::method::needs(self.namespace(namespace).ok()?, class, method));
        // What changes an instance without a method changes its settings.
        method.and_then(needs).unwrap_or(access::Action::Configure).word()
    }

    fn modify(
        &self,
        call: &Call,
        namespace: &str,
        path: &ObjectPath,
        _changed: &Instance,
    ) -> Result<Instance, Failure> {
        let there = self.get(call, namespace, path)?;
        Err(Failure::new(
            FailureKind::NotSupported,
            format!("{} is changed by the methods of the management services", there.class),
        ))
    }
}

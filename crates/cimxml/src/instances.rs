//! Operations on instances and their properties (DSP0200, 5.3.2).

use std::sync::Arc;

use cim::xml::{Writer, Xml};
use cim::{Class, Instance, Name, ObjectPath, Property, Schema};
use wsman::query::Asker;
use wsman::{Done, Instances, Operations, changes};

use crate::error::{CimError, Status};
use crate::limits::MAX_QUERY;
use crate::parameters::Parameters;
use crate::responder::{Objects, Outcome, Turn};

/// The element that each instance becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `INSTANCE`.
    Instance,
    /// `INSTANCENAME`.
    Name,
    /// `VALUE.NAMEDINSTANCE`.
    Named,
    /// `VALUE.OBJECTWITHPATH`.
    Object,
    /// `OBJECTPATH`.
    ObjectPath,
    /// `VALUE.INSTANCEWITHPATH`.
    Pulled,
    /// `INSTANCEPATH`.
    Path,
}

/// What of an instance is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// Only properties that this class declares or overrides (`LocalOnly`).
    pub(crate) local: Option<Name>,
    /// Only properties that this class has (`DeepInheritance` false).
    pub(crate) shallow: Option<Name>,
    /// Only these properties; none for all.
    pub(crate) properties: Option<Vec<Name>>,
    /// Only the keys.
    pub(crate) keys_only: bool,
    /// Whether each says where it comes from.
    pub(crate) origins: bool,
}

impl Shape {
    fn shows(&self, schema: &Schema, class: Option<&Class>, name: &Name) -> bool {
        let declared = |class: &Name| schema.class(class.as_str()).and_then(|c| c.property(name.as_str()));
        let own = || class.and_then(|class| class.property(name.as_str()));
        self.properties.as_ref().is_none_or(|list| list.contains(name))
            && self.shallow.as_ref().is_none_or(|class| declared(class).is_some())
            && self.local.as_ref().is_none_or(|class| declared(class).is_some_and(|p| p.origin == *class))
            && (!self.keys_only || own().is_some_and(Property::is_key))
    }
}

/// Makes elements of instances. It owns what it needs, since they are made as they are taken.
pub(crate) struct Render {
    pub(crate) operations: Arc<dyn Operations>,
    pub(crate) schema: Schema,
    pub(crate) namespace: String,
    pub(crate) host: String,
    pub(crate) form: Form,
    pub(crate) shape: Shape,
}

impl Render {
    pub(crate) fn objects(self, items: Instances) -> Objects {
        Box::new(items.map(move |item| item.map(|one| self.element(&one)).map_err(CimError::from)))
    }

    fn element(&self, instance: &Instance) -> String {
        let mut xml = Xml::new();
        match self.form {
            Form::Instance => self.instance(&mut xml, instance),
            Form::Name => self.writer().instance_name(&mut xml, &self.path(instance)),
            Form::Named => {
                xml.open("VALUE.NAMEDINSTANCE", &[]);
                self.writer().instance_name(&mut xml, &self.path(instance));
                self.instance(&mut xml, instance);
                xml.close("VALUE.NAMEDINSTANCE");
            }
            Form::Object | Form::Pulled => {
                let pulled = self.form == Form::Pulled;
                let tag = if pulled { "VALUE.INSTANCEWITHPATH" } else { "VALUE.OBJECTWITHPATH" };
                xml.open(tag, &[]);
                self.writer().instance_path(&mut xml, &self.path(instance));
                self.instance(&mut xml, instance);
                xml.close(tag);
            }
            Form::ObjectPath => {
                xml.open("OBJECTPATH", &[]);
                self.writer().instance_path(&mut xml, &self.path(instance));
                xml.close("OBJECTPATH");
            }
            Form::Path => self.writer().instance_path(&mut xml, &self.path(instance)),
        }
        xml.into_string()
    }

    fn writer(&self) -> Writer<'_> {
        Writer::new(&self.schema)
    }

    fn instance(&self, xml: &mut Xml, instance: &Instance) {
        // An association may lead into another namespace.
        let elsewhere = || self.operations.schema(instance.path.as_ref()?.namespace.as_deref()?);
        let here = Some(&self.schema).filter(|schema| schema.class(instance.class.as_str()).is_some());
        let schema = here.or_else(elsewhere).unwrap_or(&self.schema);
        let class = schema.class(instance.class.as_str()).map(AsRef::as_ref);
        let writer = Writer::new(schema).with_origins(self.shape.origins);
        writer.instance(xml, instance, |name| self.shape.shows(schema, class, name));
    }

    /// The whole path.
    fn path(&self, instance: &Instance) -> ObjectPath {
        let made = || match self.schema.class(instance.class.as_str()) {
            Some(class) => ObjectPath::of(instance, class),
            None => ObjectPath::new(instance.class.clone()),
        };
        let mut path = instance.path.clone().unwrap_or_else(made);
        path.host.get_or_insert_with(|| self.host.clone());
        path.namespace.get_or_insert_with(|| self.namespace.clone());
        path
    }
}

impl Turn<'_> {
    pub(crate) fn render(&self, form: Form, shape: Shape) -> Render {
        Render {
            operations: Arc::clone(self.operations),
            schema: self.schema.clone(),
            namespace: self.namespace.to_owned(),
            host: self.host.to_owned(),
            form,
            shape,
        }
    }

    /// The class of that name.
    pub(crate) fn class(&self, name: &Name) -> Result<&Class, CimError> {
        self.schema.class(name.as_str()).map(AsRef::as_ref).ok_or_else(|| {
            let why = format!("there is no class {name} in {}", self.namespace);
            CimError::new(Status::InvalidClass, why)
        })
    }

    pub(crate) fn get_instance(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Outcome, CimError> {
        let path = given.instance_name("InstanceName")?;
        done.target = path.to_string();
        self.class(&path.class)?;
        let shape = Shape {
            local: Some(path.class.clone()).filter(|_| given.boolean("LocalOnly", false) == Ok(true)),
            properties: given.properties("PropertyList")?,
            origins: given.boolean("IncludeClassOrigin", false)?,
            ..Shape::default()
        };
        let instance = self.operations.get(self.call, self.namespace, &path)?;
        let shape = Shape { local: shape.local.map(|_| instance.class.clone()), ..shape };
        let one = Box::new(std::iter::once(Ok(instance)));
        Ok(Outcome::objects(self.render(Form::Instance, shape).objects(one)))
    }

    /// The instances of a class, and what of them is shown.
    pub(crate) fn listed(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<(Instances, Shape), CimError> {
        let class = given.required_class("ClassName")?;
        done.target = format!("{}:{class}", self.namespace);
        let class = self.class(&class)?.name.clone();
        let deep = given.boolean("DeepInheritance", true)?;
        let shape = Shape {
            local: given.boolean("LocalOnly", false)?.then(|| class.clone()),
            shallow: (!deep).then(|| class.clone()),
            properties: given.properties("PropertyList")?,
            keys_only: false,
            origins: given.boolean("IncludeClassOrigin", false)?,
        };
        Ok((self.operations.instances(self.call, self.namespace, class.as_str())?, shape))
    }

    pub(crate) fn enumerate_instances(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        let (items, shape) = self.listed(given, done)?;
        Ok(Outcome::objects(self.render(Form::Named, shape).objects(items)))
    }

    pub(crate) fn enumerate_instance_names(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        let (items, shape) = self.listed(given, done)?;
        Ok(Outcome::objects(self.render(Form::Name, shape).objects(items)))
    }

    pub(crate) fn create_instance(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        let instance = given.instance("NewInstance")?;
        done.target = format!("{}:{}", self.namespace, instance.class);
        done.changes = true;
        done.does = self.operations.does(self.namespace, instance.class.as_str(), None);
        let path = self.operations.create(self.call, self.namespace, &instance)?;
        done.target = path.to_string();
        let mut xml = Xml::new();
        Writer::new(self.schema).instance_name(&mut xml, &path);
        Ok(Outcome::one(xml))
    }

    pub(crate) fn delete_instance(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        let path = given.instance_name("InstanceName")?;
        done.target = path.to_string();
        self.class(&path.class)?;
        done.changes = true;
        done.does = self.operations.does(self.namespace, path.class.as_str(), None);
        self.operations.delete(self.call, self.namespace, &path)?;
        Ok(Outcome::nothing())
    }

    /// Changes what differs from what is there, as a Put of WS-Management does.
    pub(crate) fn modify_instance(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        let mut sent = given.instance("ModifiedInstance")?;
        let path =
            sent.path.take().ok_or_else(|| CimError::parameter("the modified instance has no path"))?;
        done.target = path.to_string();
        if let Some(list) = given.properties("PropertyList")? {
            sent.properties.retain(|(name, _)| list.contains(name));
        }
        self.modify(&path, sent, done)
    }

    fn modify(&self, path: &ObjectPath, sent: Instance, done: &mut Done) -> Result<Outcome, CimError> {
        let current = self.operations.get(self.call, self.namespace, path)?;
        let class = self.class(&current.class)?;
        let changed = changes(&current, class, sent.properties)
            .map_err(|key| CimError::parameter(format!("{key} is a key, and is not changed")))?;
        if !changed.properties.is_empty() {
            done.changes = true;
            done.does = self.operations.does(self.namespace, path.class.as_str(), None);
            self.operations.modify(self.call, self.namespace, path, &changed)?;
        }
        Ok(Outcome::nothing())
    }

    /// The property that `PropertyName` names.
    fn named_property<'c>(class: &'c Class, given: &Parameters<'_>) -> Result<&'c Property, CimError> {
        let name = given.required_text("PropertyName")?;
        class.property(name.trim()).ok_or_else(|| {
            CimError::new(Status::NoSuchProperty, format!("{} has no property {name}", class.name))
        })
    }

    pub(crate) fn get_property(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Outcome, CimError> {
        let path = given.instance_name("InstanceName")?;
        done.target = path.to_string();
        self.class(&path.class)?;
        let instance = self.operations.get(self.call, self.namespace, &path)?;
        let property = Self::named_property(self.class(&instance.class)?, given)?;
        let mut xml = Xml::new();
        let Some(value) = instance.get(property.name.as_str()) else { return Ok(Outcome::nothing()) };
        Writer::new(self.schema).value(&mut xml, value);
        Ok(Outcome::one(xml))
    }

    pub(crate) fn set_property(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Outcome, CimError> {
        let path = given.instance_name("InstanceName")?;
        done.target = path.to_string();
        let class = self.class(&path.class)?;
        let property = Self::named_property(class, given)?;
        let mut sent = Instance::new(class.name.clone());
        sent.set(property.name.clone(), given.value_of("NewValue", &property.ty, property.array)?);
        self.modify(&path, sent, done)
    }

    /// What a query means, and what of it is shown.
    pub(crate) fn queried(
        &self,
        language: &str,
        query: &str,
        done: &mut Done,
    ) -> Result<(Instances, Shape), CimError> {
        /// Most of a query that is logged, in characters.
        const LOGGED: usize = 500;
        done.target =
            format!("{}: {}", self.namespace, query.trim().chars().take(LOGGED).collect::<String>());
        let known = ["WQL", "DMTF:CQL", "CIM:CQL", "CQL"];
        if !known.iter().any(|known| language.trim().eq_ignore_ascii_case(known)) {
            let why = format!("there is no query language {language}: there are WQL and DMTF:CQL");
            return Err(CimError::new(Status::QueryLanguageNotSupported, why));
        }
        if query.len() > MAX_QUERY {
            return Err(CimError::new(
                Status::InvalidQuery,
                format!("a query has at most {MAX_QUERY} bytes"),
            ));
        }
        let asker = Asker {
            operations: self.operations.as_ref(),
            call: self.call,
            namespace: self.namespace,
            schema: self.schema,
            host: self.host,
        };
        let found = asker.query(query)?;
        let shape = Shape { properties: found.selected, keys_only: found.keys_only, ..Shape::default() };
        Ok((found.items, shape))
    }

    pub(crate) fn exec_query(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Outcome, CimError> {
        let language = given.required_text("QueryLanguage")?;
        let (items, shape) = self.queried(&language, &given.required_text("Query")?, done)?;
        Ok(Outcome::objects(self.render(Form::Object, shape).objects(items)))
    }
}

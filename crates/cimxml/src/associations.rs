//! Walking associations from an instance, or from a class to those that its instances may be associated with (DSP0200,
//! 5.3.2).

use std::sync::Arc;

use cim::xml::{Xml, namespace};
use cim::{Class, Name, ObjectPath, Type};
use wsman::{Done, FailureKind, Instances, Walk};

use crate::declare::{Declarer, Shape as ClassShape};
use crate::error::CimError;
use crate::instances::{Form, Shape};
use crate::parameters::Parameters;
use crate::responder::{Outcome, Turn};

impl Turn<'_> {
    /// Which associations are walked, as far as they are known here.
    fn walk(&self, given: &Parameters<'_>) -> Result<Walk, CimError> {
        let role = |name| given.text(name).map(|role| role.map(|role| role.trim().into()));
        let walk = Walk {
            association: given.class_name("AssocClass")?,
            result: given.class_name("ResultClass")?,
            role: role("Role")?,
            result_role: role("ResultRole")?,
        };
        for class in [&walk.association, &walk.result].into_iter().flatten() {
            if self.schema.class(class.as_str()).is_none() {
                let why = format!("there is no class {class} in {}", self.namespace);
                return Err(CimError::parameter(why));
            }
        }
        Ok(walk)
    }

    /// What lies around an instance, or the associations that lead there.
    pub(crate) fn walked(
        &self,
        given: &Parameters<'_>,
        from: &ObjectPath,
        references: bool,
        done: &mut Done,
    ) -> Result<(Instances, Shape), CimError> {
        done.target = from.to_string();
        let walk = self.walk(given)?;
        let shape = Shape {
            properties: given.properties("PropertyList")?,
            origins: given.boolean("IncludeClassOrigin", false)?,
            ..Shape::default()
        };
        let items = if references {
            self.operations.references(self.call, self.namespace, from, &walk)
        } else {
            self.operations.associators(self.call, self.namespace, from, &walk)
        };
        // The class is that of a parameter here.
        let items = items.map_err(|failure| match failure.kind {
            FailureKind::NoSuchClass => CimError::parameter(failure.message),
            _ => failure.into(),
        })?;
        Ok((items, shape))
    }

    fn around(
        &self,
        given: &Parameters<'_>,
        (references, names): (bool, bool),
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        let (path, class) = given.object("ObjectName")?;
        if class {
            return self.around_class(given, &path.class, (references, names), done);
        }
        let (items, shape) = self.walked(given, &path, references, done)?;
        let form = if names { Form::ObjectPath } else { Form::Object };
        Ok(Outcome::objects(self.render(form, shape).objects(items)))
    }

    pub(crate) fn associators(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Outcome, CimError> {
        self.around(given, (false, false), done)
    }

    pub(crate) fn associator_names(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        self.around(given, (false, true), done)
    }

    pub(crate) fn references(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Outcome, CimError> {
        self.around(given, (true, false), done)
    }

    pub(crate) fn reference_names(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        self.around(given, (true, true), done)
    }

    /// The classes that associations declare at their other end, or those associations.
    fn around_class(
        &self,
        given: &Parameters<'_>,
        from: &Name,
        (references, names): (bool, bool),
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        done.target = format!("{}:{from}", self.namespace);
        if self.schema.class(from.as_str()).is_none() {
            return Err(CimError::parameter(format!("there is no class {from} in {}", self.namespace)));
        }
        let walk = self.walk(given)?;
        let is_a = |class: &Name, asked: &Option<Name>| {
            asked.as_ref().is_none_or(|asked| self.schema.is_a(class.as_str(), asked.as_str()))
        };
        let in_role = |role: &Name, asked: &Option<Name>| asked.as_ref().is_none_or(|asked| asked == role);
        let mut found: Vec<Arc<Class>> = Vec::new();
        for association in self.schema.classes().filter(|class| class.is_association()) {
            let ends: Vec<(&Name, &Name)> = association
                .properties
                .iter()
                .filter_map(|property| match &property.ty {
                    Type::Reference(to) => Some((&property.name, to)),
                    _ => None,
                })
                .collect();
            for (role, near) in &ends {
                if !self.schema.is_a(from.as_str(), near.as_str()) || !in_role(role, &walk.role) {
                    continue;
                }
                if references {
                    if is_a(&association.name, &walk.result) {
                        found.push(Arc::clone(association));
                    }
                    continue;
                }
                let far = ends.iter().filter(|(other, _)| other != role);
                let far = far.filter(|(other, to)| {
                    in_role(other, &walk.result_role)
                        && is_a(to, &walk.result)
                        && is_a(&association.name, &walk.association)
                });
                found.extend(far.filter_map(|(_, to)| self.schema.class(to.as_str()).cloned()));
            }
        }
        let mut seen = std::collections::HashSet::new();
        found.retain(|class| seen.insert(class.name.clone()));
        let shape = ClassShape {
            local: false,
            qualifiers: given.boolean("IncludeQualifiers", false)?,
            origins: given.boolean("IncludeClassOrigin", false)?,
            properties: given.properties("PropertyList")?,
        };
        let (schema, host, space) = (self.schema.clone(), self.host.to_owned(), self.namespace.to_owned());
        Ok(Outcome::objects(Box::new(found.into_iter().map(move |class| {
            let mut xml = Xml::new();
            let tag = if names { "OBJECTPATH" } else { "VALUE.OBJECTWITHPATH" };
            xml.open(tag, &[]);
            xml.open("CLASSPATH", &[]);
            namespace(&mut xml, &host, &space);
            xml.empty("CLASSNAME", &[("NAME", class.name.as_str())]);
            xml.close("CLASSPATH");
            if !names {
                Declarer { schema: &schema, shape: &shape }.class(&mut xml, &class);
            }
            xml.close(tag);
            Ok(xml.into_string())
        }))))
    }
}

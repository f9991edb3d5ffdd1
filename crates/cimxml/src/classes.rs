//! Operations on classes and qualifiers (DSP0200, 5.3.2). They are looked at here and not changed.

use std::sync::Arc;

use cim::xml::Xml;
use cim::{Class, Schema};
use wsman::Done;

use crate::declare::{Declarer, Shape, qualifier};
use crate::error::{CimError, Status};
use crate::parameters::Parameters;
use crate::responder::{Objects, Outcome, Turn};

/// The elements of classes, made as they are taken.
pub(crate) fn declared(schema: &Schema, classes: Vec<Arc<Class>>, shape: Shape) -> Objects {
    let schema = schema.clone();
    Box::new(classes.into_iter().map(move |class| {
        let mut xml = Xml::new();
        Declarer { schema: &schema, shape: &shape }.class(&mut xml, &class);
        Ok(xml.into_string())
    }))
}

fn shape(given: &Parameters<'_>) -> Result<Shape, CimError> {
    Ok(Shape {
        local: given.boolean("LocalOnly", true)?,
        qualifiers: given.boolean("IncludeQualifiers", true)?,
        origins: given.boolean("IncludeClassOrigin", false)?,
        properties: given.properties("PropertyList")?,
    })
}

impl Turn<'_> {
    pub(crate) fn get_class(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Outcome, CimError> {
        let name = given.required_class("ClassName")?;
        done.target = format!("{}:{name}", self.namespace);
        let class = self.schema.class(name.as_str()).cloned().ok_or_else(|| {
            CimError::new(Status::NotFound, format!("there is no class {name} in {}", self.namespace))
        })?;
        Ok(Outcome::objects(declared(self.schema, vec![class], shape(given)?)))
    }

    /// The classes below the one named, or those at the top; `DeepInheritance` says whether all below them, too.
    fn below(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Vec<Arc<Class>>, CimError> {
        let deep = given.boolean("DeepInheritance", false)?;
        let above = match given.class_name("ClassName")? {
            Some(name) => Some(self.class(&name)?.name.clone()),
            None => None,
        };
        done.target = format!("{}:{}", self.namespace, above.as_ref().map_or("", |name| name.as_str()));
        let wanted = |class: &&Arc<Class>| match (&above, deep) {
            (None, true) => true,
            (above, false) => class.superclass == *above,
            (Some(above), true) => {
                class.name != *above && self.schema.is_a(class.name.as_str(), above.as_str())
            }
        };
        Ok(self.schema.classes().filter(wanted).cloned().collect())
    }

    pub(crate) fn enumerate_classes(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        Ok(Outcome::objects(declared(self.schema, self.below(given, done)?, shape(given)?)))
    }

    pub(crate) fn enumerate_class_names(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        let mut xml = Xml::new();
        for class in self.below(given, done)? {
            xml.empty("CLASSNAME", &[("NAME", class.name.as_str())]);
        }
        Ok(Outcome::one(xml))
    }

    pub(crate) fn enumerate_qualifiers(&self, _: &Parameters<'_>, _: &mut Done) -> Result<Outcome, CimError> {
        let mut xml = Xml::new();
        for declared in self.schema.qualifiers() {
            qualifier(&mut xml, self.schema, declared);
        }
        Ok(Outcome::one(xml))
    }

    pub(crate) fn get_qualifier(&self, given: &Parameters<'_>, _: &mut Done) -> Result<Outcome, CimError> {
        let name = given.required_text("QualifierName")?;
        let declared = self.schema.qualifier(name.trim()).ok_or_else(|| {
            CimError::new(Status::NotFound, format!("there is no qualifier {name} in {}", self.namespace))
        })?;
        let mut xml = Xml::new();
        qualifier(&mut xml, self.schema, declared);
        Ok(Outcome::one(xml))
    }
}

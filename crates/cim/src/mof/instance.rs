//! `instance of Class { Property = value; };` as instances of a schema's classes.

use std::collections::HashMap;

use super::literal::{self, Surroundings};
use super::parse::{Declaration, InstanceDeclaration, Parser};
use crate::syntax::Fault;
use crate::{Instance, ObjectPath, Schema, SyntaxError};

/// The instances that a text declares, in its order, with the properties that it gives them.
///
/// # Errors
/// The text is no MOF, declares something else than instances, or does not fit the schema.
pub fn instances(text: &str, schema: &Schema) -> Result<Vec<Instance>, SyntaxError> {
    read(text, schema).map_err(|fault| fault.within(text))
}

fn read(text: &str, schema: &Schema) -> Result<Vec<Instance>, Fault> {
    let mut parser = Parser::new(text)?;
    let mut instances = Vec::new();
    let mut around = Around { schema, aliases: HashMap::new() };
    while let Some(declaration) = parser.declaration()? {
        let at = match declaration {
            Declaration::Instance(declaration) => {
                let instance = around.instance(&declaration)?;
                if let (Some(alias), Some(class)) = (declaration.alias, schema.class(instance.class.as_str()))
                {
                    around.aliases.insert(alias, ObjectPath::of(&instance, class));
                }
                instances.push(instance);
                continue;
            }
            Declaration::Qualifier(qualifier) => qualifier.at,
            Declaration::Class(class) => class.at,
        };
        return Err(Fault::new(at, "only instances are read here"));
    }
    Ok(instances)
}

struct Around<'s, 't> {
    schema: &'s Schema,
    aliases: HashMap<&'t str, ObjectPath>,
}

impl<'t> Surroundings<'t> for Around<'_, 't> {
    fn alias(&self, alias: &str) -> Option<ObjectPath> {
        self.aliases.get(alias).cloned()
    }

    fn instance(&self, declaration: &InstanceDeclaration<'t>) -> Result<Instance, Fault> {
        let Some(class) = self.schema.class(declaration.class) else {
            return Err(Fault::new(declaration.at, format!("there is no class {}", declaration.class)));
        };
        let mut instance = Instance::new(class.name.clone());
        for (at, name, value) in &declaration.properties {
            let Some(property) = class.property(name) else {
                return Err(Fault::new(*at, format!("{} has no property {name}", class.name)));
            };
            if instance.property(name).is_some() {
                return Err(Fault::new(*at, format!("{name} is set twice")));
            }
            let value = literal::value(value, &property.ty, property.array, self)?;
            instance.properties.push((property.name.clone(), value));
        }
        Ok(instance)
    }
}

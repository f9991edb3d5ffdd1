//! Makes an instance whole: all properties of its class, in the schema's order, spelling and types.

use cim::{Class, Instance, ObjectPath, Type, Value};

/// The instance of `class` that says what `made` says, has the declared defaults otherwise, and null where there is none.
/// Without a path.
pub(crate) fn whole(class: &Class, made: &Instance) -> Instance {
    debug_assert!(
        made.properties.iter().all(|(name, _)| class.property(name.as_str()).is_some()),
        "{} has a property that its class does not declare: {:?}",
        class.name,
        made.properties
    );
    let mut instance = Instance::new(class.name.clone());
    instance.properties.reserve(class.properties.len());
    for property in &class.properties {
        let value = match made.property(property.name.as_str()) {
            Some(value) => value.map(|value| typed(&property.ty, property.array, value)),
            None => property.default.clone(),
        };
        instance.properties.push((property.name.clone(), value));
    }
    instance
}

/// The same with its path, on `host` in `namespace`.
pub(crate) fn placed(class: &Class, made: &Instance, host: &str, namespace: &str) -> Instance {
    let mut instance = whole(class, made);
    let mut path = ObjectPath::of(&instance, class).within(namespace);
    path.host = Some(host.to_owned());
    instance.path = Some(path);
    instance
}

/// `made` as `class`, without what it does not declare.
pub(crate) fn declared(class: &Class, mut made: Instance) -> Instance {
    made.class = class.name.clone();
    made.properties.retain(|(name, _)| class.property(name.as_str()).is_some());
    made
}

/// `value` in the width that the schema declares.
fn typed(ty: &Type, array: bool, value: &Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.iter().map(|e| typed(ty, false, e)).collect()),
        one if array => Value::Array(vec![typed(ty, false, one)]),
        one => match one.as_integer().and_then(|number| Value::integer(ty, number)) {
            Some(number) => number,
            None => {
                debug_assert!(
                    one.as_integer().is_none() || matches!(ty, Type::String),
                    "{one} is no {}",
                    ty.keyword()
                );
                one.clone()
            }
        },
    }
}

//! Calling methods of classes and instances (DSP0200, 5.4).

use cim::xml::{Reader, Writer, Xml, type_of};
use cim::{Class, Method, Name, ObjectPath, Parameter, Type, Value};
use roxmltree::Node;
use wsman::Done;

use crate::error::{CimError, Status};
use crate::responder::Turn;

impl Turn<'_> {
    /// Calls a method, and gives the content of its `METHODRESPONSE`.
    pub(crate) fn invoke(
        &self,
        path: &ObjectPath,
        name: &str,
        given: &[(Name, Node<'_, '_>)],
        done: &mut Done,
    ) -> Result<String, CimError> {
        done.target = path.to_string();
        let class = self.class(&path.class)?;
        let method = self.method(class, name).ok_or_else(|| {
            CimError::new(Status::MethodNotFound, format!("{} has no method {name}", class.name))
        })?;
        method.name.as_str().clone_into(&mut done.operation);
        let parameters = self.parameters(method, given)?;
        done.changes = true;
        done.does = self.operations.does(self.namespace, path.class.as_str(), Some(method.name.as_str()));
        let path = path.resolved(self.schema).map_err(|e| CimError::parameter(e.to_string()))?;
        let output =
            self.operations.invoke(self.call, self.namespace, &path, method.name.as_str(), parameters)?;
        done.returned = output.returned.as_integer().and_then(|code| code.try_into().ok());
        let mut xml = Xml::new();
        let writer = Writer::new(self.schema);
        let ty = type_of(&output.returned).unwrap_or_else(|| method.returns.clone());
        xml.open("RETURNVALUE", &[("PARAMTYPE", ty.keyword())]);
        writer.value(&mut xml, &output.returned);
        xml.close("RETURNVALUE");
        for parameter in method.parameters.iter().filter(|parameter| parameter.output) {
            let given = output.parameters.iter().find(|(name, _)| *name == parameter.name);
            // One that is null is left out: a client breaks down over an element without a value.
            if let Some((_, Some(value))) = given {
                written(&mut xml, &writer, parameter, value);
            }
        }
        Ok(xml.into_string())
    }

    /// The method of a class, or of one below it that has it: a client may name the class above.
    fn method<'c>(&'c self, class: &'c Class, name: &str) -> Option<&'c Method> {
        let below = || self.schema.family(class.name.as_str()).into_iter().find_map(|one| one.method(name));
        class.method(name).or_else(below)
    }

    /// What the call gives, in the types of the declaration.
    fn parameters(
        &self,
        method: &Method,
        given: &[(Name, Node<'_, '_>)],
    ) -> Result<Vec<(Name, Option<Value>)>, CimError> {
        let mut read: Vec<(Name, Option<Value>)> = Vec::new();
        for (name, node) in given {
            let declared = method.parameter(name.as_str()).filter(|parameter| parameter.input);
            let declared = declared.ok_or_else(|| {
                CimError::parameter(format!("{} has no input parameter {name}", method.name))
            })?;
            if read.iter().any(|(there, _)| *there == declared.name) {
                return Err(CimError::parameter(format!("the parameter {name} is given twice")));
            }
            let value = Reader::new(self.schema)
                .value_in(*node, declared.name.as_str(), &declared.ty, declared.array)
                .map_err(|e| CimError::parameter(format!("the parameter {name}: {}", e.problem)))?;
            read.push((declared.name.clone(), value));
        }
        Ok(read)
    }
}

/// `PARAMVALUE` of an output.
fn written(xml: &mut Xml, writer: &Writer<'_>, parameter: &Parameter, value: &Value) {
    let ty = match &parameter.ty {
        Type::Object(_) => Type::String.keyword(),
        ty => ty.keyword(),
    };
    let mut attributes = vec![("NAME", parameter.name.as_str()), ("PARAMTYPE", ty)];
    let instances = |value: &Value| match value {
        Value::Object(_) => true,
        Value::String(text) => parameter.embedded().is_some() && text.starts_with("<INSTANCE"),
        _ => false,
    };
    if !value.elements().is_empty() && value.elements().iter().all(instances) {
        attributes.push(("EmbeddedObject", "instance"));
    }
    xml.open("PARAMVALUE", &attributes);
    writer.value(xml, value);
    xml.close("PARAMVALUE");
}

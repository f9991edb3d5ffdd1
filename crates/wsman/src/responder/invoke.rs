//! Calling methods.

use cim::xml::Xml;
use cim::{Class, Method, Schema};

use super::{Done, Reply, Turn};
use crate::fault::{Code, Fault};
use crate::resource::Resource;
use crate::uri;

impl Turn<'_> {
    /// Calls the method that the last part of the action names. The part before it is the client's idea of the class, which
    /// may be one above or below the resource's: it is not looked at.
    pub(super) fn invoke(&self, name: &str, done: &mut Done) -> Result<Reply, Fault> {
        if matches!(self.resource()?, Resource::Config { .. }) {
            return Err(Fault::new(Code::ActionNotSupported, "the configuration has no methods"));
        }
        let subject = self.subject()?;
        let method = find(subject.class, name, subject.schema).ok_or_else(|| {
            let reason = format!("{} has no method {name}", subject.class.name);
            Fault::new(Code::ActionNotSupported, reason).detail("InvalidAction")
        })?;
        let path = self.path(&subject, false)?;
        method.name.as_str().clone_into(&mut done.operation);
        done.target = path.to_string();
        if let Some(body) = self.request.body {
            let tag = body.tag_name().name();
            let expected = format!("{}_INPUT", method.name);
            if !tag.eq_ignore_ascii_case(&expected) {
                return Err(Fault::schema(format!("the body of the call is a {tag}, and not a {expected}")));
            }
        }
        let parameters = subject.decoder(self.responder).parameters(self.request.body, &method.parameters)?;
        let operations = &self.responder.operations;
        done.changes = true;
        done.does = operations.does(subject.namespace, path.class.as_str(), Some(method.name.as_str()));
        let output =
            operations.invoke(self.call, subject.namespace, &path, method.name.as_str(), parameters)?;
        done.returned = output.returned.as_integer().and_then(|code| code.try_into().ok());
        let encoder = subject.encoder();
        let class = encoder.uri(subject.class.name.as_str());
        let tag = format!("p:{}_OUTPUT", method.name);
        let mut xml = Xml::new();
        xml.open(&tag, &[("xmlns:p", &class), ("xmlns:cim", uri::CIM), ("xmlns:xsi", uri::XSI)]);
        for parameter in method.parameters.iter().filter(|parameter| parameter.output) {
            let given = output.parameters.iter().find(|(name, _)| *name == parameter.name);
            encoder.parameter(&mut xml, "p", parameter, given.and_then(|(_, value)| value.as_ref()));
        }
        encoder.value(&mut xml, "p", &"ReturnValue".into(), Some(&output.returned));
        xml.close(&tag);
        let action = format!("{}Response", self.request.action);
        Ok(Reply { action, body: xml.into_string(), ..Reply::default() })
    }
}

/// The method of a class, or of one below it that has it: a client may name the class above.
fn find<'s>(class: &'s Class, name: &str, schema: &'s Schema) -> Option<&'s Method> {
    let below = || schema.family(class.name.as_str()).into_iter().find_map(|below| below.method(name));
    class.method(name).or_else(below)
}

//! Enumerations that are opened, pulled and closed (DSP0200, 5.3.2.24).
//!
//! One holds an iterator and at most one object, looked at ahead, so that the reply with the last one says that it is. What
//! a client does not pull is not made.

use std::time::{Duration, Instant};

use cim::xml::Xml;
use wsman::Done;
use wsman::contexts::spelled;
use wsman::limits::ENUMERATION_IDLE;

use crate::error::{CimError, Status};
use crate::instances::Form;
use crate::limits::{MAX_PULL, MAX_PULLED};
use crate::parameters::Parameters;
use crate::responder::{Objects, Outcome, Turn};

/// An enumeration between two pulls.
pub(crate) struct Enumeration {
    objects: Objects,
    form: Form,
    ahead: Option<String>,
    /// What was refused after objects that had to be given first.
    failed: Option<CimError>,
    over: bool,
}

impl Enumeration {
    /// At most `most` objects, and less where they are large.
    fn take(&mut self, most: usize) -> Result<String, CimError> {
        let (mut text, mut count) = (String::new(), 0);
        while count < most {
            let Some(object) = self.next(count > 0)? else { break };
            if count > 0 && text.len() + object.len() > MAX_PULL {
                self.ahead = Some(object);
                return Ok(text);
            }
            text.push_str(&object);
            count += 1;
        }
        self.ahead = self.next(true)?;
        Ok(text)
    }

    /// The next object. A refusal is kept for later where there is something to give before it.
    fn next(&mut self, later: bool) -> Result<Option<String>, CimError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        if self.failed.is_none() && !self.over {
            match self.objects.next() {
                Some(Ok(object)) => return Ok(Some(object)),
                Some(Err(error)) => self.failed = Some(error),
                None => self.over = true,
            }
        }
        match self.failed.take() {
            Some(error) if later => {
                self.failed = Some(error);
                Ok(None)
            }
            Some(error) => {
                self.over = true;
                Err(error)
            }
            None => Ok(None),
        }
    }

    fn ended(&self) -> bool {
        self.over && self.ahead.is_none() && self.failed.is_none()
    }
}

/// How many objects a client asks for.
fn most(given: &Parameters<'_>) -> Result<usize, CimError> {
    let number = given.number("MaxObjectCount")?.unwrap_or(0);
    Ok(usize::try_from(number).unwrap_or(MAX_PULLED).min(MAX_PULLED))
}

fn answered(objects: String, context: Option<String>) -> Outcome {
    let mut more = Xml::new();
    more.open("PARAMVALUE", &[("NAME", "EnumerationContext"), ("PARAMTYPE", "string")]);
    more.element("VALUE", context.as_deref().unwrap_or_default());
    more.close("PARAMVALUE");
    more.open("PARAMVALUE", &[("NAME", "EndOfSequence"), ("PARAMTYPE", "boolean")]);
    more.element("VALUE", if context.is_none() { "TRUE" } else { "FALSE" });
    more.close("PARAMVALUE");
    Outcome { objects: Some(Box::new(std::iter::once(Ok(objects)))), more: more.into_string() }
}

impl Turn<'_> {
    fn open(&self, given: &Parameters<'_>, form: Form, objects: Objects) -> Result<Outcome, CimError> {
        let filtered = |name| given.text(name).map(|text| text.is_some_and(|text| !text.trim().is_empty()));
        if filtered("FilterQuery")? || filtered("FilterQueryLanguage")? {
            let why = "enumerations are not filtered: send a query with OpenQueryInstances";
            return Err(CimError::new(Status::FilteredEnumerationNotSupported, why));
        }
        if given.boolean("ContinueOnError", false)? {
            let why = "an enumeration ends where it fails";
            return Err(CimError::new(Status::ContinuationOnErrorNotSupported, why));
        }
        let idle = match given.number("OperationTimeout")? {
            None => ENUMERATION_IDLE,
            Some(seconds) => Duration::from_secs(seconds.into()),
        };
        if idle.is_zero() || idle > ENUMERATION_IDLE {
            let most = ENUMERATION_IDLE.as_secs();
            let why = format!("an enumeration is kept from 1 to {most} seconds");
            return Err(CimError::new(Status::InvalidOperationTimeout, why));
        }
        let mut enumeration = Enumeration { objects, form, ahead: None, failed: None, over: false };
        let text = enumeration.take(most(given)?)?;
        if enumeration.ended() {
            return Ok(answered(text, None));
        }
        let user = &self.call.principal.user;
        let context = self.contexts.keep(user, Some(idle), enumeration, Instant::now())?;
        Ok(answered(text, Some(spelled(context))))
    }

    fn open_listed(&self, given: &Parameters<'_>, form: Form, done: &mut Done) -> Result<Outcome, CimError> {
        let (items, shape) = self.listed(given, done)?;
        self.open(given, form, self.render(form, shape).objects(items))
    }

    fn open_walked(
        &self,
        given: &Parameters<'_>,
        form: Form,
        references: bool,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        let path = given.instance_name("InstanceName")?;
        let (items, shape) = self.walked(given, &path, references, done)?;
        self.open(given, form, self.render(form, shape).objects(items))
    }

    pub(crate) fn open_instances(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        self.open_listed(given, Form::Pulled, done)
    }

    pub(crate) fn open_paths(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Outcome, CimError> {
        self.open_listed(given, Form::Path, done)
    }

    pub(crate) fn open_associators(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        self.open_walked(given, Form::Pulled, false, done)
    }

    pub(crate) fn open_associator_paths(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        self.open_walked(given, Form::Path, false, done)
    }

    pub(crate) fn open_references(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        self.open_walked(given, Form::Pulled, true, done)
    }

    pub(crate) fn open_reference_paths(
        &self,
        given: &Parameters<'_>,
        done: &mut Done,
    ) -> Result<Outcome, CimError> {
        self.open_walked(given, Form::Path, true, done)
    }

    /// The filter of this one is the query itself.
    pub(crate) fn open_query(&self, given: &Parameters<'_>, done: &mut Done) -> Result<Outcome, CimError> {
        let language = given.required_text("FilterQueryLanguage")?;
        let (items, shape) = self.queried(&language, &given.required_text("FilterQuery")?, done)?;
        if given.boolean("ReturnQueryResultClass", false)? {
            let why = "the class of a query's result is the class that it selects from";
            return Err(CimError::new(Status::NotSupported, why));
        }
        let rest = given.without(&["FilterQueryLanguage", "FilterQuery"]);
        self.open(&rest, Form::Instance, self.render(Form::Instance, shape).objects(items))
    }

    fn pull(&self, given: &Parameters<'_>, form: Form) -> Result<Outcome, CimError> {
        let context = given.required_text("EnumerationContext")?;
        let most = most(given)?;
        let (id, mut enumeration) =
            self.contexts.take(&self.call.principal.user, &context, Instant::now())?;
        if enumeration.form != form {
            self.contexts.give_back(id, enumeration, Instant::now());
            let why = "this enumeration is pulled by another operation, as it was opened by another";
            return Err(CimError::new(Status::InvalidEnumerationContext, why));
        }
        let taken = enumeration.take(most);
        let context = if enumeration.ended() {
            self.contexts.close(id);
            None
        } else {
            self.contexts.give_back(id, enumeration, Instant::now());
            Some(spelled(id))
        };
        Ok(answered(taken?, context))
    }

    pub(crate) fn pull_instances_with_path(
        &self,
        given: &Parameters<'_>,
        _: &mut Done,
    ) -> Result<Outcome, CimError> {
        self.pull(given, Form::Pulled)
    }

    pub(crate) fn pull_paths(&self, given: &Parameters<'_>, _: &mut Done) -> Result<Outcome, CimError> {
        self.pull(given, Form::Path)
    }

    pub(crate) fn pull_instances(&self, given: &Parameters<'_>, _: &mut Done) -> Result<Outcome, CimError> {
        self.pull(given, Form::Instance)
    }

    pub(crate) fn close_enumeration(
        &self,
        given: &Parameters<'_>,
        _: &mut Done,
    ) -> Result<Outcome, CimError> {
        let context = given.required_text("EnumerationContext")?;
        self.contexts.release(&self.call.principal.user, &context)?;
        Ok(Outcome::nothing())
    }

    /// How many there are left is not known before they are made, which null says.
    pub(crate) fn enumeration_count(
        &self,
        given: &Parameters<'_>,
        _: &mut Done,
    ) -> Result<Outcome, CimError> {
        let context = given.required_text("EnumerationContext")?;
        let (id, enumeration) = self.contexts.take(&self.call.principal.user, &context, Instant::now())?;
        self.contexts.give_back(id, enumeration, Instant::now());
        Ok(Outcome::nothing())
    }
}

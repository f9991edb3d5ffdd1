//! A literal of MOF as a value of the type that the declaration says.

use super::parse::{Literal, LiteralKind};
use crate::syntax::{Fault, shown};
use crate::{ObjectPath, Type, Value};

/// What a literal may name besides itself.
pub(super) trait Surroundings<'t> {
    /// The instance that `$alias` stands for.
    fn alias(&self, alias: &str) -> Option<ObjectPath>;
    /// An instance inside a value.
    fn instance(&self, literal: &super::parse::InstanceDeclaration<'t>) -> Result<crate::Instance, Fault>;
}

/// The value of a literal; none for null.
pub(super) fn value<'t>(
    literal: &Literal<'t>,
    ty: &Type,
    array: bool,
    around: &impl Surroundings<'t>,
) -> Result<Option<Value>, Fault> {
    match (&literal.kind, array) {
        (LiteralKind::Null, _) => Ok(None),
        (LiteralKind::Array(elements), true) => {
            let elements = elements.iter().filter_map(|element| scalar(element, ty, around).transpose());
            Ok(Some(Value::Array(elements.collect::<Result<_, _>>()?)))
        }
        (LiteralKind::Array(_), false) => {
            Err(Fault::new(literal.at, "one value is expected here, not several"))
        }
        (_, true) => Ok(scalar(literal, ty, around)?.map(|only| Value::Array(vec![only]))),
        (_, false) => scalar(literal, ty, around),
    }
}

fn scalar<'t>(
    literal: &Literal<'t>,
    ty: &Type,
    around: &impl Surroundings<'t>,
) -> Result<Option<Value>, Fault> {
    let wrong = |spelled: &str| Fault::new(literal.at, format!("{spelled} is no {}", ty.keyword()));
    let value = match (&literal.kind, ty) {
        (LiteralKind::Null, _) => return Ok(None),
        (LiteralKind::Instance(instance), Type::Object(_) | Type::String) => {
            around.instance(instance)?.into()
        }
        (LiteralKind::Boolean(truth), Type::Boolean) => (*truth).into(),
        (LiteralKind::Integer(number), Type::Real32) => Value::Real32(*number as f32),
        (LiteralKind::Integer(number), Type::Real64) => Value::Real64(*number as f64),
        (LiteralKind::Integer(number), Type::Char16) => {
            Value::Char16((*number).try_into().map_err(|_| wrong(&number.to_string()))?)
        }
        (LiteralKind::Integer(number), Type::String) => number.to_string().into(),
        (LiteralKind::Integer(number), ty) => {
            Value::integer(ty, *number).ok_or_else(|| wrong(&number.to_string()))?
        }
        (LiteralKind::Real(number), Type::Real32) => Value::Real32(*number as f32),
        (LiteralKind::Real(number), Type::Real64) => Value::Real64(*number),
        (LiteralKind::Char(unit), Type::Char16) => Value::Char16(*unit),
        (LiteralKind::Text(text), Type::Reference(_)) => {
            let path: ObjectPath = text
                .parse()
                .map_err(|error| Fault::new(literal.at, format!("the path is wrong: {error}")))?;
            path.into()
        }
        // WMI prints numbers of 64 bits in quotes.
        (LiteralKind::Text(text), ty) => {
            Value::parse(ty, text).map_err(|_| wrong(&format!("\"{}\"", shown(text))))?
        }
        (LiteralKind::Alias(name), Type::Reference(_)) => around
            .alias(name)
            .ok_or_else(|| Fault::new(literal.at, format!("no instance before this one is called ${name}")))?
            .into(),
        (kind, _) => return Err(wrong(kind.named())),
    };
    Ok(Some(value))
}

impl LiteralKind<'_> {
    fn named(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a truth value",
            Self::Integer(_) => "a whole number",
            Self::Real(_) => "a number with a point",
            Self::Char(_) => "a character",
            Self::Text(_) => "a text",
            Self::Alias(_) => "an alias",
            Self::Array(_) => "a list",
            Self::Instance(_) => "an instance",
        }
    }
}

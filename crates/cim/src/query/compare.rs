//! Which of two values is more. A query does not know types, so the type of one side says how the other is read.

use std::cmp::Ordering;

use crate::{Datetime, ObjectPath, Schema, Type, Value};

/// The characters of a text as comparisons see them.
pub(super) fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

/// How one value stands to another; none where they cannot be compared.
pub(super) fn order(one: &Value, other: &Value, schema: &Schema) -> Option<Ordering> {
    let integer = one.as_integer().is_some() || other.as_integer().is_some();
    if let (true, Some(one), Some(other)) = (integer, whole(one), whole(other)) {
        return Some(one.cmp(&other));
    }
    match (one, other) {
        (Value::String(one), Value::String(other)) => Some(folded(one).cmp(folded(other))),
        (Value::Boolean(one), other) => Some(one.cmp(&truth(other)?)),
        (one, Value::Boolean(other)) => Some(truth(one)?.cmp(other)),
        (Value::Datetime(one), other) => times(one, &time(other)?),
        (one, Value::Datetime(other)) => times(&time(one)?, other),
        (Value::Reference(one), other) => paths(one, other, schema),
        (one, Value::Reference(other)) => paths(other, one, schema).map(Ordering::reverse),
        (Value::Char16(unit), Value::String(text)) => Some(character(*unit).cmp(folded(text))),
        (Value::String(text), Value::Char16(unit)) => Some(folded(text).cmp(character(*unit))),
        // A number against a text that is one, else as texts.
        (one, other) => match (number(one), number(other)) {
            (Some(one), Some(other)) => one.partial_cmp(&other),
            _ if one.as_str().is_some() || other.as_str().is_some() => {
                let (one, other) = (spelled(one)?, spelled(other)?);
                Some(folded(&one).cmp(folded(&other)))
            }
            _ => None,
        },
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(truth) => Some(*truth),
        Value::String(text) => Value::parse(&Type::Boolean, text).ok()?.as_bool(),
        other => other.as_integer().map(|number| number != 0),
    }
}

/// A whole number, or the text of one.
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => {
            let signed = Value::parse(&Type::Sint64, text);
            signed.or_else(|_| Value::parse(&Type::Uint64, text)).ok()?.as_integer()
        }
        other => other.as_integer(),
    }
}

/// Beside a number with a point, where a few last digits of the other do not matter.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Real32(number) => Some((*number).into()),
        Value::Real64(number) => Some(*number),
        Value::Char16(unit) => Some((*unit).into()),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        other => other.as_integer().map(|whole| whole as f64),
    }
}

fn spelled(value: &Value) -> Option<String> {
    match value {
        Value::Object(_) | Value::Array(_) => None,
        simple => Some(simple.to_string()),
    }
}

fn character(unit: u16) -> impl Iterator<Item = char> {
    char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER).to_lowercase()
}

fn time(value: &Value) -> Option<Datetime> {
    match value {
        Value::Datetime(time) => Some(*time),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn times(one: &Datetime, other: &Datetime) -> Option<Ordering> {
    if one.is_interval() != other.is_interval() {
        return None;
    }
    match (one.micros(), other.micros()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        // What is not known of one of them can only be the same.
        _ => (one == other).then_some(Ordering::Equal),
    }
}

/// Paths are the same, or not; where one leaves out host or namespace, it means the one at hand.
fn paths(one: &ObjectPath, other: &Value, schema: &Schema) -> Option<Ordering> {
    let other = match other {
        Value::Reference(path) => (**path).clone(),
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    let plain = |path: &ObjectPath| {
        let local = ObjectPath { host: None, namespace: None, ..path.clone() };
        local.resolved(schema).unwrap_or(local).to_string()
    };
    Some(folded(&plain(one)).cmp(folded(&plain(&other))))
}

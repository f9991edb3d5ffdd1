//! Types and values of properties, parameters and qualifiers (DSP0004, 5.2).
//!
//! A missing value is `None` of `Option<Value>`; no variant says null. Arrays have no nulls inside: no client of the
//! classes served sends one, and what a text holds of them is left out when it is read.

use std::fmt;

use crate::{Datetime, Instance, Name, ObjectPath};

/// A type of the CIM meta model. Whether a property is an array of it is said beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Type {
    /// True or false.
    Boolean,
    /// 8 bits without sign.
    Uint8,
    /// 8 bits with sign.
    Sint8,
    /// 16 bits without sign.
    Uint16,
    /// 16 bits with sign.
    Sint16,
    /// 32 bits without sign.
    Uint32,
    /// 32 bits with sign.
    Sint32,
    /// 64 bits without sign.
    Uint64,
    /// 64 bits with sign.
    Sint64,
    /// 32 bits of IEEE 754.
    Real32,
    /// 64 bits of IEEE 754.
    Real64,
    /// One UCS-2 unit.
    Char16,
    /// Text.
    String,
    /// A point in time or an interval.
    Datetime,
    /// A path to an instance of a class, or of one below it.
    Reference(Name),
    /// An instance inside the value, of this class where it is known (`object` in WMI).
    Object(Option<Name>),
}

impl Type {
    /// The keyword of the type in MOF and CIM-XML; `reference` and `object` where MOF has none.
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Uint8 => "uint8",
            Self::Sint8 => "sint8",
            Self::Uint16 => "uint16",
            Self::Sint16 => "sint16",
            Self::Uint32 => "uint32",
            Self::Sint32 => "sint32",
            Self::Uint64 => "uint64",
            Self::Sint64 => "sint64",
            Self::Real32 => "real32",
            Self::Real64 => "real64",
            Self::Char16 => "char16",
            Self::String => "string",
            Self::Datetime => "datetime",
            Self::Reference(_) => "reference",
            Self::Object(_) => "object",
        }
    }

    /// The simple type of that keyword, in any case; none for references and objects, which need a class.
    #[must_use]
    pub fn from_keyword(keyword: &str) -> Option<Self> {
        use Type::{
            Boolean, Char16, Datetime, Real32, Real64, Sint8, Sint16, Sint32, Sint64, String, Uint8, Uint16,
            Uint32, Uint64,
        };
        const SIMPLE: [Type; 14] = [
            Boolean, Uint8, Sint8, Uint16, Sint16, Uint32, Sint32, Uint64, Sint64, Real32, Real64, Char16,
            String, Datetime,
        ];
        SIMPLE.into_iter().find(|simple| simple.keyword().eq_ignore_ascii_case(keyword))
    }
}

/// A value that is there.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Of [`Type::Boolean`].
    Boolean(bool),
    /// Of [`Type::Uint8`].
    Uint8(u8),
    /// Of [`Type::Sint8`].
    Sint8(i8),
    /// Of [`Type::Uint16`].
    Uint16(u16),
    /// Of [`Type::Sint16`].
    Sint16(i16),
    /// Of [`Type::Uint32`].
    Uint32(u32),
    /// Of [`Type::Sint32`].
    Sint32(i32),
    /// Of [`Type::Uint64`].
    Uint64(u64),
    /// Of [`Type::Sint64`].
    Sint64(i64),
    /// Of [`Type::Real32`].
    Real32(f32),
    /// Of [`Type::Real64`].
    Real64(f64),
    /// Of [`Type::Char16`].
    Char16(u16),
    /// Of [`Type::String`], and of one that carries an instance as text.
    String(String),
    /// Of [`Type::Datetime`].
    Datetime(Datetime),
    /// Of [`Type::Reference`].
    Reference(Box<ObjectPath>),
    /// Of [`Type::Object`].
    Object(Box<Instance>),
    /// Several of one type.
    Array(Vec<Value>),
}

impl Value {
    /// The text, where this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value, where this is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// The number, where this is an integer of any width.
    #[must_use]
    pub fn as_integer(&self) -> Option<i128> {
        Some(match self {
            Self::Uint8(value) => (*value).into(),
            Self::Sint8(value) => (*value).into(),
            Self::Uint16(value) => (*value).into(),
            Self::Sint16(value) => (*value).into(),
            Self::Uint32(value) => (*value).into(),
            Self::Sint32(value) => (*value).into(),
            Self::Uint64(value) => (*value).into(),
            Self::Sint64(value) => (*value).into(),
            _ => return None,
        })
    }

    /// The number as one without sign of 64 bits, where it is one.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_integer().and_then(|value| value.try_into().ok())
    }

    /// The path, where this is a reference.
    #[must_use]
    pub fn as_path(&self) -> Option<&ObjectPath> {
        match self {
            Self::Reference(path) => Some(path),
            _ => None,
        }
    }

    /// The instance, where this carries one as such, not as text.
    #[must_use]
    pub fn as_instance(&self) -> Option<&Instance> {
        match self {
            Self::Object(instance) => Some(instance),
            _ => None,
        }
    }

    /// The elements of an array; one for any other value.
    #[must_use]
    pub fn elements(&self) -> &[Self] {
        match self {
            Self::Array(elements) => elements,
            _ => std::slice::from_ref(self),
        }
    }

    /// The value of a simple type that `text` spells, as XML spells it: decimal integers (hexadecimal and a sign are
    /// understood), `true` and `false` in any case, a number or one character for `char16`.
    ///
    /// # Errors
    /// It spells none, or one out of range; references and objects have no such spelling.
    pub fn parse(ty: &Type, text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::of(ty, text);
        let trimmed = text.trim();
        Ok(match ty {
            Type::String => Self::String(text.to_owned()),
            Type::Boolean => match trimmed {
                "1" => Self::Boolean(true),
                "0" => Self::Boolean(false),
                word if word.eq_ignore_ascii_case("true") => Self::Boolean(true),
                word if word.eq_ignore_ascii_case("false") => Self::Boolean(false),
                _ => return Err(wrong()),
            },
            Type::Real32 => Self::Real32(trimmed.parse().map_err(|_| wrong())?),
            Type::Real64 => Self::Real64(trimmed.parse().map_err(|_| wrong())?),
            Type::Datetime => Self::Datetime(trimmed.parse().map_err(|_| wrong())?),
            Type::Char16 => match (trimmed.parse(), text.encode_utf16().collect::<Vec<_>>().as_slice()) {
                (Ok(unit), _) => Self::Char16(unit),
                (Err(_), [unit]) => Self::Char16(*unit),
                _ => return Err(wrong()),
            },
            Type::Reference(_) | Type::Object(_) => return Err(wrong()),
            integer => Self::integer(integer, whole(trimmed).ok_or_else(wrong)?).ok_or_else(wrong)?,
        })
    }

    /// `number` as a value of the integer type `ty`; none when it does not fit, or the type is no integer.
    #[must_use]
    pub fn integer(ty: &Type, number: i128) -> Option<Self> {
        Some(match ty {
            Type::Uint8 => Self::Uint8(number.try_into().ok()?),
            Type::Sint8 => Self::Sint8(number.try_into().ok()?),
            Type::Uint16 => Self::Uint16(number.try_into().ok()?),
            Type::Sint16 => Self::Sint16(number.try_into().ok()?),
            Type::Uint32 => Self::Uint32(number.try_into().ok()?),
            Type::Sint32 => Self::Sint32(number.try_into().ok()?),
            Type::Uint64 => Self::Uint64(number.try_into().ok()?),
            Type::Sint64 => Self::Sint64(number.try_into().ok()?),
            _ => return None,
        })
    }
}

fn whole(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    // A second sign is not let through by the parsers below only if it is not there.
    let plain = digits.starts_with(|first: char| first.is_ascii_digit());
    let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) if !hex.starts_with(['+', '-']) => i128::from_str_radix(hex, 16).ok()?,
        _ if plain => digits.parse().ok()?,
        _ => return None,
    };
    Some(if negative { -number } else { number })
}

impl fmt::Display for Value {
    /// The spelling that [`Value::parse`] reads; paths as WMI writes them; instances and arrays only for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Uint8(value) => value.fmt(f),
            Self::Sint8(value) => value.fmt(f),
            Self::Uint16(value) | Self::Char16(value) => value.fmt(f),
            Self::Sint16(value) => value.fmt(f),
            Self::Uint32(value) => value.fmt(f),
            Self::Sint32(value) => value.fmt(f),
            Self::Uint64(value) => value.fmt(f),
            Self::Sint64(value) => value.fmt(f),
            Self::Real32(value) => value.fmt(f),
            Self::Real64(value) => value.fmt(f),
            Self::String(value) => value.fmt(f),
            Self::Datetime(value) => value.fmt(f),
            Self::Reference(path) => path.fmt(f),
            Self::Object(instance) => write!(f, "instance of {}", instance.class),
            Self::Array(elements) => {
                f.write_str("{")?;
                for (n, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if n == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

macro_rules! from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

from! {
    bool => Boolean, u8 => Uint8, i8 => Sint8, u16 => Uint16, i16 => Sint16, u32 => Uint32, i32 => Sint32,
    u64 => Uint64, i64 => Sint64, f32 => Real32, f64 => Real64, String => String, &str => String,
    Datetime => Datetime,
}

impl From<ObjectPath> for Value {
    fn from(path: ObjectPath) -> Self {
        Self::Reference(Box::new(path))
    }
}

impl From<Instance> for Value {
    fn from(instance: Instance) -> Self {
        Self::Object(Box::new(instance))
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(elements: Vec<T>) -> Self {
        Self::Array(elements.into_iter().map(Into::into).collect())
    }
}

/// A text that spells no value of a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {ty}")]
pub struct ValueError {
    ty: &'static str,
    text: String,
}

impl ValueError {
    /// Of a text that is refused at most this many characters are shown.
    const SHOWN: usize = 100;

    /// Of `text`, which is no value of type `ty`.
    pub(crate) fn of(ty: &Type, text: &str) -> Self {
        Self { ty: ty.keyword(), text: text.chars().take(Self::SHOWN).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::{Type, Value};

    #[test]
    fn numbers_are_held_to_their_width() {
        assert_eq!(Value::parse(&Type::Uint16, " 32768 ").unwrap(), Value::Uint16(32768));
        assert_eq!(Value::parse(&Type::Uint16, "0xffff").unwrap(), Value::Uint16(65535));
        assert_eq!(Value::parse(&Type::Sint8, "-128").unwrap(), Value::Sint8(-128));
        for (ty, text) in [
            (Type::Uint16, "65536"),
            (Type::Uint8, "-1"),
            (Type::Uint8, "+-1"),
            (Type::Uint8, "0x+1"),
            (Type::Uint8, ""),
            (Type::Sint64, "9223372036854775808"),
            (Type::Boolean, "yes"),
            (Type::Real64, "one"),
            (Type::Char16, "no"),
        ] {
            assert!(Value::parse(&ty, text).is_err(), "{} {text}", ty.keyword());
        }
        assert_eq!(Value::parse(&Type::Uint64, &u64::MAX.to_string()).unwrap(), Value::Uint64(u64::MAX));
        assert_eq!(Value::parse(&Type::Boolean, "TRUE").unwrap(), Value::Boolean(true));
        assert_eq!(Value::parse(&Type::Char16, "A").unwrap(), Value::Char16(65));
    }
}

//! MOF, the language that CIM classes and instances are written in (DSP0004, annex A).
//!
//! [`Compiler`] turns files of qualifier and class declarations into a [`Schema`]; [`instances`] reads what scripts send
//! as `instance of X {…};`. `#pragma` lines are read and have no effect, except `include`, which is refused: nothing here
//! opens files.
//!
//! Three things are as WMI has them, since the classes served come from there: a string with the qualifier
//! `CIMType("object:X")` carries an instance as such and is [`Type::Object`]; one with `CIMType("ref:X")` is a reference,
//! which DSP0004 has only in associations; and an `instance of` may stand as the value of a property.

mod compile;
mod instance;
mod lex;
mod literal;
mod parse;

pub use compile::Compiler;
pub use instance::instances;

#[cfg(doc)]
use crate::{Schema, Type};

/// Longest text that is read, in bytes.
pub const MAX_TEXT: usize = 16 << 20;
/// Most declarations in one text.
pub const MAX_DECLARATIONS: usize = 10_000;
/// Most members of a class, parameters of a method, elements of an array, and qualifiers of one thing.
pub const MAX_MEMBERS: usize = 10_000;
/// Most instances inside one another.
pub const MAX_DEPTH: usize = 16;

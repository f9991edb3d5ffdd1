//! CIM as pure values: classes, instances, paths, queries, and the texts they are written in.
//!
//! Nothing here reads a file or a socket, and nothing knows a protocol or a machine. `wsman` puts
//! these values on the wire; `hyperv` fills them with machines.
//!
//! * [`Value`], [`Type`], [`Datetime`], [`ObjectPath`], [`Instance`]: the model of DSP0004.
//! * [`Class`], [`Schema`]: declarations, with inheritance.
//! * [`mof`]: the language that classes and instances are written in.
//! * [`embedded`]: instances as texts inside strings.
//! * [`xml`]: the elements of CIM-XML, and reading and writing XML within limits.
//! * [`query`]: WQL, and whether an instance is meant by it.
//!
//! Names compare without regard to case everywhere ([`Name`]). Every text that is parsed here may come from a stranger:
//! sizes, depths and counts are bounded by named constants.

#![forbid(unsafe_code)]

mod class;
mod datetime;
pub mod embedded;
mod instance;
pub mod mof;
mod name;
mod path;
pub mod query;
mod syntax;
mod value;
pub mod xml;

pub use class::{Class, Method, Parameter, Property, Qualifier, QualifierType, Schema, SchemaError};
pub use datetime::{Datetime, DatetimeError};
pub use instance::Instance;
pub use name::Name;
pub use path::{ObjectPath, PathError};
pub use query::Query;
pub use syntax::SyntaxError;
pub use value::{Type, Value, ValueError};

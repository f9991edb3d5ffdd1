//! The classes of each namespace, read from the MOF files that the program carries.
//!
//! The files in `schema/` are the source of truth; nothing generates them. A test has pywbem compile them and compares.

use cim::mof::Compiler;
use cim::{Schema, SchemaError, SyntaxError};

/// Qualifiers, which every namespace uses.
const QUALIFIERS: &str = include_str!("../schema/qualifiers.mof");

/// Hyper-V's own classes: `root/virtualization/v2`.
///
/// # Errors
/// None that a test does not find: the files are part of the program.
pub fn virtualization() -> Result<Schema, Error> {
    read("virtualization_v2.mof", include_str!("../schema/virtualization_v2.mof"))
}

/// Hyper-V's classes of 2008 to 2012: `root/virtualization`.
///
/// # Errors
/// As [`virtualization`].
pub fn virtualization_v1() -> Result<Schema, Error> {
    read("virtualization.mof", include_str!("../schema/virtualization.mof"))
}

/// The host's classes that clients read first: `root/cimv2`.
///
/// # Errors
/// As [`virtualization`].
pub fn cimv2() -> Result<Schema, Error> {
    read("cimv2.mof", include_str!("../schema/cimv2.mof"))
}

/// What the server says of itself: `root/interop`.
///
/// # Errors
/// As [`virtualization`].
pub fn interop() -> Result<Schema, Error> {
    read("interop.mof", include_str!("../schema/interop.mof"))
}

fn read(name: &str, text: &str) -> Result<Schema, Error> {
    let mut compiler = Compiler::new();
    compiler.add("qualifiers.mof", QUALIFIERS)?;
    compiler.add(name, text)?;
    Ok(compiler.finish()?)
}

/// A schema file that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is no MOF.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// Its classes make no schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

//! VHD: the older of Hyper-V's two disk formats, in all three kinds, read and written.
//!
//! ```text
//!   fixed                      data ............................................ footer
//!   dynamic, differencing      footer copy | header | locators, table | blocks ... footer
//!                                                     └─ entry n ──> sector bitmap + data of block n
//! ```
//!
//! Everything is big-endian. The footer at the end of the file is the authority; the copy at the start stands in when
//! the end was lost or damaged. [`Vhd`] is one file as a layer of a chain, [`VhdWriter`] makes new files, `check` names
//! what is wrong with one. How `docs/formats/vhd.md` reads the parts that the specification leaves open is said where
//! each is used. Finding and judging parents is `chain`'s part, putting layers together is `image`'s.

mod bat;
mod cache;
mod check;
mod footer;
mod geometry;
mod header;
mod reader;
mod writer;

pub(crate) use check::check;
pub use reader::Vhd;
pub use writer::{DEFAULT_BLOCK_SIZE, MIN_BLOCK_SIZE, VhdWriter};

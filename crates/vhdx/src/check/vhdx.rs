//! The rules of VHDX.
use super::Report;
use crate::error::Fault;
use crate::storage::Storage;
use std::sync::Arc;
pub(crate) fn check(_storage: Arc<dyn Storage>, _report: &mut Report) -> Result<(), Fault> {
    Ok(())
}

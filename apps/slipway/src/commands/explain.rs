//! `slipway explain ID`: what a finding or an error means, at more length than a line.

use machine::Reason;
use machine::finding::EXPLANATIONS;

use crate::failure::{Code, Failure, Result};
use crate::printer::Printer;

/// `explain [ID]`: one explanation, or the list of ids.
pub(crate) fn explain(printer: Printer, id: Option<&str>) -> Result {
    let Some(id) = id else {
        for e in EXPLANATIONS {
            printer.line(e.id)?;
        }
        for r in Reason::ALL {
            printer.line(r.id())?;
        }
        return Ok(());
    };
    let finding = EXPLANATIONS.iter().find(|e| e.id == id).map(|e| e.text);
    let reason = Reason::ALL.iter().find(|r| r.id() == id).map(|r| r.explanation());
    match finding.or(reason) {
        Some(text) => printer.line(text),
        None => Err(Failure::new("not-found", format!("nothing is known by the id `{id}`"))
            .code(Code::NotFound)
            .hint("`slipway explain` lists the ids")),
    }
}

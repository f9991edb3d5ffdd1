//! `slipway explain ID`: what a finding or an error means, at more length than a line.

use machine::Reason;
use machine::finding::EXPLANATIONS;

use crate::failure::{Code, Failure, Result};
use crate::printer::Printer;

/// Ids that only the command line prints, beside those of the domain.
const OWN: &[(&str, &str)] = &[
    (
        "bad-configuration",
        "The file cannot be read as a VMCX, VMRS or XML configuration; the message names the rule and the offset.",
    ),
    ("cancelled", "Somebody ended the job. What it had made was removed; the machine or plan is as it was."),
    (
        "bad-setting",
        "A setting of the daemon cannot be used; the message names the file and line, option or variable that said it. `slipway serve --check-config` tries it all without starting anything.",
    ),
    (
        "check-failed",
        "The disk breaks rules of its format; each is listed with its offset. Keep a copy before anything writes to it.",
    ),
    (
        "copy",
        "Copying a disk failed; the message names the file and the byte. Nothing is left under the target's name.",
    ),
    (
        "export-not-noted",
        "The package is complete, but the store did not keep when it was made, so the age of the last export is told too high. See what the store says in the log.",
    ),
    (
        "export-raw",
        "A disk was exported raw. Slipway imports such a package, by what its manifest says of the disk; Hyper-V reads only VHD and VHDX.",
    ),
    (
        "export-started-over",
        "An unfinished export was at the target, but the machine or a disk has changed since: it was written anew, so that a package never mixes two instants.",
    ),
    ("internal", "Something that cannot happen did: a fault of Slipway. Please report it with the message."),
    (
        "no-daemon",
        "No daemon answers at the socket. `slipway serve` starts one; `--socket` or SLIPWAY_SOCKET names another socket.",
    ),
    (
        "not-verified",
        "The package is not what its maker wrote; each difference is listed. Copy it again from where it came.",
    ),
];

/// `explain [ID]`: one explanation, or the list of ids.
pub(crate) fn explain(printer: Printer, id: Option<&str>) -> Result {
    let Some(id) = id else {
        for e in EXPLANATIONS {
            printer.line(e.id)?;
        }
        for id in Reason::ALL.iter().map(|r| r.id()).chain(OWN.iter().map(|(id, _)| *id)) {
            printer.line(id)?;
        }
        return Ok(());
    };
    let finding = EXPLANATIONS.iter().find(|e| e.id == id).map(|e| e.text);
    let reason = Reason::ALL.iter().find(|r| r.id() == id).map(|r| r.explanation());
    let own = OWN.iter().find(|(own, _)| *own == id).map(|(_, text)| *text);
    match finding.or(reason).or(own) {
        Some(text) => printer.line(text),
        None => Err(Failure::new("not-found", format!("nothing is known by the id `{id}`"))
            .code(Code::NotFound)
            .hint("`slipway explain` lists the ids")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every id that stands in a `Failure::new` of this program, found in its own source.
    #[test]
    fn every_id_that_is_printed_is_explained() {
        let mut files = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut seen = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for id in text.split("Failure::new(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                if id.contains(' ') || id.contains('\\') {
                    continue;
                }
                seen += 1;
                let known = EXPLANATIONS.iter().any(|e| e.id == id)
                    || Reason::ALL.iter().any(|r| r.id() == id)
                    || OWN.iter().any(|(own, _)| *own == id);
                assert!(known, "`{id}` in {} is not explained", path.display());
            }
        }
        assert!(seen > 10);
    }
}

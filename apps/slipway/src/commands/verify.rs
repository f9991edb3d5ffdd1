//! `slipway verify DIR`: proves a package from its manifest, or checks its structure where it has none.

use std::path::{Path, PathBuf};

use serde_json::json;
use transfer::copy::CopyOptions;
use transfer::verify::{Proof, Severity, VerifyOptions, verify as prove};

use crate::failure::{Code, Failure, Result};
use crate::printer::{Printer, bytes, json_path};
use crate::progress::Bar;

/// `verify DIR`.
pub(crate) fn verify(printer: Printer, dir: &Path, disk_dirs: &[PathBuf]) -> Result {
    let bar = Bar::bytes(printer, "verifying");
    let copy = CopyOptions { progress: &|p| bar.set(p.done, p.total), ..CopyOptions::default() };
    let report = prove(dir, &VerifyOptions { copy, disk_dirs }).map_err(|e| {
        let failure = Failure::at("verify", dir, &e);
        let failure = match e.kind() {
            transfer::FaultKind::NotFound => failure.code(Code::NotFound),
            _ => Failure { id: "bad-package".to_owned(), ..failure.code(Code::Findings) },
        };
        match e.hint() {
            Some(hint) => failure.hint(hint.replace("slipway inspect ", "slipway verify ")),
            None => failure.or_hint(|| "copy the package again from where it came".to_owned()),
        }
    })?;
    bar.finish();
    let proof = match report.proof {
        Proof::Content => "content",
        Proof::Structure => "structure",
    };
    let name = |s: Severity| match s {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    if printer.json {
        let findings: Vec<_> = report
            .findings
            .iter()
            .map(|f| {
                json!({
                    "id": f.id, "severity": name(f.severity), "path": json_path(&f.path), "offset": f.offset,
                    "message": f.message, "hint": f.hint,
                })
            })
            .collect();
        printer.json(&json!({
            "package": json_path(&report.root),
            "good": report.is_good(),
            "proof": proof,
            "files": report.files,
            "disks": report.disks,
            "bytes": report.bytes,
            "findings": findings,
            "more_findings": report.more_findings,
        }))?;
    } else {
        for f in &report.findings {
            printer.line(format!("{:<8} {f} [{}]", name(f.severity), f.id))?;
            if let Some(hint) = &f.hint {
                printer.line(format!("         hint: {hint}"))?;
            }
        }
        let what = match report.proof {
            Proof::Content => "every byte of content was compared with the manifest",
            Proof::Structure => "there is no manifest: formats and completeness were checked, not content",
        };
        let verdict = if report.is_good() { "good" } else { "NOT good" };
        printer.line(format!(
            "{verdict}: {} file(s), {} disk(s), {} of data; {what}",
            report.files,
            report.disks,
            bytes(report.bytes)
        ))?;
    }
    if report.is_good() {
        return Ok(());
    }
    let mut errors = report.findings.iter().filter(|f| f.severity == Severity::Error);
    let first = errors.next();
    let why = first.map_or_else(String::new, |f| format!(": `{}` [{}]", f.path.display(), f.id));
    let more = match errors.count() + report.more_findings {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let what = match report.proof {
        Proof::Content => "is not what its maker wrote",
        Proof::Structure => "is damaged or not complete",
    };
    Err(Failure::new("not-verified", format!("`{}` {what}{why}{more}", dir.display()))
        .code(Code::Findings)
        .hint(match first.and_then(|f| f.hint.clone()) {
            Some(hint) => hint,
            None => "copy the package again from where it came".to_owned(),
        }))
}

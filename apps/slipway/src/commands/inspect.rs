//! `slipway inspect`: what a package is, and what an import of it here would meet. Needs no daemon and writes nothing.

use std::path::{Path, PathBuf};

use machine::finding::{Finding, Severity, Verdict};
use machine::import::{Plan, Surroundings, plan};
use machine::planned::{ImportRequest, PlannedDisk};
use machine::report::HostFacts;
use machine::settings::{Media, Settings};
use machine::switch::{DEFAULT_SWITCH, SwitchKind, SwitchRecord};
use serde_json::{Value as Json, json};
use transfer::shell;

use crate::commands::import::with_fixes;
use crate::failure::{Code, Failure, Result};
use crate::printer::{Printer, bytes, json_path};

/// `inspect PATH`.
pub(crate) fn inspect(printer: Printer, path: &Path) -> Result {
    let found = look(path)?;
    if printer.json { printer.json(&plan_json(path, &found)) } else { show(printer, path, &found) }
}

/// `inspect --recursive DIR [--csv]`: one verdict per package.
pub(crate) fn recursive(printer: Printer, dir: &Path, csv: bool) -> Result {
    let packages = transfer::package::find_packages(dir).map_err(|e| Failure::at("look into", dir, &e))?;
    if packages.is_empty() {
        return Err(Failure::new("not-found", format!("no package was found below `{}`", dir.display()))
            .code(Code::NotFound)
            .hint("name a directory above the ones that Hyper-V's Export made"));
    }
    let rows: Vec<Row> = packages.iter().map(|p| Row::of(p)).collect();
    if printer.json {
        return printer.json(&rows.iter().map(Row::json).collect::<Vec<_>>());
    }
    if csv {
        printer.line("verdict,name,generation,disks,data_bytes,path,findings")?;
        for r in &rows {
            let cells = [
                r.verdict.to_owned(),
                csv_cell(&r.name),
                r.generation.to_string(),
                r.disks.to_string(),
                r.data.to_string(),
                csv_cell(&r.path.to_string_lossy()),
                csv_cell(&r.findings.join(" ")),
            ];
            printer.line(cells.join(","))?;
        }
        return Ok(());
    }
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                r.verdict.to_owned(),
                r.name.clone(),
                r.generation.to_string(),
                bytes(r.data),
                r.path.display().to_string(),
                r.findings.join(" "),
            ]
        })
        .collect();
    printer.table(&["VERDICT", "NAME", "GEN", "DATA", "PATH", "FINDINGS"], &table)
}

fn csv_cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

struct Row {
    verdict: &'static str,
    name: String,
    generation: u8,
    disks: usize,
    data: u64,
    path: PathBuf,
    /// Ids of errors, or the reason why there is no plan.
    findings: Vec<String>,
}

impl Row {
    fn of(path: &Path) -> Self {
        match look(path) {
            Ok(p) => Self {
                verdict: p.verdict().as_str(),
                name: p.settings.name.clone(),
                generation: p.settings.generation.number(),
                disks: p.disks.len(),
                data: p.disks.iter().map(|d| d.data_bytes).sum(),
                path: path.to_owned(),
                findings: p
                    .findings
                    .iter()
                    .filter(|f| f.severity > Severity::Info)
                    .map(|f| f.id.clone())
                    .collect(),
            },
            Err(failure) => Self {
                verdict: Verdict::Blocked.as_str(),
                name: String::new(),
                generation: 0,
                disks: 0,
                data: 0,
                path: path.to_owned(),
                findings: vec![failure.message],
            },
        }
    }

    fn json(&self) -> Json {
        json!({
            "verdict": self.verdict,
            "name": self.name,
            "generation": self.generation,
            "disks": self.disks,
            "data_bytes": self.data,
            "path": json_path(&self.path),
            "findings": self.findings,
        })
    }
}

/// A plan against this host as it is without a daemon: its default switch, no machines.
fn look(path: &Path) -> Result<Plan> {
    let switches = [SwitchRecord::new(uuid::Uuid::new_v4(), DEFAULT_SWITCH, SwitchKind::Nat)];
    let facts = HostFacts::of_this_host();
    let request = ImportRequest { path: path.to_owned(), ..ImportRequest::default() };
    let around = Surroundings {
        facts: &facts,
        switches: &switches,
        offers: &|| None,
        exists: &|_| false,
        ids: &uuid::Uuid::new_v4,
        target: None,
        cancel: &machine::Cancel::default(),
    };
    plan(&request, &around).map_err(Failure::from)
}

pub(crate) fn finding_json(f: &Finding) -> Json {
    json!({
        "id": f.id,
        "severity": severity_name(f.severity),
        "setting": f.setting,
        "message": f.message,
        "fix": f.fix,
        "hyperv_id": f.hyperv_id,
    })
}

pub(crate) fn severity_name(s: Severity) -> &'static str {
    match s {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn disk_json(d: &PlannedDisk) -> Json {
    json!({
        "id": d.id,
        "name": d.name,
        "source_path": d.source_path,
        "file": d.file.as_ref().map(json_path),
        "chain": d.chain.iter().map(json_path).collect::<Vec<_>>(),
        "format": d.format,
        "virtual_size": d.virtual_size,
        "data_bytes": d.data_bytes,
        "block_size": d.block_size,
        "logical_sector_size": d.logical_sector_size,
        "physical_sector_size": d.physical_sector_size,
    })
}

fn plan_json(path: &Path, p: &Plan) -> Json {
    json!({
        "path": json_path(path),
        "package": json_path(&p.package.root),
        "configuration": json_path(&p.package.configuration.path),
        "id": p.id,
        "name": p.settings.name,
        "generation": p.settings.generation.number(),
        "verdict": p.verdict().as_str(),
        "settings": p.settings,
        "disks": p.disks.iter().map(disk_json).collect::<Vec<_>>(),
        "snapshots": p.package.snapshots.iter().map(|s| json_path(&s.path)).collect::<Vec<_>>(),
        "findings": p.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn show(printer: Printer, path: &Path, p: &Plan) -> Result {
    let s = &p.settings;
    printer.line(format!("{}  ({})", s.name, p.id))?;
    printer.line(format!(
        "  generation {}, configuration version {}.{}, {} processor(s), {} MiB memory",
        s.generation.number(),
        s.config_version >> 8,
        s.config_version & 0xff,
        s.processors.count,
        s.memory.startup_mib
    ))?;
    if s.generation.number() == 2 {
        let on = |b: bool| if b { "on" } else { "off" };
        printer.line(format!("  UEFI, Secure Boot {}, TPM {}", on(s.firmware.secure_boot), on(s.tpm)))?;
    }
    for d in &p.disks {
        let file = d.file.as_ref().map_or_else(|| "NOT FOUND".to_owned(), |f| f.display().to_string());
        printer.line(format!(
            "  disk     {}  {} virtual, {} data, {}",
            d.name,
            bytes(d.virtual_size),
            bytes(d.data_bytes),
            file
        ))?;
    }
    for (n, drive) in dvd_drives(s).enumerate() {
        printer.line(format!(
            "  dvd {n}    {}",
            drive.map_or_else(|| "empty".to_owned(), |p| p.display().to_string())
        ))?;
    }
    for a in &s.adapters {
        let mac = a.mac.map_or_else(|| "dynamic address".to_owned(), |m| m.to_string());
        let plug = a
            .source_switch
            .as_deref()
            .map_or_else(|| "not connected".to_owned(), |n| format!("switch `{n}`"));
        printer.line(format!("  network  {}  {mac}, {plug}", a.name))?;
    }
    show_findings(printer, &p.findings)?;
    printer.line(format!("verdict: {}", p.verdict().as_str()))?;
    if p.verdict() != Verdict::Blocked {
        let fixes: Vec<_> = p
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .filter_map(|f| f.fix.as_deref())
            .collect();
        let words = ["import".to_owned(), shell::path(path)];
        printer.talk(format!("next: {}", with_fixes(&words, &fixes)));
    }
    Ok(())
}

pub(crate) fn dvd_drives(s: &Settings) -> impl Iterator<Item = Option<&PathBuf>> {
    s.controllers.iter().flat_map(|c| &c.drives).filter_map(|d| match &d.media {
        Media::Dvd { image } => Some(image.as_ref()),
        _ => None,
    })
}

/// Findings for people, one or two lines each.
pub(crate) fn show_findings(printer: Printer, findings: &[Finding]) -> Result {
    for f in findings {
        printer.line(format!("  {:<8} {} [{}]", severity_name(f.severity), f.message, f.id))?;
        if let Some(fix) = &f.fix {
            printer.line(format!("           fix: {fix}"))?;
        }
    }
    Ok(())
}

//! `disk info`, `disk map`, `disk check`: metadata only, whatever the disk's size.

use std::path::Path;

use serde_json::{Value as Json, json};
use vhdx::{CheckOptions, DiskKind, ExtentKind, Image, Severity};

use super::{ChainOptions, open};
use crate::failure::{Code, Failure, Result};
use crate::printer::{Printer, bytes, json_path};

/// `disk info FILE`.
pub(crate) fn info(printer: Printer, path: &Path, chain: &ChainOptions) -> Result {
    let known = Image::is_vhd_or_vhdx(path).map_err(|e| Failure::at("open", path, &e))?;
    let mut value = if known.is_some() {
        image_info(path, chain)?
    } else {
        let disk = open(path, chain)?;
        json!({
            "format": disk.format,
            "virtual_size": disk.source.size(),
            "logical_sector_size": disk.source.logical_sector_size(),
            "physical_sector_size": disk.source.physical_sector_size(),
        })
    };
    value["path"] = json_path(path);
    if printer.json {
        return printer.json(&value);
    }
    let Json::Object(map) = &value else { return Ok(()) };
    for (key, v) in map {
        match v {
            Json::Null => {}
            Json::Array(layers) if key == "layers" => {
                for (n, layer) in layers.iter().enumerate() {
                    let what = if n == 0 { "leaf" } else { "parent" };
                    printer.line(format!("{what}: {} ({})", text(&layer["path"]), text(&layer["kind"])))?;
                }
            }
            Json::Array(list) if list.is_empty() => {}
            Json::Number(n) if key.ends_with("size") => {
                let n = n.as_u64().unwrap_or(0);
                printer.line(format!("{}: {n} ({})", key.replace('_', " "), bytes(n)))?;
            }
            other => printer.line(format!("{}: {}", key.replace('_', " "), text(other)))?,
        }
    }
    Ok(())
}

fn text(value: &Json) -> String {
    match value {
        Json::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn kind_name(kind: DiskKind) -> &'static str {
    match kind {
        DiskKind::Fixed => "fixed",
        DiskKind::Dynamic => "dynamic",
        DiskKind::Differencing => "differencing",
    }
}

fn image_info(path: &Path, chain: &ChainOptions) -> Result<Json> {
    // What a child says about itself is worth showing even when its parent is not here.
    let complete = Image::open(path, &chain.image());
    let (image, problem) = match complete {
        Ok(image) => (image, None),
        Err(e)
            if matches!(
                e.kind(),
                vhdx::OpenErrorKind::ParentMissing | vhdx::OpenErrorKind::LinkageMismatch
            ) =>
        {
            let alone = ChainOptions { missing_parent_zero: true, ignore_linkage: true, ..chain.clone() };
            let image = Image::open(path, &alone.image()).map_err(|e| open_failed(path, &e))?;
            (image, Some(machine::chain(&e)))
        }
        Err(e) => return Err(open_failed(path, &e)),
    };
    let layers: Vec<Json> = image
        .layers()
        .iter()
        .map(|l| {
            let i = &l.info;
            json!({
                "path": l.path.as_ref().map(json_path),
                "format": i.format.name().to_ascii_lowercase(),
                "kind": kind_name(i.kind),
                "virtual_size": i.virtual_size,
                "block_size": i.block_size,
                "file_size": i.file_size,
                "disk_id": i.disk_id,
                "data_write_id": i.data_write_id,
                "creator": i.creator,
                "log_pending": i.log_pending,
                "parent": i.parent.as_ref().map(|p| json!({
                    "linkage": p.linkage,
                    "linkage2": p.linkage2,
                    "paths": p.paths.iter().map(|(k, v)| json!({ "key": k, "value": v })).collect::<Vec<_>>(),
                })),
                "tolerated": i.tolerated,
            })
        })
        .collect();
    let mut value = layers.first().cloned().unwrap_or_default();
    value["virtual_size"] = json!(image.virtual_size());
    value["logical_sector_size"] = json!(image.logical_sector_size());
    value["physical_sector_size"] = json!(image.physical_sector_size());
    value["parent_problem"] = json!(problem);
    value["layers"] = Json::Array(layers);
    Ok(value)
}

fn open_failed(path: &Path, e: &vhdx::OpenError) -> Failure {
    let failure = Failure::at("open", path, e);
    let failure = if failure.code == Code::NotFound { failure } else { failure.code(Code::Findings) };
    match (e.hint(), e.kind()) {
        (Some(hint), _) => failure.hint(hint),
        (None, vhdx::OpenErrorKind::Io) => failure,
        (None, _) => {
            failure.hint("the file is damaged or not whole: fetch it again, or restore it from a backup")
        }
    }
}

/// `disk map FILE`: runs of data, recorded zeros and holes.
pub(crate) fn map(printer: Printer, path: &Path, chain: &ChainOptions) -> Result {
    let disk = open(path, chain)?;
    let size = disk.source.size();
    let mut rows = Vec::new();
    let mut run: Option<vhdx::Extent> = None;
    let mut offset = 0;
    let mut emit = |e: vhdx::Extent| -> Result {
        let kind = match e.kind {
            ExtentKind::Data => "data",
            ExtentKind::Zero => "zero",
            ExtentKind::Hole => "hole",
        };
        if printer.json {
            rows.push(json!({ "offset": e.offset, "length": e.length, "kind": kind, "layer": e.layer }));
            Ok(())
        } else {
            printer.line(format!("{:>16} {:>16} {kind} {}", e.offset, e.length, e.layer))
        }
    };
    if !printer.json {
        printer.line(format!("{:>16} {:>16} kind layer", "offset", "length"))?;
    }
    while offset < size {
        let extents = disk.source.extents(offset, size - offset).map_err(|e| super::unreadable(path, &e))?;
        for e in extents {
            offset = e.end();
            run = match run {
                Some(mut r) if r.kind == e.kind && r.layer == e.layer && r.end() == e.offset => {
                    r.length += e.length;
                    Some(r)
                }
                Some(r) => {
                    emit(r)?;
                    Some(e)
                }
                None => Some(e),
            };
        }
    }
    if let Some(r) = run {
        emit(r)?;
    }
    if printer.json { printer.json(&rows) } else { Ok(()) }
}

/// `disk check FILE`: every broken rule, with its offset.
pub(crate) fn check(printer: Printer, path: &Path) -> Result {
    if Image::is_vhd_or_vhdx(path).map_err(|e| Failure::at("open", path, &e))?.is_none() {
        // Opening says what is wrong with a directory, and that an image of QEMU's is whole at its beginning.
        drop(open(path, &ChainOptions::default())?);
        return Err(Failure::new("not-supported", format!("`{}` is neither VHD nor VHDX", path.display()))
            .code(Code::Findings)
            .hint("`qemu-img check` checks other formats"));
    }
    let report = vhdx::check(path, &CheckOptions::default()).map_err(|e| open_failed(path, &e))?;
    let count = |s: Severity| report.findings.iter().filter(|f| f.severity == s).count();
    let errors = count(Severity::Error);
    if printer.json {
        let findings: Vec<_> = report
            .findings
            .iter()
            .map(|f| {
                json!({
                    "rule": f.rule,
                    "severity": f.severity.to_string(),
                    "offset": f.offset,
                    "message": f.message,
                })
            })
            .collect();
        let b = report.blocks;
        printer.json(&json!({
            "path": json_path(path),
            "errors": errors,
            "warnings": count(Severity::Warning),
            "suppressed": report.suppressed,
            "blocks": { "absent": b.absent, "zero": b.zero, "present": b.present, "partial": b.partial },
            "findings": findings,
        }))?;
    } else {
        for f in &report.findings {
            printer.line(f.to_string())?;
        }
        let b = report.blocks;
        printer.line(format!(
            "{errors} errors, {} warnings; blocks: {} present, {} partial, {} zero, {} absent",
            count(Severity::Warning),
            b.present,
            b.partial,
            b.zero,
            b.absent
        ))?;
    }
    if errors > 0 {
        return Err(Failure::new("check-failed", format!("`{}` breaks {errors} rules", path.display()))
            .code(Code::Findings)
            .hint(format!(
                "to save what can be read: slipway disk convert --lenient {} NEW.vhdx",
                transfer::shell::path(path)
            )));
    }
    Ok(())
}

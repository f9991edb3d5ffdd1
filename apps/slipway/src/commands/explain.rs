//! `slipway explain ID`: what a finding, a refusal or a check means, why it matters, and what to do, at more length than
//! a line.
//!
//! The texts are prose, in the Markdown files beside this one: a heading of level two is an id, the lines under it its
//! text. Lines under a heading of level one are added to every text of that group; what stands before the first heading
//! is for who edits them. Tests find every id that any part of Slipway can print and fail for one without a text.

use serde::Serialize;

use crate::failure::{Code, Failure, Result};
use crate::printer::Printer;

/// The texts, in the order in which ids are listed.
const TEXTS: [&str; 5] = [
    include_str!("explain/refusals.md"),
    include_str!("explain/findings.md"),
    include_str!("explain/packages.md"),
    include_str!("explain/disks.md"),
    include_str!("explain/host.md"),
];

/// One id with the lines that explain it.
#[derive(Debug, Serialize)]
struct Explanation<'a> {
    id: &'a str,
    text: Vec<&'a str>,
}

/// Every explanation there is.
fn all() -> Vec<Explanation<'static>> {
    TEXTS.iter().flat_map(|text| parse(text)).collect()
}

/// The explanations of one file.
fn parse(text: &str) -> Vec<Explanation<'_>> {
    let mut found: Vec<Explanation<'_>> = Vec::new();
    // Where the group began, and the lines that all of it share.
    let (mut first, mut shared): (usize, Vec<&str>) = (0, Vec::new());
    let (mut in_group, mut in_text) = (false, false);
    for line in text.lines().filter(|line| !line.is_empty()).chain(["# "]) {
        if let Some(id) = line.strip_prefix("## ") {
            found.push(Explanation { id, text: Vec::new() });
            in_text = true;
        } else if line.starts_with("# ") {
            found[first..].iter_mut().for_each(|e| e.text.extend(&shared));
            shared.clear();
            (first, in_group, in_text) = (found.len(), true, false);
        } else if in_text {
            found.last_mut().into_iter().for_each(|e| e.text.push(line));
        } else if in_group {
            shared.push(line);
        }
    }
    found
}

/// `explain [ID]`: one explanation, or the list of ids.
pub(crate) fn explain(printer: Printer, id: Option<&str>) -> Result {
    let all = all();
    let Some(wanted) = id else {
        if printer.json {
            return printer.json(&all);
        }
        return all.iter().try_for_each(|e| printer.line(e.id));
    };
    // As it is printed, brackets and all.
    let wanted = wanted.trim_matches(['[', ']']);
    let Some(found) = all.iter().find(|e| e.id.eq_ignore_ascii_case(wanted)) else {
        return Err(Failure::new("not-found", format!("nothing is known by the id `{wanted}`"))
            .code(Code::NotFound)
            .hint("`slipway explain` lists the ids"));
    };
    if printer.json {
        return printer.json(found);
    }
    found.text.iter().try_for_each(|line| printer.line(line))
}

#[cfg(test)]
mod tests;

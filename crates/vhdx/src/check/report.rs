//! What a check found: broken rules by stable id, with their offsets.

use std::fmt;

use crate::info::{Format, Info};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// A rule is broken in a place that a second copy or common tolerance makes good.
    Warning,
    /// A rule is broken: readers may refuse the file, or content is lost or ambiguous.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One broken rule in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable id, such as `vhdx.bat.overlap`.
    pub rule: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// Byte offset in the file of what breaks the rule.
    pub offset: u64,
    /// What is there and what the rule wants.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}: {}", self.severity, self.rule, self.offset, self.message)
    }
}

/// How the blocks of a disk are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Not in the file: zeros, or the parent's.
    pub absent: u64,
    /// Zeros, undefined or unmapped by the table's word.
    pub zero: u64,
    /// Wholly in the file.
    pub present: u64,
    /// In the file for some sectors.
    pub partial: u64,
}

/// The result of checking one file.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The file's format, when it is one.
    pub format: Option<Format>,
    /// What the file says about itself, when it can be read at all (leniently).
    pub info: Option<Info>,
    /// In the order of discovery.
    pub findings: Vec<Finding>,
    /// Findings beyond the limit, by severity: counted, not kept.
    pub suppressed: u64,
    /// How the blocks are stored.
    pub blocks: BlockCounts,
    limit: usize,
    worst: Option<Severity>,
    /// Rules found broken.
    rules: Vec<&'static str>,
}

impl Report {
    /// An empty report that keeps at most `limit` findings.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Adds a finding, or counts it when there are too many. The first of each rule is always kept.
    pub(crate) fn add(
        &mut self,
        rule: &'static str,
        severity: Severity,
        offset: u64,
        message: impl Into<String>,
    ) {
        self.add_with(rule, severity, offset, || message.into());
    }

    /// As [`Report::add`], for rules that a file can break millions of times: the message is made only if it is kept.
    pub(crate) fn add_with(
        &mut self,
        rule: &'static str,
        severity: Severity,
        offset: u64,
        message: impl FnOnce() -> String,
    ) {
        self.worst = self.worst.max(Some(severity));
        let known = self.rules.contains(&rule);
        if !known {
            self.rules.push(rule);
        }
        if self.findings.len() < self.limit || !known {
            self.findings.push(Finding { rule, severity, offset, message: message() });
        } else {
            self.suppressed += 1;
        }
    }

    /// [`Report::add_with`] for errors.
    pub(crate) fn error_with(&mut self, rule: &'static str, offset: u64, message: impl FnOnce() -> String) {
        self.add_with(rule, Severity::Error, offset, message);
    }

    pub(crate) fn error(&mut self, rule: &'static str, offset: u64, message: impl Into<String>) {
        self.add(rule, Severity::Error, offset, message);
    }

    pub(crate) fn warning(&mut self, rule: &'static str, offset: u64, message: impl Into<String>) {
        self.add(rule, Severity::Warning, offset, message);
    }

    pub(crate) fn note(&mut self, rule: &'static str, offset: u64, message: impl Into<String>) {
        self.add(rule, Severity::Info, offset, message);
    }

    /// The first finding by which one part of the file is used twice. Such a disk can show far more than it holds: a
    /// small file may claim to be full of data to the last of its 64 TiB.
    pub fn overlap(&self) -> Option<&Finding> {
        let twice = |rule: &str| {
            rule.ends_with(".overlap") || matches!(rule, "vhd.block.metadata" | "vhd.bat.too-many")
        };
        self.findings.iter().find(|finding| twice(finding.rule))
    }

    /// The worst severity found, those not kept included; `None` when nothing was.
    pub fn worst(&self) -> Option<Severity> {
        self.worst
    }

    /// No error was found: warnings and notes may be there.
    pub fn is_sound(&self) -> bool {
        self.worst < Some(Severity::Error)
    }
}

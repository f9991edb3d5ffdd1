//! The host in numbers, in Prometheus' text format, version 0.0.4.
//!
//! Names, units and label values are an interface like any other: a family is added, never renamed. Counters count since
//! the daemon's start. A machine's name is a label, so its text is foreign and is escaped.
//!
//! The format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write;

use job::{DURATION_SECONDS, State};
use machine::statistics::Statistics;

use crate::wire::state_name;

/// Media type of [`exposition`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is written for a machine that was never exported: an alert on age needs no case of its own for it.
const NEVER: f64 = 0.0;

/// Families under construction.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if n == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// `s`, written down.
pub(crate) fn exposition(s: &Statistics) -> String {
    let mut out = Exposition::default();
    out.family("slipway_build_info", "gauge", "The daemon's version; always 1.");
    out.sample("slipway_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    machines(&mut out, s);
    jobs(&mut out, s);
    let name = "slipway_store_transaction_duration_seconds";
    out.family(name, "summary", "Time that transactions of the store took, most of it the disk's.");
    out.sample(&format!("{name}_sum"), &[], s.store.total.as_secs_f64());
    out.sample(&format!("{name}_count"), &[], s.store.transactions as f64);
    out.0
}

fn machines(out: &mut Exposition, s: &Statistics) {
    out.family("slipway_machines", "gauge", "Machines by state.");
    for (state, count) in &s.machines {
        out.sample("slipway_machines", &[("state", state.as_str())], *count as f64);
    }
    let name = "slipway_machine_last_export_timestamp_seconds";
    let help = "When the last export of the whole machine was complete, in seconds since 1970; 0 for never.";
    out.family(name, "gauge", help);
    for export in &s.exports {
        let id = export.machine.to_string();
        let at = export.at.map_or(NEVER, |at| at.as_millisecond() as f64 / 1000.0);
        out.sample(name, &[("machine", &id), ("name", &export.name)], at);
    }
}

fn jobs(out: &mut Exposition, s: &Statistics) {
    out.family("slipway_jobs_unfinished", "gauge", "Jobs that wait, work or are parked, by kind and state.");
    // Every kind that there can be, with every state: what is missing cannot be watched.
    let mut kinds: Vec<&str> = s.ended.iter().map(|e| e.kind.as_str()).collect();
    kinds.extend(s.unfinished.iter().map(|(kind, _, _)| kind.as_str()));
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        for state in [State::Queued, State::Running, State::Undoing, State::Parked] {
            let found = s.unfinished.iter().find(|(k, at, _)| k == kind && *at == state);
            let count = found.map_or(0, |(_, _, count)| *count);
            let labels = [("kind", kind), ("state", state_name(state))];
            out.sample("slipway_jobs_unfinished", &labels, count as f64);
        }
    }
    out.family(
        "slipway_jobs_ended_total",
        "counter",
        "Jobs that ended since the daemon's start, by kind and end.",
    );
    for e in &s.ended {
        let labels = [("kind", e.kind.as_str()), ("end", state_name(e.end))];
        out.sample("slipway_jobs_ended_total", &labels, e.count as f64);
    }
    let name = "slipway_job_duration_seconds";
    out.family(name, "histogram", "Time from a job's first step to its end, by kind and end.");
    for e in &s.ended {
        let labels = [("kind", e.kind.as_str()), ("end", state_name(e.end))];
        let bounds = DURATION_SECONDS.iter().map(u64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(e.within.iter().chain([&e.count])) {
            let labels = [labels[0], labels[1], ("le", &bound)];
            out.sample(&format!("{name}_bucket"), &labels, *count as f64);
        }
        out.sample(&format!("{name}_sum"), &labels, e.seconds);
        out.sample(&format!("{name}_count"), &labels, e.count as f64);
    }
    let read = "slipway_job_read_bytes_total";
    out.family(read, "counter", "Bytes of disks' data that jobs read since the daemon's start, by kind.");
    for t in &s.traffic {
        out.sample(read, &[("kind", t.kind)], t.read as f64);
    }
    let written = "slipway_job_written_bytes_total";
    out.family(written, "counter", "Bytes of disks' data that jobs wrote since the daemon's start, by kind.");
    for t in &s.traffic {
        out.sample(written, &[("kind", t.kind)], t.written as f64);
    }
}

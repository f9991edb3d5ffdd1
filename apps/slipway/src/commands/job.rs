//! `slipway job`: work that takes time and outlives the daemon.

use clap::Subcommand;
use rest::client::JobFilter;
use rest::wire::Job;

use crate::failure::Result;
use crate::printer::{Printer, bytes};
use crate::session::{Interrupt, Session, failed};

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Jobs, newest first
    #[command(visible_alias = "ls")]
    List {
        /// Only jobs of this machine or planned machine
        #[arg(long, value_name = "MACHINE")]
        machine: Option<String>,
        /// Only `import`, `export` or `save`
        #[arg(long)]
        kind: Option<String>,
        /// Only jobs that are not finished
        #[arg(long)]
        unfinished: bool,
    },
    /// One job
    Show {
        /// Id, or the beginning of it
        job: String,
    },
    /// Follow a job to its end
    Watch {
        /// Id, or the beginning of it
        job: String,
    },
    /// End a job; what it did is undone
    Cancel {
        /// Id, or the beginning of it
        job: String,
        /// Do not wait until it is undone
        #[arg(long)]
        no_wait: bool,
    },
    /// Give up a parked job; what it did stays
    Discard {
        /// Id, or the beginning of it
        job: String,
    },
}

/// `job …`.
pub(crate) async fn job(s: &Session, command: JobCommand) -> Result {
    match command {
        JobCommand::List { machine, kind, unfinished } => {
            let jobs =
                s.client.jobs(&JobFilter { kind, machine, finished: unfinished.then_some(false) }).await?;
            list(s.printer, &jobs)
        }
        JobCommand::Show { job } => show(s.printer, &s.client.job(&job).await?),
        JobCommand::Watch { job } => {
            let id = s.client.job(&job).await?.id;
            let job = s.follow(id, Interrupt::Leaves).await?;
            show(s.printer, &job)?;
            if job.success { Ok(()) } else { Err(failed(&job)) }
        }
        JobCommand::Cancel { job, no_wait } => {
            let job = s.client.cancel(&job).await?;
            let job = if no_wait { job } else { s.follow(job.id, Interrupt::Leaves).await? };
            show(s.printer, &job)
        }
        JobCommand::Discard { job } => show(s.printer, &s.client.discard(&job).await?),
    }
}

fn list(printer: Printer, jobs: &[Job]) -> Result {
    if printer.json {
        return printer.json(&jobs);
    }
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|j| {
            vec![
                j.id.to_string(),
                j.kind.clone(),
                j.state.clone(),
                format!("{}%", j.percent),
                j.submitted.clone(),
                j.subject.clone().unwrap_or_default(),
            ]
        })
        .collect();
    printer.table(&["ID", "KIND", "STATE", "DONE", "SUBMITTED", "MACHINE"], &rows)
}

fn show(printer: Printer, j: &Job) -> Result {
    if printer.json {
        return printer.json(j);
    }
    printer.line(format!("{}  {}  {}, {}%", j.id, j.kind, j.state, j.percent))?;
    if let Some(subject) = &j.subject {
        printer.line(format!("  machine   {subject}"))?;
    }
    printer.line(format!("  submitted {} by {}", j.submitted, j.owner))?;
    if !j.finished && !j.phase.is_empty() {
        let (done, total) = (bytes(j.done_bytes), bytes(j.total_bytes));
        printer.line(format!("  doing     {}: {done} of {total}, {}/s", j.phase, bytes(j.rate)))?;
    }
    if let Some(ended) = &j.ended {
        printer.line(format!("  ended     {ended}"))?;
    }
    if let Some(e) = &j.error {
        printer.line(format!("  error     {} [{}]", e.message, e.id))?;
    }
    for w in &j.warnings {
        printer.line(format!("  warning   {} [{}]", w.message, w.id))?;
    }
    Ok(())
}

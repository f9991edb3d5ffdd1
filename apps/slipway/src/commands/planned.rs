//! `slipway planned`: packages that were read and are not machines yet.

use clap::Subcommand;
use rest::wire::Planned;

use crate::commands::import::{self, Choices};
use crate::failure::Result;
use crate::printer::Printer;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum PlannedCommand {
    /// Planned machines
    #[command(visible_alias = "ls")]
    List,
    /// One planned machine and its report
    Show {
        /// Name, id, or the beginning of either
        planned: String,
    },
    /// Change a planned machine; its report is made anew
    Set {
        /// Name, id, or the beginning of either
        planned: String,
        #[command(flatten)]
        choices: Choices,
    },
    /// Make the report anew, of the host and the package as they are now
    Validate {
        /// Name, id, or the beginning of either
        planned: String,
    },
    /// Make it a machine
    Realize {
        /// Name, id, or the beginning of either
        planned: String,
        /// Print the job's id and do not wait for its end
        #[arg(long)]
        no_wait: bool,
    },
    /// Forget it; the package is not touched
    #[command(visible_alias = "rm")]
    Delete {
        /// Name, id, or the beginning of either
        planned: String,
    },
}

/// `planned …`.
pub(crate) async fn planned(s: &Session, command: PlannedCommand) -> Result {
    match command {
        PlannedCommand::List => list(s.printer, &s.client.planned().await?),
        PlannedCommand::Show { planned } => show(s.printer, &s.client.planned_machine(&planned).await?),
        PlannedCommand::Set { planned, choices } => {
            show(s.printer, &s.client.edit_planned(&planned, &choices.edit()?).await?)
        }
        PlannedCommand::Validate { planned } => show(s.printer, &s.client.validate(&planned).await?),
        PlannedCommand::Realize { planned, no_wait } => {
            let id = s.client.planned_machine(&planned).await?.id.to_string();
            let job = s.client.realize(&id).await?;
            if no_wait {
                return s.printer.line(job.to_string());
            }
            s.follow_to_success(job).await?;
            let machine = s.client.machine(&id).await?;
            if s.printer.json {
                return s.printer.json(&machine);
            }
            s.printer.talk(format!("next: slipway machine start {}", s.word(&machine).await));
            s.printer.line(format!("{}  {}", machine.name, machine.id))
        }
        PlannedCommand::Delete { planned } => {
            s.client.abandon(&planned).await?;
            s.printer.talk(format!("forgot planned machine `{planned}`"));
            Ok(())
        }
    }
}

fn list(printer: Printer, all: &[Planned]) -> Result {
    if printer.json {
        return printer.json(&all);
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|p| vec![p.name.clone(), p.id.to_string(), p.verdict.clone(), p.source.display().to_string()])
        .collect();
    printer.table(&["NAME", "ID", "VERDICT", "FROM"], &rows)
}

fn show(printer: Printer, p: &Planned) -> Result {
    if printer.json { printer.json(p) } else { import::show(p, |line| printer.line(line)) }
}

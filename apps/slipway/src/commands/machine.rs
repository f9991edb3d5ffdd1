//! `slipway machine`: machines, one function per verb.

mod autostop;
mod console;
mod define;
mod screen;
mod set;
mod show;

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rest::wire::{Edit, Machine, Shutdown};

use crate::cli::examples;
use crate::failure::{Failure, Result};
use crate::places::absolute;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// All machines
    #[command(visible_alias = "ls")]
    List,
    /// One machine: hardware, disks, adapters
    Show(Named),
    /// Make a machine
    #[command(after_help = examples!("slipway machine define web --memory 4G --processors 2 --new-disk 40G --dvd debian.iso --switch nat", "slipway machine define old --generation 1 --disk /srv/old.qcow2"))]
    Define(define::DefineArgs),
    /// Change a machine
    Set(set::SetArgs),
    /// Give a machine another name
    Rename {
        #[command(flatten)]
        named: Named,
        /// The new name
        name: String,
    },
    /// Start a machine; one that is saved goes on where it was, one that is paused is resumed
    #[command(after_help = examples!("slipway machine start web", "slipway machine console web"))]
    Start(Named),
    /// Cut a machine's power: its guest ends at once, and what was saved of it is discarded
    Stop(Named),
    /// Ask a machine's guest to shut down, and wait until it has
    Shutdown {
        #[command(flatten)]
        named: Named,
        /// Seconds to wait
        #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: u64,
    },
    /// Write a machine's memory to a file and end its guest; a start goes on from there
    #[command(after_help = examples!("slipway machine save web", "slipway machine start web"))]
    Save {
        #[command(flatten)]
        named: Named,
        /// Print the job's id and do not wait for its end
        #[arg(long)]
        no_wait: bool,
    },
    /// Freeze a machine
    Pause(Named),
    /// Let a paused machine go on
    Resume(Named),
    /// Press a machine's reset button
    Reset(Named),
    /// Bring every machine to rest as its stop action says: for the host's shutdown
    Autostop(autostop::AutostopArgs),
    /// Delete a machine that is off or saved, with the disks that Slipway made for it
    #[command(visible_alias = "rm")]
    Delete {
        #[command(flatten)]
        named: Named,
        /// Keep the disk files
        #[arg(long)]
        keep_disks: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// A machine's serial console: attach (Ctrl-] detaches), print its log, send a line, wait for a text
    #[command(after_help = examples!("slipway machine console web", "slipway machine console web --log", "slipway machine console web --send 'uname -a' --wait-for Linux --timeout 30"))]
    Console(console::ConsoleArgs),
    /// Save a picture of a machine's display
    Screenshot {
        #[command(flatten)]
        named: Named,
        /// The picture, a PNG; it must not exist
        file: PathBuf,
    },
    /// Type on a machine's keyboard
    SendKeys(screen::SendKeysArgs),
    /// Put an image into a machine's DVD drive
    Insert {
        #[command(flatten)]
        named: Named,
        /// ISO image
        image: PathBuf,
    },
    /// Take the image out of a machine's DVD drive
    Eject(Named),
}

/// The machine meant.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Name, id, or the beginning of either
    machine: String,
}

/// `machine …`.
pub(crate) async fn machine(s: &Session, command: MachineCommand) -> Result {
    match command {
        MachineCommand::List => show::list(s.printer, &s.client.machines().await?),
        MachineCommand::Show(named) => show::show(s.printer, &s.client.machine(&named.machine).await?),
        MachineCommand::Define(args) => define::define(s, args).await,
        MachineCommand::Set(args) => set::set(s, args).await,
        MachineCommand::Rename { named, name } => {
            let edit = Edit { name: Some(name), ..Edit::default() };
            done(s, "renamed to", &s.client.edit(&named.machine, &edit).await?)
        }
        MachineCommand::Start(named) => act(s, &named, "start", "started").await,
        MachineCommand::Stop(named) => act(s, &named, "stop", "stopped").await,
        MachineCommand::Pause(named) => act(s, &named, "pause", "paused").await,
        MachineCommand::Resume(named) => act(s, &named, "resume", "resumed").await,
        MachineCommand::Reset(named) => act(s, &named, "reset", "reset").await,
        MachineCommand::Save { named, no_wait } => save(s, &named.machine, no_wait).await,
        MachineCommand::Autostop(args) => autostop::autostop(s, args).await,
        MachineCommand::Shutdown { named, timeout } => {
            let how = Shutdown { timeout_seconds: Some(timeout) };
            done(s, "shut down", &s.client.shutdown(&named.machine, &how).await?)
        }
        MachineCommand::Delete { named, keep_disks, yes } => delete(s, &named.machine, keep_disks, yes).await,
        MachineCommand::Console(args) => console::console(s, args).await,
        MachineCommand::Screenshot { named, file } => screen::screenshot(s, &named.machine, &file).await,
        MachineCommand::SendKeys(args) => screen::send_keys(s, args).await,
        MachineCommand::Insert { named, image } => {
            let image = absolute(&image)?.display().to_string();
            let edit = Edit { dvd: Some(image), ..Edit::default() };
            done(s, "inserted into", &s.client.edit(&named.machine, &edit).await?)
        }
        MachineCommand::Eject(named) => {
            let edit = Edit { dvd: Some(String::new()), ..Edit::default() };
            done(s, "ejected from", &s.client.edit(&named.machine, &edit).await?)
        }
    }
}

async fn act(s: &Session, named: &Named, verb: &str, past: &str) -> Result {
    done(s, past, &s.client.act(&named.machine, verb).await?)
}

/// Says what was done; as data, the machine as it is now.
fn done(s: &Session, past: &str, machine: &Machine) -> Result {
    if s.printer.json {
        return s.printer.json(machine);
    }
    s.printer.talk(format!("{past} `{}`", machine.name));
    Ok(())
}

async fn save(s: &Session, word: &str, no_wait: bool) -> Result {
    let job = s.client.save(word).await?;
    if no_wait {
        return if s.printer.json {
            s.printer.json(&s.client.job(&job.to_string()).await?)
        } else {
            s.printer.line(job.to_string())
        };
    }
    s.follow_to_success(job).await?;
    done(s, "saved", &s.client.machine(word).await?)
}

async fn delete(s: &Session, word: &str, keep_disks: bool, yes: bool) -> Result {
    let machine = s.client.machine(word).await?;
    if !yes && std::io::stdin().is_terminal() {
        let files: Vec<String> =
            machine.disks.iter().flat_map(|d| &d.files).map(|f| f.display().to_string()).collect();
        let what = if keep_disks || files.is_empty() {
            String::new()
        } else {
            format!(" and those of these files that Slipway made: {}", files.join(", "))
        };
        s.printer.ask(format!("delete machine `{}` ({}){what}? [y/N]", machine.name, machine.id));
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        if read.is_err() || !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Failure::new("cancelled", "nothing was deleted"));
        }
    }
    s.client.delete_machine(&machine.id.to_string(), keep_disks).await?;
    s.printer.talk(format!("deleted `{}`", machine.name));
    Ok(())
}

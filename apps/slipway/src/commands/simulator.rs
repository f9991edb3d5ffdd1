//! `slipway simulator`: the clock, faults and guests of a daemon with `--engine sim`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rest::wire::{
    Advance, Behaviour, EventList, Fault, FaultFailure, NewEvent, NewFault, Reset, SetClock, Simulator,
    SimulatorClock,
};

use crate::failure::{Failure, Result};
use crate::printer::Printer;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum SimulatorCommand {
    /// Seed, clock and guests
    Show,
    /// The clock: show it, move it on, change what moves it
    #[command(subcommand)]
    Clock(ClockCommand),
    /// What goes wrong on purpose
    #[command(subcommand)]
    Fault(FaultCommand),
    /// Let a guest's process die
    Kill(EventArgs),
    /// Let a guest's kernel panic
    Panic(EventArgs),
    /// Let a guest switch itself off
    PowerOff(EventArgs),
    /// Let a guest restart itself
    Reboot(EventArgs),
    /// Let a guest's disk fail
    DiskError {
        #[command(flatten)]
        event: EventArgs,
        /// The disk, such as disk0 [default: the first]
        #[arg(long)]
        disk: Option<String>,
    },
    /// Let a guest say a line on its console
    Say {
        #[command(flatten)]
        event: EventArgs,
        /// The line
        line: String,
    },
    /// Events that wait for their time
    Events {
        /// Take them all back
        #[arg(long)]
        cancel: bool,
    },
    /// Change how a machine's guests behave
    Behave(BehaveArgs),
    /// Begin anew: everything goes, and what the scenario says comes
    Reset {
        /// Another scenario than the daemon's own
        #[arg(long, value_name = "FILE")]
        scenario: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// The clock
    Show,
    /// Move the clock on; returns when everything that was due has happened
    Advance {
        /// How far, as in 90s, 500ms or 2h
        #[arg(value_parser = crate::units::milliseconds)]
        by: u64,
    },
    /// Change what moves the clock, or move it to a moment
    Set {
        /// It passes by itself, or stands until it is advanced
        #[arg(long, value_parser = ["real", "manual"])]
        mode: Option<String>,
        /// Time since the beginning, not before now
        #[arg(long, value_name = "TIME", value_parser = crate::units::milliseconds)]
        elapsed: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FaultCommand {
    /// Let something go wrong
    Add(Box<FaultArgs>),
    /// Faults, spent ones too
    #[command(visible_alias = "ls")]
    List,
    /// Clear a fault, or all, and let go of what hangs
    Clear {
        /// Its number [default: all]
        fault: Option<u64>,
    },
}

/// A fault.
#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    /// Only of this machine
    #[arg(long)]
    machine: Option<String>,
    /// An operation, such as start, pause, save or screenshot
    #[arg(long, required_unless_present = "job")]
    operation: Option<String>,
    /// A kind of job, such as export, or any
    #[arg(long, conflicts_with = "operation")]
    job: Option<String>,
    /// Where in the job
    #[arg(long, requires = "job", value_parser = clap::value_parser!(u8).range(0..=100))]
    percent: Option<u8>,
    /// The first time that counts
    #[arg(long, value_name = "N")]
    nth: Option<u64>,
    /// How often [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "forever")]
    times: Option<u64>,
    /// Until it is cleared
    #[arg(long)]
    forever: bool,
    /// It fails with this kind of error, such as no-resources of a start, refused of a pause, io of a job
    #[arg(long, value_name = "KIND", group = "effect")]
    fail: Option<String>,
    /// The engine's words
    #[arg(long, requires = "fail")]
    message: Option<String>,
    /// It takes so much longer, as in 30s
    #[arg(long, value_name = "TIME", group = "effect", value_parser = crate::units::milliseconds)]
    delay: Option<u64>,
    /// It hangs until the fault is cleared
    #[arg(long, group = "effect")]
    stall: bool,
}

/// Something that a guest does.
#[derive(Debug, Args)]
pub(crate) struct EventArgs {
    /// Name, id, or the beginning of either
    machine: String,
    /// Not now, but when the clock has come so far on, as in 90s
    #[arg(long, value_name = "TIME", value_parser = crate::units::milliseconds)]
    after: Option<u64>,
    /// What is known of why, where something is told
    #[arg(long)]
    why: Option<String>,
}

/// How guests behave.
#[derive(Debug, Args)]
pub(crate) struct BehaveArgs {
    /// Name, id, or the beginning of either
    machine: String,
    /// From power to GUEST-READY
    #[arg(long, value_name = "TIME", value_parser = crate::units::milliseconds)]
    boot: Option<u64>,
    /// From being asked to shut down to having done so
    #[arg(long, value_name = "TIME", value_parser = crate::units::milliseconds)]
    shutdown: Option<u64>,
    /// Whether it shuts down when asked
    #[arg(long, value_name = "BOOL")]
    obeys_shutdown: Option<bool>,
    /// Whether its agent answers
    #[arg(long, value_name = "BOOL")]
    agent: Option<bool>,
    /// From one count to the next; 0 never counts
    #[arg(long, value_name = "TIME", value_parser = crate::units::milliseconds)]
    tick: Option<u64>,
}

/// `simulator …`.
pub(crate) async fn simulator(s: &Session, command: SimulatorCommand) -> Result {
    match command {
        SimulatorCommand::Show => show(s.printer, &s.client.simulator().await?),
        SimulatorCommand::Clock(ClockCommand::Show) => clock(s.printer, &s.client.clock().await?),
        SimulatorCommand::Clock(ClockCommand::Advance { by }) => {
            clock(s.printer, &s.client.advance(&Advance { ms: by }).await?)
        }
        SimulatorCommand::Clock(ClockCommand::Set { mode, elapsed }) => {
            clock(s.printer, &s.client.set_clock(&SetClock { mode, elapsed_ms: elapsed }).await?)
        }
        SimulatorCommand::Fault(command) => fault(s, command).await,
        SimulatorCommand::Kill(args) => event(s, "kill", args, None).await,
        SimulatorCommand::Panic(args) => event(s, "panic", args, None).await,
        SimulatorCommand::PowerOff(args) => event(s, "power-off", args, None).await,
        SimulatorCommand::Reboot(args) => event(s, "reboot", args, None).await,
        SimulatorCommand::DiskError { event: args, disk } => event(s, "disk-error", args, disk).await,
        SimulatorCommand::Say { event: args, line } => {
            event(s, "say", EventArgs { why: Some(line), ..args }, None).await
        }
        SimulatorCommand::Events { cancel: false } => events(s.printer, &s.client.simulated_events().await?),
        SimulatorCommand::Events { cancel: true } => {
            let cleared = s.client.cancel_simulated_events().await?.cleared;
            s.printer.talk(format!("took back {cleared} events"));
            Ok(())
        }
        SimulatorCommand::Behave(b) => {
            let behaviour = Behaviour {
                boot_ms: b.boot,
                shutdown_ms: b.shutdown,
                obeys_shutdown: b.obeys_shutdown,
                agent: b.agent,
                tick_ms: b.tick,
            };
            s.printer.json(&s.client.behave(&b.machine, &behaviour).await?)
        }
        SimulatorCommand::Reset { scenario } => {
            let scenario = scenario
                .as_deref()
                .map(service::read_scenario)
                .transpose()
                .map_err(|e| Failure::new("bad-scenario", machine::chain(&e)))?;
            show(s.printer, &s.client.reset_simulator(&Reset { scenario }).await?)
        }
    }
}

async fn event(s: &Session, what: &str, args: EventArgs, disk: Option<String>) -> Result {
    let event = NewEvent {
        machine: args.machine,
        event: what.to_owned(),
        after_ms: args.after,
        text: args.why,
        disk,
    };
    let waiting = s.client.simulate(&event).await?;
    if s.printer.json || event.after_ms.is_some() { events(s.printer, &waiting) } else { Ok(()) }
}

async fn fault(s: &Session, command: FaultCommand) -> Result {
    match command {
        FaultCommand::Add(args) => {
            let message = args.message.unwrap_or_else(|| "failed on purpose".to_owned());
            let fault = NewFault {
                machine: args.machine,
                operation: args.operation,
                job: args.job,
                percent: args.percent,
                nth: args.nth,
                times: args.times,
                forever: args.forever,
                fail: args.fail.map(|kind| FaultFailure { kind, message }),
                delay_ms: args.delay,
                stall: args.stall,
            };
            faults(s.printer, &[s.client.add_fault(&fault).await?])
        }
        FaultCommand::List => faults(s.printer, &s.client.faults().await?),
        FaultCommand::Clear { fault } => {
            let cleared = s.client.clear_faults(fault).await?.cleared;
            s.printer.talk(format!("cleared {cleared} faults"));
            Ok(())
        }
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

fn clock(printer: Printer, c: &SimulatorClock) -> Result {
    if printer.json {
        return printer.json(c);
    }
    printer.line(format!("{}  {} since the beginning, {}", c.time, seconds(c.elapsed_ms), c.mode))
}

fn show(printer: Printer, s: &Simulator) -> Result {
    if printer.json {
        return printer.json(s);
    }
    printer.line(format!("seed {}", s.seed))?;
    clock(printer, &s.clock)?;
    let rows: Vec<Vec<String>> = s
        .guests
        .iter()
        .map(|g| {
            let ready = if g.ready { "ready" } else { "booting" };
            vec![
                g.name.clone(),
                g.machine.to_string(),
                g.state.clone(),
                ready.to_owned(),
                g.counter.to_string(),
                seconds(g.uptime_ms),
            ]
        })
        .collect();
    printer.table(&["GUEST", "MACHINE", "STATE", "BOOT", "COUNT", "UPTIME"], &rows)
}

fn events(printer: Printer, list: &EventList) -> Result {
    if printer.json {
        return printer.json(list);
    }
    let row = |e: &rest::wire::SimulatedEvent| {
        vec![e.id.to_string(), seconds(e.at_ms), e.event.clone(), e.machine.clone()]
    };
    printer.table(&["ID", "AT", "EVENT", "MACHINE"], &list.events.iter().map(row).collect::<Vec<_>>())
}

fn faults(printer: Printer, list: &[Fault]) -> Result {
    if printer.json {
        return printer.json(&list);
    }
    let row = |f: &Fault| {
        let r = &f.rule;
        let place = match (&r.operation, &r.job) {
            (Some(operation), _) => operation.clone(),
            (None, job) => format!("{} job at {} %", job.as_deref().unwrap_or("any"), r.percent.unwrap_or(0)),
        };
        let effect = match (&r.fail, r.delay_ms) {
            (Some(fail), _) => format!("fails: {} [{}]", fail.message, fail.kind),
            (None, Some(ms)) => format!("takes {} longer", seconds(ms)),
            (None, None) => "stalls".to_owned(),
        };
        let times = if r.forever { "ever".to_owned() } else { r.times.unwrap_or(1).to_string() };
        let machine = r.machine.clone().unwrap_or_else(|| "any".to_owned());
        vec![f.id.to_string(), place, machine, effect, format!("{} of {times}", f.hits)]
    };
    printer.table(&["ID", "WHERE", "MACHINE", "WHAT", "HITS"], &list.iter().map(row).collect::<Vec<_>>())
}

//! `slipway`: the command line.
//!
//! Parses arguments, calls one function per command, prints what failed, and ends with one of a fixed set of exit codes.
//! Commands on files (`inspect`, `verify`, `disk`, `config`, `explain`) need no daemon; the others are clients of its
//! REST interface.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod failure;
mod places;
mod printer;
mod progress;
mod session;
mod units;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use cli::{ChainArgs, Cli, Command, ConfigCommand, DiskCommand, Online};
use commands::{
    config, disk, doctor, explain, export, help, import, inspect, job, machine, metrics, planned, serve,
    simulator, switch, user, verify,
};
use failure::{Code, Result};
use printer::{CLOSED, Printer};
use session::{Session, block_on};

fn main() -> ExitCode {
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(e) => return not_understood(&e),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => return not_understood(&e),
    };
    let printer = Printer { json: cli.common.json, quiet: cli.common.quiet };
    match run(printer, cli.common.socket, cli.command, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.id == CLOSED => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

/// What clap answers instead of arguments: help, or what is wrong with them, as JSON where that was asked for.
fn not_understood(e: &clap::Error) -> ExitCode {
    let as_json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
    if e.use_stderr() && as_json {
        let failure = failure::usage(&e.to_string());
        Printer { json: true, quiet: false }.failure(&failure);
        return ExitCode::from(failure.code as u8);
    }
    // A closed output is nobody's failure.
    let _ = e.print();
    ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(Code::Usage as u8))
}

fn run(printer: Printer, socket: Option<PathBuf>, command: Command, matches: &ArgMatches) -> Result {
    match command {
        Command::Inspect { path, recursive: true, csv } => inspect::recursive(printer, &path, csv),
        Command::Inspect { path, .. } => inspect::inspect(printer, &path),
        Command::Verify { dir, disk_dirs } => verify::verify(printer, &dir, &disk_dirs),
        Command::Disk(command) => run_disk(printer, command),
        Command::Config(ConfigCommand::Dump { file }) => config::dump(printer, &file),
        Command::Config(ConfigCommand::Rewrite { source, target }) => {
            config::rewrite(printer, &source, &target)
        }
        Command::Explain { id } => explain::explain(printer, id.as_deref()),
        Command::Completions { shell } => help::completions(printer, shell),
        Command::Man { dir } => help::man(printer, &dir),
        Command::Serve(args) => serve::serve(printer, socket, args, matches.subcommand_matches("serve")),
        Command::Online(command) => {
            let session = Session { printer, client: places::client(socket)? };
            block_on(run_online(&session, command))
        }
    }
}

async fn run_online(s: &Session, command: Online) -> Result {
    match command {
        Online::Import(args) => import::import(s, args).await,
        Online::Export(args) => export::export(s, args).await,
        Online::Machine(command) => machine::machine(s, command).await,
        Online::Planned(command) => planned::planned(s, command).await,
        Online::Switch(command) => switch::switch(s, command).await,
        Online::User(command) => user::user(s, command).await,
        Online::Job(command) => job::job(s, command).await,
        Online::Simulator(command) => simulator::simulator(s, command).await,
        Online::Doctor => doctor::doctor(s).await,
        Online::Metrics(args) => metrics::metrics(s, args).await,
    }
}

fn run_disk(printer: Printer, command: DiskCommand) -> Result {
    match command {
        DiskCommand::Info { file, chain } => disk::info(printer, &file, &chain_options(chain)),
        DiskCommand::Map { file, chain } => disk::map(printer, &file, &chain_options(chain)),
        DiskCommand::Check { file, .. } => disk::check(printer, &file),
        DiskCommand::Hash { file, chain } => disk::hash(printer, &file, &chain_options(chain)),
        DiskCommand::Convert { source, target, format, block_size, fixed, logical_sector_size, chain } => {
            let options = disk::ConvertOptions {
                format,
                block_size: block_size.unwrap_or(0),
                fixed,
                logical_sector_size,
                chain: chain_options(chain),
            };
            disk::convert(printer, &source, &target, &options)
        }
    }
}

fn chain_options(args: ChainArgs) -> disk::ChainOptions {
    disk::ChainOptions {
        parents: args.parents,
        missing_parent_zero: args.missing_parent.is_some(),
        ignore_linkage: args.ignore_linkage,
        lenient: args.lenient,
    }
}

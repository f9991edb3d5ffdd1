//! `slipway serve`: the daemon.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};
use serde::Serialize;
use service::{
    ConfigError, ConfigFile, EngineChoice, Given, Origin, ServeError, ServeErrorKind, Setting, Settings,
};

use crate::failure::{Code, Failure, Result};
use crate::places;
use crate::printer::Printer;

/// What runs guests.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Engine {
    /// QEMU
    Qemu,
    /// Guests that only pretend, for the tests of clients
    Sim,
}

/// How the daemon is started.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file [default: /etc/slipway/config.toml for root, else ~/.config/slipway/config.toml]
    #[arg(long, value_name = "FILE", env = "SLIPWAY_CONFIG")]
    config: Option<PathBuf>,
    /// Print the settings in force and who said so, or what is wrong with them, and start nothing
    #[arg(long)]
    check_config: bool,
    /// Data directory [default: /var/lib/slipway for root, else ~/.local/share/slipway]
    #[arg(long, value_name = "DIR", env = "SLIPWAY_DATA")]
    data: Option<PathBuf>,
    /// What runs guests [default: qemu]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// What the simulator begins with: a TOML or JSON file
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Write this file when requests are accepted
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// What to log, as in `info,job=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "SLIPWAY_LOG")]
    log: Option<String>,
}

/// `serve`. `matches` are the same arguments, with who said what.
pub(crate) fn serve(
    printer: Printer,
    socket: Option<PathBuf>,
    args: ServeArgs,
    matches: Option<&ArgMatches>,
) -> Result {
    let settings = settings(socket, &args, matches)?;
    if args.check_config {
        return show(printer, &settings);
    }
    service::start_logging(&settings.log.value, places::log_target())
        .map_err(|why| Failure::new("bad-setting", why))?;
    // Simulated machines do not belong among real ones: without a place of their own they are gone with the daemon.
    let lost = settings.engine.value == EngineChoice::Sim && settings.data.origin == Origin::Default;
    let temporary = if lost { Some(temporary_data()?) } else { None };
    let mut options = settings.options();
    if let Some(place) = &temporary {
        options.data = place.path().to_owned();
        options.temporary = true;
    }
    options.scenario = args.scenario.as_deref().map(places::absolute).transpose()?;
    options.notify_socket = places::notify_socket();
    service::run(&options).map_err(|e| failure(&e))
}

/// A directory that is gone with the daemon.
fn temporary_data() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("slipway-sim-")
        .tempdir()
        .map_err(|e| Failure::at("make a directory in", &std::env::temp_dir(), &e))
}

fn settings(socket: Option<PathBuf>, args: &ServeArgs, matches: Option<&ArgMatches>) -> Result<Settings> {
    let file = match (&args.config, places::config()) {
        (Some(named), _) => ConfigFile::read(named, true),
        (None, Some(default)) => ConfigFile::read(&default, false),
        (None, None) => Ok(ConfigFile::default()),
    };
    let origin = |id: &str, option, variable| match matches.and_then(|m| m.value_source(id)) {
        Some(ValueSource::EnvVariable) => Origin::Variable(variable),
        _ => Origin::Option(option),
    };
    let path = |path: &Option<PathBuf>, id, option, variable| -> Result<_> {
        let value = path.as_deref().map(places::absolute).transpose()?;
        Ok(value.map(|value| Setting { value, origin: origin(id, option, variable) }))
    };
    let engine = args.engine.map(|engine| match engine {
        Engine::Qemu => EngineChoice::Qemu,
        Engine::Sim => EngineChoice::Sim,
    });
    let given = Given {
        data: path(&args.data, "data", "--data", "SLIPWAY_DATA")?,
        socket: path(&socket, "socket", "--socket", "SLIPWAY_SOCKET")?,
        ready_file: path(&args.ready_file, "ready_file", "--ready-file", "")?,
        engine: engine.map(|value| Setting { value, origin: Origin::Option("--engine") }),
        log: args.log.clone().map(|value| Setting { value, origin: origin("log", "--log", "SLIPWAY_LOG") }),
    };
    let resolved =
        file.and_then(|file| Settings::resolve(&file, given, places::data(), places::own_default_socket()));
    resolved.map_err(|e| bad_setting(&e))
}

fn bad_setting(e: &ConfigError) -> Failure {
    let failure = Failure::new("bad-setting", e.to_string());
    match e.hint_text() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// One setting as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    value: &'a str,
    origin: String,
}

/// The settings as TOML that could be a configuration file, each with its origin behind it.
fn show(printer: Printer, settings: &Settings) -> Result {
    let list = settings.list();
    if printer.json {
        let shown: Vec<_> = list
            .iter()
            .map(|(key, value, origin)| Shown { key, value, origin: origin.to_string() })
            .collect();
        return printer.json(&shown);
    }
    let lines: Vec<_> =
        list.iter().map(|(key, value, origin)| (format!("{key} = {value}"), origin)).collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
    lines.iter().try_for_each(|(line, origin)| printer.line(format!("{line:width$}  # {origin}")))
}

fn failure(e: &ServeError) -> Failure {
    let (id, code) = match e.kind() {
        ServeErrorKind::Running => ("in-use", Code::NotNow),
        ServeErrorKind::Store => ("store", Code::Failed),
        ServeErrorKind::Scenario => ("bad-scenario", Code::Failed),
        _ => ("io", Code::Failed),
    };
    let failure = Failure::new(id, machine::chain(e)).code(code);
    match e.hint_text() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

//! `slipway serve`: the daemon.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use service::{EngineChoice, ServeError, ServeErrorKind, ServiceOptions};

use crate::failure::{Code, Failure, Result};
use crate::places;

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
    /// Data directory [default: /var/lib/slipway for root, else ~/.local/share/slipway]
    #[arg(long, value_name = "DIR", env = "SLIPWAY_DATA")]
    data: Option<PathBuf>,
    /// What runs guests
    #[arg(long, value_enum, default_value = "qemu")]
    engine: Engine,
    /// Write this file when requests are accepted
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// What to log, as in `info,job=debug`
    #[arg(long, value_name = "FILTER", env = "SLIPWAY_LOG")]
    log: Option<String>,
}

/// `serve`.
pub(crate) fn serve(socket: Option<PathBuf>, args: ServeArgs) -> Result {
    service::start_logging(args.log.as_deref(), !places::journal())
        .map_err(|why| Failure::new("invalid-argument", why))?;
    let options = ServiceOptions {
        data: places::absolute(&args.data.map_or_else(places::data, Ok)?)?,
        socket: places::absolute(&socket.unwrap_or_else(places::own_socket))?,
        engine: match args.engine {
            Engine::Qemu => EngineChoice::Qemu,
            Engine::Sim => EngineChoice::Sim,
        },
        ready_file: args.ready_file.map(|f| places::absolute(&f)).transpose()?,
        notify_socket: places::notify_socket(),
    };
    service::run(&options).map_err(|e| failure(&e))
}

fn failure(e: &ServeError) -> Failure {
    let (id, code) = match e.kind() {
        ServeErrorKind::Running => ("in-use", Code::NotNow),
        ServeErrorKind::Store => ("store", Code::Failed),
        _ => ("io", Code::Failed),
    };
    let failure = Failure::new(id, machine::chain(e)).code(code);
    match e.hint_text() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

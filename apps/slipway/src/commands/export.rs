//! `slipway export MACHINE DIR`: a machine that is off, as a Hyper-V package.

use std::path::PathBuf;

use clap::Args;
use rest::wire::{Disk, Export};
use uuid::Uuid;

use crate::failure::{Code, Failure, Result};
use crate::places::absolute;
use crate::session::Session;

/// What to export, and how.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Name, id, or the beginning of either
    machine: String,
    /// Directory of the package; it must not exist, or be empty
    dir: PathBuf,
    /// Make a directory named after the machine inside DIR
    #[arg(long)]
    subdirectory: bool,
    /// Leave the disks out
    #[arg(long)]
    configuration_only: bool,
    /// Leave the memory of a saved machine out
    #[arg(long)]
    without_saved_state: bool,
    /// A disk to leave out, by name or id (may be repeated)
    #[arg(long, value_name = "DISK")]
    exclude: Vec<String>,
    /// Another format than the one each disk came in
    #[arg(long, value_parser = ["vhdx", "vhd", "raw"])]
    format: Option<String>,
    /// Block size of the disks, in bytes or as 32M
    #[arg(long, value_name = "N", value_parser = crate::units::block_size)]
    block_size: Option<u32>,
    /// Bytes read per second at most, as 100M
    #[arg(long, value_name = "N", value_parser = crate::units::size)]
    rate_limit: Option<u64>,
    /// Print the job's id and do not wait for its end
    #[arg(long)]
    no_wait: bool,
}

/// `export MACHINE DIR`.
pub(crate) async fn export(s: &Session, args: ExportArgs) -> Result {
    let machine = s.client.machine(&args.machine).await?;
    let request = Export {
        directory: absolute(&args.dir)?,
        subdirectory: args.subdirectory,
        configuration_only: args.configuration_only,
        without_saved_state: args.without_saved_state,
        excluded_disks: args.exclude.iter().map(|w| disk(&machine.disks, w)).collect::<Result<_>>()?,
        format: args.format,
        block_size: args.block_size,
        rate_limit: args.rate_limit,
    };
    let job = s.client.export(&machine.id.to_string(), &request).await?;
    if args.no_wait {
        return if s.printer.json {
            s.printer.json(&s.client.job(&job.to_string()).await?)
        } else {
            s.printer.line(job.to_string())
        };
    }
    let job = s.follow_to_success(job).await?;
    if s.printer.json {
        return s.printer.json(&job);
    }
    let directory = job.output.as_ref().and_then(|o| o.get("directory")).and_then(|d| d.as_str());
    let directory = directory.map_or_else(|| request.directory.display().to_string(), str::to_owned);
    s.printer.talk(format!("next: slipway verify {}", transfer::shell::word(&directory)));
    s.printer.line(directory)
}

/// The disk that `word` names: its id, its name, or the beginning of its id.
pub(crate) fn disk(disks: &[Disk], word: &str) -> Result<Uuid> {
    let lower = word.to_lowercase();
    let fits: Vec<&Disk> = disks
        .iter()
        .filter(|d| d.name == word || (!lower.is_empty() && d.id.to_string().starts_with(&lower)))
        .collect();
    let names = || disks.iter().map(|d| format!("`{}` ({})", d.name, d.id)).collect::<Vec<_>>().join(", ");
    match fits[..] {
        [one] => Ok(one.id),
        [] => Err(Failure::new("not-found", format!("the machine has no disk `{word}`, but {}", names()))
            .code(Code::NotFound)),
        _ => Err(Failure::new("ambiguous", format!("`{word}` fits several disks: {}", names()))
            .hint("name it by its id")),
    }
}

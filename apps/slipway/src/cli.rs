//! The arguments, and nothing else: what each command takes and how `--help` says it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::disk::Target;
use crate::commands::export::ExportArgs;
use crate::commands::import::ImportArgs;
use crate::commands::job::JobCommand;
use crate::commands::machine::MachineCommand;
use crate::commands::metrics::MetricsArgs;
use crate::commands::planned::PlannedCommand;
use crate::commands::serve::ServeArgs;
use crate::commands::switch::SwitchCommand;

/// Virtual machines on QEMU/KVM that move in and out of Hyper-V.
#[derive(Debug, Parser)]
#[command(name = "slipway", version, max_term_width = 110, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 something is wrong with what was \
looked at, 5 not now (state, busy, in use), 6 no daemon."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no talk and no progress
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// The daemon's socket [default: /run/slipway/slipway.sock for root, else in the user's runtime directory]
    #[arg(long, global = true, value_name = "PATH", env = "SLIPWAY_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
}

/// Commands that are clients of the daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum Online {
    /// Bring a package in as a machine
    Import(ImportArgs),
    /// Write a machine that is off as a Hyper-V package
    Export(ExportArgs),
    /// Machines
    #[command(subcommand, visible_alias = "vm")]
    Machine(MachineCommand),
    /// Packages that were read and are not machines yet
    #[command(subcommand)]
    Planned(PlannedCommand),
    /// Switches, which network adapters are plugged into
    #[command(subcommand)]
    Switch(SwitchCommand),
    /// Work that takes time and outlives the daemon
    #[command(subcommand)]
    Job(JobCommand),
    /// Say whether machines can run here, and what to do when not
    Doctor,
    /// Print the host in numbers, for Prometheus
    Metrics(MetricsArgs),
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one is made, once")]
pub(crate) enum Command {
    /// Look at a package or configuration file: what it is, and what an import here would meet
    Inspect {
        /// Package directory or configuration file
        path: PathBuf,
        /// One verdict for every package below the directory
        #[arg(long, short)]
        recursive: bool,
        /// Print the verdicts as CSV
        #[arg(long, requires = "recursive")]
        csv: bool,
    },
    /// Prove a package from its manifest, or check its structure where it has none
    Verify {
        /// Package directory
        dir: PathBuf,
        /// Where to look for disks that are not in the package
        #[arg(long = "disks", value_name = "DIR")]
        disk_dirs: Vec<PathBuf>,
    },
    /// Run the daemon
    Serve(ServeArgs),
    #[command(flatten)]
    Online(Online),
    /// Disk files: info, map, check, hash, convert
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Configuration files: dump, rewrite
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say what a finding or error id means
    Explain {
        /// The id in brackets behind a finding or error; without it, all ids
        id: Option<String>,
    },
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages
    Man {
        /// Directory for the pages
        dir: PathBuf,
    },
}

/// Options that say how a differencing disk's chain is read.
#[derive(Debug, Args)]
pub(crate) struct ChainArgs {
    /// A parent of the disk, the nearest first (may be repeated)
    #[arg(long = "parent", value_name = "FILE")]
    pub(crate) parents: Vec<PathBuf>,
    /// Read what a missing parent would hold as zeros
    #[arg(long, value_name = "zero", value_parser = ["zero"])]
    pub(crate) missing_parent: Option<String>,
    /// Accept a parent whose identity does not match
    #[arg(long)]
    pub(crate) ignore_linkage: bool,
    /// Read a disk whose checksums are wrong
    #[arg(long)]
    pub(crate) lenient: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// What the file says about itself and its chain
    Info {
        file: PathBuf,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Which ranges hold data, from metadata alone
    Map {
        file: PathBuf,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Check every rule of the format
    Check {
        file: PathBuf,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// SHA-256 of the whole virtual content, and its size in bytes
    Hash {
        file: PathBuf,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Copy a disk into another format
    Convert {
        source: PathBuf,
        target: PathBuf,
        /// Format of the target; else its name tells
        #[arg(long, value_enum)]
        format: Option<Target>,
        /// Block size of a VHDX (1 to 256 MiB, a power of two) or VHD, in bytes or as 32M
        #[arg(long, value_name = "N", value_parser = crate::units::block_size)]
        block_size: Option<u32>,
        /// Allocate all blocks from the start
        #[arg(long)]
        fixed: bool,
        /// Logical sector size of a VHDX: 512 or 4096
        #[arg(long, value_name = "BYTES")]
        logical_sector_size: Option<u32>,
        #[command(flatten)]
        chain: ChainArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every key of a configuration file, in order
    Dump { file: PathBuf },
    /// Read a configuration file and write it anew, in the same form
    Rewrite { source: PathBuf, target: PathBuf },
}

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
use crate::commands::simulator::SimulatorCommand;
use crate::commands::switch::SwitchCommand;
use crate::commands::user::UserCommand;

/// The lines below a command's help that can be typed as they stand.
macro_rules! examples {
    ($($line:literal),+ $(,)?) => {
        concat!("Examples:", $("\n  ", $line),+)
    };
}
pub(crate) use examples;

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

/// The heading under which help lists [`Common`].
const EVERYWHERE: &str = "Options of every command";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print data and errors as JSON
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// Print data and errors only: no progress, no next steps
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub(crate) quiet: bool,
    /// The daemon's socket [default: /run/slipway/slipway.sock for root, else in the user's runtime directory]
    #[arg(long, global = true, value_name = "PATH", env = "SLIPWAY_SOCKET", hide_env_values = true, help_heading = EVERYWHERE)]
    pub(crate) socket: Option<PathBuf>,
}

/// Commands that are clients of the daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum Online {
    /// Bring a package in as a machine
    #[command(after_help = examples!("slipway import /mnt/exports/web --dry-run", "slipway import /mnt/exports/web --switch 'LAN=br0:20' --to /srv/disks", "slipway import /mnt/exports/web --register --new-id --name web-test"))]
    Import(ImportArgs),
    /// Write a machine that is off as a Hyper-V package
    #[command(after_help = examples!("slipway export web /backup/web", "slipway export web /backup --subdirectory --exclude scratch.vhdx", "slipway export web /backup/web --rate-limit 100M --no-wait"))]
    Export(ExportArgs),
    /// Define, start, watch and change machines
    #[command(subcommand, visible_alias = "vm")]
    Machine(MachineCommand),
    /// Imports in the making: packages that were read and are not machines yet
    #[command(subcommand)]
    Planned(PlannedCommand),
    /// Switches, which network adapters are plugged into
    #[command(subcommand)]
    Switch(SwitchCommand),
    /// Who may come in beyond the socket, and what they may do
    #[command(subcommand)]
    User(UserCommand),
    /// Work that takes time and outlives the daemon
    #[command(subcommand)]
    Job(JobCommand),
    /// The clock, faults and guests of a daemon with `--engine sim`
    #[command(subcommand)]
    Simulator(SimulatorCommand),
    /// Say whether machines can run here, and what to do when not
    Doctor,
    /// Print the host in numbers, for Prometheus
    Metrics(MetricsArgs),
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one is made, once")]
pub(crate) enum Command {
    /// Look at a package or configuration file: what it is, and what an import here would meet
    #[command(after_help = examples!("slipway inspect /mnt/exports/web", "slipway inspect --recursive /mnt/exports", "slipway inspect --recursive /mnt/exports --csv > verdicts.csv"))]
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
    #[command(after_help = examples!("slipway verify /backup/web", "slipway verify /mnt/exports/web --disks /mnt/disks"))]
    Verify {
        /// Package directory
        dir: PathBuf,
        /// Where to look for disks that are not in the package
        #[arg(long = "disks", value_name = "DIR")]
        disk_dirs: Vec<PathBuf>,
    },
    /// Run the daemon
    #[command(after_help = examples!("slipway serve &", "slipway serve --check-config", "slipway serve --engine sim --socket /tmp/sim.sock --ready-file /tmp/ready"))]
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
    #[command(after_help = examples!("slipway explain switch-not-found", "slipway explain vhdx.bat.overlap"))]
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
        /// Disk file
        file: PathBuf,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Which ranges hold data, from metadata alone
    Map {
        /// Disk file
        file: PathBuf,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Check every rule of the format
    Check {
        /// VHD or VHDX file
        file: PathBuf,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// SHA-256 of the whole virtual content, and its size in bytes
    Hash {
        /// Disk file
        file: PathBuf,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Copy a disk into another format
    #[command(after_help = examples!("slipway disk convert old.vmdk new.vhdx", "slipway disk convert web.avhdx web.qcow2 --parent base.vhdx"))]
    Convert {
        /// Disk file
        source: PathBuf,
        /// The new file; it must not exist
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
    Dump {
        /// VMCX, VMRS or XML file
        file: PathBuf,
    },
    /// Read a configuration file and write it anew, in the same form
    Rewrite {
        /// VMCX, VMRS or XML file
        source: PathBuf,
        /// The new file; it must not exist
        target: PathBuf,
    },
}

//! `slipway import`: from a package to a machine in one command, or a report of what stands in the way. Many packages at
//! once are [`batch`]'s part.

mod batch;
mod plan;
mod results;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use rest::client::ClientError;
use rest::wire::{Finding, Import, Job, Machine, Planned, PlannedEdit, SwitchTarget};
use serde::Serialize;
use transfer::shell;

use crate::failure::{Code, Failure, Result};
use crate::places::absolute;
use crate::printer::{Printer, bytes};
use crate::session::{LEFT, Session};

/// Choices that an import and a planned machine have in common.
#[derive(Debug, Default, Args)]
pub(crate) struct Choices {
    /// Another name for the machine
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Give the machine a new id
    #[arg(long)]
    new_id: bool,
    /// Directory for the disks of a copy
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Where disks that moved may be (may be repeated)
    #[arg(long = "disks", value_name = "DIR")]
    disk_dirs: Vec<PathBuf>,
    /// Where a switch of the package leads: a switch or bridge here (may be repeated)
    #[arg(long = "switch", value_name = "SRC=TARGET[:VLAN]", value_parser = switch, allow_hyphen_values = true)]
    switches: Vec<(String, SwitchTarget)>,
    /// Plug no adapter in
    #[arg(long)]
    disconnected: bool,
    /// Leave checkpoints behind: the machine comes in as it is now
    #[arg(long)]
    without_snapshots: bool,
    /// Leave the memory of a saved machine behind: a power cut for its guest
    #[arg(long)]
    discard_saved_state: bool,
    /// Another number of processors
    #[arg(long, value_name = "N")]
    processors: Option<u32>,
    /// Another amount of memory: MiB, or with a unit as in 2G
    #[arg(long, value_name = "MIB", value_parser = crate::units::memory)]
    memory: Option<u64>,
    /// Virtual hardware: what an unprepared guest can boot, or what a prepared one likes best
    #[arg(long, value_parser = ["compat", "virtio"])]
    hardware: Option<String>,
    /// A bus for all disks
    #[arg(long, value_parser = ["ide", "ahci", "nvme", "virtio-blk", "virtio-scsi"])]
    disk_bus: Option<String>,
    /// A model for all network adapters
    #[arg(long, value_parser = ["e1000", "e1000e", "rtl8139", "virtio-net"])]
    nic_model: Option<String>,
}

fn switch(text: &str) -> std::result::Result<(String, SwitchTarget), String> {
    let (source, target) = text.rsplit_once('=').ok_or("expected SOURCE=TARGET, as in 'External=br0'")?;
    let target: machine::switch::SwitchTarget = target.parse()?;
    Ok((source.to_owned(), SwitchTarget { target: target.target, vlan: target.vlan }))
}

impl Choices {
    pub(crate) fn edit(self) -> Result<PlannedEdit> {
        Ok(PlannedEdit {
            name: self.name,
            new_id: self.new_id.then_some(true),
            id: None,
            to: self.to.map(|d| absolute(&d)).transpose()?,
            disk_dirs: self.disk_dirs.iter().map(|d| absolute(d)).collect::<Result<_>>()?,
            switches: self.switches.into_iter().collect::<BTreeMap<_, _>>(),
            disconnected: self.disconnected.then_some(true),
            without_snapshots: self.without_snapshots.then_some(true),
            discard_saved_state: self.discard_saved_state.then_some(true),
            processors: self.processors,
            memory_mib: self.memory,
            hardware: self.hardware,
            disk_bus: self.disk_bus,
            nic_model: self.nic_model,
        })
    }
}

/// What to import, and how.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Package directory or configuration file
    #[arg(required_unless_present = "all")]
    path: Option<PathBuf>,
    /// Import every package below DIR, by a plan
    #[arg(long, value_name = "DIR", requires = "plan", conflicts_with_all = ["path", "name", "keep_planned"])]
    all: Option<PathBuf>,
    /// The plan of --all: written by --dry-run, edited by you, gone on with after an interruption
    #[arg(long, value_name = "FILE", requires = "all")]
    plan: Option<PathBuf>,
    /// Packages at a time
    #[arg(long, value_name = "N", requires = "all", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Copy the disks (the default)
    #[arg(long, conflicts_with = "register")]
    copy: bool,
    /// Leave the disks in the package, read-only, and write to overlays beside the machine
    #[arg(long, conflicts_with = "to")]
    register: bool,
    #[command(flatten)]
    choices: Choices,
    /// Read disks whose checksums are wrong
    #[arg(long)]
    lenient: bool,
    /// Only print the report; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep the planned machine when the import does not end in a machine
    #[arg(long, conflicts_with = "dry_run")]
    keep_planned: bool,
}

/// What an import prints as JSON.
#[derive(Serialize)]
struct Outcome<'a> {
    planned: &'a Planned,
    machine: Option<&'a Machine>,
    job: Option<&'a Job>,
}

/// `import PATH`.
pub(crate) async fn import(s: &Session, args: ImportArgs) -> Result {
    let (register, dry_run, keep) = (args.register, args.dry_run, args.keep_planned);
    let path = match (args.all, args.plan, args.path) {
        (Some(directory), Some(plan), _) => {
            let batch = batch::Batch {
                directory: absolute(&directory)?,
                plan,
                jobs: usize::from(args.jobs),
                dry_run,
                register,
                lenient: args.lenient,
                options: args.choices.edit()?,
            };
            return batch::run(s, batch).await;
        }
        (_, _, path) => path.unwrap_or_default(),
    };
    let request = Import {
        path: absolute(&path)?,
        register,
        dry_run,
        options: args.choices.edit()?,
        lenient: args.lenient,
    };
    let planned = s.client.import(&request).await?;
    let stopped = obstacle(&planned, dry_run);
    if dry_run || stopped.is_some() {
        print(s.printer, &planned, None, None)?;
    } else if !s.printer.json {
        show(&planned, |line| {
            s.printer.talk(line);
            Ok(())
        })?;
    }
    if dry_run {
        return stopped.map_or(Ok(()), Err);
    }
    let outcome = match stopped {
        Some(failure) => Err(failure),
        None => realize(s, &planned).await,
    };
    match outcome {
        Ok((machine, job)) => {
            if s.printer.json {
                return print(s.printer, &planned, Some(&machine), Some(&job));
            }
            s.printer.talk(format!("next: slipway machine start {}", s.word(&machine).await));
            s.printer.line(format!("{}  {}", machine.name, machine.id))
        }
        Err(failure) => {
            let id = planned.id.to_string();
            // A job that is still at it needs its plan.
            if failure.code == Code::NoDaemon || failure.id == LEFT {
                return Err(failure);
            }
            if keep {
                s.printer.talk(format!("kept: slipway planned show {id}"));
            } else if let Err(e) = abandon(s, &id).await {
                s.printer.talk(format!("the planned machine {id} was left behind: {}", machine::chain(&e)));
            }
            Err(failure)
        }
    }
}

/// Forgets the planned machine that this import made; one that is a machine already needs no forgetting.
async fn abandon(s: &Session, id: &str) -> std::result::Result<(), ClientError> {
    match s.client.abandon(id).await {
        Err(ClientError::Problem { status: 404, .. }) => Ok(()),
        other => other,
    }
}

async fn realize(s: &Session, planned: &Planned) -> Result<(Machine, Job)> {
    let id = planned.id.to_string();
    let job = s.client.realize(&id).await?;
    let job = s.follow_to_success(job).await?;
    Ok((s.client.machine(&id).await?, job))
}

/// The failure that the report's errors are, with the command that resolves them.
pub(crate) fn obstacle(planned: &Planned, dry_run: bool) -> Option<Failure> {
    let errors: Vec<&Finding> = planned.findings.iter().filter(|f| f.severity == "error").collect();
    let first = errors.first()?;
    let more = if errors.len() > 1 { format!(" (and {} more)", errors.len() - 1) } else { String::new() };
    let verb = if dry_run { "cannot be imported as it is" } else { "was not imported" };
    let message = format!("`{}` {verb}: {}{more}", planned.name, first.message);
    let failure = Failure::new("not-compatible", message).code(Code::Findings);
    let fixes: Vec<&str> = errors.iter().filter_map(|f| f.fix.as_deref()).collect();
    Some(failure.hint(if fixes.is_empty() {
        format!("slipway explain {}", first.id)
    } else {
        let words: Vec<String> = std::env::args_os().skip(1).map(shell::word).collect();
        with_fixes(&words, &fixes)
    }))
}

/// As [`obstacle`], where the fix is not another command line.
fn obstacle_of(planned: &Planned) -> Option<Failure> {
    let first = planned.findings.iter().find(|f| f.severity == "error")?;
    let failure = Failure::new(&first.id, &first.message).code(Code::Findings);
    Some(failure.hint(first.fix.clone().unwrap_or_else(|| format!("slipway explain {}", first.id))))
}

/// The command of those (quoted) words with `fixes` added to it, and before it what has to be done outside it. A fix is
/// an option with its value, or a command of the host.
pub(crate) fn with_fixes(words: &[String], fixes: &[&str]) -> String {
    let mut options: Vec<&str> = Vec::new();
    let mut commands: Vec<&str> = Vec::new();
    for fix in fixes {
        let those = if fix.starts_with("--") { &mut options } else { &mut commands };
        if !those.contains(fix) {
            those.push(fix);
        }
    }
    let copies = options.contains(&"--copy");
    // What a fix sets anew is not to be said twice; these are said once for each switch or directory.
    let sets: Vec<&str> = options
        .iter()
        .filter_map(|fix| fix.split_once([' ', '=']).map(|(option, _)| option))
        .filter(|option| !["--switch", "--disks"].contains(option))
        .collect();
    let (mut before, mut after) = (vec!["slipway"], Vec::new());
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if after.is_empty() && sets.contains(&word) {
            words.next();
            continue;
        }
        if after.is_empty() && word.split_once('=').is_some_and(|(option, _)| sets.contains(&option)) {
            continue;
        }
        // No option is one after this.
        if word == "--" || !after.is_empty() {
            after.push(word);
        } else if word != "--dry-run" && !(copies && word == "--register") {
            before.push(word);
        }
    }
    let added = options.into_iter().filter(|option| *option != "--copy");
    let command = before.into_iter().chain(added).chain(after).collect::<Vec<_>>().join(" ");
    commands.iter().copied().chain([command.as_str()]).collect::<Vec<_>>().join("; then ")
}

fn print(printer: Printer, planned: &Planned, machine: Option<&Machine>, job: Option<&Job>) -> Result {
    if printer.json {
        return printer.json(&Outcome { planned, machine, job });
    }
    show(planned, |line| printer.line(line))
}

/// A planned machine and its report, for people.
pub(crate) fn show(p: &Planned, mut out: impl FnMut(String) -> Result) -> Result {
    out(format!("{}  ({})", p.name, p.id))?;
    out(format!(
        "  generation {}, {} processor(s), {} MiB memory, from {}",
        p.generation,
        p.processors,
        p.memory_mib,
        p.source.display()
    ))?;
    for d in &p.disks {
        let file = d.file.as_ref().map_or_else(|| "NOT FOUND".to_owned(), |f| f.display().to_string());
        let (size, data) = (bytes(d.virtual_size), bytes(d.data_bytes));
        out(format!("  disk     {}  {size} virtual, {data} data, {file}", d.name))?;
    }
    for f in &p.findings {
        out(format!("  {:<8} {} [{}]", f.severity, f.message, f.id))?;
        if let Some(fix) = &f.fix {
            out(format!("           fix: {fix}"))?;
        }
    }
    out(format!("verdict: {}", p.verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(words: &str, fixes: &[&str]) -> String {
        with_fixes(&words.split(' ').map(str::to_owned).collect::<Vec<_>>(), fixes)
    }

    #[test]
    fn the_hint_is_the_command_with_the_fixes() {
        assert_eq!(hint("import pkg", &["--new-id"]), "slipway import pkg --new-id");
        assert_eq!(
            hint("import pkg --dry-run", &["--switch 'This or that=nat'", "--new-id", "--new-id"]),
            "slipway import pkg --switch 'This or that=nat' --new-id"
        );
        assert_eq!(hint("import pkg --register", &["--copy"]), "slipway import pkg");
        assert_eq!(hint("import pkg --memory 9T", &["--memory 4096"]), "slipway import pkg --memory 4096");
        assert_eq!(hint("import --name= pkg", &["--name NAME"]), "slipway import pkg --name NAME");
        assert_eq!(
            hint("import pkg --switch a=b", &["--switch c=nat"]),
            "slipway import pkg --switch a=b --switch c=nat"
        );
        assert_eq!(hint("import -- -pkg", &["--new-id"]), "slipway import --new-id -- -pkg");
        assert_eq!(
            hint("import pkg", &["apt-get install ovmf", "--new-id"]),
            "apt-get install ovmf; then slipway import pkg --new-id"
        );
        assert_eq!(
            hint("import pkg", &["apt-get install ovmf"]),
            "apt-get install ovmf; then slipway import pkg"
        );
    }

    #[test]
    fn a_switch_mapping_splits_at_its_last_equals_sign() {
        let (source, target) = switch("a=b=br0:7").unwrap();
        assert_eq!((source.as_str(), target.target.as_str(), target.vlan), ("a=b", "br0", Some(7)));
        assert!(switch("br0").is_err());
        assert!(switch("a=br0:9999").is_err());
        assert!(switch("a=").is_err());
    }
}

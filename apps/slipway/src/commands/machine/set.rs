//! `slipway machine set`.

use std::path::PathBuf;

use clap::Args;
use rest::wire::{AdapterEdit, Automatic, Edit, NewDisk};

use super::define::{absolute_disks, existing, fresh, image, image_or_none};
use crate::commands::export::disk;
use crate::failure::{Code, Failure, Result};
use crate::session::Session;

/// What to change; what is not named stays.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Name, id, or the beginning of either
    machine: String,
    /// Another name
    #[arg(long)]
    name: Option<String>,
    /// Other notes
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    /// Virtual processors
    #[arg(long, value_name = "N")]
    processors: Option<u32>,
    /// Memory: MiB, or with a unit as in 2G
    #[arg(long, value_name = "MIB", value_parser = crate::units::memory)]
    memory: Option<u64>,
    /// Secure Boot
    #[arg(long, value_name = "on|off", value_parser = on_off)]
    secure_boot: Option<bool>,
    /// A TPM
    #[arg(long, value_name = "on|off", value_parser = on_off)]
    tpm: Option<bool>,
    /// Boot order: Optical, HardDrive, Network, Floppy
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',')]
    boot_order: Vec<String>,
    /// When the host starts
    #[arg(long, value_parser = ["nothing", "restart", "always"])]
    start_action: Option<String>,
    /// Seconds before an automatic start
    #[arg(long, value_name = "SECONDS")]
    start_delay: Option<u32>,
    /// When the host stops
    #[arg(long, value_parser = ["turnoff", "save", "shutdown"])]
    stop_action: Option<String>,
    /// Virtual hardware: what an unprepared guest can boot, or what a prepared one likes best
    #[arg(long, value_parser = ["compat", "virtio"])]
    hardware: Option<String>,
    /// A bus for all disks; '' follows the hardware again
    #[arg(long, value_name = "BUS")]
    disk_bus: Option<String>,
    /// A model for all adapters; '' follows the hardware again
    #[arg(long, value_name = "MODEL")]
    nic_model: Option<String>,
    /// The adapter that --switch, --vlan, --mac and --remove-adapter mean; one beyond the last is added
    #[arg(long, value_name = "N", default_value_t = 0)]
    adapter: usize,
    /// Plug the adapter into this switch; '' unplugs it
    #[arg(long)]
    switch: Option<String>,
    /// VLAN of the adapter; 0 is none
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=4094))]
    vlan: Option<u16>,
    /// Fixed address of the adapter; '' makes it dynamic again
    #[arg(long, value_name = "ADDRESS")]
    mac: Option<String>,
    /// Remove the adapter
    #[arg(long, conflicts_with_all = ["switch", "vlan", "mac"])]
    remove_adapter: bool,
    /// Add a file: raw and qcow2 are used in place, VHDX and VHD taken in and given back (may be repeated)
    #[arg(long = "add-disk", value_name = "FILE[,format=FORMAT]", value_parser = existing)]
    add_disks: Vec<NewDisk>,
    /// Add a new, empty disk (may be repeated)
    #[arg(long = "new-disk", value_name = "SIZE[,sector=4096]", value_parser = fresh)]
    new_disks: Vec<NewDisk>,
    /// Detach a disk, by name or id; a file that Slipway made is deleted (may be repeated)
    #[arg(long = "remove-disk", value_name = "DISK")]
    remove_disks: Vec<String>,
    /// Image for the DVD drive, which is added when there is none; '' ejects
    #[arg(long, value_name = "FILE", value_parser = image_or_none())]
    dvd: Option<PathBuf>,
}

fn on_off(text: &str) -> std::result::Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}

pub(super) async fn set(s: &Session, args: SetArgs) -> Result {
    let machine = s.client.machine(&args.machine).await?;
    let mut add_disks = args.add_disks;
    add_disks.extend(args.new_disks);
    let automatic = args.start_action.is_some() || args.start_delay.is_some() || args.stop_action.is_some();
    let automatic = automatic.then(|| Automatic {
        start: args.start_action.unwrap_or(machine.automatic.start),
        start_delay_seconds: args.start_delay.unwrap_or(machine.automatic.start_delay_seconds),
        stop: args.stop_action.unwrap_or(machine.automatic.stop),
    });
    let adapter = AdapterEdit {
        index: args.adapter,
        switch: args.switch,
        vlan: args.vlan,
        mac: args.mac,
        remove: args.remove_adapter,
    };
    if adapter.remove && adapter.index >= machine.adapters.len() {
        return Err(Failure::new("not-found", format!("the machine has no adapter {}", adapter.index))
            .code(Code::NotFound)
            .hint(format!("`slipway machine show {}` lists what it has", machine.id)));
    }
    let untouched = AdapterEdit { index: args.adapter, ..AdapterEdit::default() };
    let edit = Edit {
        name: args.name,
        notes: args.notes,
        processors: args.processors,
        memory_mib: args.memory,
        secure_boot: args.secure_boot,
        tpm: args.tpm,
        boot_order: (!args.boot_order.is_empty()).then_some(args.boot_order),
        automatic,
        hardware: args.hardware,
        disk_bus: args.disk_bus,
        nic_model: args.nic_model,
        adapters: if adapter == untouched { Vec::new() } else { vec![adapter] },
        add_disks: absolute_disks(add_disks)?,
        remove_disks: args.remove_disks.iter().map(|w| disk(&machine.disks, w)).collect::<Result<_>>()?,
        dvd: args.dvd.map(image).transpose()?,
    };
    if edit == Edit::default() {
        return Err(Failure::new("usage", format!("no change of `{}` was named", machine.name))
            .code(Code::Usage)
            .hint("name one, as in `--memory 2G`; `slipway machine set --help` lists them"));
    }
    let machine = s.client.edit(&machine.id.to_string(), &edit).await?;
    super::show::show(s.printer, &machine)
}

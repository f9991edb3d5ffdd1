//! `slipway machine define`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use rest::wire::{Define, NewDisk};
use uuid::Uuid;

use crate::failure::Result;
use crate::places::absolute;
use crate::session::Session;

/// A machine to make.
#[derive(Debug, Args)]
pub(crate) struct DefineArgs {
    /// Its name
    name: String,
    /// 1 (BIOS) or 2 (UEFI)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    generation: u8,
    /// Its id [default: a new one]
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// Virtual processors
    #[arg(long, value_name = "N")]
    processors: Option<u32>,
    /// Memory: MiB, or with a unit as in 2G
    #[arg(long, value_name = "MIB", value_parser = crate::units::memory)]
    memory: Option<u64>,
    /// A file: raw and qcow2 are used in place, VHDX and VHD taken in and given back (may be repeated)
    #[arg(long = "disk", value_name = "FILE[,format=FORMAT]", value_parser = existing)]
    disks: Vec<NewDisk>,
    /// A new, empty disk, after those in place (may be repeated)
    #[arg(long = "new-disk", value_name = "SIZE[,sector=4096]", value_parser = fresh)]
    new_disks: Vec<NewDisk>,
    /// A DVD drive with this image; an empty one with ''
    #[arg(long, value_name = "FILE", value_parser = image_or_none())]
    dvd: Option<PathBuf>,
    /// An adapter plugged into this switch; '' is not plugged in (may be repeated)
    #[arg(long = "switch", value_name = "SWITCH")]
    switches: Vec<String>,
    /// Turn Secure Boot off
    #[arg(long)]
    no_secure_boot: bool,
    /// Give it a TPM
    #[arg(long)]
    tpm: bool,
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

/// `FILE[,format=raw|qcow2]`.
pub(super) fn existing(text: &str) -> std::result::Result<NewDisk, String> {
    let (path, format) = match text.rsplit_once(",format=") {
        Some((path, format)) => (path, Some(format.to_owned())),
        None => (text, None),
    };
    if path.is_empty() {
        return Err("expected a file".to_owned());
    }
    Ok(NewDisk { path: Some(PathBuf::from(path)), format, ..NewDisk::default() })
}

/// `SIZE[,sector=512|4096]`.
pub(super) fn fresh(text: &str) -> std::result::Result<NewDisk, String> {
    let (size, sector) = match text.rsplit_once(",sector=") {
        Some((size, sector)) => {
            (size, Some(sector.parse().map_err(|_| format!("`{sector}` is no sector size: 512 or 4096"))?))
        }
        None => (text, None),
    };
    Ok(NewDisk { size: Some(crate::units::size(size)?), sector, ..NewDisk::default() })
}

/// Makes the paths what the daemon must get.
pub(super) fn absolute_disks(disks: Vec<NewDisk>) -> Result<Vec<NewDisk>> {
    disks
        .into_iter()
        .map(|mut d| {
            d.path = d.path.map(|p| absolute(&p)).transpose()?;
            Ok(d)
        })
        .collect()
}

/// A path, or '' for none, which clap's own parser of paths refuses.
pub(super) fn image_or_none() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// An image's path for the daemon; empty stays empty.
pub(super) fn image(path: PathBuf) -> Result<String> {
    if path.as_os_str().is_empty() { Ok(String::new()) } else { Ok(absolute(&path)?.display().to_string()) }
}

pub(super) async fn define(s: &Session, args: DefineArgs) -> Result {
    let mut disks = args.disks;
    disks.extend(args.new_disks);
    let define = Define {
        name: args.name,
        generation: Some(args.generation),
        id: args.id,
        processors: args.processors,
        memory_mib: args.memory,
        secure_boot: args.no_secure_boot.then_some(false),
        tpm: args.tpm,
        disks: absolute_disks(disks)?,
        dvd: args.dvd.map(image).transpose()?,
        adapters: args.switches,
        hardware: args.hardware,
        disk_bus: args.disk_bus,
        nic_model: args.nic_model,
    };
    let machine = s.client.define(&define).await?;
    if s.printer.json {
        return s.printer.json(&machine);
    }
    s.printer.talk(format!("next: slipway machine start {}", s.word(&machine).await));
    s.printer.line(format!("{}  {}", machine.name, machine.id))
}

//! `disk convert SRC DST`: the copy engine between any two formats.
//!
//! The target is written beside its name and renamed when it is whole: it is absent or complete, never partial.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use transfer::copy::{CopyOptions, NoJournal};
use transfer::sink::{NbdSink, RawSink, Sink, VhdSink, VhdxSink};
use transfer::{Access, HostFile};
use uuid::Uuid;
use vhdx::{CreateOptions, DiskKind};

use super::{ChainOptions, open};
use crate::failure::{Failure, Result};
use crate::printer::{Printer, bytes};
use crate::progress::Bar;

/// Formats that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// Hyper-V's format
    Vhdx,
    /// The older format, up to 2040 GiB
    Vhd,
    /// Flat bytes, sparse
    Raw,
    /// QEMU's format
    Qcow2,
}

/// How to convert.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConvertOptions {
    pub(crate) format: Option<Target>,
    pub(crate) block_size: u32,
    pub(crate) fixed: bool,
    pub(crate) logical_sector_size: Option<u32>,
    pub(crate) chain: ChainOptions,
}

/// `disk convert SRC DST`.
pub(crate) fn convert(printer: Printer, source: &Path, target: &Path, options: &ConvertOptions) -> Result {
    let format = options.format.map_or_else(|| by_extension(target), Ok)?;
    if target.exists() {
        return Err(Failure::new("already-exists", format!("`{}` exists already", target.display()))
            .hint("name a file that does not exist"));
    }
    let disk = open(source, &options.chain)?;
    let temporary = partial(target);
    let result = copy(printer, &disk, &temporary, format, options);
    let copied = match result {
        Ok(copied) => copied,
        Err(mut failure) => {
            let _ = fs::remove_file(&temporary);
            // The name that was asked for, not the one it has until it is whole.
            let [asked, made] = [target, &temporary].map(|p| p.display().to_string());
            failure.message = failure.message.replace(&made, &asked);
            return Err(failure);
        }
    };
    publish(&temporary, target).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    printer.talk(format!(
        "wrote {}: {} virtual, {} of data, content {}",
        target.display(),
        bytes(copied.size),
        bytes(copied.read),
        copied.root
    ));
    Ok(())
}

fn by_extension(target: &Path) -> Result<Target> {
    let extension = target.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("vhdx" | "avhdx") => Ok(Target::Vhdx),
        Some("vhd") => Ok(Target::Vhd),
        Some("raw" | "img") => Ok(Target::Raw),
        Some("qcow2") => Ok(Target::Qcow2),
        _ => Err(Failure::new(
            "invalid-argument",
            format!("the name `{}` does not tell its format", target.display()),
        )
        .hint("say it with `--format vhdx|vhd|raw|qcow2`")),
    }
}

fn partial(target: &Path) -> PathBuf {
    let name = target.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    target.with_file_name(format!(".{name}.{}.partial", Uuid::new_v4().simple()))
}

fn publish(temporary: &Path, target: &Path) -> Result {
    let at = |e: std::io::Error| Failure::at("write", target, &e);
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        temporary,
        rustix::fs::CWD,
        target,
        rustix::fs::RenameFlags::NOREPLACE,
    )
    .map_err(|e| at(e.into()))?;
    let dir = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(at)
}

fn copy(
    printer: Printer,
    disk: &super::Disk,
    temporary: &Path,
    format: Target,
    options: &ConvertOptions,
) -> Result<transfer::Copied> {
    let source = &*disk.source;
    let at = |e: &(dyn std::error::Error + 'static)| Failure::at("write", temporary, e);
    let sector = options.logical_sector_size.unwrap_or_else(|| source.logical_sector_size());
    let size = source.size().next_multiple_of(u64::from(sector));
    let create = CreateOptions {
        virtual_size: size,
        block_size: options.block_size,
        logical_sector_size: sector,
        physical_sector_size: source.physical_sector_size().max(sector),
        kind: if options.fixed { DiskKind::Fixed } else { DiskKind::Dynamic },
        disk_id: Uuid::new_v4(),
    };
    let mut _served = None;
    let file = || -> Result<Arc<HostFile>> {
        HostFile::create_new(temporary, Access::Auto).map(Arc::new).map_err(|e| at(&e))
    };
    let sink: Box<dyn Sink> = match format {
        Target::Raw => Box::new(RawSink::new(file()?, temporary, source.size()).map_err(|e| at(&e))?),
        Target::Vhdx => Box::new(VhdxSink::create(file()?, temporary, &create).map_err(|e| at(&e))?),
        Target::Vhd => Box::new(VhdSink::create(file()?, temporary, &create).map_err(|e| at(&e))?),
        Target::Qcow2 => {
            engine::image::create_qcow2(temporary, size, None).map_err(|e| at(&e))?;
            let served = engine::image::serve(
                temporary,
                engine::image::Format::Qcow2,
                engine::image::Access::ReadWrite,
            )
            .map_err(|e| at(&e))?;
            let client =
                nbd::Client::connect_unix(served.socket(), served.export(), &[]).map_err(|e| at(&e))?;
            _served = Some(served);
            Box::new(NbdSink::new(client, temporary, true).map_err(|e| at(&e))?)
        }
    };
    let bar = Bar::bytes(printer, "converting");
    let copied = transfer::copy::copy(
        source,
        &*sink,
        &CopyOptions { progress: &|p| bar.set(p.done, p.total), ..CopyOptions::default() },
        None,
        &mut NoJournal,
    )
    .map_err(|e| {
        let mut failure = Failure::new("copy", format!("cannot convert: {}", machine::chain(&e)));
        if e.kind() == transfer::FaultKind::NoSpace {
            failure.id = "no-space".to_owned();
        }
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure.hint(super::look_closer(source.path())),
        }
    })?;
    sink.finish().map_err(|e| at(&e))?;
    bar.finish();
    Ok(copied)
}

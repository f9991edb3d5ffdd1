//! A look at one disk of a package: which file it is, what its chain is made of, and what lies on it.

use std::path::{Path, PathBuf};

use transfer::manifest::{DiskEntry, Manifest};
use transfer::package::{
    DiskNotFound, Package, image_options as image_options_of_package, windows_components,
};
use transfer::source::{self, DiskFormat as Found, OpenOptions, Source};
use uuid::Uuid;
use vhdx::{CheckOptions, DiskKind, Image, ImageOptions};

use crate::cancel::Cancel;
use crate::config::ConfiguredDrive;
use crate::disk::{DiskFormat, file_name};
use crate::error::chain;
use crate::finding::{self, Finding, Severity};
use crate::names::safe_file_name;
use crate::planned::{ImportMode, ImportRequest, PlannedBootEntry, PlannedDisk};
use crate::settings::Generation;

/// What was learnt of one disk.
pub(super) struct Look {
    pub(super) disk: PlannedDisk,
    pub(super) findings: Vec<Finding>,
    /// What the partitions hold, when the disk could be read.
    pub(super) content: Option<probe::DiskReport>,
}

/// How the disk of a plan found at `path` is opened, now and again when it is copied.
pub(super) fn image_options(path: &Path, package: &Path, request: &ImportRequest) -> ImageOptions {
    let options = image_options_of_package(package, &request.disk_dirs);
    ImageOptions {
        // A disk elsewhere, in a directory that the user named, has its own directory as the fence.
        confine: options.confine.filter(|fence| path.starts_with(fence)),
        lenient: request.lenient,
        ..options
    }
}

/// The package that disks are looked for in, and what our manifest, if it has one, says of them.
pub(super) struct Place<'a> {
    pub(super) package: &'a Package,
    pub(super) manifest: Option<Manifest>,
    pub(super) request: &'a ImportRequest,
    /// Gives an id that nothing has.
    pub(super) ids: &'a dyn Fn() -> Uuid,
    pub(super) cancel: &'a Cancel,
}

impl<'a> Place<'a> {
    pub(super) fn new(
        package: &'a Package,
        request: &'a ImportRequest,
        ids: &'a dyn Fn() -> Uuid,
        cancel: &'a Cancel,
    ) -> Self {
        Self { package, manifest: package.read_manifest().ok().flatten(), request, ids, cancel }
    }
}

/// The disk that `drive` names, nothing known of it yet.
pub(super) fn unseen(drive: &ConfiguredDrive, id: Uuid, place: &Place<'_>) -> PlannedDisk {
    let name = file_name(&drive.path);
    let name =
        if name.is_empty() { format!("disk {}-{}.vhdx", drive.number, drive.slot) } else { name.to_owned() };
    PlannedDisk {
        id,
        source_path: drive.path.clone(),
        name,
        file: None,
        chain: Vec::new(),
        virtual_size: 0,
        data_bytes: 0,
        format: DiskFormat::Vhdx,
        block_size: 0,
        fixed: false,
        logical_sector_size: 512,
        physical_sector_size: 4096,
        virtual_disk_id: (place.ids)(),
        serial: None,
        boot_entries: Vec::new(),
    }
}

/// Looks at the disk that `drive` names, found at `found`.
pub(super) fn look(
    drive: &ConfiguredDrive,
    id: Uuid,
    found: Result<PathBuf, DiskNotFound>,
    place: &Place<'_>,
) -> Look {
    let mut disk = unseen(drive, id, place);
    let mut findings = Vec::new();
    let path = match found {
        Ok(path) => path,
        Err(missing) => {
            findings.push(not_found(drive, &missing));
            return Look { disk, findings, content: None };
        }
    };
    disk.file = Some(path.clone());
    match open(&path, place, &mut disk, &mut findings) {
        Ok(source) => {
            match transfer::copy::measure(&*source, 0, source.size(), &|| place.cancel.told()) {
                Ok(measured) => disk.data_bytes = measured.data,
                Err(e) => findings.push(Finding::new(
                    finding::DISK_UNREADABLE,
                    Severity::Error,
                    disk_setting(&path),
                    chain(&e),
                )),
            }
            let content = probe::probe(&Reader(&*source), disk.logical_sector_size).ok();
            Look { disk, findings, content }
        }
        Err(finding) => {
            findings.push(*finding);
            Look { disk, findings, content: None }
        }
    }
}

/// A disk that is not there, or only where nothing is opened unasked.
fn not_found(drive: &ConfiguredDrive, missing: &DiskNotFound) -> Finding {
    let outside = windows_components(&drive.path).any(|name| name == "..")
        || missing.tried.iter().any(|t| t.why.contains("outside the package"));
    let id = if outside { finding::DISK_OUTSIDE } else { finding::DISK_MISSING };
    Finding::new(id, Severity::Error, drive.key.clone(), missing.to_string()).fix("--disks DIR")
}

fn open(
    path: &Path,
    place: &Place<'_>,
    disk: &mut PlannedDisk,
    findings: &mut Vec<Finding>,
) -> Result<Box<dyn Source>, Box<Finding>> {
    let request = place.request;
    let unreadable = |message: String| {
        Box::new(Finding::new(finding::DISK_UNREADABLE, Severity::Error, disk_setting(path), message))
    };
    let declared = place.manifest.as_ref().and_then(|manifest| place.package.declared(manifest, path));
    if let Some(entry) = declared.filter(|entry| entry.format == DiskFormat::Raw.extension()) {
        return open_raw(path, entry, disk).map_err(unreadable);
    }
    let found = source::sniff(path).map_err(|e| unreadable(chain(&e)))?;
    match found {
        Found::Vhd | Found::Vhdx => {}
        Found::Raw => {
            disk.format = DiskFormat::Raw;
            let what = "is neither VHD nor VHDX; a raw disk is taken only where the package's own manifest says that it is one";
            return Err(unreadable(format!("`{}` {what}", path.display())));
        }
        Found::Engine(name) => {
            return Err(unreadable(format!(
                "`{}` is {name}, which a Hyper-V package does not hold",
                path.display()
            )));
        }
        _ => return Err(unreadable(format!("`{}` is of an unknown format", path.display()))),
    }
    let options = image_options(path, &place.package.root, request);
    let image = Image::open(path, &options).map_err(|e| Box::new(open_finding(path, &e, request)))?;
    describe(disk, &image);
    if let Some(message) = overlap(disk).filter(|_| !request.lenient) {
        return Err(Box::new(
            Finding::new(finding::DISK_OVERLAP, Severity::Error, disk_setting(path), message)
                .fix("--lenient"),
        ));
    }
    if image.layers().iter().any(|l| l.info.log_pending) {
        findings.push(Finding::new(
            finding::PENDING_LOG,
            Severity::Info,
            disk.name.clone(),
            "the disk was not closed cleanly; its log is applied in memory",
        ));
    }
    if request.mode == ImportMode::Register
        && let Some(why) = register_problem(&image)
    {
        findings.push(
            Finding::new(finding::REGISTER_IMPOSSIBLE, Severity::Error, disk.name.clone(), why).fix("--copy"),
        );
    }
    drop(image);
    open_source(path, disk, options).map_err(|e| unreadable(chain(&e)))
}

/// Opens a disk that Slipway exported raw. Such a file says nothing of itself, and its first bytes are the guest's to
/// choose: format, geometry and identity are those of the manifest.
fn open_raw(path: &Path, entry: &DiskEntry, disk: &mut PlannedDisk) -> Result<Box<dyn Source>, String> {
    disk.format = DiskFormat::Raw;
    disk.chain = vec![path.to_owned()];
    disk.logical_sector_size = entry.logical_sector_size;
    disk.physical_sector_size = entry.physical_sector_size;
    disk.virtual_disk_id = entry.disk_id;
    let source = open_source(path, disk, ImageOptions::default()).map_err(|e| chain(&e))?;
    disk.virtual_size = source.size();
    if source.size() == entry.virtual_size {
        Ok(source)
    } else {
        let (has, had) = (source.size(), entry.virtual_size);
        Err(format!("`{}` has {has} bytes and had {had} when the package was made", path.display()))
    }
}

/// Opens the content of a planned disk.
pub(super) fn open_source(
    path: &Path,
    disk: &PlannedDisk,
    image: ImageOptions,
) -> Result<Box<dyn Source>, transfer::SourceError> {
    let raw_sectors = Some((disk.logical_sector_size, disk.physical_sector_size));
    let options = OpenOptions { image, raw_sectors, ..OpenOptions::default() };
    match disk.format {
        // Never by its first bytes.
        DiskFormat::Raw => source::open_as(path, Found::Raw, &options),
        _ => source::open(path, &options),
    }
}

/// Where a file of the chain uses one part of itself twice, if any does. Only then can a disk hold more than its files.
fn overlap(disk: &PlannedDisk) -> Option<String> {
    disk.chain.iter().find_map(|path| {
        // What else breaks a rule there, opening it has judged.
        let report = vhdx::check(path, &CheckOptions { max_findings: 0 }).ok()?;
        let found = report.overlap()?;
        Some(format!("`{}` at byte {}: {}", path.display(), found.offset, found.message))
    })
}

fn disk_setting(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

fn open_finding(path: &Path, e: &vhdx::OpenError, request: &ImportRequest) -> Finding {
    let setting = disk_setting(path);
    let message = chain(e);
    match e.kind() {
        vhdx::OpenErrorKind::ParentMissing => {
            Finding::new(finding::DISK_PARENT_MISSING, Severity::Error, setting, message).fix("--disks DIR")
        }
        vhdx::OpenErrorKind::OutsideConfinement => {
            Finding::new(finding::DISK_OUTSIDE, Severity::Error, setting, message).fix("--disks DIR")
        }
        vhdx::OpenErrorKind::LinkageMismatch => {
            Finding::new(finding::DISK_PARENT_MISSING, Severity::Error, setting, message)
        }
        vhdx::OpenErrorKind::Checksum if !request.lenient => {
            Finding::new(finding::DISK_UNREADABLE, Severity::Error, setting, message).fix("--lenient")
        }
        _ => Finding::new(finding::DISK_UNREADABLE, Severity::Error, setting, message),
    }
}

/// Takes identity and geometry from the image: the leaf's content, under the base's name.
fn describe(disk: &mut PlannedDisk, image: &Image) {
    let layers = image.layers();
    disk.chain = layers.iter().filter_map(|l| l.path.clone()).collect();
    disk.virtual_size = image.virtual_size();
    disk.logical_sector_size = image.logical_sector_size();
    disk.physical_sector_size = image.physical_sector_size();
    let (Some(leaf), Some(base)) = (layers.first(), layers.last()) else { return };
    disk.format = match leaf.info.format {
        vhdx::Format::Vhd => DiskFormat::Vhd,
        vhdx::Format::Vhdx => DiskFormat::Vhdx,
    };
    disk.block_size = base.info.block_size;
    disk.fixed = base.info.kind == DiskKind::Fixed;
    disk.virtual_disk_id = leaf.info.disk_id;
    if layers.len() > 1
        && let Some(name) = base.path.as_deref().and_then(Path::file_name)
    {
        // A parent's name is the file's own: no rule has been kept by anybody who gave it.
        disk.name = safe_file_name(&name.to_string_lossy());
    }
}

/// Why QEMU cannot read the image where it is; `None` when it can.
fn register_problem(image: &Image) -> Option<String> {
    let layers = image.layers();
    if layers.len() > 1 {
        return Some("QEMU reads no differencing disk where it is".to_owned());
    }
    let leaf = layers.first()?;
    if leaf.info.log_pending {
        return Some("the disk has a pending log, which QEMU would have to write to the file".to_owned());
    }
    if image.logical_sector_size() != 512 {
        return Some("QEMU reads only disks of 512-byte logical sectors where they are".to_owned());
    }
    if !leaf.info.tolerated.is_empty() {
        return Some("QEMU refuses a disk with wrong checksums".to_owned());
    }
    None
}

/// Findings about what lies on the disks, and boot entries for loaders that only the old firmware knew.
pub(super) fn content(
    generation: Generation,
    disks: &mut [PlannedDisk],
    contents: &[Option<probe::DiskReport>],
    known_to_firmware: bool,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (disk, report) in disks.iter().zip(contents) {
        for p in report.iter().flat_map(|r| &r.partitions) {
            let (id, message) = match p.content {
                probe::Content::BitLocker => (
                    finding::BITLOCKER,
                    "is encrypted by BitLocker and will ask for its recovery key: have it at hand",
                ),
                probe::Content::Luks => (finding::LUKS, "is encrypted by LUKS and will ask for a passphrase"),
                _ => continue,
            };
            let severity = if id == finding::BITLOCKER { Severity::Warning } else { Severity::Info };
            found.push(Finding::new(
                id,
                severity,
                disk.name.clone(),
                format!("partition {} of `{}` {message}", p.index, disk.name),
            ));
        }
    }
    if disks.is_empty() || contents.iter().all(Option::is_none) {
        return found;
    }
    match generation {
        Generation::One => {
            if !contents.iter().flatten().any(|r| r.bios_bootable) {
                found.push(Finding::new(
                    finding::BOOT_LOADER,
                    Severity::Warning,
                    "disks",
                    "no disk has a boot record that a BIOS starts",
                ));
            }
        }
        Generation::Two => loaders(disks, contents, known_to_firmware, &mut found),
    }
    found
}

fn loaders(
    disks: &mut [PlannedDisk],
    contents: &[Option<probe::DiskReport>],
    known_to_firmware: bool,
    found: &mut Vec<Finding>,
) {
    if known_to_firmware || contents.iter().flatten().any(probe::DiskReport::has_fallback_loader) {
        return;
    }
    for (disk, report) in disks.iter_mut().zip(contents) {
        let Some(report) = report else { continue };
        let Some(loader) = report.best_loader() else { continue };
        let Some(p) = report.partition_of(loader) else { continue };
        let sector = u64::from(disk.logical_sector_size);
        disk.boot_entries.push(PlannedBootEntry {
            description: loader.vendor().to_owned(),
            partition: p.index,
            start_sector: p.offset / sector,
            sectors: p.length / sector,
            partition_id: p.partition_id,
            mbr_signature: match report.disk_id {
                Some(probe::DiskId::Mbr(signature)) => Some(signature),
                _ => None,
            },
            loader: loader.path.clone(),
        });
        found.push(Finding::new(
            finding::BOOT_ENTRY,
            Severity::Info,
            disk.name.clone(),
            format!(
                "boot loader `{}` was known only to the old firmware: a boot entry is added",
                loader.path
            ),
        ));
    }
    if disks.iter().all(|d| d.boot_entries.is_empty()) {
        found.push(Finding::new(
            finding::BOOT_LOADER,
            Severity::Warning,
            "disks",
            "no EFI boot loader was found on the disks",
        ));
    }
}

/// A source as the bytes that `probe` reads.
struct Reader<'a>(&'a dyn Source);

impl probe::ReadAt for Reader<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_at(buf, offset).map_err(|e| std::io::Error::other(chain(&e)))
    }
}

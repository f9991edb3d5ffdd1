//! `Msvm_ImageManagementService`: virtual disk files, by their Windows paths.
//!
//! What a file is and how it is are told at once; whatever writes is a job of the domain, shown as `Msvm_StorageJob`. Files
//! are no instances: nothing is associated with them.

use std::path::{Path, PathBuf};

use cim::{Instance, Value};
use machine::Reason;
use machine::disk::DiskFormat;
use machine::image::{Image, ImageEdit, ImageKind, Shape};
use uuid::Uuid;
use wsman::Output;

use crate::method::{Invocation, Refused, invalid};
use crate::{codes, fill, ids};

const SETTINGS: &str = "Msvm_VirtualHardDiskSettingData";
const STATE: &str = "Msvm_VirtualHardDiskState";
const PARAMETER: &str = "VirtualDiskSettingData";

/// `Type`s.
mod kind {
    pub(super) const FIXED: u16 = 2;
    pub(super) const DYNAMIC: u16 = 3;
    pub(super) const DIFFERENCING: u16 = 4;
}

/// `Format`s.
mod format {
    pub(super) const VHD: u16 = 2;
    pub(super) const VHDX: u16 = 3;
    pub(super) const SET: u16 = 4;
}

fn wrong(why: impl std::fmt::Display) -> Refused {
    invalid(PARAMETER, why)
}

fn unsupported(what: &str) -> Refused {
    Refused::new(Reason::NotSupported, format!("{what} are not made here"))
}

impl Invocation<'_> {
    /// The answer for what a job of image management does.
    fn stores(&self, job: Uuid) -> Output {
        let path = self.world.path("Msvm_StorageJob").with("InstanceID", ids::guid(job));
        Output::new(codes::STARTED).with("Job", Some(path.into()))
    }

    /// The caller, who may make and change files.
    fn configures(&self) -> Result<&str, Refused> {
        self.permit(None)?;
        Ok(&self.call.principal.user)
    }

    /// An instance of `class`, whole, as an output parameter carries it.
    fn shown(&self, class: &str, made: &Instance) -> Result<Value, Refused> {
        let class = self.schema().class(class).ok_or_else(|| invalid(class, "no class"))?;
        Ok(fill::whole(class, made).into())
    }
}

/// A number that settings give; none, or 0, is *as it is usual*.
fn given(settings: &Instance, name: &str) -> Result<Option<u64>, Refused> {
    match settings.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(0) => Ok(None),
            Some(number) => Ok(Some(number)),
            None => Err(wrong(format!("{name} is no number"))),
        },
    }
}

fn given_u32(settings: &Instance, name: &str) -> Result<Option<u32>, Refused> {
    let number = given(settings, name)?.map(u32::try_from).transpose();
    number.map_err(|_| wrong(format!("{name} is too large")))
}

/// An id that settings give, in braces or not.
fn given_id(settings: &Instance, name: &str) -> Result<Option<Uuid>, Refused> {
    let text = settings.text(name).filter(|text| !text.is_empty());
    let id = text.map(Uuid::try_parse).transpose();
    id.map_err(|e| wrong(format!("{name}: {e}")))
}

/// The settings that a parameter must carry.
fn settings(invocation: &Invocation<'_>) -> Result<Instance, Refused> {
    invocation.instance(PARAMETER, SETTINGS)?.ok_or_else(|| wrong("missing"))
}

/// The file that settings name.
fn path(invocation: &Invocation<'_>, settings: &Instance) -> Result<PathBuf, Refused> {
    let text = settings.text("Path").filter(|text| !text.is_empty());
    invocation.world.settings.paths.resolve(text.ok_or_else(|| wrong("Path is missing"))?)
}

/// The disk that settings ask for at `path`. Its size is what they say, or nothing.
fn shape(settings: &Instance, path: &Path) -> Result<Shape, Refused> {
    let number = |name: &str| settings.get(name).and_then(Value::as_u64).unwrap_or(0);
    let fixed = match u16::try_from(number("Type")) {
        Ok(kind::FIXED) => true,
        Ok(kind::DYNAMIC) => false,
        Ok(kind::DIFFERENCING) => return Err(unsupported("differencing disks")),
        _ => return Err(wrong(format!("Type: {} is none", number("Type")))),
    };
    let (format, extensions): (_, &[&str]) = match u16::try_from(number("Format")) {
        Ok(format::VHD) => (DiskFormat::Vhd, &["vhd"]),
        Ok(format::VHDX) => (DiskFormat::Vhdx, &["vhdx", "avhdx"]),
        Ok(format::SET) => return Err(unsupported("sets of virtual hard disks")),
        _ => return Err(wrong(format!("Format: {} is none", number("Format")))),
    };
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    if !extension.is_some_and(|extension| extensions.contains(&extension.as_str())) {
        return Err(wrong(format!("Path: the name of such a file ends in .{}", extensions[0])));
    }
    let physical = if format == DiskFormat::Vhd { 512 } else { 4096 };
    Ok(Shape {
        format,
        fixed,
        virtual_size: given(settings, "MaxInternalSize")?.unwrap_or(0),
        block_size: given_u32(settings, "BlockSize")?.unwrap_or(0),
        logical_sector_size: given_u32(settings, "LogicalSectorSize")?.unwrap_or(512),
        physical_sector_size: given_u32(settings, "PhysicalSectorSize")?.unwrap_or(physical),
        disk_id: given_id(settings, "VirtualDiskId")?.unwrap_or_default(),
    })
}

/// `CreateVirtualHardDisk`.
pub(crate) fn create(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let user = invocation.configures()?;
    let settings = settings(invocation)?;
    let path = path(invocation, &settings)?;
    let shape = shape(&settings, &path)?;
    Ok(invocation.stores(invocation.world.host.create_image(&path, &shape, user)?))
}

/// `CreateVirtualFloppyDisk`.
pub(crate) fn create_floppy(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let user = invocation.configures()?;
    Ok(invocation.stores(invocation.world.host.create_floppy(&invocation.file("Path")?, user)?))
}

/// `ConvertVirtualHardDisk`: into a new file; what was converted stays.
pub(crate) fn convert(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let user = invocation.configures()?;
    let from = invocation.file("SourcePath")?;
    let settings = settings(invocation)?;
    let path = path(invocation, &settings)?;
    let shape = shape(&settings, &path)?;
    Ok(invocation.stores(invocation.world.host.convert_image(&from, &path, &shape, user)?))
}

/// `ResizeVirtualHardDisk`.
pub(crate) fn resize(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let user = invocation.configures()?;
    let edit = ImageEdit { size: Some(invocation.number("MaxInternalSize")?), ..ImageEdit::default() };
    Ok(invocation.stores(invocation.world.host.edit_image(&invocation.file("Path")?, &edit, user)?))
}

/// `CompactVirtualHardDisk`. All modes give up what is zeros; what a file system in it has freed is not looked at.
pub(crate) fn compact(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let user = invocation.configures()?;
    if let Some(mode @ 5..) = invocation.given("Mode").and_then(Value::as_u64) {
        return Err(invalid("Mode", format!("{mode} is outside 0 to 4")));
    }
    Ok(invocation.stores(invocation.world.host.compact_image(&invocation.file("Path")?, user)?))
}

/// `ValidateVirtualHardDisk`.
pub(crate) fn validate(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let user = invocation.configures()?;
    Ok(invocation.stores(invocation.world.host.check_image(&invocation.file("Path")?, user)?))
}

/// `GetVirtualHardDiskSettingData`.
pub(crate) fn get_settings(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    invocation.permit(None)?;
    let image = invocation.world.host.image(&invocation.file("Path")?)?;
    let shown = invocation.shown(SETTINGS, &describe(invocation, &image)?)?;
    Ok(Output::new(0_u32).with("SettingData", Some(shown)))
}

fn describe(invocation: &Invocation<'_>, image: &Image) -> Result<Instance, Refused> {
    let paths = &invocation.world.settings.paths;
    let name = image.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut settings = Instance::new(SETTINGS)
        .with("ElementName", name)
        .with(
            "Type",
            match image.kind {
                ImageKind::Fixed => kind::FIXED,
                ImageKind::Dynamic => kind::DYNAMIC,
                ImageKind::Differencing => kind::DIFFERENCING,
            },
        )
        .with("Format", if image.format == DiskFormat::Vhd { format::VHD } else { format::VHDX })
        // As the client wrote it: the file may be reached by several names.
        .with("Path", invocation.text("Path")?)
        .with("MaxInternalSize", image.virtual_size)
        .with("BlockSize", image.block_size)
        .with("LogicalSectorSize", image.logical_sector_size)
        .with("PhysicalSectorSize", image.physical_sector_size)
        .with("VirtualDiskId", ids::guid(image.disk_id));
    if let Some(parent) = &image.parent {
        let file = parent.file.as_ref().map(|file| paths.shown(file));
        settings.set("ParentPath", file.or_else(|| parent.recorded.clone()).map(Value::from));
        settings.set("ParentIdentifier", Some(ids::guid(parent.id).into()));
    }
    Ok(settings)
}

/// `GetVirtualHardDiskState`. How far a file is fragmented is not known.
pub(crate) fn get_state(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    invocation.permit(None)?;
    let now = invocation.world.host.image_state(&invocation.file("Path")?)?;
    let mut state = Instance::new(STATE)
        .with("FileSize", now.file_size)
        .with("InUse", now.in_use)
        .with("PhysicalSectorSize", now.physical_sector_size);
    state.set("MinInternalSize", now.smallest.map(Value::from));
    // 0 is *512 bytes*, 1 *4 KB*.
    state.set("Alignment", now.aligned.map(|aligned| u32::from(aligned).into()));
    let shown = invocation.shown(STATE, &state)?;
    Ok(Output::new(0_u32).with("State", Some(shown)))
}

/// `SetVirtualHardDiskSettingData`: one of the parent, the physical sector size and the identity, of which the first is not
/// changed here. What is said as it is does not count, since clients send back what they were given.
pub(crate) fn set_settings(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let user = invocation.configures()?;
    let settings = settings(invocation)?;
    let path = path(invocation, &settings)?;
    let host = &invocation.world.host;
    let now = host.image(&path)?;
    let edit = ImageEdit {
        physical_sector_size: given_u32(&settings, "PhysicalSectorSize")?
            .filter(|bytes| *bytes != now.physical_sector_size),
        disk_id: given_id(&settings, "VirtualDiskId")?.filter(|id| *id != now.disk_id),
        size: None,
    };
    let parent = now.parent.as_ref().and_then(|parent| {
        let file = parent.file.as_ref().map(|file| invocation.world.settings.paths.shown(file));
        file.or_else(|| parent.recorded.clone())
    });
    if settings.text("ParentPath").is_some_and(|text| !text.is_empty() && Some(text) != parent.as_deref()) {
        return Err(unsupported("new parents of differencing disks"));
    }
    match (edit.physical_sector_size, edit.disk_id) {
        (None, None) => Ok(Output::new(0_u32)),
        (Some(_), Some(_)) => Err(wrong("PhysicalSectorSize and VirtualDiskId: one at a time")),
        (None, Some(_)) if now.format == DiskFormat::Vhd => Err(wrong("VirtualDiskId: only of a VHDX")),
        _ => Ok(invocation.stores(host.edit_image(&path, &edit, user)?)),
    }
}

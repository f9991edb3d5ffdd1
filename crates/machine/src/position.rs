//! Places on storage controllers, for callers who choose them: a controller, a drive, what is in it.
//!
//! Who only wants a disk lets [`crate::define`] find a place.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::device_ids;
use crate::define::NewDisk;
use crate::error::{Error, Reason, Result};
use crate::settings::{Controller, ControllerKind, Drive, Generation, Media, Settings};

/// What is put into one position of a controller, for callers who choose the place; whatever is there goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionEdit {
    /// The controller's device instance id.
    pub controller: Uuid,
    /// Its number among those of that id.
    pub number: u32,
    /// The slot.
    pub slot: u32,
    /// What comes there.
    pub put: Put,
}

/// What can be in a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Put {
    /// Nothing. A disk that was there is no longer the machine's; its files stay.
    Nothing,
    /// A drive without a disk, which no guest sees.
    Drive,
    /// A disk.
    Disk(NewDisk),
    /// A DVD drive, perhaps with an image.
    Dvd(Option<PathBuf>),
}

/// [`Media::Other`] of a drive without a disk.
pub const EMPTY_DRIVE: &str = "empty drive";

/// Most controllers that Hyper-V gives a machine of each kind.
const MAX_SCSI: usize = 4;
const MAX_IDE: usize = 2;

/// Adds an empty controller.
pub(crate) fn add_controller(
    settings: &mut Settings,
    kind: ControllerKind,
    ids: &dyn Fn() -> Uuid,
) -> Result<()> {
    let there = settings.controllers.iter().filter(|c| c.kind == kind).count();
    let (instance, number, most) = match kind {
        ControllerKind::Ide if settings.generation == Generation::One => (device_ids::IDE, there, MAX_IDE),
        ControllerKind::Scsi => (ids(), 0, MAX_SCSI),
        _ => {
            return Err(Error::new(
                Reason::InvalidArgument,
                "a machine of this generation has no such controller",
            ));
        }
    };
    if there >= most {
        return Err(Error::new(
            Reason::InvalidArgument,
            format!("a machine has at most {most} of these controllers"),
        ));
    }
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    settings.controllers.push(Controller { kind, instance, number, drives: Vec::new() });
    Ok(())
}

impl PositionEdit {
    /// Does it; `disk` is the one made for [`Put::Disk`]. Gives back the disk that was there.
    pub(crate) fn apply(&self, settings: &mut Settings, disk: Option<Uuid>) -> Result<Option<Uuid>> {
        let media = match &self.put {
            Put::Nothing => None,
            Put::Drive => Some(Media::Other { kind: EMPTY_DRIVE.to_owned() }),
            Put::Dvd(image) => {
                if let Some(path) = image {
                    fs::metadata(path).map_err(|e| Error::io("open DVD image", path, e))?;
                }
                Some(Media::Dvd { image: image.clone() })
            }
            Put::Disk(_) => disk.map(|disk| Media::Disk { disk }),
        };
        let found = settings
            .controllers
            .iter_mut()
            .find(|c| c.instance == self.controller && c.number == self.number);
        let controller =
            found.ok_or_else(|| Error::new(Reason::NotFound, "the machine has no such controller"))?;
        let slots = if controller.kind == ControllerKind::Scsi { 64 } else { 2 };
        if self.slot >= slots {
            return Err(Error::new(
                Reason::InvalidArgument,
                format!("slot {} is outside 0 to {}", self.slot, slots - 1),
            ));
        }
        let at = controller.drives.iter().position(|d| d.slot == self.slot);
        let gone = at.map(|at| controller.drives.remove(at).media);
        if let Some(media) = media {
            controller.drives.push(Drive { slot: self.slot, media });
            controller.drives.sort_by_key(|d| d.slot);
        }
        Ok(match gone {
            Some(Media::Disk { disk }) => Some(disk),
            _ => None,
        })
    }
}

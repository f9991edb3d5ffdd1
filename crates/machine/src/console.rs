//! A person's way into a running guest: its screen, its keyboard, its serial console.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use engine::PictureFormat;
use engine::keys::{self, Chord};
use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::host::Host;

/// What a guest's display showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub media_type: &'static str,
}

/// Where a guest's console is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsolePlaces {
    /// Whether a guest runs; if not, only its log is left.
    pub live: bool,
    /// Unix socket of the first serial port; one client at a time.
    pub serial_socket: Option<PathBuf>,
    /// Everything that port sent since this start.
    pub serial_log: Option<PathBuf>,
    /// Unix socket that speaks VNC.
    pub vnc_socket: Option<PathBuf>,
}

impl Host {
    /// What this host has and lacks for running guests. May take seconds the first time.
    pub fn report(&self) -> engine::HostReport {
        self.engine.probe()
    }

    /// Where the console of machine `id` is. Of a machine that is off, what its last guest said while this daemon ran.
    ///
    /// # Errors
    /// No guest runs, and none left a log.
    pub fn console(&self, id: Uuid) -> Result<ConsolePlaces> {
        let last = self.cell(id).lock().last_log.clone().filter(|log| log.exists());
        let guest = match (self.guest(id), last) {
            (Ok(guest), _) => guest,
            (Err(_), Some(log)) => {
                return Ok(ConsolePlaces {
                    live: false,
                    serial_socket: None,
                    serial_log: Some(log),
                    vnc_socket: None,
                });
            }
            (Err(e), None) => return Err(e),
        };
        Ok(ConsolePlaces {
            live: true,
            serial_socket: guest.serial_socket(0),
            serial_log: guest.serial_log(0),
            vnc_socket: guest.vnc_socket(),
        })
    }

    /// What the display of machine `id` shows; refused when the picture is larger than `max` bytes.
    ///
    /// # Errors
    /// No guest runs, or it has no picture to give.
    pub fn screenshot(&self, id: Uuid, max: u64) -> Result<Picture> {
        let (record, _) = self.record(id)?;
        let guest = self.guest(id)?;
        // The engine writes it, so it must be where the engine may write.
        let dir = self.places(&record).runtime;
        let path = dir.join(format!("screen-{}.tmp", Uuid::new_v4().simple()));
        let taken = guest.screenshot(&path).map_err(|e| {
            Error::new(Reason::Engine, format!("cannot take a picture of `{}`", record.settings.name))
                .caused_by(e)
        });
        let read = || {
            let mut bytes = Vec::new();
            fs::File::open(&path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let picture = taken.and_then(|format| {
            let bytes = read().map_err(|e| Error::io("read picture", &path, e))?;
            if bytes.len() as u64 > max {
                return Err(Error::new(Reason::Engine, format!("the picture is larger than {max} bytes")));
            }
            let media_type = match format {
                PictureFormat::Png => "image/png",
                PictureFormat::Ppm => "image/x-portable-pixmap",
            };
            Ok(Picture { bytes, media_type })
        });
        let _ = fs::remove_file(&path);
        picture
    }

    /// Types `text` as on a US keyboard, then presses each of `chords` (`ctrl-alt-del`), on machine `id`.
    ///
    /// # Errors
    /// A key has no name, nothing was given, or no guest runs.
    pub fn send_keys(&self, id: Uuid, text: Option<&str>, chords: &[String]) -> Result<()> {
        let bad = |e: keys::KeyError| Error::new(Reason::InvalidArgument, e.to_string());
        let mut presses = match text {
            Some(text) => keys::from_text(text).map_err(bad)?,
            None => Vec::new(),
        };
        for chord in chords {
            presses.push(chord.parse::<Chord>().map_err(bad)?);
        }
        if presses.is_empty() {
            return Err(Error::new(Reason::InvalidArgument, "no keys were given"));
        }
        if presses.len() > keys::MAX_TEXT {
            return Err(Error::new(
                Reason::InvalidArgument,
                format!("more than {} keys at once", keys::MAX_TEXT),
            ));
        }
        let guest = self.guest(id)?;
        guest
            .send_keys(&presses)
            .map_err(|e| Error::new(Reason::Engine, "the guest took no keys").caused_by(e))
    }
}

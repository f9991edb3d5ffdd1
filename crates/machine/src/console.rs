//! A person's way into a running guest: its screen, its keyboard, its serial console.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use engine::keys::{self, Chord, Key, Stroke};
use engine::{PictureFormat, RunState};
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

/// What a guest's display showed, pixel by pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    width: usize,
    height: usize,
    /// A PPM; the pixels begin at `at`, three bytes each.
    bytes: Vec<u8>,
    at: usize,
}

impl Pixels {
    /// Those of a PPM (`P6`, 8 bits a colour) as engines write it; none when it is not that.
    fn of_ppm(bytes: Vec<u8>) -> Option<Self> {
        let mut at = 0;
        let mut word = || {
            let rest = bytes.get(at..)?;
            let length = rest.iter().position(u8::is_ascii_whitespace).filter(|length| *length < 16)?;
            at += length + 1;
            std::str::from_utf8(rest.get(..length)?).ok()
        };
        let plain = word()? == "P6";
        let (width, height) = (word()?.parse::<usize>().ok()?, word()?.parse::<usize>().ok()?);
        let deep = word()? == "255";
        let needed = width.checked_mul(height)?.checked_mul(3)?;
        let whole = plain && deep && width > 0 && height > 0 && bytes.len() - at >= needed;
        whole.then_some(Self { width, height, bytes, at })
    }

    /// Red, green and blue of one pixel of a smaller or larger picture: number `x` of so many in a row, in row `y` of so
    /// many. The mean of the pixels that it stands for; numbers beyond the picture are its edge.
    pub fn average(&self, (x, width): (usize, usize), (y, height): (usize, usize)) -> [u8; 3] {
        let span = |n: usize, of: usize, size: usize| {
            let first = (n * size / of.max(1)).min(size - 1);
            first..((n + 1) * size / of.max(1)).clamp(first + 1, size)
        };
        let (mut sum, mut count) = ([0_u64; 3], 0);
        for row in span(y, height, self.height) {
            for column in span(x, width, self.width) {
                let at = self.at + (row * self.width + column) * 3;
                for (sum, colour) in sum.iter_mut().zip(&self.bytes[at..]) {
                    *sum += u64::from(*colour);
                }
                count += 1;
            }
        }
        sum.map(|sum| (sum / count) as u8)
    }
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
        let (bytes, format) = self.picture(id, PictureFormat::Png, max)?;
        let media_type = match format {
            PictureFormat::Png => "image/png",
            PictureFormat::Ppm => "image/x-portable-pixmap",
        };
        Ok(Picture { bytes, media_type })
    }

    /// The same as pixels, for whoever makes another picture of it.
    ///
    /// # Errors
    /// As [`Self::screenshot`].
    pub fn pixels(&self, id: Uuid, max: u64) -> Result<Pixels> {
        let (bytes, _) = self.picture(id, PictureFormat::Ppm, max)?;
        Pixels::of_ppm(bytes)
            .ok_or_else(|| Error::new(Reason::Engine, "the engine gave a picture that cannot be read"))
    }

    fn picture(&self, id: Uuid, wanted: PictureFormat, max: u64) -> Result<(Vec<u8>, PictureFormat)> {
        let (record, _) = self.record(id)?;
        let guest = self.guest(id)?;
        // The engine writes it, so it must be where the engine may write.
        let dir = self.places(&record).runtime;
        let path = dir.join(format!("screen-{}.tmp", Uuid::new_v4().simple()));
        let taken = guest.screenshot(&path, wanted).map_err(|e| {
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
            Ok((bytes, format))
        });
        let _ = fs::remove_file(&path);
        picture
    }

    /// Presses the key called `key` on machine `id` and holds it down, or lets it go.
    ///
    /// # Errors
    /// No key is called that, no guest runs, or its processors stand.
    pub fn hold(&self, id: Uuid, key: &str, down: bool) -> Result<()> {
        self.strokes(id, &[Stroke { key: named(key)?, down }])
    }

    /// Whether the key called `key` is held down on machine `id` by [`Self::hold`] or [`Self::scan_codes`].
    ///
    /// # Errors
    /// No key is called that, or no guest runs.
    pub fn is_held(&self, id: Uuid, key: &str) -> Result<bool> {
        let key = named(key)?;
        self.guest(id)?;
        Ok(self.cell(id).lock().held.contains(&key))
    }

    /// Gives machine `id` what a keyboard controller gives: scan codes of set 1.
    ///
    /// # Errors
    /// A code is no key's, nothing was given, no guest runs, or its processors stand.
    pub fn scan_codes(&self, id: Uuid, codes: &[u8]) -> Result<()> {
        let strokes = keys::from_scan_codes(codes);
        self.strokes(id, &strokes.map_err(|e| Error::new(Reason::InvalidArgument, e.to_string()))?)
    }

    fn strokes(&self, id: Uuid, strokes: &[Stroke]) -> Result<()> {
        if strokes.is_empty() {
            return Err(Error::new(Reason::InvalidArgument, "no keys were given"));
        }
        let guest = self.guest(id)?;
        if matches!(guest.state(), RunState::Paused | RunState::Frozen) {
            return Err(Error::new(Reason::InvalidState, "a guest whose processors stand takes no keys"));
        }
        let taken = guest.strokes(strokes);
        taken.map_err(|e| Error::new(Reason::Engine, "the guest took no keys").caused_by(e))?;
        let cell = self.cell(id);
        let mut running = cell.lock();
        for stroke in strokes {
            running.held.retain(|key| *key != stroke.key);
            if stroke.down {
                running.held.push(stroke.key);
            }
        }
        Ok(())
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

fn named(key: &str) -> Result<Key> {
    key.parse().map_err(|e: keys::KeyError| Error::new(Reason::InvalidArgument, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::Pixels;

    #[test]
    fn a_picture_is_made_smaller_by_its_means_and_larger_by_its_pixels() {
        let mut ppm = b"P6\n2 2\n255\n".to_vec();
        ppm.extend([0, 0, 0, 100, 0, 0, 0, 200, 0, 100, 200, 40]);
        let pixels = Pixels::of_ppm(ppm.clone()).unwrap();
        assert_eq!(pixels.average((0, 1), (0, 1)), [50, 100, 10]);
        assert_eq!(pixels.average((1, 2), (1, 2)), [100, 200, 40]);
        assert_eq!(pixels.average((7, 8), (0, 8)), [100, 0, 0]);
        for bad in [&b"P6\n2 2\n255\n"[..], b"P5\n1 1\n255\nabc", b"P6\n0 1\n255\n", b"P6 1 1 255", b""] {
            assert_eq!(Pixels::of_ppm(bad.to_vec()), None, "{bad:?}");
        }
        ppm.pop();
        assert_eq!(Pixels::of_ppm(ppm), None);
    }
}

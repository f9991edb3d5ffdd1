//! Seeing whether anybody opens a file, by the kernel's own account.

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Directories being watched: for opening what is in them, or for changing it.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Sees who opens or changes a file in `folders`, or makes or removes one.
    ///
    /// # Errors
    /// Why nothing can be watched here.
    pub fn on<'a>(folders: impl IntoIterator<Item = &'a Path>) -> Result<Self, String> {
        let seen = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|e| format!("inotify: {e}"))?;
        for folder in folders {
            let what = WatchFlags::OPEN
                | WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVE
                | WatchFlags::ONLYDIR;
            add_watch(&seen, folder, what).map_err(|e| format!("inotify on {}: {e}", folder.display()))?;
        }
        Ok(Self(seen))
    }

    /// What happened to files since the last time, each once: its name and what. Looking at the directories themselves does
    /// not count.
    ///
    /// # Panics
    /// When the kernel says something that is no event.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let mut buffer = [const { MaybeUninit::uninit() }; 16 << 10];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::ISDIR) => {}
                Ok(event) => {
                    let name =
                        event.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                    let text = format!("{name}: {:?}", event.events());
                    if !events.contains(&text) {
                        events.push(text);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return events,
                Err(e) => panic!("inotify: {e}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn who_opens_a_file_is_seen_and_who_only_looks_is_not() {
        let scratch = crate::Scratch::new();
        let secret = scratch.join("secret");
        fs::write(&secret, "x").expect("written");
        let Ok(watch) = Watch::on([scratch.path()]) else { crate::skip!("no inotify here") };
        let _ = (fs::metadata(&secret), fs::canonicalize(&secret), fs::read_dir(scratch.path()));
        assert_eq!(watch.events(), Vec::<String>::new());
        fs::read(&secret).expect("read");
        assert_eq!(watch.events().len(), 1);
        fs::write(scratch.join("new"), "").expect("written");
        assert!(!watch.events().is_empty());
    }
}

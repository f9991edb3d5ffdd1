//! Imports in place as a Hyper-V of 2008 does them: the export becomes the machine's own folder, once.
//!
//! What tells is the name of the configuration: `GUID.exp` may be imported in place, `GUID.xml` is some machine's. One
//! rename goes from the one to the other, so there is nothing between.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Calls the configuration at `exported` (`GUID.exp`) `GUID.xml`; fine when that was done before.
///
/// # Errors
/// There is neither, there are both, or what the operating system says.
pub fn make_live(exported: &Path) -> io::Result<()> {
    change(exported, &exported.with_extension("xml"))
}

/// Takes [`make_live`] back.
///
/// # Errors
/// As there.
pub fn make_export(exported: &Path) -> io::Result<()> {
    change(&exported.with_extension("xml"), exported)
}

fn change(from: &Path, to: &Path) -> io::Result<()> {
    match (from.symlink_metadata().is_ok(), to.symlink_metadata().is_ok()) {
        (true, true) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there under both names"));
        }
        (false, true) => {}
        (_, false) => fs::rename(from, to)?,
    }
    // Also when it was renamed before: by somebody who died before it was durable.
    match to.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_live_and_back_again() {
        let dir = tempfile::tempdir().unwrap();
        let (exp, xml) = (dir.path().join("a.exp"), dir.path().join("a.xml"));
        assert!(make_live(&exp).is_err(), "there is none");
        fs::write(&exp, "1").unwrap();
        for _ in 0..2 {
            make_live(&exp).unwrap();
            assert_eq!((exp.exists(), fs::read_to_string(&xml).unwrap().as_str()), (false, "1"));
        }
        for _ in 0..2 {
            make_export(&exp).unwrap();
            assert_eq!((xml.exists(), fs::read_to_string(&exp).unwrap().as_str()), (false, "1"));
        }
        fs::write(&xml, "2").unwrap();
        assert_eq!(make_live(&exp).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&xml).unwrap(), "2", "nothing is overwritten");
    }
}

//! How long the file of a disk being written is, ahead of what is written into it.
//!
//! A change of length waits for every direct transfer under way and holds up those that would begin, and so does a write
//! past the end: made once per block, such changes take a quarter of an export's time. So the file is grown by half of
//! what it has, within bounds. What is too much is a hole; the writers cut it off when they finish.

use std::io;

use crate::limits::MIB;
use crate::storage::Storage;

/// Least growth in bytes: small blocks do not cost a change each.
const LEAST: u64 = 32 * MIB;
/// Most growth in bytes: what a host without sparse files fills with zeros for nothing.
const MOST: u64 = 1024 * MIB;

/// The length in bytes that a file has been given.
#[derive(Debug)]
pub(crate) struct Length(u64);

impl Length {
    /// Of a file that is `length` long.
    pub(crate) fn new(length: u64) -> Self {
        Self(length)
    }

    /// Makes the file at least `end` long.
    pub(crate) fn reach(&mut self, storage: &dyn Storage, end: u64) -> io::Result<()> {
        if end <= self.0 {
            return Ok(());
        }
        // Whole MiB, as a VHDX is also when its writer dies.
        let ahead = end.max((self.0 + (self.0 / 2).clamp(LEAST, MOST)).next_multiple_of(MIB));
        self.0 = match storage.set_len(ahead) {
            Ok(()) => ahead,
            // A host that refuses so long a file may grant what is needed now.
            Err(_) if ahead > end => storage.set_len(end).map(|()| end)?,
            Err(error) => return Err(error),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A file that may have at most so many bytes, and what it was asked for.
    #[derive(Debug)]
    struct Bounded(u64, Mutex<Vec<u64>>);

    impl Storage for Bounded {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.1.lock().unwrap().push(len);
            if len > self.0 { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_large_file_changes_its_length_seldom() {
        let file = Bounded(u64::MAX, Mutex::default());
        let mut length = Length::new(4 * MIB);
        for block in 1..=8 << 10 {
            length.reach(&file, 4 * MIB + block * MIB).unwrap();
        }
        let asked = file.1.into_inner().unwrap();
        assert!(asked.len() < 20, "{asked:?}");
        assert!(asked.iter().all(|length| length.is_multiple_of(MIB)), "{asked:?}");
        assert!(asked.is_sorted() && *asked.last().unwrap() <= (9 << 10) * MIB + 4 * MIB, "{asked:?}");
    }

    #[test]
    fn a_host_with_a_limit_is_used_up_to_it() {
        let file = Bounded(50 * MIB, Mutex::default());
        let mut length = Length::new(4 * MIB);
        for end in [10, 40, 49, 50] {
            length.reach(&file, end * MIB).unwrap();
        }
        assert_eq!(length.reach(&file, 51 * MIB).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(file.1.into_inner().unwrap()[..3], [36 * MIB, 68 * MIB, 40 * MIB]);
    }
}

//! The digest of a disk's content: a sparse list of chunk digests, and one root over it.
//!
//! Algorithm `b3-chunks-v1` (docs/formats/package.md is the specification): the virtual disk is cut into chunks of 1 MiB,
//! the last one shorter when the size does not divide. A chunk whose bytes are all zero has no entry. Every other chunk
//! has the BLAKE3 digest of its bytes. The root is BLAKE3 over the algorithm's name, the disk's size, the chunk size, each
//! entry (chunk index, digest) in ascending order, and their number. So a digest costs time and space in proportion to
//! the data, not to the size of the disk; two disks of one size have equal roots exactly when their content is equal;
//! and one chunk can be proven from the list alone.
//!
//! [`Sidecar`] and [`SidecarWriter`] are the list as a file. Reading disks is `copy`'s work.

use std::fmt;
use std::io;
use std::str::FromStr;

use vhdx::Storage;

/// Name of the algorithm, as manifests carry it.
pub const ALGORITHM: &str = "b3-chunks-v1";
/// Bytes per chunk.
pub const CHUNK_SIZE: u64 = 1 << 20;

/// A BLAKE3 digest of 32 bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotADigest);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(NotADigest);
            *byte = u8::try_from(nibble(pair[0])? * 16 + nibble(pair[1])?).map_err(|_| NotADigest)?;
        }
        Ok(Self(digest))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Number of chunks of a disk of `size` bytes.
pub fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_SIZE)
}

/// The root, fed with the entries in ascending order.
#[derive(Clone, Debug)]
pub struct RootHasher {
    hasher: blake3::Hasher,
    entries: u64,
}

impl RootHasher {
    /// For a disk of `size` bytes.
    pub fn new(size: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(ALGORITHM.as_bytes());
        hasher.update(b"\n");
        hasher.update(&size.to_le_bytes());
        hasher.update(&CHUNK_SIZE.to_le_bytes());
        Self { hasher, entries: 0 }
    }

    /// Adds the entry of chunk `index`, which must be above all earlier ones.
    pub fn push(&mut self, index: u64, digest: &Digest) {
        self.hasher.update(&index.to_le_bytes());
        self.hasher.update(&digest.0);
        self.entries += 1;
    }

    /// Entries so far, that is chunks which are not all zero.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The root.
    pub fn finish(mut self) -> Digest {
        self.hasher.update(&self.entries.to_le_bytes());
        Digest(*self.hasher.finalize().as_bytes())
    }
}

/// Start of every sidecar file; the last byte is its version.
const MAGIC: [u8; 8] = *b"SLIPB3\0\x01";
/// Magic, disk size, chunk size, eight reserved zero bytes.
const HEADER: u64 = 32;
/// Chunk index and digest.
const RECORD: u64 = 40;
/// Records held in memory at a time by readers and writers.
const PAGE_RECORDS: usize = 4096;

/// Writes the list as a file, in ascending order, in large pieces.
///
/// Layout: `SLIPB3\0\x01`, disk size u64, chunk size u64, 8 zero bytes; then records of chunk index u64 and 32 digest
/// bytes; all little-endian. The number of records follows from the file's length.
#[derive(Debug)]
pub struct SidecarWriter<'a> {
    storage: &'a dyn Storage,
    pending: Vec<u8>,
    written: u64,
}

impl<'a> SidecarWriter<'a> {
    /// Begins a list for a disk of `size` bytes; what `storage` held is dropped.
    ///
    /// # Errors
    /// What the storage says.
    pub fn create(storage: &'a dyn Storage, size: u64) -> io::Result<Self> {
        storage.set_len(0)?;
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend(MAGIC);
        header.extend(size.to_le_bytes());
        header.extend(CHUNK_SIZE.to_le_bytes());
        header.extend([0; 8]);
        storage.write_at(&header, 0)?;
        Ok(Self { storage, pending: Vec::new(), written: 0 })
    }

    /// Goes on after `records` records of an existing list; later ones are cut off.
    ///
    /// # Errors
    /// What the storage says.
    pub fn resume(storage: &'a dyn Storage, records: u64) -> io::Result<Self> {
        storage.set_len(records.saturating_mul(RECORD).saturating_add(HEADER))?;
        Ok(Self { storage, pending: Vec::new(), written: records })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// What the storage says.
    pub fn push(&mut self, index: u64, digest: &Digest) -> io::Result<()> {
        self.pending.extend(index.to_le_bytes());
        self.pending.extend(digest.0);
        if self.pending.len() >= PAGE_RECORDS * RECORD as usize { self.flush() } else { Ok(()) }
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.written + self.pending.len() as u64 / RECORD
    }

    /// Writes what is pending; does not sync.
    ///
    /// # Errors
    /// What the storage says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.storage.write_at(&self.pending, HEADER + self.written * RECORD)?;
        self.written += self.pending.len() as u64 / RECORD;
        self.pending.clear();
        Ok(())
    }

    /// Writes what is pending and returns once the whole list would survive power loss.
    ///
    /// # Errors
    /// What the storage says.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.storage.sync()
    }
}

/// Reads a list, paged; every record is checked for order and range as it comes.
#[derive(Debug)]
pub struct Sidecar<'a> {
    storage: &'a dyn Storage,
    size: u64,
    records: u64,
    next: u64,
    floor: u64,
    page: Vec<u8>,
    at: usize,
}

impl<'a> Sidecar<'a> {
    /// Opens a list.
    ///
    /// # Errors
    /// `InvalidData` naming the broken rule, or what the storage says.
    pub fn open(storage: &'a dyn Storage) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let length = storage.len()?;
        if length < HEADER || !(length - HEADER).is_multiple_of(RECORD) {
            return Err(invalid("digest list has an impossible length"));
        }
        let mut header = [0; HEADER as usize];
        storage.read_at(&mut header, 0)?;
        let number = |at: usize| {
            header.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).unwrap_or_default()
        };
        if header[..8] != MAGIC {
            return Err(invalid("digest list does not start with its signature"));
        }
        if number(16) != CHUNK_SIZE {
            return Err(invalid("digest list has an unknown chunk size"));
        }
        let (size, records) = (number(8), (length - HEADER) / RECORD);
        if records > chunk_count(size) {
            return Err(invalid("digest list has more records than the disk has chunks"));
        }
        Ok(Self { storage, size, records, next: 0, floor: 0, page: Vec::new(), at: 0 })
    }

    /// Size in bytes of the disk that the list describes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of records.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Looks at no more than the first `records`.
    pub fn truncate(&mut self, records: u64) {
        self.records = self.records.min(records);
    }

    /// Reads the whole list and returns its root.
    ///
    /// # Errors
    /// As [`Self::read_next`].
    pub fn root(mut self) -> io::Result<Digest> {
        let mut root = RootHasher::new(self.size);
        while let Some((index, digest)) = self.read_next()? {
            root.push(index, &digest);
        }
        Ok(root.finish())
    }

    /// The next record, `None` after the last.
    ///
    /// # Errors
    /// `InvalidData` for a record out of order or beyond the disk, or what the storage says.
    pub fn read_next(&mut self) -> io::Result<Option<(u64, Digest)>> {
        if self.at == self.page.len() {
            if self.next == self.records {
                return Ok(None);
            }
            let count = (self.records - self.next).min(PAGE_RECORDS as u64);
            self.page.resize((count * RECORD) as usize, 0);
            self.storage.read_at(&mut self.page, HEADER + self.next * RECORD)?;
            self.next += count;
            self.at = 0;
        }
        let (index, digest) = self.page[self.at..self.at + RECORD as usize].split_at(8);
        self.at += RECORD as usize;
        let index = index.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
        let digest = Digest(digest.try_into().unwrap_or_default());
        if index < self.floor || index >= chunk_count(self.size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("digest list has chunk {index} out of order or beyond the disk"),
            ));
        }
        self.floor = index + 1;
        Ok(Some((index, digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vhdx::MemoryStorage;

    #[test]
    fn the_root_is_what_the_document_says() {
        // Computed by hand from the definition, not by RootHasher.
        let one = Digest::of(&[7; 1 << 20]);
        let tail = Digest::of(&[9; 5]);
        let mut root = RootHasher::new((3 << 20) + 5);
        root.push(1, &one);
        root.push(3, &tail);
        let mut text = Vec::new();
        text.extend(b"b3-chunks-v1\n");
        text.extend(((3_u64 << 20) + 5).to_le_bytes());
        text.extend((1_u64 << 20).to_le_bytes());
        text.extend(1_u64.to_le_bytes());
        text.extend(one.0);
        text.extend(3_u64.to_le_bytes());
        text.extend(tail.0);
        text.extend(2_u64.to_le_bytes());
        assert_eq!(root.finish(), Digest::of(&text));
        assert_eq!(one.to_string().parse::<Digest>().unwrap(), one);
        assert!("0g".repeat(32).parse::<Digest>().is_err());
        assert!("00".parse::<Digest>().is_err());
    }

    #[test]
    fn a_list_survives_its_file_and_resumes() {
        let storage = MemoryStorage::default();
        let size = 20_000 * CHUNK_SIZE;
        let mut writer = SidecarWriter::create(&storage, size).unwrap();
        let mut expected = RootHasher::new(size);
        let digest = |i: u64| Digest::of(&i.to_le_bytes());
        for index in (0..10_000).map(|i| i * 2) {
            writer.push(index, &digest(index)).unwrap();
            expected.push(index, &digest(index));
        }
        writer.sync().unwrap();
        assert_eq!(writer.records(), 10_000);
        assert_eq!(Sidecar::open(&storage).unwrap().root().unwrap(), expected.clone().finish());

        let mut writer = SidecarWriter::resume(&storage, 5_000).unwrap();
        for index in (5_000..10_000).map(|i| i * 2) {
            writer.push(index, &digest(index)).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(Sidecar::open(&storage).unwrap().root().unwrap(), expected.finish());
    }

    #[test]
    fn bad_lists_are_refused() {
        let storage = MemoryStorage::default();
        let mut writer = SidecarWriter::create(&storage, 4 * CHUNK_SIZE).unwrap();
        writer.push(2, &Digest([1; 32])).unwrap();
        writer.push(2, &Digest([1; 32])).unwrap();
        writer.flush().unwrap();
        assert!(Sidecar::open(&storage).unwrap().root().is_err(), "repeated");
        let good = storage.snapshot();
        for (at, what) in [(0, "magic"), (18, "chunk size"), (8, "more records than chunks")] {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            bytes[10] = 0; // Size below one chunk for the third case.
            assert!(Sidecar::open(&MemoryStorage::new(bytes)).is_err(), "{what}");
        }
        assert!(Sidecar::open(&MemoryStorage::new(good[..good.len() - 1].to_vec())).is_err(), "length");
        assert!(Sidecar::open(&MemoryStorage::new(Vec::new())).is_err(), "empty");
    }
}

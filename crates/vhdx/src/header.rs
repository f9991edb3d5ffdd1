//! The file identifier and the pair of headers: which one counts, and how the pair is changed.
//!
//! A header update writes the copy that is not current with the next sequence number and syncs, then the other the
//! same way, so that a torn write always leaves one valid copy. Log content is `log`'s part.

use std::io;

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use crate::error::Fault;
use crate::format::{
    FileIdentifier, Guid, HEADER_LENGTH, HEADER_SIGNATURE, IDENTIFIER_SIGNATURE, LOG_VERSION, RawHeader,
    VERSION, checksum, place, seal, stored_checksum,
};
use crate::limits::{MAX_FILE_OFFSET, MIB};
use crate::storage::Storage;

/// What one header copy was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// Signature and checksum are right.
    Valid(RawHeader),
    /// The signature is right, the checksum is not.
    BadChecksum(RawHeader),
    /// Not a header at all, or beyond the end of the file.
    Absent,
}

/// The header that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Which copy it is.
    pub(crate) copy: usize,
    /// Greater than that of the other copy, or equal (disk2vhd writes both the same).
    pub(crate) sequence: u64,
    /// See [`RawHeader`].
    pub(crate) file_write: Uuid,
    /// See [`RawHeader`].
    pub(crate) data_write: Uuid,
    /// `None`: the log is empty.
    pub(crate) log: Option<Guid>,
    /// Bounded and aligned.
    pub(crate) log_offset: u64,
    /// Bounded and aligned.
    pub(crate) log_length: u32,
    /// Taken in spite of its checksum.
    pub(crate) checksum_ignored: bool,
}

/// Both copies as they are.
pub(crate) fn read_copies(storage: &dyn Storage) -> Result<[Copy; 2], Fault> {
    let mut copies = [Copy::Absent; 2];
    for (copy, offset) in copies.iter_mut().zip(place::HEADERS) {
        let mut bytes = [0; HEADER_LENGTH];
        match storage.read_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(source) => return Err(Fault::io("a header", offset, source)),
        }
        if let Ok((raw, _)) = RawHeader::read_from_prefix(&bytes)
            && raw.signature == HEADER_SIGNATURE
        {
            *copy = if checksum(&bytes) == stored_checksum(&bytes) {
                Copy::Valid(raw)
            } else {
                Copy::BadChecksum(raw)
            };
        }
    }
    Ok(copies)
}

/// Chooses the current header: the valid one with the greatest sequence, the first of equals.
pub(crate) fn current(copies: &[Copy; 2], lenient: bool) -> Result<Header, Fault> {
    let newest = |pick: fn(&Copy) -> Option<RawHeader>| {
        let mut best: Option<(usize, RawHeader)> = None;
        for (index, copy) in copies.iter().enumerate() {
            if let Some(raw) = pick(copy)
                && best.is_none_or(|(_, known)| raw.sequence.get() > known.sequence.get())
            {
                best = Some((index, raw));
            }
        }
        best
    };
    let valid = newest(|copy| if let Copy::Valid(raw) = copy { Some(*raw) } else { None });
    let damaged = newest(|copy| if let Copy::BadChecksum(raw) = copy { Some(*raw) } else { None });
    let (copy, raw, checksum_ignored) = match (valid, damaged) {
        (Some((copy, raw)), _) => (copy, raw, false),
        (None, Some((copy, raw))) if lenient => (copy, raw, true),
        (None, Some((copy, _))) => {
            return Err(Fault::Checksum { what: "both headers", offset: place::HEADERS[copy] });
        }
        (None, None) => return Err(Fault::invalid("headers", place::HEADERS[0], "neither copy is there")),
    };
    let offset = place::HEADERS[copy];
    if raw.version.get() != VERSION {
        let problem = format!("format version {}, only {VERSION} is known", raw.version.get());
        return Err(Fault::unsupported("header", offset, problem));
    }
    let log = (raw.log != Guid::NIL).then_some(raw.log);
    // The log is judged only when it matters: a file with an empty log and odd log numbers still reads.
    if log.is_some() {
        if raw.log_version.get() != LOG_VERSION {
            let problem = format!("log version {}, only {LOG_VERSION} is known", raw.log_version.get());
            return Err(Fault::unsupported("header", offset, problem));
        }
        let at = raw.log_offset.get();
        let odd = !at.is_multiple_of(MIB)
            || !u64::from(raw.log_length.get()).is_multiple_of(MIB)
            || raw.log_length.get() == 0;
        if odd || !(MIB..=MAX_FILE_OFFSET).contains(&at) {
            let problem = format!("a log of {} bytes at {at}", raw.log_length.get());
            return Err(Fault::invalid("header", offset, problem));
        }
    }
    Ok(Header {
        copy,
        sequence: raw.sequence.get(),
        file_write: raw.file_write.to_uuid(),
        data_write: raw.data_write.to_uuid(),
        log,
        log_offset: raw.log_offset.get(),
        log_length: raw.log_length.get(),
        checksum_ignored,
    })
}

/// What both copies are to say after an update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewHeader {
    pub(crate) file_write: Uuid,
    pub(crate) data_write: Uuid,
    pub(crate) log: Option<Guid>,
    pub(crate) log_offset: u64,
    pub(crate) log_length: u32,
}

impl NewHeader {
    /// The 4 KiB to write.
    pub(crate) fn encode(&self, sequence: u64) -> Vec<u8> {
        let raw = RawHeader {
            signature: HEADER_SIGNATURE,
            checksum: 0.into(),
            sequence: sequence.into(),
            file_write: Guid::from_uuid(self.file_write),
            data_write: Guid::from_uuid(self.data_write),
            log: self.log.unwrap_or(Guid::NIL),
            log_version: LOG_VERSION.into(),
            version: VERSION.into(),
            log_length: self.log_length.into(),
            log_offset: self.log_offset.into(),
        };
        let mut bytes = raw.as_bytes().to_vec();
        bytes.resize(HEADER_LENGTH, 0);
        seal(&mut bytes);
        bytes
    }

    /// Replaces both copies, the one that is not current first, each made durable before the next is touched.
    pub(crate) fn update(&self, storage: &dyn Storage, current: &Header) -> io::Result<()> {
        let mut sequence = current.sequence;
        for copy in [1 - current.copy, current.copy] {
            sequence = sequence.wrapping_add(1);
            storage.write_at(&self.encode(sequence), place::HEADERS[copy])?;
            storage.sync()?;
        }
        Ok(())
    }
}

/// The creator string of the file identifier, `Err` when this is no VHDX file.
pub(crate) fn read_identifier(storage: &dyn Storage) -> Result<String, Fault> {
    let mut bytes = [0; size_of::<FileIdentifier>()];
    storage
        .read_at(&mut bytes, place::IDENTIFIER)
        .map_err(|source| Fault::io("the file identifier", place::IDENTIFIER, source))?;
    let identifier = FileIdentifier::read_from_bytes(&bytes).map_err(|_| Fault::NotADisk)?;
    if identifier.signature != IDENTIFIER_SIGNATURE {
        return Err(Fault::NotADisk);
    }
    let units = identifier.creator.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0);
    let creator: String =
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Ok(creator.chars().filter(|c| !c.is_control()).collect())
}

/// The bytes of a file identifier that names `creator`, cut to what fits.
pub(crate) fn encode_identifier(creator: &str) -> Vec<u8> {
    let mut identifier = FileIdentifier { signature: IDENTIFIER_SIGNATURE, creator: [0.into(); 256] };
    for (slot, unit) in identifier.creator.iter_mut().zip(creator.encode_utf16().take(255)) {
        *slot = unit.into();
    }
    identifier.as_bytes().to_vec()
}

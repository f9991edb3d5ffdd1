//! A look into VMGS, the guest state file of a generation 2 machine: which files it holds, and the UEFI variables.
//!
//! Read only. Slipway carries VMGS byte for byte; this is for telling what is inside (boot entries to carry over, TPM
//! state that cannot be, encryption). Versions before 3.0 and the old GPT-formatted files are refused by name. Facts:
//! `docs/formats/vmgs.md`.

use std::fmt;

use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Text;

const SIGNATURE: &[u8; 8] = b"GUESTRTS";
const VERSION: u32 = 0x0003_0000;
const BLOCK: u64 = 4096;
/// The second header lies one sector in, and sectors have either size.
const SECOND_HEADER: [usize; 2] = [512, 4096];
const FILES: usize = 64;
/// A file table lies behind the headers.
const MIN_BLOCK: u32 = 2;

/// Largest image of UEFI variables that is parsed, in bytes.
const MAX_NVRAM: u64 = 128 << 10;
/// Longest variable name in bytes of UTF-16.
const MAX_NAME: usize = 2 << 10;
/// Longest variable value in bytes.
const MAX_DATA: usize = 32 << 10;

/// Numbers of the files that this crate asks about.
mod id {
    pub(super) const BIOS_NVRAM: u32 = 1;
    pub(super) const TPM_NVRAM: u32 = 3;
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    version: U32,
    /// CRC-32 of the header with this field zero.
    checksum: U32,
    sequence: U32,
    header_size: U32,
    file_table_offset: U32,
    file_table_size: U32,
    algorithm: U16,
    markers: U16,
    metadata_keys: [[u8; 64]; 2],
    reserved: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FileEntry {
    /// In blocks.
    offset: U32,
    /// In blocks; zero marks a free entry.
    allocation: U32,
    /// In bytes.
    size: U64,
    nonce: [u8; 12],
    tag: [u8; 16],
    attributes: U32,
    reserved: [u8; 16],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct VariableHeader {
    kind: U32,
    /// Of the record, this header included.
    length: U32,
    attributes: U32,
    time: [u8; 16],
    vendor: [u8; 16],
    name_bytes: U16,
    data_bytes: U16,
}

const _: () = assert!(size_of::<Header>() == 168 && size_of::<FileEntry>() == 64);
const _: () = assert!(size_of::<VariableHeader>() == 48);

/// Why a VMGS file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at offset {offset})")]
pub struct VmgsError {
    kind: VmgsErrorKind,
    offset: u64,
    message: String,
}

/// What a caller may want to tell apart in a [`VmgsError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmgsErrorKind {
    /// No VMGS at all.
    NotVmgs,
    /// A version that this crate does not read.
    Version,
    /// Damaged or cut off.
    Corrupt,
    /// The file asked for is encrypted.
    Encrypted,
}

impl VmgsError {
    fn new(kind: VmgsErrorKind, offset: u64, message: impl Into<String>) -> VmgsError {
        VmgsError { kind, offset, message: message.into() }
    }

    fn corrupt(offset: u64, message: impl Into<String>) -> VmgsError {
        VmgsError::new(VmgsErrorKind::Corrupt, offset, message)
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> VmgsErrorKind {
        self.kind
    }

    /// Where, in bytes: from the start of the VMGS, or of the variables for an error in those.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// A VMGS file.
#[derive(Clone)]
pub struct Vmgs<'a> {
    bytes: &'a [u8],
    algorithm: u16,
    files: Vec<File>,
}

impl fmt::Debug for Vmgs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmgs")
            .field("bytes", &self.bytes.len())
            .field("algorithm", &self.algorithm)
            .field("files", &self.files)
            .finish()
    }
}

/// One file inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its fixed number, 0 to 63.
    pub id: u32,
    /// Offset in bytes.
    pub offset: u64,
    /// Size of its content in bytes.
    pub size: u64,
    /// Content encrypted.
    pub encrypted: bool,
    /// Content authenticated.
    pub authenticated: bool,
}

impl File {
    /// What the file holds.
    pub fn name(&self) -> &'static str {
        match self.id {
            0 => "file table",
            1 => "UEFI variables",
            2 => "TPM physical presence",
            3 => "TPM state",
            4 => "clock offset",
            5 => "attestation",
            6 => "key protector",
            7 => "machine id",
            8 => "guest firmware",
            9 => "custom UEFI",
            10 => "watchdog",
            11 => "hardware key protector",
            13 => "guest secret key",
            14 => "hibernation token",
            15 => "platform seed",
            16 => "provenance",
            17 => "TPM state backup",
            18 => "provisioning marker",
            63 => "extended file table",
            _ => "unknown",
        }
    }
}

/// A UEFI variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Vendor GUID.
    pub vendor: Uuid,
    /// Name without its NUL.
    pub name: String,
    /// UEFI attribute bits.
    pub attributes: u32,
    /// Time stamp as stored (`EFI_TIME`), of authenticated variables.
    pub time: [u8; 16],
    /// Value.
    pub data: Vec<u8>,
}

/// Parses the headers and the file table.
///
/// # Errors
/// When it is no VMGS, of another version, or damaged.
pub fn parse(bytes: &[u8]) -> Result<Vmgs<'_>, VmgsError> {
    let header = current_header(bytes)?;
    let (at, blocks) = (header.file_table_offset.get(), header.file_table_size.get());
    let table_at = u64::from(at) * BLOCK;
    if at < MIN_BLOCK || blocks != 1 {
        let message = format!("the header puts the file table of {blocks} blocks at block {at}");
        return Err(VmgsError::corrupt(0, message));
    }
    let table = range(bytes, table_at, (FILES * size_of::<FileEntry>()) as u64)
        .ok_or_else(|| VmgsError::corrupt(table_at, "the file table lies beyond the end"))?;
    let mut files = Vec::new();
    for (id, entry) in table.chunks_exact(size_of::<FileEntry>()).enumerate() {
        let Ok(entry) = FileEntry::read_from_bytes(entry) else { continue };
        if entry.allocation.get() == 0 {
            continue;
        }
        let entry_at = table_at + (id * size_of::<FileEntry>()) as u64;
        let offset = u64::from(entry.offset.get()) * BLOCK;
        let allocated = u64::from(entry.allocation.get()) * BLOCK;
        let size = entry.size.get();
        if entry.offset.get() < MIN_BLOCK || size > allocated || range(bytes, offset, size).is_none() {
            let message = format!("file {id} of {size} bytes at offset {offset} does not lie in the file");
            return Err(VmgsError::corrupt(entry_at, message));
        }
        let attributes = entry.attributes.get();
        files.push(File {
            id: id as u32,
            offset,
            size,
            encrypted: attributes & 1 != 0,
            authenticated: attributes & 2 != 0,
        });
    }
    Ok(Vmgs { bytes, algorithm: header.algorithm.get(), files })
}

fn range(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let from = usize::try_from(offset).ok()?;
    bytes.get(from..from.checked_add(usize::try_from(size).ok()?)?)
}

/// The valid header whose sequence follows the other's.
fn current_header(bytes: &[u8]) -> Result<Header, VmgsError> {
    if range(bytes, 512, 8) == Some(b"EFI PART") {
        let message = "this is a VMGS of version 1, which is formatted with GPT and not read";
        return Err(VmgsError::new(VmgsErrorKind::Version, 512, message));
    }
    let first = header_at(bytes, 0);
    let second = SECOND_HEADER.map(|at| header_at(bytes, at));
    let second = if matches!(second[0], Err(ref e) if e.kind == VmgsErrorKind::NotVmgs) {
        &second[1]
    } else {
        &second[0]
    };
    match (first, second) {
        (Ok(a), Ok(b)) => {
            let (x, y) = (a.sequence.get(), b.sequence.get());
            if x == y.wrapping_add(1) {
                Ok(a)
            } else if y == x.wrapping_add(1) {
                Ok(*b)
            } else {
                let message =
                    format!("the two headers have sequences {x} and {y}, which do not follow each other");
                Err(VmgsError::corrupt(0, message))
            }
        }
        (Ok(h), Err(_)) => Ok(h),
        (Err(_), Ok(h)) => Ok(*h),
        (Err(e), Err(f)) => Err(if e.kind == VmgsErrorKind::NotVmgs { f.clone() } else { e }),
    }
}

fn header_at(bytes: &[u8], at: usize) -> Result<Header, VmgsError> {
    let offset = at as u64;
    let raw = range(bytes, offset, size_of::<Header>() as u64).and_then(|b| Header::read_from_bytes(b).ok());
    let Some(header) = raw.filter(|h| &h.signature == SIGNATURE) else {
        return Err(VmgsError::new(VmgsErrorKind::NotVmgs, offset, "this is no VMGS guest state file"));
    };
    let version = header.version.get();
    if version != VERSION {
        let message = format!("VMGS version {}.{} is not read", version >> 16, version & 0xffff);
        return Err(VmgsError::new(VmgsErrorKind::Version, offset, message));
    }
    let computed = crc32fast::hash(Header { checksum: 0.into(), ..header }.as_bytes());
    if computed != header.checksum.get() {
        let stored = header.checksum.get();
        let message = format!("the header's checksum is wrong: stored {stored:08x}, computed {computed:08x}");
        return Err(VmgsError::corrupt(offset, message));
    }
    if header.header_size.get() as usize != size_of::<Header>() {
        return Err(VmgsError::corrupt(
            offset,
            format!("the header claims {} bytes", header.header_size.get()),
        ));
    }
    Ok(header)
}

impl<'a> Vmgs<'a> {
    /// The files, by number.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The content of a file as stored (encrypted where the file is); `None` when there is none of that number.
    pub fn content(&self, id: u32) -> Option<&'a [u8]> {
        let file = self.files.iter().find(|f| f.id == id)?;
        range(self.bytes, file.offset, file.size)
    }

    /// The UEFI variables, in the order stored; none when the machine never started.
    ///
    /// # Errors
    /// When the file is encrypted or damaged.
    pub fn nvram(&self) -> Result<Vec<Variable>, VmgsError> {
        match self.files.iter().find(|f| f.id == id::BIOS_NVRAM) {
            None => Ok(Vec::new()),
            Some(file) if file.encrypted => {
                let message = "the UEFI variables are encrypted";
                Err(VmgsError::new(VmgsErrorKind::Encrypted, file.offset, message))
            }
            Some(file) if file.size > MAX_NVRAM => {
                let message = format!("the UEFI variables have {} bytes, more than {MAX_NVRAM}", file.size);
                Err(VmgsError::corrupt(file.offset, message))
            }
            Some(file) => variables(range(self.bytes, file.offset, file.size).unwrap_or_default()),
        }
    }

    /// True when the machine's virtual TPM has state in here.
    pub fn tpm_state_present(&self) -> bool {
        self.files.iter().any(|f| f.id == id::TPM_NVRAM && f.size > 0)
    }

    /// True when anything in here is encrypted.
    pub fn encrypted(&self) -> bool {
        self.algorithm != 0 || self.files.iter().any(|f| f.encrypted)
    }
}

/// Parses packed variable records.
fn variables(bytes: &[u8]) -> Result<Vec<Variable>, VmgsError> {
    let mut out = Vec::new();
    let mut rest = bytes;
    // Fewer bytes than the two fields every record starts with are padding.
    while rest.len() >= 8 {
        let at = (bytes.len() - rest.len()) as u64;
        let Ok((header, after)) = VariableHeader::read_from_prefix(rest) else {
            return Err(VmgsError::corrupt(at, "a UEFI variable is cut off"));
        };
        let (name_bytes, data_bytes) =
            (usize::from(header.name_bytes.get()), usize::from(header.data_bytes.get()));
        let length = header.length.get() as usize;
        if header.kind.get() != 0 || length != size_of::<VariableHeader>() + name_bytes + data_bytes {
            let message =
                format!("a UEFI variable of type {} has a wrong length of {length}", header.kind.get());
            return Err(VmgsError::corrupt(at, message));
        }
        if name_bytes > MAX_NAME || data_bytes > MAX_DATA {
            let message = format!("a UEFI variable has {name_bytes} bytes of name and {data_bytes} of data");
            return Err(VmgsError::corrupt(at, message));
        }
        let (Some(name), Some(data)) =
            (after.get(..name_bytes), after.get(name_bytes..name_bytes + data_bytes))
        else {
            return Err(VmgsError::corrupt(at, "a UEFI variable is cut off"));
        };
        let name = Text::from_utf16le(name)
            .ok_or_else(|| VmgsError::corrupt(at, "a UEFI variable's name has an odd number of bytes"))?;
        out.push(Variable {
            vendor: Uuid::from_bytes_le(header.vendor),
            name: name.to_string_lossy(),
            attributes: header.attributes.get(),
            time: header.time,
            data: data.to_vec(),
        });
        rest = &rest[length..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VENDOR: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

    fn variable(name: &str, data: &[u8]) -> Vec<u8> {
        let name = Text::from(name).to_utf16le();
        let header = VariableHeader {
            kind: 0.into(),
            length: ((size_of::<VariableHeader>() + name.len() + data.len()) as u32).into(),
            attributes: 7.into(),
            time: [0; 16],
            vendor: Uuid::parse_str(VENDOR).unwrap().to_bytes_le(),
            name_bytes: (name.len() as u16).into(),
            data_bytes: (data.len() as u16).into(),
        };
        [header.as_bytes(), &name, data].concat()
    }

    fn header(sequence: u32, table: u32) -> Header {
        let header = Header {
            signature: *SIGNATURE,
            version: VERSION.into(),
            checksum: 0.into(),
            sequence: sequence.into(),
            header_size: 168.into(),
            file_table_offset: table.into(),
            file_table_size: 1.into(),
            algorithm: 0.into(),
            markers: 0.into(),
            metadata_keys: [[0; 64]; 2],
            reserved: 0.into(),
        };
        Header { checksum: crc32fast::hash(header.as_bytes()).into(), ..header }
    }

    fn entry(offset: u32, allocation: u32, size: u64, attributes: u32) -> FileEntry {
        FileEntry {
            offset: offset.into(),
            allocation: allocation.into(),
            size: size.into(),
            nonce: [0; 12],
            tag: [0; 16],
            attributes: attributes.into(),
            reserved: [0; 16],
        }
    }

    /// A VMGS whose two headers, `sequences`, name tables at blocks 2 and 3; the second has no files.
    fn vmgs(sequences: [u32; 2], files: &[(usize, FileEntry)], nvram: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 8 * 4096];
        for (i, at) in [0, 512].into_iter().enumerate() {
            out[at..at + 168].copy_from_slice(header(sequences[i], 2 + i as u32).as_bytes());
        }
        for (id, entry) in files {
            out[8192 + id * 64..][..64].copy_from_slice(entry.as_bytes());
        }
        out[4 * 4096..][..nvram.len()].copy_from_slice(nvram);
        out
    }

    #[test]
    fn files_and_variables_are_listed() {
        let nvram = [variable("BootOrder\0", &[0, 0]), variable("Boot0000\0", b"entry")].concat();
        let files = [(1, entry(4, 2, nvram.len() as u64, 0)), (3, entry(6, 1, 100, 0))];
        let bytes = vmgs([2, 1], &files, &nvram);
        // The VHD footer of a fixed disk may follow or not.
        for bytes in [bytes.clone(), [bytes, vec![0xcc; 512]].concat()] {
            let vmgs = parse(&bytes).unwrap();
            let told: Vec<_> = vmgs.files().iter().map(|f| (f.id, f.size, f.name())).collect();
            assert_eq!(told, [(1, nvram.len() as u64, "UEFI variables"), (3, 100, "TPM state")]);
            assert!(vmgs.tpm_state_present());
            assert!(!vmgs.encrypted());
            let variables = vmgs.nvram().unwrap();
            assert_eq!(variables[0].name, "BootOrder");
            assert_eq!((variables[1].name.as_str(), &variables[1].data[..]), ("Boot0000", &b"entry"[..]));
            assert_eq!(variables[1].vendor.to_string(), VENDOR);
            assert_eq!(variables[1].attributes, 7);
        }
    }

    #[test]
    fn the_header_that_follows_the_other_counts() {
        let files = [(3, entry(4, 1, 1, 0))];
        for (sequences, first) in
            [([2, 1], true), ([1, 2], false), ([0, u32::MAX], true), ([u32::MAX, 0], false)]
        {
            let bytes = vmgs(sequences, &files, &[]);
            assert_eq!(parse(&bytes).unwrap().tpm_state_present(), first, "{sequences:?}");
        }
        for sequences in [[1, 1], [1, 3]] {
            assert_eq!(parse(&vmgs(sequences, &files, &[])).unwrap_err().kind(), VmgsErrorKind::Corrupt);
        }
        // One torn header leaves the other, in either place that the second may have.
        let mut bytes = vmgs([1, 2], &files, &[]);
        bytes[512 + 30] ^= 1;
        assert!(parse(&bytes).unwrap().tpm_state_present());
        bytes.copy_within(0..168, 4096);
        bytes[..1024].fill(0);
        assert!(parse(&bytes).unwrap().tpm_state_present());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let kind = |bytes: &[u8]| parse(bytes).unwrap_err().kind();
        assert_eq!(kind(b""), VmgsErrorKind::NotVmgs);
        assert_eq!(kind(&[0; 8192]), VmgsErrorKind::NotVmgs);
        let mut gpt = vec![0; 8192];
        gpt[512..520].copy_from_slice(b"EFI PART");
        assert_eq!(kind(&gpt), VmgsErrorKind::Version);
        let mut torn = vmgs([1, 2], &[], &[]);
        torn[8..12].fill(9);
        torn[600] ^= 1;
        assert_eq!(kind(&torn), VmgsErrorKind::Version);
        for bad in [
            entry(1, 1, 1, 0),
            entry(4, 1, 4097, 0),
            entry(8, 1, 1, 0),
            entry(u32::MAX, u32::MAX, u64::MAX, 0),
        ] {
            assert_eq!(kind(&vmgs([2, 1], &[(1, bad)], &[])), VmgsErrorKind::Corrupt);
        }
    }

    #[test]
    fn encryption_and_damaged_variables_are_told() {
        let locked = vmgs([2, 1], &[(1, entry(4, 1, 100, 1))], &[]);
        let vmgs_ = parse(&locked).unwrap();
        assert!(vmgs_.encrypted());
        assert_eq!(vmgs_.nvram().unwrap_err().kind(), VmgsErrorKind::Encrypted);
        let good = variable("Name", b"data");
        for (bent, part) in [
            (good[..good.len() - 1].to_vec(), "cut off"),
            ([&good[..], &[0; 20]].concat(), "cut off"),
            ([&[1], &good[1..]].concat(), "wrong length"),
            ([&good[..4], &[0; 4], &good[8..]].concat(), "wrong length"),
        ] {
            let bytes = vmgs([2, 1], &[(1, entry(4, 1, bent.len() as u64, 0))], &bent);
            let e = parse(&bytes).unwrap().nvram().unwrap_err();
            assert!(e.to_string().contains(part), "{e}");
        }
        assert_eq!(parse(&vmgs([2, 1], &[], &[])).unwrap().nvram().unwrap(), []);
    }

    #[test]
    fn damage_never_panics() {
        let nvram = variable("Boot0000", b"entry");
        let bytes = vmgs([2, 1], &[(1, entry(4, 1, nvram.len() as u64, 0))], &nvram);
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (at % 8);
            if let Ok(v) = parse(&bent) {
                let _ = v.nvram();
            }
            if at % 64 == 0 {
                let _ = parse(&bytes[..at]).map(|v| v.nvram());
            }
        }
    }
}

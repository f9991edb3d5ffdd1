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

//! A configuration file as a whole: telling the form, reading it, writing it again.
//!
//! The container's bytes are the business of [`crate::container`], the XML's that of [`crate::xml`].

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::container::{self, ContainerOrigin};
use crate::error::{ReadError, ReadErrorKind};
use crate::{MAX_ENTRIES, MAX_FILE, MAX_OUTLINE_ENTRIES, Tree, WriteError, XmlOrigin, xml};

/// The two forms that a configuration is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The binary container of VMCX and VMRS files (Windows Server 2016 and later).
    Container,
    /// The XML form (2008 to 2012 R2, configuration version 5.0 and before).
    Xml,
}

/// What is needed to write the form a tree was read from once more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Of a container.
    Container(ContainerOrigin),
    /// Of XML.
    Xml(XmlOrigin),
}

/// A remark about a file that could be read all the same: a torn spare header, a checksum passed over by
/// [`read_lenient`], a replayed log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where, in bytes from the start of the file, when that is known.
    pub offset: Option<u64>,
    /// What.
    pub message: String,
}

/// A configuration that was read, or is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it says.
    pub tree: Tree,
    /// The form it came in, and that [`Document::write`] gives it.
    pub form: Form,
    /// Details of that form.
    pub origin: Origin,
    /// Remarks from reading, at most a hundred.
    pub notes: Vec<Note>,
}

/// The most remarks kept of one file.
pub(crate) const MAX_NOTES: usize = 100;

impl Document {
    /// A new document of that form, as a present Hyper-V would write it.
    pub fn new(tree: Tree, form: Form) -> Document {
        let origin = match form {
            Form::Container => Origin::Container(ContainerOrigin::default()),
            Form::Xml => Origin::Xml(XmlOrigin::default()),
        };
        Document { tree, form, origin, notes: Vec::new() }
    }

    /// The file's bytes in [`Document::form`], with the details of the origin where the form is still that of the
    /// origin. The same document always gives the same bytes.
    ///
    /// # Errors
    /// When the tree does not fit the form; the error names the key.
    pub fn write(&self) -> Result<Vec<u8>, WriteError> {
        match (self.form, &self.origin) {
            (Form::Container, Origin::Container(o)) => container::write(&self.tree, o),
            (Form::Container, _) => write_container(&self.tree),
            (Form::Xml, Origin::Xml(o)) => xml::write(&self.tree, o),
            (Form::Xml, _) => write_xml(&self.tree),
        }
    }
}

/// A container seen without its large values: see [`outline_file`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The tree, large values left empty. Not to be written: it is not the file's tree.
    pub tree: Tree,
    /// The values left out.
    pub omitted: Vec<Omitted>,
    /// Remarks from reading.
    pub notes: Vec<Note>,
}

/// A value that an [`Outline`] left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Omitted {
    /// Its path, as in [`Tree::walk`].
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
}

/// Reads a container or XML, whichever the bytes are. A container's pending log is applied in memory.
///
/// # Errors
/// On anything that is not exactly as the format has it, wrong checksums included, with the offset.
pub fn read(bytes: &[u8]) -> Result<Document, ReadError> {
    read_bytes(bytes, container::Checksums::Verify)
}

/// As [`read`], but wrong checksums become [`Document::notes`]. A pending log that does not verify as a whole is left
/// unapplied, since applying part of it would mix two states.
///
/// # Errors
/// On damage beyond checksums.
pub fn read_lenient(bytes: &[u8]) -> Result<Document, ReadError> {
    read_bytes(bytes, container::Checksums::Note)
}

/// As [`read`], from a file of at most [`MAX_FILE`] bytes. Errors name the file.
///
/// # Errors
/// As [`read`]; also when the file cannot be opened or is too large.
pub fn read_file(path: &Path) -> Result<Document, ReadError> {
    read_path(path, container::Checksums::Verify).map_err(|e| e.in_file(path))
}

/// As [`read_lenient`], from a file of at most [`MAX_FILE`] bytes. Errors name the file.
///
/// # Errors
/// As [`read_lenient`]; also when the file cannot be opened or is too large.
pub fn read_file_lenient(path: &Path) -> Result<Document, ReadError> {
    read_path(path, container::Checksums::Note).map_err(|e| e.in_file(path))
}

/// Reads a container of any size without the values above `max_value` bytes: enough to tell what a runtime state file
/// with gigabytes of guest memory holds.
///
/// # Errors
/// As [`read_file`], save for the size; and when the file is no container.
pub fn outline_file(path: &Path, max_value: u32) -> Result<Outline, ReadError> {
    let outline = || {
        let file = open(path)?.0;
        let read = container::read(
            &file,
            container::Options {
                checksums: container::Checksums::Verify,
                max_value,
                max_entries: MAX_OUTLINE_ENTRIES,
            },
        )?;
        Ok(Outline { tree: read.tree, omitted: read.omitted, notes: read.notes })
    };
    outline().map_err(|e: ReadError| e.in_file(path))
}

/// The tree as a new container, as Hyper-V would lay it out.
///
/// # Errors
/// When a name is too long, nodes nest too deep, or the whole is too large; the error names the key.
pub fn write_container(tree: &Tree) -> Result<Vec<u8>, WriteError> {
    container::write(tree, &ContainerOrigin::default())
}

/// The tree as XML in Hyper-V's own style: UTF-16LE with byte order mark, CRLF, two spaces of indentation. Flags are
/// lost and unsigned integers become signed ones: the form has no place for them.
///
/// # Errors
/// When the tree has not exactly one root, or a name or value has no XML spelling; the error names the key.
pub fn write_xml(tree: &Tree) -> Result<Vec<u8>, WriteError> {
    xml::write(tree, &XmlOrigin::default())
}

fn read_bytes(bytes: &[u8], checksums: container::Checksums) -> Result<Document, ReadError> {
    match sniff(bytes)? {
        Form::Container => {
            if bytes.len() as u64 > MAX_FILE {
                return Err(too_large(bytes.len() as u64));
            }
            read_container(bytes, checksums)
        }
        Form::Xml => xml::read(bytes),
    }
}

fn read_container<S: container::Source>(
    source: S,
    checksums: container::Checksums,
) -> Result<Document, ReadError> {
    let options = container::Options { checksums, max_value: u32::MAX, max_entries: MAX_ENTRIES };
    let read = container::read(&source, options)?;
    Ok(Document {
        tree: read.tree,
        form: Form::Container,
        origin: Origin::Container(read.origin),
        notes: read.notes,
    })
}

fn open(path: &Path) -> Result<(File, u64), ReadError> {
    let io = |e: std::io::Error| ReadError::new(ReadErrorKind::Io, None, "cannot be opened").caused_by(e);
    // Asked before opening: opening a pipe would wait for a writer.
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        let what = if meta.is_dir() {
            "it is a directory, not a configuration file"
        } else {
            "it is not a regular file"
        };
        return Err(ReadError::new(ReadErrorKind::NotAConfiguration, None, what));
    }
    // And a file that became a pipe since then is not waited for either.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    Ok((file, meta.len()))
}

fn read_path(path: &Path, checksums: container::Checksums) -> Result<Document, ReadError> {
    let (file, len) = open(path)?;
    if len > MAX_FILE {
        return Err(too_large(len));
    }
    let mut head = [0; SNIFF];
    let n = usize::try_from(len).unwrap_or(SNIFF).min(SNIFF);
    let head = &mut head[..n];
    container::Source::read_at(&file, head, 0)
        .map_err(|e| ReadError::new(ReadErrorKind::Io, 0, "cannot be read").caused_by(e))?;
    match sniff(head)? {
        Form::Container => read_container(&file, checksums),
        Form::Xml => {
            let mut bytes = vec![0; usize::try_from(len).map_err(|_| too_large(len))?];
            container::Source::read_at(&file, &mut bytes, 0)
                .map_err(|e| ReadError::new(ReadErrorKind::Io, 0, "cannot be read").caused_by(e))?;
            xml::read(&bytes)
        }
    }
}

fn too_large(len: u64) -> ReadError {
    ReadError::limit(None, format!("the file has {len} bytes, more than the {MAX_FILE} that are read whole"))
}

/// Bytes needed to tell what a file is.
const SNIFF: usize = 4096 + 64;

/// Tells container from XML, and names some files that are mistaken for configurations.
fn sniff(bytes: &[u8]) -> Result<Form, ReadError> {
    if container::looks_like(bytes) {
        return Ok(Form::Container);
    }
    if xml::looks_like(bytes) {
        return Ok(Form::Xml);
    }
    let known: &[(&[u8], &str)] = &[
        (b"vhdxfile", "a VHDX disk image"),
        (b"conectix", "a VHD disk image"),
        (b"cxsparse", "a VHD disk image"),
        (b"GUESTRTS", "a VMGS guest state file"),
        (b"QFI\xfb", "a qcow2 disk image"),
        (b"PK\x03\x04", "a ZIP archive"),
    ];
    let what = match known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, name)) => format!("this is {name}, not a machine configuration"),
        None if bytes.is_empty() => "the file is empty".to_owned(),
        None if bytes.iter().all(|b| *b == 0) => {
            "the file starts with zeros, not with a configuration".to_owned()
        }
        None => "neither a Hyper-V container (VMCX, VMRS) nor an XML configuration".to_owned(),
    };
    Err(ReadError::new(ReadErrorKind::NotAConfiguration, 0, what))
}

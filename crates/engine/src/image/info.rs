//! What `qemu-img` says an image is.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Format, ImageError, ImageErrorKind, LIMIT, MAX_VIRTUAL_SIZE, header, program};
use crate::qemu::process::run;

/// Longest answer that is read, in bytes: snapshots and bitmaps are listed in it.
const MAX_ANSWER: usize = 4 << 20;

/// An image, by its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Format, by content.
    pub format: Format,
    /// Bytes that a guest sees.
    pub virtual_size: u64,
    /// Bytes allocated on the host.
    pub allocated: u64,
    /// The backing file that the header names, as it names it. Never opened here.
    pub backing: Option<PathBuf>,
    /// Bytes per cluster, where the format has them.
    pub cluster_size: Option<u64>,
    /// It was not closed cleanly.
    pub dirty: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    format: String,
    virtual_size: u64,
    #[serde(default)]
    actual_size: u64,
    #[serde(default)]
    backing_filename: Option<PathBuf>,
    #[serde(default)]
    cluster_size: Option<u64>,
    #[serde(default)]
    dirty_flag: bool,
}

/// Looks at the image at `path`. Its format is told by its content and by us, not by QEMU.
///
/// # Errors
/// It is missing, locked by a writer, of a format that is never opened, names further files as its own data, or
/// `qemu-img` is not installed.
pub fn info(path: &Path) -> Result<ImageInfo, ImageError> {
    let format = header::sniff(path)?;
    let mut command = program("qemu-img", path)?;
    // `file:` keeps a name with a colon from being read as a protocol.
    let mut name = std::ffi::OsString::from("file:");
    name.push(path);
    command.args(["info", "--output=json", "-f", format.name(), "--"]).arg(name);
    let (status, text) = run(&mut command, LIMIT)
        .map_err(|e| ImageError::io(path, format!("cannot look at `{}`", path.display()), e))?;
    if !status.success() {
        return Err(ImageError::said(path, "look at", status, &text));
    }
    parse(path, format, &text)
}

fn parse(path: &Path, format: Format, text: &str) -> Result<ImageInfo, ImageError> {
    let odd = |why: String| {
        ImageError::new(ImageErrorKind::Failed, path, format!("cannot look at `{}`: {why}", path.display()))
    };
    if text.len() > MAX_ANSWER {
        return Err(odd("the answer is too long".to_owned()));
    }
    // The first value only: warnings may follow it.
    let answer: Answer = match serde_json::Deserializer::from_str(text).into_iter().next() {
        Some(answer) => answer.map_err(|e| odd(format!("the answer cannot be read: {e}")))?,
        None => return Err(odd("there is no answer".to_owned())),
    };
    if answer.format != format.name() {
        return Err(odd(format!("it is {}, and QEMU says {}", format.name(), answer.format)));
    }
    if answer.virtual_size > MAX_VIRTUAL_SIZE {
        let message = format!(
            "`{}` is a disk of {} bytes, larger than {MAX_VIRTUAL_SIZE}",
            path.display(),
            answer.virtual_size
        );
        return Err(ImageError::new(ImageErrorKind::Unsupported, path, message));
    }
    Ok(ImageInfo {
        format,
        virtual_size: answer.virtual_size,
        allocated: answer.actual_size,
        backing: answer.backing_filename,
        cluster_size: answer.cluster_size,
        dirty: answer.dirty_flag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_an_odd_one_refused() {
        let p = Path::new("/x");
        let text = r#"{"virtual-size": 1048576, "filename": "x", "cluster-size": 65536, "format": "qcow2",
            "actual-size": 200704, "backing-filename": "/etc/passwd", "dirty-flag": false,
            "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "new-thing": [1]}}}
            qemu-img: warning: something"#;
        let i = parse(p, Format::Qcow2, text).unwrap();
        assert_eq!((i.format, i.virtual_size, i.cluster_size), (Format::Qcow2, 1 << 20, Some(65536)));
        assert_eq!(i.backing.as_deref(), Some(Path::new("/etc/passwd")));
        let large =
            parse(p, Format::Raw, r#"{"virtual-size": 70368744177665, "format": "raw"}"#).unwrap_err();
        assert_eq!(large.kind(), ImageErrorKind::Unsupported);
        for odd in [r#"{"virtual-size": 1, "format": "nbd"}"#, "garbage", ""] {
            assert_eq!(parse(p, Format::Raw, odd).unwrap_err().kind(), ImageErrorKind::Failed, "{odd}");
        }
    }
}

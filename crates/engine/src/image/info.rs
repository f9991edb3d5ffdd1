//! What `qemu-img` says an image is.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{Format, ImageError, ImageErrorKind, LIMIT, program};
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
    /// A separate data file that the header names. Never opened here.
    pub data_file: Option<PathBuf>,
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
    #[serde(default)]
    format_specific: Option<Specific>,
}

#[derive(Deserialize)]
struct Specific {
    #[serde(default)]
    data: SpecificData,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SpecificData {
    #[serde(default)]
    data_file: Option<PathBuf>,
}

/// Looks at the image at `path`.
///
/// # Errors
/// It is missing, locked by a writer, of a format that is never opened, or `qemu-img` is not installed.
pub fn info(path: &Path) -> Result<ImageInfo, ImageError> {
    let mut command = Command::new(program("qemu-img", path)?);
    // `file:` keeps a name with a colon from being read as a protocol.
    let mut name = std::ffi::OsString::from("file:");
    name.push(path);
    command.args(["info", "--output=json", "--"]).arg(name);
    let (status, text) = run(&mut command, LIMIT)
        .map_err(|e| ImageError::io(path, format!("cannot look at `{}`", path.display()), e))?;
    if !status.success() {
        return Err(ImageError::said(path, "look at", &text));
    }
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<ImageInfo, ImageError> {
    let odd = |why: String| {
        ImageError::new(ImageErrorKind::Failed, path, format!("cannot look at `{}`: {why}", path.display()))
    };
    if text.len() > MAX_ANSWER {
        return Err(odd("the answer is too long".to_owned()));
    }
    let answer: Answer =
        serde_json::from_str(text).map_err(|e| odd(format!("the answer cannot be read: {e}")))?;
    let format = Format::from_name(&answer.format).ok_or_else(|| {
        ImageError::new(
            ImageErrorKind::Unsupported,
            path,
            format!("`{}` is of the format {}, which is not opened", path.display(), answer.format),
        )
    })?;
    Ok(ImageInfo {
        format,
        virtual_size: answer.virtual_size,
        allocated: answer.actual_size,
        backing: answer.backing_filename,
        data_file: answer.format_specific.and_then(|s| s.data.data_file),
        cluster_size: answer.cluster_size,
        dirty: answer.dirty_flag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_an_unknown_format_refused() {
        let p = Path::new("/x");
        let text = r#"{"virtual-size": 1048576, "filename": "x", "cluster-size": 65536, "format": "qcow2",
            "actual-size": 200704, "backing-filename": "/etc/passwd", "dirty-flag": false,
            "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "data-file": "y", "new-thing": [1]}}}"#;
        let i = parse(p, text).unwrap();
        assert_eq!((i.format, i.virtual_size, i.cluster_size), (Format::Qcow2, 1 << 20, Some(65536)));
        assert_eq!(i.backing.as_deref(), Some(Path::new("/etc/passwd")));
        assert_eq!(i.data_file.as_deref(), Some(Path::new("y")));
        let odd = parse(p, r#"{"virtual-size": 1, "format": "nbd"}"#).unwrap_err();
        assert_eq!(odd.kind(), ImageErrorKind::Unsupported);
        assert_eq!(parse(p, "garbage").unwrap_err().kind(), ImageErrorKind::Failed);
    }
}

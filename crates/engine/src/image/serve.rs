//! An image behind an NBD socket for as long as somebody holds it.
//!
//! `qemu-nbd` runs beside us. It ends when its one client disconnects, so it does not outlive a daemon that dies while
//! connected; dropping a [`ServedImage`] ends it in any case. One that dies between start and connection leaves a
//! server without clients behind, which holds the image's read lock and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Access, Format, ImageError, ImageErrorKind, header, program};
use crate::qemu::process::{Process, run};
use crate::qemu::vpc::{self, Vpc};
use crate::spec::{LayerSpec, MAX_LAYERS};

/// Longest the server may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Longest a killed server may take to be gone, and with it its lock on the image.
const END_LIMIT: Duration = Duration::from_secs(5);
/// The name of the only export.
const EXPORT: &str = "disk";
/// Connections that may be open at once.
const CONNECTIONS: &str = "8";

/// A running server.
#[derive(Debug)]
pub struct ServedImage {
    server: Process,
    socket: PathBuf,
    // Removed after the child is gone, with the socket in it.
    _dir: tempfile::TempDir,
}

impl ServedImage {
    /// The Unix socket to connect to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The name of the export.
    pub fn export(&self) -> &str {
        EXPORT
    }
}

impl Drop for ServedImage {
    fn drop(&mut self) {
        // A client that wrote has flushed; the server has nothing of its own to lose.
        self.server.kill(Signal::KILL);
        self.server.ended(END_LIMIT);
    }
}

/// Serves the image at `path`.
///
/// # Errors
/// It is missing, locked, not what `format` says, or `qemu-nbd` is not installed.
pub fn serve(path: &Path, format: Format, access: Access) -> Result<ServedImage, ImageError> {
    let node = node(path, format, access == Access::ReadOnly, None)?;
    start(path, &node, access)
}

/// Serves the disk that `layers` (leaf first) are, read-only. The chain is exactly these files: what their headers name
/// is not followed.
///
/// # Errors
/// As [`serve`]; or the list is empty or too long.
pub fn serve_chain(layers: &[LayerSpec]) -> Result<ServedImage, ImageError> {
    let Some(leaf) = layers.first() else {
        return Err(ImageError::new(
            ImageErrorKind::Failed,
            Path::new(""),
            "a disk without files cannot be served",
        ));
    };
    if layers.len() > MAX_LAYERS {
        let message = format!("a chain of {} files is longer than {MAX_LAYERS}", layers.len());
        return Err(ImageError::new(ImageErrorKind::Unsupported, &leaf.path, message));
    }
    let mut below = None;
    for layer in layers.iter().rev() {
        below = Some(node(&layer.path, layer.format.into(), true, below)?);
    }
    start(&leaf.path, &below.unwrap_or(Value::Null), Access::ReadOnly)
}

/// The block node of one file over `backing`.
fn node(path: &Path, format: Format, read_only: bool, backing: Option<Value>) -> Result<Value, ImageError> {
    let name = path.to_str().ok_or_else(|| {
        let message = format!("`{}` has a name that is not UTF-8, which QEMU cannot be told", path.display());
        ImageError::new(ImageErrorKind::Unsupported, path, message)
    })?;
    header::check(path, format)?;
    // Writing past the page cache leaves it to the guests, where the file system allows it.
    let direct = !read_only && takes_direct(path);
    let file = json!({ "driver": "file", "filename": name, "cache": { "direct": direct } });
    let mut node = json!({ "driver": format.name(), "file": file, "read-only": read_only, "discard": "unmap",
            "cache": { "direct": direct } });
    if matches!(format, Format::Qcow2 | Format::Vmdk) {
        // Told, so that the header's own is not followed.
        node["backing"] = backing.unwrap_or(Value::Null);
    }
    if format == Format::Vpc {
        let look = vpc::look(path).map_err(|e| {
            ImageError::io(path, format!("cannot read the footer of `{}`", path.display()), e)
        })?;
        match look {
            Vpc::Raw(size) => {
                node["driver"] = "raw".into();
                node["size"] = size.into();
            }
            Vpc::Driver => {}
            Vpc::CutShort { bytes, geometry } => {
                let message = format!(
                    "QEMU would read `{}` as {geometry} bytes instead of its {bytes}",
                    path.display()
                );
                return Err(ImageError::new(ImageErrorKind::Unsupported, path, message));
            }
        }
    }
    Ok(node)
}

/// Whether the file can be opened for direct I/O.
fn takes_direct(path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).is_ok()
}

fn start(path: &Path, node: &Value, access: Access) -> Result<ServedImage, ImageError> {
    let failed = |e: io::Error| ImageError::io(path, format!("cannot serve `{}`", path.display()), e);
    let dir = tempfile::Builder::new().prefix("slipway-nbd-").tempdir().map_err(failed)?;
    let (socket, pid_file) = (dir.path().join("s"), dir.path().join("pid"));
    let mut command = program("qemu-nbd", path)?;
    // The socket is there before the image is open; with `--fork` the program returns when it really serves.
    command.arg("--fork").arg("--pid-file").arg(&pid_file).arg("--socket").arg(&socket);
    command.args(["--export-name", EXPORT, "--shared", CONNECTIONS]);
    if access == Access::ReadOnly {
        command.arg("--read-only");
    }
    command.arg(format!("json:{node}"));
    let (status, text) = run(&mut command, START_LIMIT).map_err(failed)?;
    if !status.success() {
        return Err(ImageError::said(path, "serve", status, &text));
    }
    let pid = std::fs::read_to_string(&pid_file).map_err(failed)?;
    let pid = pid.trim().parse().map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    let server = Process::open(pid).map_err(failed)?.ok_or_else(|| {
        ImageError::new(
            ImageErrorKind::Failed,
            path,
            format!("the server of `{}` ended at once", path.display()),
        )
    })?;
    Ok(ServedImage { server, socket, _dir: dir })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::process::find_program;

    fn tools() -> bool {
        let there = find_program("qemu-nbd").is_some() && find_program("qemu-img").is_some();
        if !there {
            println!("skipped: qemu-nbd and qemu-img are not installed");
        }
        there
    }

    #[test]
    fn what_is_written_through_the_server_is_read_back_and_an_image_has_one_writer() {
        if !tools() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b,c:d.qcow2");
        super::super::create_qcow2(&path, 4 << 20, None).unwrap();
        let served = serve(&path, Format::Qcow2, Access::ReadWrite).unwrap();
        let client = nbd::Client::connect_unix(served.socket(), served.export(), &[]).unwrap();
        assert_eq!(client.size(), 4 << 20);
        client.write_at(&[7; 4096], 8192).unwrap();
        client.flush().unwrap();
        let second = serve(&path, Format::Qcow2, Access::ReadWrite).unwrap_err();
        assert_eq!(second.kind(), ImageErrorKind::InUse, "{second}");
        drop((client, served));
        let served = serve(&path, Format::Qcow2, Access::ReadOnly).unwrap();
        let client = nbd::Client::connect_unix(served.socket(), served.export(), &[]).unwrap();
        let mut buf = [0; 4096];
        client.read_at(&mut buf, 8192).unwrap();
        assert_eq!(buf, [7; 4096]);
        let info = super::super::info(&path);
        assert_eq!(info.unwrap().virtual_size, 4 << 20);
    }

    #[test]
    fn a_chain_is_the_files_it_is_told_and_no_header_is_followed() {
        if !tools() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (base, top) = (dir.path().join("base.raw"), dir.path().join("top.qcow2"));
        std::fs::write(&base, vec![9; 1 << 20]).unwrap();
        super::super::create_qcow2(&top, 1 << 20, Some((&base, Format::Raw))).unwrap();
        let layer = |path: &Path, format| LayerSpec { path: path.to_owned(), format, read_only: true };
        let first = |layers: &[LayerSpec]| {
            let served = serve_chain(layers).unwrap();
            let client = nbd::Client::connect_unix(served.socket(), served.export(), &[]).unwrap();
            let mut byte = [0];
            client.read_at(&mut byte, 0).unwrap();
            byte[0]
        };
        assert_eq!(
            first(&[layer(&top, crate::ImageFormat::Qcow2)]),
            0,
            "the header's backing file is not opened"
        );
        let both = [layer(&top, crate::ImageFormat::Qcow2), layer(&base, crate::ImageFormat::Raw)];
        assert_eq!(first(&both), 9);
    }

    /// Whoever makes an image must not choose which of our files its user reads.
    #[test]
    fn no_header_opens_further_files() {
        if !tools() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("secret"), vec![0x5e; 1 << 20]).unwrap();
        let img = |arguments: &[&str]| {
            let mut command = program("qemu-img", dir.path()).unwrap();
            let output = command.current_dir(dir.path()).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        img(&["create", "-q", "-f", "qcow2", "-o", "data_file=data,data_file_raw=on", "data.qcow2", "1M"]);
        std::fs::rename(at("secret"), at("data")).unwrap();
        let descriptor = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
            createType=\"monolithicFlat\"\nRW 2048 FLAT \"data\" 0\n";
        std::fs::write(at("flat.vmdk"), descriptor).unwrap();
        for (name, format) in [("data.qcow2", Format::Qcow2), ("flat.vmdk", Format::Vmdk)] {
            for error in [
                serve(&at(name), format, Access::ReadOnly).unwrap_err(),
                super::super::info(&at(name)).unwrap_err(),
            ] {
                assert_eq!(error.kind(), ImageErrorKind::Unsupported, "{name}: {error}");
            }
        }
        // A parent that a VMDK names is as little followed as a qcow2's.
        img(&["create", "-q", "-f", "vmdk", "base.vmdk", "1M"]);
        let served = serve(&at("base.vmdk"), Format::Vmdk, Access::ReadWrite).unwrap();
        let client = nbd::Client::connect_unix(served.socket(), served.export(), &[]).unwrap();
        client.write_at(&[9; 4096], 0).unwrap();
        client.flush().unwrap();
        drop((client, served));
        img(&["create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk"]);
        for (name, byte) in [("base.vmdk", 9), ("top.vmdk", 0)] {
            let served = serve(&at(name), Format::Vmdk, Access::ReadOnly).unwrap();
            let client = nbd::Client::connect_unix(served.socket(), served.export(), &[]).unwrap();
            let mut found = [1];
            client.read_at(&mut found, 0).unwrap();
            assert_eq!(found, [byte], "{name}");
        }
    }

    #[test]
    fn a_served_image_is_gone_when_dropped_and_block_status_tells_holes() {
        if !tools() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.qcow2");
        super::super::create_qcow2(&path, 1 << 30, None).unwrap();
        let served = serve(&path, Format::Qcow2, Access::ReadWrite).unwrap();
        let socket = served.socket().to_owned();
        let contexts = [nbd::allocation::CONTEXT];
        let client = nbd::Client::connect_unix(&socket, served.export(), &contexts).unwrap();
        client.write_at(&[7; 65536], 512 << 20).unwrap();
        let all = client.block_status(nbd::allocation::CONTEXT, 0, 1 << 30).unwrap();
        let data: u64 = all.iter().filter(|e| e.flags & nbd::allocation::ZERO == 0).map(|e| e.length).sum();
        assert_eq!((all[0].length, data), (512 << 20, 65536));
        // Two servers, one image: readers may share, a writer may not.
        drop(client);
        drop(served);
        assert!(!socket.exists());
        let one = serve(&path, Format::Qcow2, Access::ReadOnly).unwrap();
        let two = serve(&path, Format::Qcow2, Access::ReadOnly).unwrap();
        assert_ne!(one.socket(), two.socket());
        let writer = serve(&path, Format::Qcow2, Access::ReadWrite).unwrap_err();
        assert_eq!(writer.kind(), ImageErrorKind::InUse);
    }

    #[test]
    fn what_cannot_be_served_is_told() {
        if !tools() {
            return;
        }
        let missing = serve(Path::new("/nonexistent/x.qcow2"), Format::Qcow2, Access::ReadOnly).unwrap_err();
        assert_eq!(missing.kind(), ImageErrorKind::NotFound, "{missing}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"not a qcow2").unwrap();
        let odd = serve(&path, Format::Qcow2, Access::ReadOnly).unwrap_err();
        assert_eq!(odd.kind(), ImageErrorKind::Failed, "{odd}");
    }
}

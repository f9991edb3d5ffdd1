//! Against the real server: `qemu-nbd` over qcow2 and raw images, with `qemu-img` and a byte vector as oracles.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests panic to fail, and say what they skip")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nbd::{
    Client, ClientOptions, ConnectErrorKind, Negotiation, RequestErrorKind, StatusExtent, allocation,
    dirty_bitmap,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const TIMEOUT: Duration = Duration::from_secs(20);

/// Whether qemu's tools are there; says so when a test has to be left out.
fn tools() -> bool {
    let found = ["qemu-nbd", "qemu-img"].iter().all(|tool| {
        Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    });
    if !found {
        println!("skipped: qemu-nbd and qemu-img (package qemu-utils) are not installed");
    }
    found
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A `qemu-nbd` process, ended by its id when dropped.
struct Server {
    socket: PathBuf,
    pid: PathBuf,
}

impl Server {
    /// `--fork` returns when the socket accepts connections: nothing to wait for.
    fn start(dir: &Path, image: &Path, format: &str, more: &[&str]) -> Self {
        let (socket, pid) = (dir.join("nbd.sock"), dir.join("nbd.pid"));
        let status = Command::new("qemu-nbd")
            .args(["--fork", "--persistent", "--shared=4", "--discard=unmap", "--export-name=disk"])
            .args(["--description=a disk of a test", "--format", format, "--socket"])
            .arg(&socket)
            .arg("--pid-file")
            .arg(&pid)
            .args(more)
            .arg(image)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "qemu-nbd {more:?}: {status}");
        Self { socket, pid }
    }

    fn client(&self, want: &[&str]) -> Client {
        Client::connect_unix(&self.socket, "disk", want).unwrap()
    }
}

impl Drop for Server {
    /// Returns when the process is gone: until then it holds the image's lock, and its bitmaps are not saved.
    fn drop(&mut self) {
        let Ok(pid) = fs::read_to_string(&self.pid) else { return };
        let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) else { return };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        let _ = pidfd_send_signal(&process, Signal::TERM);
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], None);
    }
}

/// Bytes that a position alone decides, so that a misplaced read shows.
fn pattern(offset: u64, length: usize) -> Vec<u8> {
    (offset..offset + length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 16) as u8).collect()
}

/// A raw image with data at 1..2 MiB and 40..41 MiB, holes elsewhere.
fn raw_with_holes(path: &Path) {
    let file = fs::File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    for start in [MIB, 40 * MIB] {
        file.write_all_at(&pattern(start, MIB as usize), start).unwrap();
    }
}

fn kinds(extents: &[StatusExtent]) -> Vec<(u64, bool)> {
    extents.iter().map(|extent| (extent.length / MIB, extent.flags & allocation::ZERO != 0)).collect()
}

#[test]
fn a_raw_image_reads_and_tells_its_holes() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.raw");
    raw_with_holes(&image);
    let server = Server::start(dir.path(), &image, "raw", &["--read-only"]);
    let client = server.client(&[allocation::CONTEXT, "no:such-context"]);
    assert_eq!(client.size(), SIZE);
    assert!(client.read_only());
    assert_eq!(client.contexts(), [allocation::CONTEXT]);
    assert_eq!(client.export().description.as_deref(), Some("a disk of a test"));
    assert!(client.block_sizes().preferred >= 512);

    let mut whole = vec![0xee; SIZE as usize];
    client.read_at(&mut whole, 0).unwrap();
    assert!(whole == fs::read(&image).unwrap());
    let mut odd = vec![0; 12_345];
    client.read_at(&mut odd, MIB - 77).unwrap();
    assert_eq!(odd, whole[MIB as usize - 77..][..12_345]);

    let extents = client.block_status(allocation::CONTEXT, 0, SIZE).unwrap();
    if kinds(&extents) == [(SIZE / MIB, false)] {
        println!("skipped: the file system under {} does not tell holes", dir.path().display());
        return;
    }
    assert_eq!(kinds(&extents), [(1, true), (1, false), (38, true), (1, false), (23, true)]);
    let part = client.block_status(allocation::CONTEXT, MIB + 512, 39 * MIB).unwrap();
    assert_eq!(part.iter().map(|extent| extent.length).sum::<u64>(), 39 * MIB);
    assert_eq!(part[0], StatusExtent { length: MIB - 512, flags: 0 });
    assert!(client.block_status(allocation::CONTEXT, SIZE, 0).unwrap().is_empty());

    let refused = client.write_at(&[0; 512], 0).unwrap_err();
    assert_eq!(refused.kind(), RequestErrorKind::ReadOnly);
    let beyond = client.read_at(&mut odd, SIZE - 1).unwrap_err();
    assert_eq!(beyond.kind(), RequestErrorKind::OutOfRange);
    let unknown = client.block_status("no:such-context", 0, 512).unwrap_err();
    assert_eq!(unknown.kind(), RequestErrorKind::UnknownContext);
    client.disconnect();
}

#[test]
fn qcow2_takes_writes_zeros_and_trims_and_its_bitmap_tells_them() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    raw_with_holes(&raw);
    let (raw_text, text) = (raw.to_str().unwrap(), image.to_str().unwrap());
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", raw_text, text]);
    run("qemu-img", &["bitmap", "--add", "-f", "qcow2", text, "since"]);
    let mut model = fs::read(&raw).unwrap();
    {
        let server = Server::start(dir.path(), &image, "qcow2", &[]);
        let client = server.client(&[allocation::CONTEXT]);
        assert!(!client.read_only());
        let data = pattern(7, 9 * MIB as usize);
        client.write_at(&data, 5 * MIB).unwrap();
        model[5 * MIB as usize..14 * MIB as usize].copy_from_slice(&data);
        client.write_zeroes(40 * MIB, MIB / 2, true).unwrap();
        model[40 * MIB as usize..40 * MIB as usize + MIB as usize / 2].fill(0);
        client.write_zeroes(50 * MIB, MIB, false).unwrap();
        client.trim(60 * MIB, MIB).unwrap();
        client.flush().unwrap();
        let mut read = vec![0xee; SIZE as usize];
        client.read_at(&mut read, 0).unwrap();
        assert!(read == model);
        let extents = client.block_status(allocation::CONTEXT, 0, SIZE).unwrap();
        assert_eq!(extents.iter().map(|extent| extent.length).sum::<u64>(), SIZE);
        let mut at = 0;
        for extent in &extents {
            if extent.flags & allocation::ZERO != 0 {
                assert!(model[at as usize..(at + extent.length) as usize].iter().all(|&byte| byte == 0));
            }
            at += extent.length;
        }
    }
    // An active bitmap is exported only by a server that does not write.
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &image, "qcow2", &["--read-only", "--bitmap=since"]);
    let context = format!("{}since", dirty_bitmap::PREFIX);
    let mut negotiation = Negotiation::connect_unix(&server.socket, TIMEOUT).unwrap();
    let listed = negotiation.list_meta_contexts("disk", &[]).unwrap();
    assert!(listed.contains(&context) && listed.iter().any(|name| name == allocation::CONTEXT), "{listed:?}");
    let only = negotiation.list_meta_contexts("disk", &["qemu:"]).unwrap();
    assert!(only.contains(&context) && only.iter().all(|name| name.starts_with("qemu:")), "{only:?}");
    let client =
        Client::start(negotiation, "disk", &[&context, allocation::CONTEXT], &ClientOptions::default())
            .unwrap();
    let dirty: Vec<(u64, u64)> = {
        let mut at = 0;
        let extents = client.block_status(&context, 0, SIZE).unwrap();
        let mut found = Vec::new();
        for extent in extents {
            if extent.flags & dirty_bitmap::DIRTY != 0 {
                found.push((at / MIB, (at + extent.length).div_ceil(MIB)));
            }
            at += extent.length;
        }
        assert_eq!(at, SIZE);
        found
    };
    assert_eq!(dirty, [(5, 14), (40, 41), (50, 51), (60, 61)]);
    // The other context of the same connection still answers for itself.
    assert!(client.block_status(allocation::CONTEXT, 0, SIZE).unwrap().len() > 2);
}

#[test]
fn threads_share_one_connection() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.raw");
    fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
    let server = Server::start(dir.path(), &image, "raw", &[]);
    let client = server.client(&[allocation::CONTEXT]);
    thread::scope(|scope| {
        for part in 0..8 {
            let client = &client;
            scope.spawn(move || {
                let start = part * SIZE / 8;
                for step in 0..16 {
                    let offset = start + step * (SIZE / 128);
                    let data = pattern(offset + 1, 300_000);
                    client.write_at(&data, offset).unwrap();
                    let mut back = vec![0; data.len()];
                    client.read_at(&mut back, offset).unwrap();
                    assert!(back == data, "at {offset}");
                    client.block_status(allocation::CONTEXT, offset, 300_000).unwrap();
                }
            });
        }
    });
    client.flush().unwrap();
    client.disconnect();
    let file = fs::read(&image).unwrap();
    for step in 0..128 {
        let offset = step * (SIZE / 128);
        assert!(file[offset as usize..][..300_000] == pattern(offset + 1, 300_000), "at {offset}");
    }
}

#[test]
fn exports_are_listed_and_described_and_a_wrong_name_is_told() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.raw");
    raw_with_holes(&image);
    let server = Server::start(dir.path(), &image, "raw", &["--read-only"]);
    let mut negotiation = Negotiation::connect_unix(&server.socket, TIMEOUT).unwrap();
    let listed = negotiation.list().unwrap();
    assert_eq!(listed.iter().map(|export| export.name.as_str()).collect::<Vec<_>>(), ["disk"]);
    assert_eq!(negotiation.info("disk").unwrap().size, SIZE);
    let error = negotiation.info("dusk").unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::NoSuchExport);
    // A refusal leaves the conversation usable.
    assert_eq!(negotiation.info("disk").unwrap().size, SIZE);
    negotiation.abort();
    let error = Client::connect_unix(&server.socket, "dusk", &[]).unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::NoSuchExport);
    let error = Client::connect_unix(&dir.path().join("nothing.sock"), "", &[]).unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Unreachable);
}

#[test]
fn a_server_that_dies_fails_the_client_and_does_not_hang_it() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.raw");
    raw_with_holes(&image);
    let server = Server::start(dir.path(), &image, "raw", &["--read-only"]);
    let client = server.client(&[]);
    client.read_at(&mut [0; 512], 0).unwrap();
    drop(server);
    // The signal is on its way: reads go on until it has arrived, then fail for good.
    let error = loop {
        if let Err(error) = client.read_at(&mut [0; 512], 0) {
            break error;
        }
    };
    assert_eq!(error.kind(), RequestErrorKind::Disconnected);
    let again = client.read_at(&mut [0; 512], 0).unwrap_err();
    assert_eq!(again.kind(), RequestErrorKind::Disconnected);
}

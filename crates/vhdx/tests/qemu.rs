//! qemu-img reads what we write and we read what it writes. It knows 512-byte sectors only.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics when it cannot go on and prints why it skips"
)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use vhdx::{CheckOptions, CreateOptions, DiskKind, FileStorage, Image, ImageOptions, Severity, Writer};

const MIB: u64 = 1 << 20;

/// Runs qemu-img; `None` with the reason printed when there is none.
fn qemu_img(args: &[&str]) -> Option<String> {
    match Command::new("qemu-img").args(args).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success(),
                "qemu-img {args:?}: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            Some(text)
        }
        Err(error) => {
            println!("skipped: cannot run qemu-img: {error}");
            None
        }
    }
}

/// Scattered data whose every 512 bytes are different.
fn pieces(size: u64, block: u64) -> Vec<(u64, Vec<u8>)> {
    [0, 700, block - 512, block * 3 + 4096, size / 2, size - 1536]
        .into_iter()
        .filter(|offset| offset + 1536 <= size)
        .map(|offset| {
            let bytes =
                (0..1536_u64).map(|index| ((offset + index) / 512 * 7 + index % 251) as u8 | 1).collect();
            (offset, bytes)
        })
        .collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn it_reads_what_we_write() {
    let dir = tempfile::tempdir().unwrap();
    for mib in [1_u64, 2, 32, 256] {
        for kind in [DiskKind::Dynamic, DiskKind::Fixed] {
            let block = mib * MIB;
            let size = 4 * block + 777 * 512;
            let (ours, raw) = (dir.path().join("ours.vhdx"), dir.path().join("raw"));
            let _ = (std::fs::remove_file(&ours), std::fs::remove_file(&raw));
            let storage = Arc::new(FileStorage::create_new(&ours).unwrap());
            let options = CreateOptions { block_size: block as u32, kind, ..CreateOptions::dynamic(size) };
            let writer = Writer::create(storage, &options).unwrap();
            let plain = File::create(&raw).unwrap();
            plain.set_len(size).unwrap();
            writer.mark_zero(block, block).unwrap();
            for (offset, bytes) in pieces(size, block) {
                writer.write_at(&bytes, offset).unwrap();
                plain.write_all_at(&bytes, offset).unwrap();
            }
            writer.finish().unwrap();
            let strict = vhdx::check(&ours, &CheckOptions::default()).unwrap();
            assert!(strict.findings.is_empty(), "{:?}", strict.findings);
            if qemu_img(&["compare", "-f", "vhdx", "-F", "raw", text(&ours), text(&raw)]).is_none() {
                return;
            }
            qemu_img(&["check", "-f", "vhdx", text(&ours)]);
            let info = qemu_img(&["info", "--output=json", text(&ours)]).unwrap();
            assert!(info.contains(&format!("\"virtual-size\": {size}")), "{info}");
        }
    }
}

#[test]
fn we_read_what_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    for (mib, kind) in [(1_u64, "dynamic"), (8, "dynamic"), (64, "dynamic"), (2, "fixed")] {
        let block = mib * MIB;
        let size = 3 * block + 4096 * 5;
        let (theirs, raw) = (dir.path().join("theirs.vhdx"), dir.path().join("raw"));
        let plain = File::create(&raw).unwrap();
        plain.set_len(size).unwrap();
        for (offset, bytes) in pieces(size, block) {
            plain.write_all_at(&bytes, offset).unwrap();
        }
        let options = format!("subformat={kind},block_size={block}");
        let made =
            qemu_img(&["convert", "-f", "raw", "-O", "vhdx", "-o", &options, text(&raw), text(&theirs)]);
        if made.is_none() {
            return;
        }
        let image = Image::open(&theirs, &ImageOptions::default()).unwrap();
        // qemu rounds the disk up to whole MiB in some versions; the content is what counts.
        assert!(image.virtual_size() >= size);
        let mut at = 0;
        let (mut got, mut want) = (vec![0; MIB as usize], vec![0; MIB as usize]);
        while at < size {
            let step = (size - at).min(MIB) as usize;
            image.read_at(&mut got[..step], at).unwrap();
            plain_read(&raw, &mut want[..step], at);
            assert!(got[..step] == want[..step], "{options}: MiB at {at}");
            at += step as u64;
        }
        let report = vhdx::check(&theirs, &CheckOptions::default()).unwrap();
        for finding in &report.findings {
            println!("{options}: {finding}");
        }
        assert!(report.worst() < Some(Severity::Error), "{options}");
    }
}

fn plain_read(path: &Path, buf: &mut [u8], offset: u64) {
    File::open(path).unwrap().read_exact_at(buf, offset).unwrap();
}

#[test]
fn we_replay_the_log_of_a_killed_qemu() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("killed.vhdx");
    if qemu_img(&["create", "-q", "-f", "vhdx", "-o", "block_size=1M", text(&path), "100M"]).is_none() {
        return;
    }
    let writes = [(0_u64, 64 << 10, 0x41_u8), (5 * MIB, 3 << 20, 0x42), (99 * MIB, 1 << 20, 0x43)];
    let mut command = Command::new("qemu-io");
    command.args(["-f", "vhdx"]);
    for (offset, length, byte) in writes {
        command.args(["-c", &format!("write -P {byte} {offset} {length}")]);
    }
    // `abort` ends the process without closing the image: the log stays in use.
    if let Err(error) = command.args(["-c", "flush", "-c", "abort"]).arg(&path).output() {
        println!("skipped: cannot run qemu-io: {error}");
        return;
    }
    // A killed qemu has mostly applied its log already: undo its last entry by hand, so that it counts.
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut log = vec![0; 1 << 20];
    file.read_exact_at(&mut log, MIB).unwrap();
    let entry = log.chunks(4096).rfind(|sector| sector.starts_with(b"loge")).expect("qemu logged something");
    let target = u64::from_le_bytes(entry[64 + 16..64 + 24].try_into().unwrap());
    file.write_all_at(&[0; 4096], target).unwrap();
    for offset in support::build::HEADERS {
        let mut header = vec![0; 4096];
        file.read_exact_at(&mut header, offset).unwrap();
        header[48..64].copy_from_slice(&entry[32..48]);
        support::build::seal(&mut header);
        file.write_all_at(&header, offset).unwrap();
    }
    let judge = |pending: bool| {
        let image = Image::open(&path, &ImageOptions::default()).unwrap();
        assert_eq!(image.layers()[0].info.log_pending, pending);
        let mut got = vec![0; 100 << 20];
        image.read_at(&mut got, 0).unwrap();
        let mut want = vec![0; 100 << 20];
        for (offset, length, byte) in writes {
            want[offset as usize..][..length].fill(byte);
        }
        assert!(got == want, "pending: {pending}");
        let report = vhdx::check(&path, &CheckOptions::default()).unwrap();
        assert_eq!(report.findings.iter().any(|finding| finding.rule == "vhdx.log.pending"), pending);
        assert!(report.is_sound(), "{:?}", report.findings);
    };
    judge(true);
    assert!(vhdx::replay_log_on_disk(&path).unwrap());
    judge(false);
    qemu_img(&["check", "-f", "vhdx", text(&path)]);
}

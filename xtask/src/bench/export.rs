//! Export speed against `qemu-img` and the disk's own copy limit, in alternating rounds of one run.
//!
//! The source is a raw disk of 8 GiB with about 3 GiB in it (random, text-like, written zeros) between holes. Ours is the
//! whole export job through the daemon, hashing on; the peer is `qemu-img convert` with its best flags; the limit is fio
//! reading and writing the same amount at once. Results are ratios with spread: absolute times say more about the
//! machine's disk that day than about either program.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::daemon::{Daemon, Vitals};
use super::{Place, Size, report, source};
use crate::outside::{Outcome, at, output, run};

/// One measured run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    pub(super) seconds: f64,
    /// Peak resident memory of the process that did the work, in KiB; 0 where it is not known.
    pub(super) peak_kib: u64,
}

/// What is compared.
pub(super) struct Contest {
    pub(super) name: &'static str,
    block_mib: u32,
    pub(super) ours: Vec<Measured>,
    pub(super) peer: Vec<Measured>,
}

/// Runs the contests and returns their page.
pub(super) fn measure(place: &Place, size: &Size) -> Outcome<String> {
    let disk = place.dir.join("source.raw");
    println!("making the source: 8 GiB with about 3 GiB of data");
    let data = source::make(&disk)?;
    let data_dir = place.dir.join("data");
    let mut command = place.serve("export");
    let daemon = Daemon::start(command.arg("--data").arg(&data_dir), place, "export")?;
    let (contests, limit) = rounds_of(place, &disk, data, size.rounds, &daemon)?;
    Ok(report::markdown(&contests, &limit, data, size.rounds))
}

type Results = (Vec<Contest>, Vec<Measured>);

fn rounds_of(place: &Place, disk: &Path, data: u64, rounds: usize, daemon: &Daemon) -> Outcome<Results> {
    let client = |arguments: &[&str]| {
        let mut command = Command::new(&place.slipway);
        command
            .env("SLIPWAY_SOCKET", daemon.socket())
            .args(["--quiet"])
            .args(arguments)
            .stdout(Stdio::null());
        command
    };
    let source = disk.to_string_lossy().into_owned();
    run(&mut client(&["machine", "define", "bench", "--disk", &format!("{source},format=raw")]))?;
    let mut contests: Vec<Contest> = [("32 MiB blocks", 32), ("2 MiB blocks", 2)]
        .map(|(name, block_mib)| Contest { name, block_mib, ours: Vec::new(), peer: Vec::new() })
        .into();
    let mut limit = Vec::new();
    for round in 1..=rounds {
        for contest in &mut contests {
            println!("round {round} of {rounds}: {}", contest.name);
            let package = place.dir.join("package");
            let block = format!("{}M", contest.block_mib);
            let target = package.to_string_lossy().into_owned();
            contest.ours.push(timed(
                &mut client(&["export", "bench", &target, "--block-size", &block]),
                Some(daemon.id()),
            )?);
            fs::remove_dir_all(&package).map_err(at(&package))?;
            let image = place.dir.join("peer.vhdx");
            let mut peer = Command::new("qemu-img");
            peer.args([
                "convert", "-W", "-m", "16", "-t", "none", "-T", "none", "-f", "raw", "-O", "vhdx", "-o",
            ])
            .arg(format!("subformat=dynamic,block_size={}", u64::from(contest.block_mib) << 20))
            .arg(disk)
            .arg(&image);
            contest.peer.push(timed(&mut peer, None)?);
            fs::remove_file(&image).map_err(at(&image))?;
        }
        println!("round {round} of {rounds}: the disk's copy limit");
        limit.push(copy_limit(place, disk, data)?);
    }
    Ok((contests, limit))
}

/// Reading and writing `data` bytes at once, with direct I/O and a deep queue.
fn copy_limit(place: &Place, disk: &Path, data: u64) -> Outcome<Measured> {
    let written = place.dir.join("limit");
    let mut fio = Command::new("fio");
    fio.args([
        "--output-format=json",
        "--direct=1",
        "--bs=1M",
        "--iodepth=16",
        "--ioengine=libaio",
        "--end_fsync=1",
    ])
    .arg(format!("--size={data}"))
    .args(["--name=read", "--rw=read"])
    .arg(format!("--filename={}", disk.display()))
    .args(["--name=write", "--rw=write"])
    .arg(format!("--filename={}", written.display()))
    .stdout(Stdio::null());
    let measured = timed(&mut fio, None);
    let _ = fs::remove_file(&written);
    measured
}

/// Runs `command` with a cold cache; `worker` is the process that does the work, if it is not the command itself.
fn timed(command: &mut Command, worker: Option<u32>) -> Outcome<Measured> {
    cold_cache()?;
    if let Some(pid) = worker {
        // Resets the peak that the kernel keeps, so that it is this run's.
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
    let name = command.get_program().to_string_lossy().into_owned();
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).spawn().map_err(|e| format!("cannot start {name}: {e}"))?;
    let pid = worker.unwrap_or(child.id());
    let mut peak_kib = 0;
    let status = loop {
        peak_kib = peak_kib.max(Vitals::of(pid).peak_kib);
        if let Some(status) = child.try_wait().map_err(|e| format!("{name}: {e}"))? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = begin.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("{name} failed: {status}"));
    }
    Ok(Measured { seconds, peak_kib })
}

fn cold_cache() -> Outcome {
    run(&mut Command::new("sync"))?;
    // Needs root; without it both sides meet the same warm cache, which the report then says.
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    Ok(())
}

/// What the page says about the machine and the peer.
pub(super) fn machine() -> Vec<(&'static str, String)> {
    let version = output(Command::new("qemu-img").arg("--version")).unwrap_or_default();
    let version = String::from_utf8_lossy(&version).lines().next().unwrap_or_default().to_owned();
    let root_user = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let mut facts = super::host_facts();
    facts.push(("peer", version));
    facts.push(("cache", if root_user { "dropped before each run" } else { "warm (not root)" }.to_owned()));
    facts
}

//! Export speed against `qemu-img` and the disk's own copy limit, in alternating rounds of one run.
//!
//! The source is a raw disk of 8 GiB with about 3 GiB in it (random, text-like, written zeros) between holes. Ours is the
//! whole export job through the daemon, hashing on; the peer is `qemu-img convert` with its best flags; the limit is fio
//! reading and writing the same amount at once. Results go to `docs/benchmarks/export.md`, as ratios with spread: absolute
//! times say more about the machine's disk that day than about either program.

mod report;
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::outside::{Outcome, at, output, root, run, state};

/// From this line on a page of results is written by hand, and kept.
const NOTES: &str = "<!-- kept by the bench: -->";

/// Where the source and the results of a run lie.
struct Place {
    dir: PathBuf,
    slipway: PathBuf,
    socket: PathBuf,
}

/// One measured run.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    seconds: f64,
    /// Peak resident memory of the process that did the work, in KiB; 0 where it is not known.
    peak_kib: u64,
}

/// What is compared.
struct Contest {
    name: &'static str,
    block_mib: u32,
    ours: Vec<Measured>,
    peer: Vec<Measured>,
}

pub(crate) fn bench(arguments: &[String]) -> Outcome {
    let quick = arguments.iter().any(|a| a == "--quick");
    let asked = arguments.iter().position(|a| a == "--rounds").and_then(|n| arguments.get(n + 1));
    let rounds = match asked {
        Some(text) => text.parse().ok().filter(|n| (1..=50).contains(n)).ok_or("--rounds takes 1 to 50")?,
        None if quick => 2,
        None => 5,
    };
    run(Command::new("cargo").current_dir(root()).args(["build", "--release", "--locked", "-p", "slipway"]))?;
    let dir = state().join("bench");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).map_err(at(&dir))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let place = Place { slipway: target.join("release/slipway"), socket: dir.join("run/s.sock"), dir };
    let disk = place.dir.join("source.raw");
    println!("making the source: 8 GiB with about 3 GiB of data");
    let data = source::make(&disk)?;
    let daemon = serve(&place)?;
    let outcome = rounds_of(&place, &disk, data, rounds, daemon.0.id());
    drop(daemon);
    let (contests, limit) = outcome?;
    let _ = fs::remove_dir_all(&place.dir);
    let text = report::markdown(&contests, &limit, data, rounds);
    print!("{text}");
    if quick {
        return Ok(());
    }
    let file = root().join("docs/benchmarks/export.md");
    let notes = fs::read_to_string(&file).ok().and_then(|old| old.find(NOTES).map(|at| old[at..].to_owned()));
    let text = format!("{text}\n{}", notes.unwrap_or_else(|| format!("{NOTES}\n")));
    fs::write(&file, text).map_err(at(&file))
}

/// The daemon, ended when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(place: &Place) -> Outcome<Daemon> {
    let ready = place.dir.join("ready");
    let log = fs::File::create(place.dir.join("serve.log")).map_err(at(&place.dir))?;
    let child = Command::new(&place.slipway)
        .args(["serve", "--engine", "sim", "--data"])
        .arg(place.dir.join("data"))
        .arg("--socket")
        .arg(&place.socket)
        .arg("--ready-file")
        .arg(&ready)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(at(&place.slipway))?;
    let daemon = Daemon(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready.exists() {
        if Instant::now() > deadline {
            return Err("the daemon did not start within 20 s".to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(daemon)
}

type Results = (Vec<Contest>, Vec<Measured>);

fn rounds_of(place: &Place, disk: &Path, data: u64, rounds: usize, daemon: u32) -> Outcome<Results> {
    let client = |arguments: &[&str]| {
        let mut command = Command::new(&place.slipway);
        command.env("SLIPWAY_SOCKET", &place.socket).args(["--quiet"]).args(arguments).stdout(Stdio::null());
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
                Some(daemon),
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
        peak_kib = peak_kib.max(peak(pid));
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

/// Peak resident memory of a process, in KiB.
fn peak(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|s| {
            s.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?.trim().parse().ok()
        })
        .unwrap_or(0)
}

fn cold_cache() -> Outcome {
    run(&mut Command::new("sync"))?;
    // Needs root; without it both sides meet the same warm cache, which the report then says.
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    Ok(())
}

/// What the report says about the machine.
fn machine() -> Vec<(&'static str, String)> {
    let text = |command: &mut Command| {
        output(command).map(|o| String::from_utf8_lossy(&o).trim().to_owned()).unwrap_or_default()
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let root_user = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    vec![
        ("date", text(Command::new("date").arg("+%Y-%m-%d"))),
        ("processor", format!("{cores} cores,{}", model.trim_start_matches(['\t', ' ', ':']).trim_end())),
        ("memory", total.trim().to_owned()),
        ("kernel", text(Command::new("uname").arg("-r"))),
        ("file system", text(Command::new("stat").args(["-f", "-c", "%T"]).arg(state()))),
        (
            "peer",
            text(Command::new("qemu-img").arg("--version")).lines().next().unwrap_or_default().to_owned(),
        ),
        ("cache", if root_user { "dropped before each run" } else { "warm (not root)" }.to_owned()),
    ]
}

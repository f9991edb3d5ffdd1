//! A simulator with many machines: how soon it is there, how long each thing takes, and what the daemon takes meanwhile.
//!
//! One daemon on data that is kept: machines with a small disk each are defined one by one, started, listed, looked at,
//! stopped, exported all at once and verified, each package by a process of its own; then the daemon is killed and started
//! again. Before that, daemons that begin with a scenario. The disk is waited for as always: what is answered is kept.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::client::ask;
use super::daemon::{Daemon, Vitals};
use super::{Place, Size, host_facts, spread};
use crate::outside::{Outcome, at, output, run};

/// Machines of the scenarios whose start is measured.
const SCENARIO: usize = 200;
/// Bytes of each disk, and how many of them are data.
const DISK: usize = 1 << 20;
const DATA: usize = 64 << 10;
/// How often the whole list is asked for, and how often one machine.
const LISTS: usize = 20;
const LOOKS: usize = 200;

/// One thing that was done, once for each of many or many times.
struct Row {
    what: String,
    seconds: f64,
    /// Milliseconds of each, where each was timed.
    each: Vec<f64>,
    after: Vitals,
}

/// A start with a scenario: what it was, and seconds.
struct Start {
    what: String,
    seconds: Vec<f64>,
}

/// Measures and returns the page.
pub(super) fn measure(place: &Place, size: &Size) -> Outcome<String> {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let starts = starts(place, size)?;
    let rows = life(place, size)?;
    let version = output(Command::new(&place.slipway).arg("--version"))?;
    let mut facts = host_facts();
    facts.push(("load before", load.split(' ').take(3).collect::<Vec<_>>().join(" ")));
    facts.push(("program", String::from_utf8_lossy(&version).trim().to_owned()));
    facts.push((
        "command",
        format!("cargo xtask bench scale --machines {} --rounds {}", size.machines, size.rounds),
    ));
    Ok(markdown(&facts, &starts, &rows, size))
}

fn starts(place: &Place, size: &Size) -> Outcome<Vec<Start>> {
    let mut starts = Vec::new();
    for (state, kept) in [("off", false), ("running", false), ("running", true)] {
        let scenario = place.dir.join(format!("{state}.toml"));
        let text = format!(
            "seed = 7\n[[machines]]\nname = \"vm\"\ncount = {SCENARIO}\nmemory_mib = 64\nstate = \"{state}\"\n\
             disks = [{{ size = {DISK}, seeded_bytes = {DATA} }}]\n"
        );
        fs::write(&scenario, text).map_err(at(&scenario))?;
        let data = if kept { "with `--data`" } else { "data gone with the daemon" };
        let mut seconds = Vec::new();
        for round in 1..=size.rounds {
            println!("start {round} of {}: {SCENARIO} machines, {state}, {data}", size.rounds);
            let name = format!("start-{state}-{kept}-{round}");
            let mut command = place.serve(&name);
            command.arg("--scenario").arg(&scenario);
            if kept {
                command.arg("--data").arg(place.dir.join(&name).join("data"));
            }
            seconds.push(Daemon::start(&mut command, place, &name)?.started);
        }
        starts.push(Start { what: format!("{SCENARIO} machines, {state}, {data}"), seconds });
    }
    Ok(starts)
}

fn life(place: &Place, size: &Size) -> Outcome<Vec<Row>> {
    let data = place.dir.join("data");
    let begin = || {
        let mut command = place.serve("life");
        Daemon::start(command.arg("--data").arg(&data), place, "life")
    };
    let daemon = begin()?;
    let socket = daemon.socket().to_owned();
    let numbers = 0..size.machines;
    let mut rows = vec![Row {
        what: "start of an empty daemon".to_owned(),
        seconds: daemon.started,
        each: Vec::new(),
        after: daemon.vitals(),
    }];
    let mut all = |what: &str, one: &dyn Fn(usize) -> Outcome, times: usize| -> Outcome {
        println!("{what}");
        let began = Instant::now();
        let mut each = Vec::with_capacity(times);
        for n in 0..times {
            let begin = Instant::now();
            one(n)?;
            each.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        rows.push(Row {
            what: what.to_owned(),
            seconds: began.elapsed().as_secs_f64(),
            each,
            after: daemon.vitals(),
        });
        Ok(())
    };
    let post = |n: usize, verb: &str| {
        ask(&socket, "POST", &format!("/v1/machines/{}/{verb}", name(n)), "").map(drop)
    };
    let define = |n| {
        let body = format!(r#"{{"name":"{}","memory_mib":64,"disks":[{{"size":{DISK}}}]}}"#, name(n));
        ask(&socket, "POST", "/v1/machines", &body).map(drop)
    };
    all("define, one request each", &define, size.machines)?;
    all("start, one request each", &|n| post(n, "start"), size.machines)?;
    let list = |_| {
        let mut command = Command::new(&place.slipway);
        run(command.args(["machine", "list"]).env("SLIPWAY_SOCKET", &socket).stdout(Stdio::null()))
    };
    all("`slipway machine list`, all of them", &list, LISTS)?;
    all("`GET /v1/machines`, all of them", &|_| ask(&socket, "GET", "/v1/machines", "").map(drop), LISTS)?;
    // A step that has no divisor in common with the usual numbers comes by everywhere.
    let look = |n: usize| {
        ask(&socket, "GET", &format!("/v1/machines/{}", name(n * 37 % size.machines)), "").map(drop)
    };
    all("one machine by its name", &look, LOOKS)?;
    all("stop, one request each", &|n| post(n, "stop"), size.machines)?;
    fill(&data)?;
    let out = place.dir.join("out");
    let package = |n: usize| out.join(name(n));
    println!("export");
    let began = Instant::now();
    for n in numbers.clone() {
        // Rust's quotes are JSON's for every path that this can be.
        let body = format!(r#"{{"directory":{:?}}}"#, package(n).to_string_lossy());
        ask(&socket, "POST", &format!("/v1/machines/{}/export", name(n)), &body)?;
    }
    exported(&socket, size.machines)?;
    let seconds = began.elapsed().as_secs_f64();
    rows.push(Row {
        what: "export, all at once".to_owned(),
        seconds,
        each: Vec::new(),
        after: daemon.vitals(),
    });
    println!("verify");
    let began = Instant::now();
    for n in numbers {
        run(Command::new(&place.slipway).arg("verify").arg(package(n)).stdout(Stdio::null()))?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = daemon.vitals();
    rows.push(Row { what: "verify, one process each".to_owned(), seconds, each: Vec::new(), after });
    drop(daemon);
    let again = begin()?;
    rows.push(Row {
        what: "the daemon's next start".to_owned(),
        seconds: again.started,
        each: Vec::new(),
        after: again.vitals(),
    });
    Ok(rows)
}

fn name(number: usize) -> String {
    format!("vm-{number:05}")
}

/// Writes something of its own to the beginning of every disk below `data`, as guests would.
fn fill(data: &Path) -> Outcome {
    println!("filling the disks");
    let machines = data.join("machines");
    let mut word = 0x5119_u64;
    for machine in fs::read_dir(&machines).map_err(at(&machines))?.flatten() {
        let disks = machine.path().join("disks");
        for disk in fs::read_dir(&disks).map_err(at(&disks))?.flatten() {
            let mut bytes = Vec::with_capacity(DATA);
            while bytes.len() < DATA {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.extend_from_slice(&(word >> 32).to_le_bytes());
            }
            let file = fs::OpenOptions::new().write(true).open(disk.path());
            file.and_then(|mut file| file.write_all(&bytes)).map_err(at(&disk.path()))?;
        }
    }
    run(&mut Command::new("sync"))
}

/// Waits until so many exports have ended, all of them well.
fn exported(socket: &Path, count: usize) -> Outcome {
    let ended = |text: &str, end: &str| -> usize {
        let sample = format!("slipway_jobs_ended_total{{kind=\"export\",end=\"{end}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&sample)).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    loop {
        let metrics = ask(socket, "GET", "/metrics", "")?;
        if ended(&metrics, "failed") > 0 {
            return Err("an export failed".to_owned());
        }
        if ended(&metrics, "completed") >= count {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn markdown(facts: &[(&str, String)], starts: &[Start], rows: &[Row], size: &Size) -> String {
    let mut text = String::from(
        "# Many machines in one daemon\n\n\
         Made by `./x bench scale`; run it to get your own. Guests are simulated; records, disks, jobs and packages are real, and every answer is on disk\n\
         before it is given. On a disk that takes milliseconds to sync, that is most of the time.\n\n",
    );
    for (what, value) in facts {
        let _ = writeln!(text, "- {what}: {value}");
    }
    let _ = writeln!(
        text,
        "- {} machines, each with a disk of {} KiB of which {} KiB are data; a release build\n",
        size.machines,
        DISK >> 10,
        DATA >> 10
    );
    let _ = writeln!(
        text,
        "From `slipway serve --engine sim --scenario FILE` to the ready file, {} times:\n",
        size.rounds
    );
    let _ = writeln!(text, "| scenario | s: median (min to max) |\n|---|---|");
    for start in starts {
        let _ = writeln!(text, "| {} | {} |", start.what, spread(&start.seconds));
    }
    let _ = writeln!(
        text,
        "\nOne daemon, what was done to it in this order, and what it took of the host when that was done:\n\n\
         | | times | together, s | each, ms: median (min to max) | resident, MiB | peak, MiB | threads | descriptors |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for row in rows {
        let times = if row.each.is_empty() { "-".to_owned() } else { row.each.len().to_string() };
        let each = if row.each.is_empty() { "-".to_owned() } else { spread(&row.each) };
        let Vitals { resident_kib, peak_kib, threads, descriptors } = row.after;
        let _ = writeln!(
            text,
            "| {} | {times} | {:.2} | {each} | {} | {} | {threads} | {descriptors} |",
            row.what,
            row.seconds,
            resident_kib >> 10,
            peak_kib >> 10
        );
    }
    text
}

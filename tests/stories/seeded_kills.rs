//! The daemon killed with SIGKILL at seeded moments of everything that takes time: what was under way is finished or
//! undone by the next daemon, nothing looks complete that is not, and guests run on. QEMU killed in the same way: the
//! machine is off at once and says why, and starts again.
//!
//! A moment is a fraction of the time that the same work took undisturbed, so a slow machine is hit in the same places.
//! The seeds are fixed; a failure names the work and the moment. What a job's own steps promise is proven in `machine` at
//! every write to the journal; here are real processes, real signals and real files.

use harness::binary::run;
use harness::hostile::member;
use harness::scratch::{noise, raw_disk};
use harness::{Daemon, skip, slipway};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Moments on the simulator, over all kinds of work.
const MOMENTS: usize = 200;
/// The same on QEMU, where a start takes a good part of a second.
const MOMENTS_QEMU: usize = 30;
/// Moments at which QEMU is killed and the daemon is not.
const MOMENTS_OF_QEMU: usize = 40;
/// How long the death of a QEMU may go unnoticed. It is an event, not a timer; a loaded machine is slow to print it.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Moments at which a job is cancelled.
const CANCELS: usize = 50;
/// Of a hundred kills, this many may come when the work is already done: the last moments are part of the story.
const BEYOND_PERCENT: u64 = 115;
/// How long a job may take to end after a restart.
const PATIENCE: Duration = Duration::from_secs(60);
/// Content of the disk that is moved about.
const DISK: usize = 24 << 20;

/// What is under way when somebody dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Import,
    Export,
    Start,
    Save,
    /// The start of one that is saved.
    Restore,
    Stop,
    Delete,
}

impl Work {
    /// What a daemon may die in.
    const OF_A_DAEMON: [Work; 5] = [Work::Import, Work::Export, Work::Start, Work::Save, Work::Delete];
    /// What a QEMU may die in.
    const OF_A_QEMU: [Work; 5] = [Work::Start, Work::Save, Work::Restore, Work::Stop, Work::Export];
}

/// A daemon with three machines: one to be exported, one to be started and stopped, one that runs all along.
struct House {
    daemon: Daemon,
    /// `mover` as a package.
    package: PathBuf,
    /// Hash of its disk's content.
    content: String,
    /// The process of `keeper`, where guests are processes.
    keeper: Option<u32>,
    /// How far its guest has counted, where guests count.
    counted: u64,
    round: usize,
}

impl House {
    /// The disk of `mover` is in `format`: the others are raw.
    fn new(engine: &str, format: &str) -> House {
        let daemon = Daemon::with(&["--engine", engine]);
        for name in ["mover", "starter", "keeper"] {
            let raw = daemon.home().join(format!("{name}.img"));
            let data = if name == "mover" { DISK } else { 1 << 20 };
            raw_disk(&raw, DISK as u64, &[(0, data)]);
            // No boot sector: the firmware looks for one and waits.
            fs::File::options()
                .write(true)
                .open(&raw)
                .and_then(|f| std::os::unix::fs::FileExt::write_all_at(&f, &[0; 512], 0))
                .expect("a disk can be written");
            let disk = match name {
                "mover" if format != "raw" => {
                    let disk = raw.with_extension(format);
                    let convert = ["convert", "-f", "raw", "-O", format];
                    run(Command::new("qemu-img").args(convert).args([&raw, &disk])).ok();
                    format!("{},format={format}", disk.display())
                }
                _ => format!("{},format=raw", raw.display()),
            };
            let words = ["machine", "define", name, "--generation", "1", "--memory", "64", "--disk", &disk];
            daemon.run(words).ok();
        }
        let package = daemon.home().join("package");
        daemon.run(["export".as_ref(), "mover".as_ref(), package.as_os_str()]).ok();
        let content = hash(&member(&package, "Virtual Hard Disks", "vhdx"));
        daemon.run(["machine", "start", "keeper"]).ok();
        let mut house = House { daemon, package, content, keeper: None, counted: 0, round: 0 };
        house.keeper = house.process_of("keeper");
        house
    }

    fn machines(&self) -> PathBuf {
        self.daemon.data().join("machines")
    }

    fn machine(&self, name: &str) -> Option<Value> {
        let list = self.daemon.run(["machine", "list", "--json"]).json();
        list.as_array().expect("a list").iter().find(|m| m["name"] == name).cloned()
    }

    fn state(&self, name: &str) -> String {
        self.machine(name).map_or_else(String::new, |m| m["state"].as_str().unwrap_or_default().to_owned())
    }

    /// The process that is the guest of a machine, where guests are processes.
    fn process_of(&self, name: &str) -> Option<u32> {
        let id = self.machine(name)?["id"].as_str()?.to_owned();
        processes_of(&id).first().copied()
    }

    /// The last count on the console of `keeper`.
    fn count(&self) -> u64 {
        let log = self.daemon.run(["machine", "console", "keeper", "--log"]);
        let last = log.stdout.lines().filter_map(|l| l.trim().strip_prefix("COUNTER ")).next_back();
        last.and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    fn target(&self) -> PathBuf {
        self.daemon.home().join(format!("out {}", self.round))
    }

    /// Makes everything as it is before `work`.
    fn prepare(&mut self, work: Work) {
        self.round += 1;
        match work {
            Work::Delete if self.machine("copy").is_none() => self.import(),
            Work::Save | Work::Stop => {
                self.daemon.run(["machine", "start", "starter"]).ok();
            }
            Work::Restore => {
                self.daemon.run(["machine", "start", "starter"]).ok();
                self.daemon.run(["machine", "save", "starter"]).ok();
            }
            _ => {}
        }
    }

    fn import(&self) {
        let words = ["import".as_ref(), self.package.as_os_str(), "--new-id".as_ref(), "--name".as_ref()];
        self.daemon.run(words.into_iter().chain(["copy".as_ref()])).ok();
    }

    fn begin(&self, work: Work) -> Child {
        let mut client = Command::new(slipway());
        match work {
            Work::Import => {
                client.arg("import").arg(&self.package).args(["--new-id", "--name", "copy"]);
            }
            Work::Export => {
                client.args(["export", "mover"]).arg(self.target());
            }
            Work::Start | Work::Restore => {
                client.args(["machine", "start", "starter"]);
            }
            Work::Save => {
                client.args(["machine", "save", "starter"]);
            }
            Work::Stop => {
                client.args(["machine", "stop", "starter"]);
            }
            Work::Delete => {
                client.args(["machine", "delete", "copy", "--yes"]);
            }
        }
        client.env("SLIPWAY_SOCKET", self.daemon.socket());
        client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        client.spawn().expect("a client starts")
    }

    /// Waits until no job is under way.
    fn settle(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        for job in self.daemon.run(["job", "list", "--json"]).json().as_array().expect("a list") {
            let id = job["id"].as_str().expect("an id");
            let _ = self.daemon.run(["job", "watch", id]);
            assert!(Instant::now() < deadline, "{what}: a job does not end");
        }
        for job in self.daemon.run(["job", "list", "--json"]).json().as_array().expect("a list") {
            let state = job["state"].as_str().expect("a state");
            let over = ["completed", "completed-with-warnings", "failed", "cancelled"];
            assert!(over.contains(&state), "{what}: {job}");
        }
    }

    /// Nothing happened to who had no part in it, and nothing lies about.
    fn judge_others(&mut self, what: &str) {
        assert_eq!(self.state("keeper"), "running", "{what}: another machine's guest");
        assert_eq!(self.process_of("keeper"), self.keeper, "{what}: another guest than before");
        let counted = self.count();
        assert!(counted >= self.counted, "{what}: it counts again: {counted} after {}", self.counted);
        self.counted = counted;
        let litter: Vec<_> = files(&self.machines()).into_iter().filter(|f| partial(f)).collect();
        assert!(litter.is_empty(), "{what}: litter: {litter:?}");
    }

    /// Looks at what `work` left, and makes everything as it was.
    fn judge(&mut self, work: Work, what: &str) {
        self.judge_others(what);
        match work {
            Work::Import | Work::Delete => self.judge_copy(what),
            Work::Export => self.judge_export(what),
            Work::Start => self.judge_starter(what, &["off", "running"]),
            Work::Restore => self.judge_starter(what, &["saved", "running"]),
            Work::Save => self.judge_starter(what, &["running", "saved"]),
            Work::Stop => self.judge_starter(what, &["off", "running"]),
        }
        let planned = self.daemon.run(["planned", "list", "--json"]).json();
        for planned in planned.as_array().expect("a list") {
            self.daemon.run(["planned", "delete", planned["id"].as_str().expect("an id")]).ok();
        }
    }

    /// A whole machine, or none and nothing of it.
    fn judge_copy(&self, what: &str) {
        let copy = self.machine("copy");
        let homes = fs::read_dir(self.machines()).expect("a folder").flatten();
        let disks: Vec<PathBuf> = homes.flat_map(|home| files(&home.path())).filter(|f| is_disk(f)).collect();
        match copy {
            Some(copy) => {
                let file = copy["disks"][0]["files"][0].as_str().expect("a disk");
                assert_eq!(hash(Path::new(file)), self.content, "{what}: a machine with another disk");
                assert_eq!(disks.len(), 1, "{what}: {disks:?}");
                self.daemon.run(["machine", "delete", "copy", "--yes"]).ok();
            }
            None => assert!(disks.is_empty(), "{what}: disks of nobody: {disks:?}"),
        }
    }

    /// A package that proves good, or none: what lies beside it says that it is none.
    fn judge_export(&self, what: &str) {
        let target = self.target();
        if !target.exists() {
            self.daemon.run(["export".as_ref(), "mover".as_ref(), target.as_os_str()]).ok();
        }
        let verified = run(Command::new(slipway()).arg("verify").arg(&target));
        assert_eq!(verified.code, Some(0), "{what}: {verified}");
        assert_eq!(hash(&member(&target, "Virtual Hard Disks", "vhdx")), self.content, "{what}");
        fs::remove_dir_all(&target).expect("a package can be removed");
        let name = target.file_name().expect("a name").to_string_lossy().into_owned();
        let left: Vec<_> = fs::read_dir(self.daemon.home())
            .expect("a home")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| n.starts_with(&name))
            .collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }

    /// In one of these states, with a process only if it runs, and obedient.
    fn judge_starter(&self, what: &str, states: &[&str]) {
        let id = self.machine("starter").expect("a machine")["id"].as_str().expect("an id").to_owned();
        let state = self.state("starter");
        assert!(states.contains(&state.as_str()), "{what}: it is {state}");
        if state == "saved" {
            assert!(processes_of(&id).is_empty(), "{what}: a guest of a machine that is saved");
            self.daemon.run(["machine", "start", "starter"]).ok();
        }
        if state != "off" {
            self.daemon.run(["machine", "stop", "starter"]).ok();
        }
        assert!(processes_of(&id).is_empty(), "{what}: a guest of a machine that is off");
        self.daemon.run(["machine", "start", "starter"]).ok();
        self.daemon.run(["machine", "stop", "starter"]).ok();
    }
}

/// The QEMU that does `work` to one of these, once there is one; none when the client ends before.
fn qemu_of(work: Work, starter: &str, home: &str, client: &mut Child) -> Option<u32> {
    loop {
        let found = match work {
            Work::Export => processes("qemu-nbd", home),
            _ => processes_of(starter),
        };
        if let Some(found) = found.first() {
            return Some(*found);
        }
        if client.try_wait().expect("a child can be asked").is_some() {
            return None;
        }
        std::thread::park_timeout(Duration::from_micros(500));
    }
}

impl House {
    /// What became of the work whose QEMU was killed.
    fn judge_death(&mut self, work: Work, client: Child, what: &str) {
        let ended = client.wait_with_output().expect("a client ends");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let what = format!("{what}: {said}");
        let failed = !ended.status.success();
        if failed {
            // Before anything was begun it is only not the time for it.
            let late =
                said.contains("[invalid-state]") && ["is off", "is gone"].iter().any(|w| said.contains(w));
            assert!(said.contains("[engine]") || late, "{what}");
            assert!(!said.contains("panicked"), "{what}");
        }
        if work == Work::Export {
            self.judge(work, &what);
            let servers = processes("qemu-nbd", &self.daemon.home().display().to_string());
            assert!(servers.is_empty(), "{what}: somebody still serves the disk: {servers:?}");
            return;
        }
        let deadline = Instant::now() + AT_ONCE;
        while !["off", "saved"].contains(&self.state("starter").as_str()) {
            assert!(Instant::now() < deadline, "{what}: it is still shown as {}", self.state("starter"));
        }
        let machine = self.machine("starter").expect("a machine");
        match work {
            Work::Save if failed => {
                assert_eq!(machine["state"], "off", "{what}");
                assert!(machine["note"].is_string(), "{what}: nothing says how its guest ended");
            }
            Work::Save => assert!(machine["state"] == "saved" && machine["note"].is_null(), "{what}"),
            Work::Stop => assert!(!failed, "{what}: it is off, as was wanted"),
            // Until its first instruction what was saved counts.
            Work::Restore if failed => {
                assert_eq!(machine["state"] == "saved", !said.contains("it may have run"), "{what}");
                assert!(!said.contains("[bad-saved-state]"), "{what}: nothing is wrong with what was saved");
            }
            // Who is told that it started is not told any more that it ended.
            _ => assert!(failed || machine["note"].as_str().is_some_and(|n| n.contains("SIGKILL")), "{what}"),
        }
        let home = PathBuf::from(machine["home"].as_str().expect("a home"));
        assert_eq!(
            files(&home).len(),
            usize::from(machine["state"] == "saved"),
            "{what}: {:?}",
            files(&home)
        );
        self.judge_others(&what);
        self.judge_starter(&what, &["off", "saved"]);
        let runtime = self.daemon.data().join("runtime").join(machine["id"].as_str().expect("an id"));
        let ends =
            |f: &PathBuf| f.extension().is_some_and(|e| ["sock", "pid", "json"].iter().any(|x| e == *x));
        let left: Vec<_> = files(&runtime).into_iter().filter(ends).collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }
}

/// SHA-256 and size of what a disk file holds.
fn hash(file: &Path) -> String {
    run(Command::new(slipway()).args(["disk", "hash"]).arg(file)).ok().to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

fn partial(file: &Path) -> bool {
    file.to_string_lossy().contains(".partial")
}

fn is_disk(file: &Path) -> bool {
    file.extension().is_some_and(|e| ["raw", "vhdx", "vhd", "qcow2"].iter().any(|x| e == *x))
}

/// Processes that are the guest of machine `id`.
fn processes_of(id: &str) -> Vec<u32> {
    processes("qemu-system", id)
}

/// Processes of `program` with `word` among their arguments.
fn processes(program: &str, word: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains(program) && line.contains(word) {
            found.push(pid);
        }
    }
    found
}

/// Waits for the end of `client`, at most until `moment` has passed.
fn until(moment: Duration, client: &mut Child) {
    let deadline = Instant::now() + moment;
    while client.try_wait().expect("a child can be asked").is_none() {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
        std::thread::park_timeout(left.min(Duration::from_micros(500)));
    }
}

/// How long each work takes when nobody dies.
fn undisturbed(house: &mut House, works: &[Work]) -> Vec<Duration> {
    let mut lasts = Vec::new();
    for &work in works {
        house.prepare(work);
        let begun = Instant::now();
        let ended = house.begin(work).wait().expect("a client ends");
        lasts.push(begun.elapsed());
        assert!(ended.success(), "{work:?} does not work even undisturbed");
        house.judge(work, &format!("{work:?}, undisturbed"));
    }
    lasts
}

/// So many moments of these works in turn: the work, the moment, and words for both.
fn moments(seed: u64, count: usize, works: &[Work], lasts: &[Duration]) -> Vec<(Work, Duration, String)> {
    let seeds = noise(seed, count * 8);
    let moment = |(n, seed): (usize, &[u8])| {
        let seed = u64::from_le_bytes(seed.try_into().expect("eight bytes"));
        let (work, last) = (works[n % works.len()], lasts[n % works.len()]);
        let percent = seed % BEYOND_PERCENT;
        let moment = last.mul_f64(percent as f64 / 100.0);
        (work, moment, format!("{work:?} struck at {percent} % ({moment:?})"))
    };
    seeds.chunks_exact(8).enumerate().map(moment).collect()
}

fn killed_at_every_moment(engine: &str, count: usize) {
    let mut house = House::new(engine, "raw");
    let lasts = undisturbed(&mut house, &Work::OF_A_DAEMON);
    for (work, moment, what) in moments(2026, count, &Work::OF_A_DAEMON, &lasts) {
        house.prepare(work);
        let mut client = house.begin(work);
        until(moment, &mut client);
        house.daemon.kill();
        client.wait().expect("a client without a daemon ends");
        if work == Work::Export && house.target().exists() {
            let verified = run(Command::new(slipway()).arg("verify").arg(house.target()));
            assert_eq!(verified.code, Some(0), "{what}: it looks complete: {verified}");
        }
        house.daemon.launch();
        house.settle(&what);
        house.judge(work, &what);
    }
}

#[test]
fn two_hundred_deaths_of_the_daemon_lose_nothing() {
    killed_at_every_moment("sim", MOMENTS);
}

/// Ctrl-C, as the person at the terminal presses it: the job is cancelled, and what it had made is gone.
#[test]
fn fifty_cancelled_jobs_leave_nothing() {
    const WORKS: [Work; 2] = [Work::Import, Work::Export];
    let mut house = House::new("sim", "raw");
    let lasts = undisturbed(&mut house, &WORKS);
    let mut cancelled = 0;
    for (work, moment, what) in moments(1125, CANCELS, &WORKS, &lasts) {
        house.prepare(work);
        let count =
            |house: &House| house.daemon.run(["job", "list", "--json"]).json().as_array().map_or(0, Vec::len);
        let before = count(&house);
        let mut client = house.begin(work);
        until(moment, &mut client);
        let _ = run(Command::new("kill").arg("-INT").arg(client.id().to_string()));
        client.wait().expect("a client ends");
        house.settle(&what);
        let jobs = house.daemon.run(["job", "list", "--json"]).json();
        cancelled +=
            usize::from(jobs.as_array().is_some_and(|j| j.iter().any(|j| j["state"] == "cancelled")));
        // Struck before its job began there is none to cancel, and the plan of an import is left, listed.
        if count(&house) > before {
            let planned = house.daemon.run(["planned", "list", "--json"]).json();
            assert_eq!(planned, Value::Array(Vec::new()), "{what}: a plan that nobody asked to keep");
        }
        if work == Work::Export && !house.target().exists() {
            let partial = files(house.daemon.home()).into_iter().filter(|f| partial(f)).collect::<Vec<_>>();
            assert!(partial.is_empty(), "{what}: {partial:?}");
        }
        house.judge(work, &what);
    }
    assert!(cancelled > 0, "no job was cancelled at all: this proves nothing");
}

#[test]
fn deaths_of_the_daemon_lose_nothing_with_real_guests() {
    if run(Command::new("sh").args(["-c", "command -v qemu-system-x86_64"])).code != Some(0) {
        skip!("qemu-system-x86_64 is not installed");
    }
    killed_at_every_moment("qemu", MOMENTS_QEMU);
}

/// The daemon lives, QEMU dies: whoever waits is told why, the machine is at rest at once, and starts again.
#[test]
fn deaths_of_qemu_are_told_and_leave_nothing() {
    if run(Command::new("sh").args(["-c", "command -v qemu-system-x86_64"])).code != Some(0) {
        skip!("qemu-system-x86_64 is not installed");
    }
    let mut house = House::new("qemu", "qcow2");
    let starter = house.machine("starter").expect("a machine")["id"].as_str().expect("an id").to_owned();
    let home = house.daemon.home().display().to_string();
    // How long there is a QEMU to be killed, or one is still to come.
    let lasts = Work::OF_A_QEMU.map(|work| {
        house.prepare(work);
        let begun = Instant::now();
        let mut client = house.begin(work);
        if [Work::Save, Work::Stop].contains(&work) {
            while !processes_of(&starter).is_empty() {
                std::thread::park_timeout(Duration::from_micros(500));
            }
        } else {
            client.wait().expect("a client ends");
        }
        let lasted = begun.elapsed();
        assert!(client.wait().expect("a client ends").success(), "{work:?} does not work even undisturbed");
        house.judge(work, &format!("{work:?}, undisturbed"));
        lasted
    });
    let mut struck = 0;
    for (work, moment, what) in moments(311, MOMENTS_OF_QEMU, &Work::OF_A_QEMU, &lasts) {
        house.prepare(work);
        let mut client = house.begin(work);
        until(moment, &mut client);
        if let Some(qemu) = qemu_of(work, &starter, &home, &mut client) {
            // It may be gone by itself.
            let killed = run(Command::new("kill").args(["-9", &qemu.to_string()]));
            struck += usize::from(killed.code == Some(0));
        }
        house.judge_death(work, client, &what);
    }
    assert!(struck > MOMENTS_OF_QEMU / 2, "only {struck} were struck: this proves little");
}

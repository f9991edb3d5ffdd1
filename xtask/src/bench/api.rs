//! Hyper-V's API with many machines: how many instances a second, how soon one answer under many clients, and what an open
//! enumeration takes of memory.
//!
//! The peer is the same HTTP server answering with files: replies of the same bytes, read from disk's cache, sent to the
//! same client. What is above that is what finding, making and writing instances costs.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::daemon::Daemon;
use super::posts::{self, Client, PASSWORD, USER, text_of};
use super::{Place, Size, host_facts, spread};
use crate::outside::{Outcome, at, output, root, run};

/// Clients at once, and requests of each.
const CLIENTS: usize = 50;
const REQUESTS: usize = 100;
/// Enumerations that are held open; a user may have 1,000.
const OPEN: usize = 900;
/// The classes that are gone through.
const CLASSES: [&str; 2] = ["Msvm_ComputerSystem", "Msvm_VirtualSystemSettingData"];

/// One class gone through from the first instance to the last.
struct Listing {
    class: &'static str,
    instances: usize,
    replies: usize,
    bytes: usize,
    ours: Vec<f64>,
    files: Vec<f64>,
}

/// One question asked by many at once.
struct Crowd {
    what: &'static str,
    /// Bytes of a reply.
    bytes: usize,
    ours: Asked,
    files: Asked,
}

/// What a crowd was answered: milliseconds of each, and seconds of all.
struct Asked {
    each: Vec<f64>,
    seconds: f64,
}

/// KiB of the daemon: before, with so many enumerations begun, and with one pull made of each.
struct Memory {
    before: u64,
    begun: u64,
    pulled: u64,
}

/// Measures and returns the page.
pub(super) fn measure(place: &Place, size: &Size) -> Outcome<String> {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let example = ["build", "--release", "--locked", "-p", "slipway-wsman", "--example", "files"];
    run(Command::new("cargo").current_dir(root()).args(example))?;
    let daemon = begin(place, size.machines)?;
    let url = daemon.address("http://").ok_or("the daemon does not say where it listens")?.to_owned();
    let replies = place.dir.join("replies");
    fs::create_dir(&replies).map_err(at(&replies))?;
    let files = Files::start(place, &replies)?;
    let mut listings = Vec::new();
    for class in CLASSES {
        println!("enumerate {class}");
        listings.push(list(&url, &files.url, &replies, class, size.rounds)?);
    }
    println!("{CLIENTS} clients");
    let crowds = crowds(&url, &files.url, &replies, size.machines)?;
    println!("{OPEN} open enumerations");
    let memory = open(&url, &daemon)?;
    let version = output(Command::new(&place.slipway).arg("--version"))?;
    let mut facts = host_facts();
    facts.push(("load before", load.split(' ').take(3).collect::<Vec<_>>().join(" ")));
    facts.push(("program", String::from_utf8_lossy(&version).trim().to_owned()));
    facts.push((
        "command",
        format!("cargo xtask bench api --machines {} --rounds {}", size.machines, size.rounds),
    ));
    Ok(markdown(&facts, size.machines, &listings, &crowds, &memory))
}

/// A daemon with so many machines, and somebody who may ask it.
fn begin(place: &Place, machines: usize) -> Outcome<Daemon> {
    println!("a daemon with {machines} machines");
    let scenario = place.dir.join("scenario.toml");
    let text = format!(
        "seed = 7\n[[machines]]\nname = \"vm\"\ncount = {machines}\nmemory_mib = 64\nstate = \"off\"\n\
         disks = [{{ size = 1048576 }}]\n"
    );
    fs::write(&scenario, text).map_err(at(&scenario))?;
    let config = place.dir.join("config.toml");
    fs::write(&config, "[wsman]\nhttp = [\"127.0.0.1:0\"]\n").map_err(at(&config))?;
    let mut command = place.serve("api");
    command.arg("--scenario").arg(&scenario).arg("--config").arg(&config);
    let daemon = Daemon::start(&mut command, place, "api")?;
    let secret = place.dir.join("secret");
    fs::write(&secret, PASSWORD).map_err(at(&secret))?;
    let mut add = Command::new(&place.slipway);
    add.args(["user", "add", USER, "--grant", "administrator", "--password-file"]).arg(&secret);
    run(add.env("SLIPWAY_SOCKET", daemon.socket()).stdout(Stdio::null()))?;
    Ok(daemon)
}

/// The peer, ended when dropped.
struct Files {
    child: Child,
    url: String,
}

impl Files {
    fn start(place: &Place, directory: &Path) -> Outcome<Self> {
        let program = place.slipway.with_file_name("examples").join("files");
        let mut child =
            Command::new(&program).arg(directory).stdout(Stdio::piped()).spawn().map_err(at(&program))?;
        let mut url = String::new();
        let said = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut url));
        let files = Self { child, url: url.trim().to_owned() };
        match said {
            Some(Ok(_)) if files.url.starts_with("http://") => Ok(files),
            _ => Err(format!("{} does not say where it listens", program.display())),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps a reply for the peer, under that name.
fn keep(replies: &Path, name: &str, reply: &str) -> Outcome {
    let file = replies.join(name);
    let mut out = fs::File::create(&file).map_err(at(&file))?;
    out.write_all(reply.as_bytes()).map_err(at(&file))
}

fn list(url: &str, files: &str, replies: &Path, class: &'static str, rounds: usize) -> Outcome<Listing> {
    let (mut ours, mut peer) = (Client::to(url)?, Client::to(files)?);
    // Once before: what is read for the first time is not what is compared.
    let all = walk(&mut ours, class)?;
    for (n, reply) in all.iter().enumerate() {
        keep(replies, &format!("{class}-{n}"), reply)?;
    }
    let mut listing = Listing {
        class,
        instances: all.iter().map(|reply| reply.matches(&format!("</p:{class}>")).count()).sum(),
        replies: all.len(),
        bytes: all.iter().map(String::len).sum(),
        ours: Vec::new(),
        files: Vec::new(),
    };
    for _ in 0..rounds {
        let began = Instant::now();
        walk(&mut ours, class)?;
        listing.ours.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        for n in 0..all.len() {
            peer.post(&format!("/{class}-{n}"), "")?;
        }
        listing.files.push(began.elapsed().as_secs_f64());
    }
    Ok(listing)
}

/// All replies of one enumeration.
fn walk(client: &mut Client, class: &str) -> Outcome<Vec<String>> {
    let mut replies = vec![client.post("/wsman", &posts::enumerate(class, true))?];
    loop {
        let last = replies.last().map(String::as_str).unwrap_or_default();
        let Some(context) = text_of(last, "n:EnumerationContext") else { return Ok(replies) };
        let next = posts::pull(class, context, 32_000);
        replies.push(client.post("/wsman", &next)?);
    }
}

fn crowds(url: &str, files: &str, replies: &Path, machines: usize) -> Outcome<Vec<Crowd>> {
    let mut first = Client::to(url)?;
    let all =
        first.post("/wsman", &posts::query("SELECT Name FROM Msvm_ComputerSystem WHERE Name != __SERVER"))?;
    let names: Vec<String> = all
        .split("<p:Name>")
        .skip(1)
        .filter_map(|rest| rest.split('<').next())
        .take(machines)
        .map(str::to_owned)
        .collect();
    let one = names.first().ok_or("the daemon names no machine")?;
    let keys = |name: &str| {
        posts::get("Msvm_ComputerSystem", &[("CreationClassName", "Msvm_ComputerSystem"), ("Name", name)])
    };
    let reply = first.post("/wsman", &keys(one))?;
    keep(replies, "one", &reply)?;
    let get = |client: usize, n: usize| {
        // A step that has no divisor in common with the usual numbers comes by everywhere.
        ("/wsman".to_owned(), keys(&names[(client * REQUESTS + n) * 37 % names.len()]))
    };
    let file = |name: &'static str| move |_: usize, _: usize| (format!("/{name}"), String::new());
    let mut crowds = vec![Crowd {
        what: "Get of a machine",
        bytes: reply.len(),
        ours: crowd(url, &get)?,
        files: crowd(files, &file("one"))?,
    }];
    let system = [("CreationClassName", "Msvm_ComputerSystem"), ("Name", one.as_str())];
    let start = posts::invoke(
        "Msvm_ComputerSystem",
        &system,
        "RequestStateChange",
        r#"<p:RequestedState xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/Msvm_ComputerSystem">2</p:RequestedState>"#,
    );
    let started = first.post("/wsman", &start)?;
    let job = started
        .split(r#"Name="InstanceID">"#)
        .nth(1)
        .and_then(|rest| rest.split('<').next())
        .ok_or_else(|| format!("no job was begun: {started}"))?;
    let poll = posts::query(&format!("SELECT * FROM Msvm_ConcreteJob WHERE InstanceID='{job}'"));
    let reply = first.post("/wsman", &poll)?;
    keep(replies, "job", &reply)?;
    crowds.push(Crowd {
        what: "poll of a job, by query",
        bytes: reply.len(),
        ours: crowd(url, &|_, _| ("/wsman".to_owned(), poll.clone()))?,
        files: crowd(files, &file("job"))?,
    });
    Ok(crowds)
}

/// [`CLIENTS`] clients, each with a connection of its own, ask `what` says [`REQUESTS`] times each.
fn crowd(url: &str, what: &(dyn Fn(usize, usize) -> (String, String) + Sync)) -> Outcome<Asked> {
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::to(url)).collect::<Outcome<_>>()?;
    let began = Instant::now();
    let asked: Vec<Outcome<Vec<f64>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, mut client)| {
                scope.spawn(move || {
                    let mut each = Vec::with_capacity(REQUESTS);
                    for n in 0..REQUESTS {
                        let (path, body) = what(number, n);
                        let began = Instant::now();
                        client.post(&path, &body)?;
                        each.push(began.elapsed().as_secs_f64() * 1000.0);
                    }
                    Ok(each)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a client died".to_owned())))
            .collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let mut each = Vec::with_capacity(CLIENTS * REQUESTS);
    for one in asked {
        each.extend(one?);
    }
    each.sort_by(f64::total_cmp);
    Ok(Asked { each, seconds })
}

fn open(url: &str, daemon: &Daemon) -> Outcome<Memory> {
    let mut client = Client::to(url)?;
    let class = CLASSES[0];
    let before = daemon.vitals().resident_kib;
    let mut contexts = Vec::with_capacity(OPEN);
    for _ in 0..OPEN {
        let reply = client.post("/wsman", &posts::enumerate(class, false))?;
        contexts.push(text_of(&reply, "n:EnumerationContext").ok_or("no context")?.to_owned());
    }
    let begun = daemon.vitals().resident_kib;
    for context in &contexts {
        client.post("/wsman", &posts::pull(class, context, 1))?;
    }
    Ok(Memory { before, begun, pulled: daemon.vitals().resident_kib })
}

fn markdown(
    facts: &[(&str, String)],
    machines: usize,
    listings: &[Listing],
    crowds: &[Crowd],
    memory: &Memory,
) -> String {
    let mut text = String::from(
        "# Hyper-V's API with many machines\n\n\
         Made by `./x bench api`; run it to get your own. Guests are simulated, everything else is real. The peer is the same HTTP server answering with files\n\
         of the same bytes. Client and server share the machine. Read the ratios.\n\n",
    );
    for (what, value) in facts {
        let _ = writeln!(text, "- {what}: {value}");
    }
    let _ = writeln!(text, "- {machines} machines, off; Basic over loopback, without TLS; a release build\n");
    let _ = writeln!(
        text,
        "One client goes through a class, replies of 512,000 bytes at most:\n\n\
         | class | instances | MiB in replies | s: median (min to max) | instances a second | files, s | ours / files |\n\
         |---|---|---|---|---|---|---|"
    );
    for l in listings {
        let ratio: Vec<f64> = l.ours.iter().zip(&l.files).map(|(ours, files)| ours / files).collect();
        let rate: Vec<f64> = l.ours.iter().map(|seconds| l.instances as f64 / seconds).collect();
        let mib = l.bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "| {} | {} | {mib:.1} in {} | {} | {} | {} | {} |",
            l.class,
            l.instances,
            l.replies,
            spread(&l.ours),
            whole(&rate),
            spread(&l.files),
            whole(&ratio)
        );
    }
    let _ = writeln!(
        text,
        "\n{CLIENTS} clients at once, {REQUESTS} requests of each, one after the other on a connection of its own:\n\n\
         | | bytes of a reply | ms: median, of 100 the 99th | a second | files, ms | files, a second | ours / files |\n\
         |---|---|---|---|---|---|---|"
    );
    for c in crowds {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.0} | {} | {:.0} | {:.1} |",
            c.what,
            c.bytes,
            c.ours.told(),
            c.ours.each.len() as f64 / c.ours.seconds,
            c.files.told(),
            c.files.each.len() as f64 / c.files.seconds,
            c.ours.seconds / c.files.seconds
        );
    }
    let each = |kib: u64| kib.saturating_sub(memory.before) as f64 / OPEN as f64;
    let _ = writeln!(
        text,
        "\nMemory of the daemon: {} MiB before; {OPEN} enumerations begun take {:.1} KiB each, and {:.1} KiB each after one instance was pulled.",
        memory.before >> 10,
        each(memory.begun),
        each(memory.pulled)
    );
    text
}

/// Median with minimum and maximum, without a fraction.
fn whole(values: &[f64]) -> String {
    let mut sorted: Vec<u64> = values.iter().map(|v| v.round() as u64).collect();
    sorted.sort_unstable();
    match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(least), Some(median), Some(most)) => format!("{median} ({least} to {most})"),
        _ => "-".to_owned(),
    }
}

impl Asked {
    fn told(&self) -> String {
        let at = |part: f64| {
            let index = (self.each.len() as f64 * part) as usize;
            self.each.get(index.min(self.each.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        format!("{:.1}, {:.1}", at(0.5), at(0.99))
    }
}

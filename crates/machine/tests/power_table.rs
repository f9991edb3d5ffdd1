//! Every pair of state and request, on the simulator and on QEMU, from one body: what the table says is what happens.
//!
//! Most guests here have no system in them: their firmware runs, which is all that most pairs need. The pairs that end in
//! a guest's own shutdown boot the small Linux guest on QEMU.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says why")]

#[path = "support/gate.rs"]
mod gate;
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use engine::{Engine, QemuConfig, QemuEngine, SimEngine};
use gate::{Gate, Gated, Op};
use machine::define::{DefineRequest, MachineEdit, NewDisk};
use machine::export::ExportRequest;
use machine::power::{Answer, PowerState, Request, answer, way_to};
use machine::report::HostFacts;
use machine::settings::Generation;
use machine::{Host, HostOptions, Reason};
use support::blank;
use uuid::Uuid;

/// Emulated guests on a loaded machine are slow; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(180);

struct Bench {
    dir: tempfile::TempDir,
    host: Arc<Host>,
    gate: Arc<Gate>,
    /// A disk with a guest that shuts down when asked, where the engine needs one for that.
    bootable: Option<PathBuf>,
}

impl Bench {
    fn new(engine: Box<dyn Engine>, bootable: Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gated = Gated::new(engine);
        let gate = Arc::clone(&gated.gate);
        let facts =
            HostFacts { processors: 64, memory_mib: 1 << 18, uefi: true, tpm: true, ..HostFacts::default() };
        let host = Host::open(HostOptions {
            data: dir.path().join("data"),
            runtime: dir.path().join("run"),
            store: Arc::new(store::MemoryStore::new()),
            engine: Arc::new(gated),
            facts: Some(facts),
            jobs: job::Options::default(),
            boot: None,
        })
        .unwrap();
        Self { dir, host, gate, bootable }
    }

    fn power(&self, id: Uuid) -> PowerState {
        self.host.machine(id).unwrap().power
    }

    #[track_caller]
    fn wait_for(&self, id: Uuid, state: PowerState) {
        assert!(self.host.wait_for(id, state, PATIENCE), "not {state} but {}", self.power(id));
    }

    /// A machine that is off; `obedient` has a guest that shuts down when asked.
    fn define(&self, obedient: bool) -> Uuid {
        let mut request = DefineRequest { memory_mib: Some(32), ..blank("m", Generation::One) };
        if let Some(disk) = self.bootable.as_ref().filter(|_| obedient) {
            let copy = self.dir.path().join(format!("{}.raw", Uuid::new_v4().simple()));
            std::fs::copy(disk, &copy).unwrap();
            request.memory_mib = Some(256);
            request.disks = vec![NewDisk::File { path: copy, format: None }];
        }
        self.host.define(&request).unwrap().record.id
    }

    /// Brings a machine from off into `state`. A state that is only passed through is held at the gate; whoever asked for
    /// it waits in the thread.
    fn bring(&self, id: Uuid, state: PowerState, obedient: bool) -> Option<JoinHandle<()>> {
        let ask = |act: fn(&Arc<Host>, Uuid)| {
            let host = Arc::clone(&self.host);
            Some(std::thread::spawn(move || act(&host, id)))
        };
        let start = || {
            self.host.start(id).unwrap();
            if obedient && self.bootable.is_some() {
                self.wait_until_booted(id);
            }
        };
        let save = || {
            let job = self.host.save(id, "test").unwrap();
            self.succeeds(job);
        };
        let asked = match state {
            PowerState::Off => None,
            PowerState::Running => {
                start();
                None
            }
            PowerState::Paused => {
                start();
                self.host.pause(id).unwrap();
                None
            }
            PowerState::Saved => {
                start();
                save();
                None
            }
            PowerState::Starting => {
                self.gate.close(Op::Start);
                ask(|host, id| host.start(id).unwrap())
            }
            PowerState::Restoring => {
                start();
                save();
                self.gate.close(Op::Restore);
                ask(|host, id| host.start(id).unwrap())
            }
            PowerState::Saving => {
                start();
                self.gate.close(Op::Save);
                self.host.save(id, "test").unwrap();
                None
            }
            PowerState::Stopping => {
                start();
                self.gate.close(Op::PowerOff);
                ask(|host, id| host.stop(id).unwrap())
            }
            PowerState::ShuttingDown => {
                start();
                self.gate.close(Op::Shutdown);
                // What comes of it is not what is asked here.
                ask(|host, id| drop(host.shutdown(id, Duration::from_secs(60))))
            }
        };
        self.wait_for(id, state);
        asked
    }

    fn wait_until_booted(&self, id: Uuid) {
        let log = self.host.console(id).unwrap().serial_log.unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&log).is_ok_and(|said| said.contains("GUEST-READY")) {
            assert!(std::time::Instant::now() < deadline, "the guest does not come up");
            // Ends early should the guest end.
            self.host.wait_for(id, PowerState::Off, Duration::from_millis(100));
        }
    }

    #[track_caller]
    fn succeeds(&self, job: Uuid) {
        let status = self.host.jobs().wait(job::JobId(job), PATIENCE).unwrap();
        assert!(status.state.is_success(), "{status:?}");
    }

    /// Asks, and waits for the job when it is one.
    fn ask(&self, id: Uuid, request: Request) -> machine::Result<()> {
        let host = &self.host;
        match request {
            Request::Start => host.start(id),
            Request::Stop => host.stop(id),
            Request::Shutdown => host.shutdown(id, PATIENCE),
            Request::Save => host.save(id, "test").map(|job| self.succeeds(job)),
            Request::Pause => host.pause(id),
            Request::Resume => host.resume(id),
            Request::Reset => host.reset(id),
            Request::Edit => {
                let edit = MachineEdit { processors: Some(2), ..MachineEdit::default() };
                host.edit(id, &edit).map(drop)
            }
            Request::Export => {
                let dir = self.dir.path().join(Uuid::new_v4().simple().to_string());
                host.export(id, &ExportRequest::new(dir), "test").map(|job| self.succeeds(job))
            }
            Request::Delete => host.delete(id, false).map(drop),
        }
    }

    /// Lets what waits go on, and ends the machine.
    fn clear(&self, id: Uuid, asked: Option<JoinHandle<()>>) {
        self.gate.open();
        if let Some(asked) = asked {
            asked.join().unwrap();
        }
        let Ok(view) = self.host.machine(id) else { return };
        if let Some(job) = view.job {
            self.host.jobs().wait(job::JobId(job), PATIENCE);
        }
        if !self.power(id).at_rest() {
            let _ = self.host.stop(id);
            assert!(self.host.wait_for(id, PowerState::Off, PATIENCE));
        }
        self.host.delete(id, false).unwrap();
    }
}

/// Every request that `state` refuses, of one machine that stays in it.
fn refusals(bench: &Bench, state: PowerState) {
    let id = bench.define(false);
    let asked = bench.bring(id, state, false);
    for request in Request::ALL.into_iter().filter(|r| answer(state, *r) == Answer::Refused) {
        let error = bench.ask(id, request).expect_err(&format!("{request:?} when {state}"));
        assert_eq!(error.reason(), Reason::InvalidState, "{request:?} when {state}: {}", error.chain());
        assert!(error.to_string().contains(state.as_str()), "{error}");
        if let Some(way) = way_to(state, request) {
            let hint = error.hint_text().unwrap_or_default();
            assert!(
                hint.contains(&format!("slipway machine {} m", way.command)),
                "{request:?} {state}: {hint}"
            );
        }
        assert_eq!(bench.power(id), state, "a refusal changes nothing: {request:?}");
    }
    // What no guest sees can always be changed.
    let notes = MachineEdit { notes: Some("seen".into()), ..MachineEdit::default() };
    let changed = bench.host.edit(id, &notes);
    assert!(changed.is_ok() || bench.host.machine(id).unwrap().job.is_some(), "{state}: {changed:?}");
    bench.clear(id, asked);
}

/// One pair that is admitted.
fn admitted(bench: &Bench, state: PowerState, request: Request) {
    let obedient = request == Request::Shutdown;
    let id = bench.define(obedient);
    let asked = bench.bring(id, state, obedient);
    let result = std::thread::scope(|scope| {
        let asking = scope.spawn(|| bench.ask(id, request));
        if state == PowerState::ShuttingDown && request == Request::Shutdown {
            // Both wait for the guest's answer; held so far only to be seen in that state.
            bench.gate.waiting(2);
            bench.gate.open();
        }
        asking.join().unwrap()
    });
    assert!(result.is_ok(), "{request:?} when {state}: {}", result.unwrap_err().chain());
    match answer(state, request) {
        Answer::Becomes(then) => bench.wait_for(id, then),
        Answer::Stays => assert_eq!(bench.power(id), state, "{request:?}"),
        Answer::Gone => {
            assert_eq!(bench.host.machine(id).unwrap_err().reason(), Reason::NotFound);
        }
        Answer::Refused => unreachable!(),
    }
    bench.clear(id, asked);
}

fn walk(bench: &Bench) {
    let mut pairs = 0;
    for state in PowerState::ALL {
        refusals(bench, state);
        for request in Request::ALL {
            pairs += 1;
            if answer(state, request) != Answer::Refused {
                admitted(bench, state, request);
            }
        }
    }
    assert_eq!(pairs, PowerState::ALL.len() * Request::ALL.len());
}

#[test]
fn every_pair_on_the_simulator() {
    walk(&Bench::new(Box::new(SimEngine::new()), None));
}

#[test]
fn every_pair_on_qemu() {
    if !Path::new("/usr/bin/qemu-system-x86_64").exists() {
        println!("skipped: no qemu-system-x86_64");
        return;
    }
    let guest = std::env::var_os("SLIPWAY_GUEST").map(|dir| PathBuf::from(dir).join("boot.raw"));
    let Some(guest) = guest.filter(|g| g.is_file()) else {
        println!("skipped: no boot.raw in SLIPWAY_GUEST (cargo xtask guest builds it)");
        return;
    };
    let short = tempfile::tempdir().unwrap();
    let config = QemuConfig { short_dir: short.path().join("s"), ..QemuConfig::default() };
    walk(&Bench::new(Box::new(QemuEngine::new(config)), Some(guest)));
}

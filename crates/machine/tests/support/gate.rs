//! An engine that is another one, but for operations that wait when told to: how tests hold a machine in a state that it
//! only passes through.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use engine::keys::{Chord, Stroke};
use engine::{
    AgentInterface, AgentOs, AttachError, Engine, Guest, GuestError, GuestSpec, HostReport, Listener,
    PictureFormat, Resolved, RunState, SaveProgress, ShutdownVia, StartError,
};

/// An operation that can be made to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Start,
    Restore,
    Save,
    Shutdown,
    PowerOff,
}

/// Where operations wait.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: Option<Op>,
    waiting: usize,
}

impl Gate {
    /// Operations of this kind wait from now on.
    pub(crate) fn close(&self, op: Op) {
        self.state.lock().unwrap().closed = Some(op);
    }

    /// Nothing waits any more.
    pub(crate) fn open(&self) {
        self.state.lock().unwrap().closed = None;
        self.changed.notify_all();
    }

    /// Returns once so many wait.
    pub(crate) fn waiting(&self, count: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |s| s.waiting < count).unwrap());
    }

    fn pass(&self, op: Op) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |s| s.closed == Some(op)).unwrap();
        state.waiting -= 1;
    }
}

pub(crate) struct Gated {
    pub(crate) inner: Box<dyn Engine>,
    pub(crate) gate: Arc<Gate>,
}

impl Gated {
    pub(crate) fn new(inner: Box<dyn Engine>) -> Self {
        Self { inner, gate: Arc::new(Gate::default()) }
    }

    fn gated(&self, guest: Box<dyn Guest>) -> Box<dyn Guest> {
        Box::new(GatedGuest { inner: guest, gate: Arc::clone(&self.gate) })
    }
}

impl Engine for Gated {
    fn start(&self, spec: &GuestSpec, events: Box<dyn Listener>) -> Result<Box<dyn Guest>, StartError> {
        self.gate.pass(Op::Start);
        self.inner.start(spec, events).map(|g| self.gated(g))
    }

    fn restore(
        &self,
        spec: &GuestSpec,
        state: &Path,
        events: Box<dyn Listener>,
    ) -> Result<Box<dyn Guest>, StartError> {
        self.gate.pass(Op::Restore);
        self.inner.restore(spec, state, events).map(|g| self.gated(g))
    }

    fn attach(
        &self,
        runtime_dir: &Path,
        events: Box<dyn Listener>,
    ) -> Result<Option<Box<dyn Guest>>, AttachError> {
        Ok(self.inner.attach(runtime_dir, events)?.map(|g| self.gated(g)))
    }

    fn probe(&self) -> HostReport {
        self.inner.probe()
    }
}

struct GatedGuest {
    inner: Box<dyn Guest>,
    gate: Arc<Gate>,
}

impl Guest for GatedGuest {
    fn spec(&self) -> &GuestSpec {
        self.inner.spec()
    }

    fn resolved(&self) -> &Resolved {
        self.inner.resolved()
    }

    fn state(&self) -> RunState {
        self.inner.state()
    }

    fn pid(&self) -> Option<u32> {
        self.inner.pid()
    }

    fn pause(&self) -> Result<(), GuestError> {
        self.inner.pause()
    }

    fn resume(&self) -> Result<(), GuestError> {
        self.inner.resume()
    }

    fn reset(&self) -> Result<(), GuestError> {
        self.inner.reset()
    }

    fn can_save(&self) -> Result<(), GuestError> {
        self.inner.can_save()
    }

    fn save(
        &self,
        state: &Path,
        watch: &mut dyn FnMut(SaveProgress) -> ControlFlow<()>,
    ) -> Result<(), GuestError> {
        self.gate.pass(Op::Save);
        self.inner.save(state, watch)
    }

    fn thaw(&self) -> Result<(), GuestError> {
        self.inner.thaw()
    }

    fn power_off(&self) -> Result<(), GuestError> {
        self.gate.pass(Op::PowerOff);
        self.inner.power_off()
    }

    fn shutdown(&self) -> Result<ShutdownVia, GuestError> {
        self.gate.pass(Op::Shutdown);
        self.inner.shutdown()
    }

    fn wait_stopped(&self, limit: Duration) -> bool {
        self.inner.wait_stopped(limit)
    }

    fn screenshot(&self, path: &Path, wanted: PictureFormat) -> Result<PictureFormat, GuestError> {
        self.inner.screenshot(path, wanted)
    }

    fn send_keys(&self, chords: &[Chord]) -> Result<(), GuestError> {
        self.inner.send_keys(chords)
    }

    fn strokes(&self, strokes: &[Stroke]) -> Result<(), GuestError> {
        self.inner.strokes(strokes)
    }

    fn interrupt(&self) -> Result<(), GuestError> {
        self.inner.interrupt()
    }

    fn reboot(&self) -> Result<(), GuestError> {
        self.inner.reboot()
    }

    fn change_media(&self, drive: &str, media: Option<&Path>, force: bool) -> Result<(), GuestError> {
        self.inner.change_media(drive, media, force)
    }

    fn eject(&self, drive: &str, force: bool) -> Result<(), GuestError> {
        self.inner.eject(drive, force)
    }

    fn set_link(&self, nic: &str, up: bool) -> Result<(), GuestError> {
        self.inner.set_link(nic, up)
    }

    fn agent_ping(&self, limit: Duration) -> Result<(), GuestError> {
        self.inner.agent_ping(limit)
    }

    fn agent_interfaces(&self, limit: Duration) -> Result<Vec<AgentInterface>, GuestError> {
        self.inner.agent_interfaces(limit)
    }

    fn agent_host_name(&self, limit: Duration) -> Result<String, GuestError> {
        self.inner.agent_host_name(limit)
    }

    fn agent_os(&self, limit: Duration) -> Result<AgentOs, GuestError> {
        self.inner.agent_os(limit)
    }

    fn serial_socket(&self, port: u32) -> Option<PathBuf> {
        self.inner.serial_socket(port)
    }

    fn serial_log(&self, port: u32) -> Option<PathBuf> {
        self.inner.serial_log(port)
    }

    fn vnc_socket(&self) -> Option<PathBuf> {
        self.inner.vnc_socket()
    }
}

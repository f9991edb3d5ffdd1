//! What can be asked of a simulated guest, through the handle that an engine gives out.
//!
//! Each operation first meets what lies in wait for it, then does its work on the guest. What the guest does by itself is
//! [`super::guest`]'s part.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::faults::Operation;
use super::guest::{Core, address, gone, seconds};
use super::{lock, screen};
use crate::error::{GuestError, GuestErrorKind};
use crate::guest::{
    AgentInterface, AgentOs, Guest, GuestEvent, PictureFormat, RunState, SaveProgress, ShutdownVia, StoppedBy,
};
use crate::keys::{Chord, Stroke};
use crate::spec::{GuestSpec, NicBackend, Resolved};

fn no_agent() -> GuestError {
    GuestError::new(GuestErrorKind::NoAgent, "this simulated guest has no agent")
}

/// A handle on a guest. Without it the guest goes on, unheard.
pub(super) struct SimGuest {
    pub(super) core: Arc<Core>,
    pub(super) audience: u64,
}

impl Drop for SimGuest {
    fn drop(&mut self) {
        let mut live = lock(&self.core.live);
        if live.audience == self.audience {
            live.events = None;
        }
    }
}

impl Guest for SimGuest {
    fn spec(&self) -> &GuestSpec {
        &self.core.spec
    }

    fn resolved(&self) -> &Resolved {
        &self.core.resolved
    }

    fn state(&self) -> RunState {
        lock(&self.core.live).run
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn pause(&self) -> Result<(), GuestError> {
        let world = self.core.enter(Operation::Pause)?;
        let mut live = self.core.alive()?;
        self.core.go(&world, &mut live, RunState::Paused, Some(GuestEvent::Paused));
        Ok(())
    }

    fn resume(&self) -> Result<(), GuestError> {
        let world = self.core.enter(Operation::Resume)?;
        {
            let mut live = self.core.alive()?;
            if live.run == RunState::Paused {
                self.core.go(&world, &mut live, RunState::Running, Some(GuestEvent::Resumed));
            }
        }
        self.core.catch_up();
        Ok(())
    }

    fn reset(&self) -> Result<(), GuestError> {
        drop(self.core.enter(Operation::Reset)?);
        drop(self.core.alive()?);
        self.core.restart(false);
        Ok(())
    }

    fn can_save(&self) -> Result<(), GuestError> {
        drop(self.core.enter(Operation::CanSave)?);
        self.core.alive().map(drop)
    }

    fn save(
        &self,
        state: &Path,
        watch: &mut dyn FnMut(SaveProgress) -> ControlFlow<()>,
    ) -> Result<(), GuestError> {
        let world = self.core.world.upgrade().ok_or_else(gone)?;
        self.core.unfreeze(&world)?;
        let saved = self.core.freeze(&world)?;
        let total = self.core.spec.memory_mib << 20;
        let watch = RefCell::new(watch);
        let broken = |done| (*watch.borrow_mut())(SaveProgress { done, total }).is_break();
        let cancelled = || GuestError::new(GuestErrorKind::Cancelled, "the save was broken off");
        let write = || {
            if broken(0) {
                return Err(cancelled());
            }
            // What lies in wait for a save meets it while the guest stands, as the time to write memory would.
            self.core.meet(&world, Operation::Save, &|| self.core.gone() || broken(0))?;
            if broken(0) {
                return Err(cancelled());
            }
            saved.write(state).map_err(|e| {
                let full = e.kind() == io::ErrorKind::StorageFull;
                let kind = if full { GuestErrorKind::NoSpace } else { GuestErrorKind::Io };
                GuestError::new(kind, format!("{}: cannot be written", state.display())).with_source(e)
            })?;
            if broken(total) { Err(cancelled()) } else { self.core.alive().map(drop) }
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_file(state);
            let _ = self.core.unfreeze(&world);
        }
        written
    }

    fn thaw(&self) -> Result<(), GuestError> {
        let world = self.core.enter(Operation::Thaw)?;
        self.core.unfreeze(&world)
    }

    fn power_off(&self) -> Result<(), GuestError> {
        if !self.core.gone() {
            drop(self.core.enter(Operation::PowerOff)?);
        }
        self.core.end(GuestEvent::Stopped { by: StoppedBy::Host });
        Ok(())
    }

    fn shutdown(&self) -> Result<ShutdownVia, GuestError> {
        let world = self.core.enter(Operation::Shutdown)?;
        let behaviour = {
            let mut live = self.core.alive()?;
            if matches!(live.run, RunState::Paused | RunState::Frozen) {
                return Err(GuestError::new(
                    GuestErrorKind::WrongState,
                    "a guest whose processors stand cannot shut down; resume it first",
                ));
            }
            let behaviour = live.behaviour;
            let at = world.time.now() + behaviour.shutdown;
            let first = behaviour.obeys_shutdown && live.shut_at.is_none();
            if first {
                live.shut_at = Some(at);
            }
            self.core.go(&world, &mut live, RunState::ShuttingDown, Some(GuestEvent::ShutdownRequested));
            if first && !behaviour.shutdown.is_zero() {
                self.core.shut_down_at(&world, at);
            }
            behaviour
        };
        if behaviour.obeys_shutdown && behaviour.shutdown.is_zero() {
            self.core.end(GuestEvent::Stopped { by: StoppedBy::Guest });
        }
        Ok(if behaviour.agent { ShutdownVia::Agent } else { ShutdownVia::PowerButton })
    }

    fn wait_stopped(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut live = lock(&self.core.live);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if live.run == RunState::Stopped || left.is_zero() {
                return live.run == RunState::Stopped;
            }
            live = super::wait(&self.core.changed, live, left);
        }
    }

    fn screenshot(&self, path: &Path, wanted: PictureFormat) -> Result<PictureFormat, GuestError> {
        let world = self.core.enter(Operation::Screenshot)?;
        drop(self.core.alive()?);
        let now = world.time.now();
        let view = self.core.view(now);
        let state = match view.state {
            RunState::Starting => "starting",
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::Frozen => "frozen",
            RunState::ShuttingDown => "shutting down",
            RunState::Stopped => "stopped",
        };
        let mut lines = vec![
            "slipway simulator".to_owned(),
            String::new(),
            format!("machine  {}", view.name),
            format!("id       {}", view.id),
            format!("state    {state}"),
            format!("counter  {}", view.counter),
            format!("uptime   {} s", seconds(view.uptime)),
            String::new(),
        ];
        lines.extend(self.core.port.last_lines(screen::LINES - lines.len()));
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let picture = match wanted {
            PictureFormat::Png => screen::png(&lines),
            PictureFormat::Ppm => screen::ppm(&lines),
        };
        let written = fs::write(&partial, picture).and_then(|()| fs::rename(&partial, path));
        written.map_err(|e| {
            GuestError::new(GuestErrorKind::Io, format!("{}: cannot be written", path.display()))
                .with_source(e)
        })?;
        Ok(wanted)
    }

    fn send_keys(&self, chords: &[Chord]) -> Result<(), GuestError> {
        drop(self.core.enter(Operation::SendKeys)?);
        self.core.alive()?.typed.extend_from_slice(chords);
        Ok(())
    }

    fn strokes(&self, strokes: &[Stroke]) -> Result<(), GuestError> {
        drop(self.core.enter(Operation::SendKeys)?);
        self.core.alive()?.strokes.extend_from_slice(strokes);
        Ok(())
    }

    fn interrupt(&self) -> Result<(), GuestError> {
        drop(self.core.enter(Operation::Interrupt)?);
        self.core.alive()?.interrupts += 1;
        Ok(())
    }

    fn reboot(&self) -> Result<(), GuestError> {
        self.agent_ping(Duration::ZERO)?;
        self.core.restart(true);
        Ok(())
    }

    fn change_media(&self, drive: &str, media: Option<&Path>, _force: bool) -> Result<(), GuestError> {
        drop(self.core.enter(Operation::ChangeMedia)?);
        self.core.put_media(drive, media)
    }

    fn eject(&self, drive: &str, _force: bool) -> Result<(), GuestError> {
        drop(self.core.enter(Operation::Eject)?);
        self.core.put_media(drive, None)
    }

    fn set_link(&self, nic: &str, up: bool) -> Result<(), GuestError> {
        drop(self.core.enter(Operation::SetLink)?);
        let mut live = self.core.alive()?;
        let Some(spec) = self.core.spec.nics.iter().find(|n| n.id == nic) else {
            return Err(GuestError::new(GuestErrorKind::NotFound, format!("the guest has no adapter {nic}")));
        };
        if up && spec.backend == NicBackend::None {
            let message = format!("adapter {nic} was started without a cable");
            return Err(GuestError::new(GuestErrorKind::Unsupported, message));
        }
        live.links.insert(nic.into(), up);
        self.core.keep(&live);
        Ok(())
    }

    fn agent_ping(&self, _limit: Duration) -> Result<(), GuestError> {
        drop(self.core.enter(Operation::Agent)?);
        let live = self.core.alive()?;
        if live.behaviour.agent && live.booted && live.since.is_some() { Ok(()) } else { Err(no_agent()) }
    }

    fn agent_interfaces(&self, limit: Duration) -> Result<Vec<AgentInterface>, GuestError> {
        self.agent_ping(limit)?;
        let live = self.core.alive()?;
        let nics = self.core.spec.nics.iter().enumerate();
        Ok(nics
            .map(|(n, nic)| AgentInterface {
                name: format!("eth{n}"),
                mac: Some(nic.mac),
                addresses: if live.links.get(&nic.id) == Some(&true) {
                    vec![address(nic)]
                } else {
                    Vec::new()
                },
            })
            .collect())
    }

    fn agent_os(&self, limit: Duration) -> Result<AgentOs, GuestError> {
        self.agent_ping(limit)?;
        Ok(AgentOs {
            id: Some("simulated".into()),
            pretty_name: Some("Slipway simulated guest".into()),
            version: Some(env!("CARGO_PKG_VERSION").into()),
            kernel: None,
        })
    }

    fn agent_host_name(&self, limit: Duration) -> Result<String, GuestError> {
        self.agent_ping(limit)?;
        Ok(self.core.spec.name.to_lowercase())
    }

    fn serial_socket(&self, port: u32) -> Option<PathBuf> {
        if port != 0 || self.core.spec.serial_ports == 0 || self.core.gone() {
            return None;
        }
        let made = self.core.port.socket();
        made.inspect_err(|e| tracing::warn!(machine = %self.core.spec.id, "no console socket: {e}")).ok()
    }

    fn serial_log(&self, port: u32) -> Option<PathBuf> {
        (port == 0 && self.core.spec.serial_ports > 0).then(|| self.core.port.log())
    }

    fn vnc_socket(&self) -> Option<PathBuf> {
        None
    }
}

impl Core {
    fn put_media(&self, drive: &str, media: Option<&Path>) -> Result<(), GuestError> {
        let mut live = self.alive()?;
        let Some(inside) = live.media.get_mut(drive) else {
            return Err(GuestError::new(GuestErrorKind::NotFound, format!("the guest has no drive {drive}")));
        };
        if let Some(media) = media {
            fs::metadata(media).map_err(|e| {
                GuestError::new(GuestErrorKind::NotFound, format!("{}: cannot be opened", media.display()))
                    .with_source(e)
            })?;
        }
        *inside = media.map(ToOwned::to_owned);
        self.keep(&live);
        Ok(())
    }
}
